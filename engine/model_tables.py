"""What the forward kernel is told about a model: tables of sizes and addresses (kernels/plan.py), made once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.hyperparameters import Hyperparameters
from engine.kernels import entry, plan
from engine.kv import KVLayout
from engine.rotary import Rotary, temperatures
from engine.weights import Weights

Floats = npt.NDArray[np.float32]
Table = npt.NDArray[np.int64]


class ModelTables:
    """The tables `shape`, `matrices`, `layers` and `constants` of one model opened with a context.

    They name weights and rotary tables by address, so these live as long as this object.
    """

    def __init__(self, shape: Hyperparameters, weights: Weights, layout: KVLayout, context: int):
        self._weights = weights
        self.matrices = _matrices(weights)
        self._angles = {r: _angles(r, weights.factors, context) for r in set(shape.rotaries()) if r is not None}
        self._temperatures = np.zeros(0, np.float32)
        if shape.temperature_scale:
            self._temperatures = temperatures(shape.temperature_scale, shape.temperature_length, context)
        self.layers = self._describe_layers(shape)
        self.constants = np.zeros(plan.CONSTANTS_SIZE, np.float64)
        self.constants[plan.NORM_EPS] = shape.norm_eps
        self.constants[plan.ATTENTION_SCALE] = shape.attention_scale or 1.0 / np.sqrt(np.float64(shape.head_dim))
        self.constants[plan.RESIDUAL_SCALE] = shape.residual_scale
        self.shape = self._describe_shape(shape, layout)
        self.addresses: tuple[int, int, int] = (
            self.shape.ctypes.data,
            self.matrices.ctypes.data,
            self.constants.ctypes.data,
        )

    def _describe_layers(self, shape: Hyperparameters) -> Table:
        weights = self._weights
        table = np.zeros((shape.layers, plan.LAYER_SIZE), np.int64)
        table[:, plan.L_WINDOW] = [window or plan.ALL_KEYS for window in shape.windows] or plan.ALL_KEYS
        for row, rotary in zip(table, shape.rotaries(), strict=True):
            if rotary is not None:
                row[[plan.L_COSINES, plan.L_SINES]] = [a.ctypes.data for a in self._angles[rotary]]
        for array, columns in (
            (weights.head_norms, [plan.L_QUERY_NORM, plan.L_KEY_NORM]),
            (weights.post_norms, [plan.L_ATTENTION_POST_NORM, plan.L_FFN_POST_NORM]),
        ):
            if array is not None:
                addresses = array.ctypes.data + array.strides[0] * np.arange(len(array))
                table[:, columns] = addresses.reshape(-1, 2)
        return table

    def _describe_shape(self, shape: Hyperparameters, layout: KVLayout) -> Table:
        table = np.zeros(plan.SHAPE_SIZE, np.int64)
        values = {
            plan.LAYERS: shape.layers,
            plan.DIM: shape.dim,
            plan.DIM_STRIDE: self._weights.norms.strides[0],
            plan.FFN: shape.ffn,
            plan.HEADS: shape.heads,
            plan.KV_HEADS: shape.kv_heads,
            plan.HEAD_DIM: shape.head_dim,
            plan.CHANNELS: layout.channels,
            plan.ROPE_PAIRS: shape.rope_dims // 2,
            plan.SCALE_BLOCKS: layout.scale_blocks,
            plan.NORMS: self._weights.norms.ctypes.data,
            plan.MATRICES: self.matrices.ctypes.data,
            plan.LAYER_BYTES: layout.layer_bytes,
            plan.KEY_BYTES: layout.key_bytes,
            plan.KEY_SCALE_BYTES: layout.scale_bytes,
            plan.VALUE_BYTES: layout.value_bytes,
            plan.VALUE_SCALE_BYTES: layout.scale_bytes,
            plan.QUANTIZED: bool(self._weights.kinds & entry.QUANTIZED),
            plan.ATTEND: entry.attend(layout.kv_type),
            plan.WRITE_KV: entry.write_kv(layout.kv_type),
            plan.LAYER_TABLE: self.layers.ctypes.data,
            plan.ROPE_HALVES: shape.family.pairs == "halves",
            plan.TEMPERATURES: self._temperatures.ctypes.data if self._temperatures.size else 0,
            plan.GELU: shape.family.activation == "gelu",
        }
        for index, value in values.items():
            table[index] = value
        return table


def _matrices(weights: Weights) -> Table:
    table = np.zeros((len(weights.matrices), plan.MATRIX_SIZE), np.int64)
    for i, m in enumerate(weights.matrices):
        bias = weights.biases[i].ctypes.data if i in weights.biases else 0
        numbers = (m.data.ctypes.data, m.groups, m.steps, m.group_bytes, bias)
        table[i] = (entry.product(m.kind), m.kind in entry.QUANTIZED, *numbers)
    return table


def _angles(rotary: Rotary, factors: Floats | None, context: int) -> tuple[Floats, Floats]:
    """Cosines and sines of all positions of a context, float32 (context, pairs) each."""
    frequencies = rotary.frequencies(factors)
    cosines = np.zeros((context, frequencies.size), np.float32)
    sines = np.zeros_like(cosines)
    entry.fill_rope_table(frequencies, cosines, sines, 0, context)
    magnitude = np.float32(rotary.magnitude())
    if magnitude != 1.0:
        cosines *= magnitude
        sines *= magnitude
    return cosines, sines
