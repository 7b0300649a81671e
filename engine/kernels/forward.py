"""The forward pass: one function that every thread runs over all layers, meeting the others at spin barriers.

Between two barriers lies one phase. Within a phase the threads take units of work (rows, groups of matrix rows, heads)
from a counter; a unit is never split, so who took it cannot change a bit (NUMERICS rule 4). Kernels that differ by
tensor type or KV type are called by address, so that this function is compiled once for all models.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.kernels import plan as P
from engine.kernels.activations import quantize_row
from engine.kernels.attention import merge_shares
from engine.kernels.options import OPTIONS
from engine.kernels.plan import BLOCK
from engine.kernels.rope import rotate, rotate_halves
from engine.kernels.rows import (
    add_row,
    add_scaled_row,
    copy_scaled,
    gelu_row,
    norm_heads,
    rms_norm,
    scale_row,
    silu_row,
)
from engine.kernels.simd import load_f32, load_i64
from engine.kernels.sync import arrive, barrier, call_kernel, default_rounding, take
from engine.kernels.tables import floats64, integer_rows, integers

_ROWS_A_UNIT = 4
_UNITS_A_THREAD = 16
_PIECE = 512


@njit(**OPTIONS)
def _groups_a_unit(groups, threads):
    return max(4, groups // (threads * _UNITS_A_THREAD))


@njit(**OPTIONS)
def _piece(rows, n, threads):
    """How much of a row of n is one unit: all of it, unless there are too few rows for the threads."""
    return n if rows >= 2 * threads or threads == 1 else min(n, _PIECE)


@njit(**OPTIONS)
def _products(matrices, first, count, batch, x, x_stride, output, stride, tokens):
    """A phase: `count` matrices from row `first` of the table, all times the same rows.

    Quantized types read the batch's codes, the others the float32 rows at x. Writes batch[output + i].
    """
    sync, threads = batch[P.SYNC], batch[P.THREADS]
    codes, codes_stride = batch[P.CODES], batch[P.CODES_STRIDE]
    unit = take(sync)
    before = 0
    for i in range(count):
        m = matrices[first + i]
        kernel, w, groups, steps, size = m[P.M_KERNEL], m[P.M_ADDRESS], m[P.M_GROUPS], m[P.M_STEPS], m[P.M_GROUP_BYTES]
        y, y_stride = batch[output + i], batch[stride + i]
        each = _groups_a_unit(groups, threads)
        units = (groups + each - 1) // each
        while unit < before + units:
            g0 = (unit - before) * each
            g1 = min(groups, g0 + each)
            source, source_stride = (codes, codes_stride) if m[P.M_QUANTIZED] else (x, x_stride)
            call_kernel(kernel, (w, size, source, source_stride, steps, y, y_stride, tokens, g0, g1))
            unit = take(sync)
        before += units
    barrier(sync, threads)


@njit(**OPTIONS)
def _quantize(shape, batch, row, rows, x, first, last):
    """Quantize the elements [first, last) of one row of the phase's input, where the model has quantized matrices.

    `first` is a multiple of 32, and `rows` how many the input has.
    """
    if shape[P.QUANTIZED]:
        quantize_row(x, first, last, batch[P.CODES], batch[P.CODES_STRIDE], row, rows)


@njit(**OPTIONS)
def _of_layer(shape, layer, which):
    """A number of a layer's own (kernels/plan.py)."""
    return load_i64(shape[P.LAYER_TABLE] + 8 * (P.LAYER_SIZE * layer + which))


@njit(**OPTIONS)
def _add_hidden(shape, batch, constants, r, bias, post):
    """x += hidden of row r, with its bias, normed, and scaled, where the model has that."""
    x, hidden, dim = batch[P.X] + shape[P.DIM_STRIDE] * r, batch[P.HIDDEN] + shape[P.DIM_STRIDE] * r, shape[P.DIM]
    if bias:
        add_row(hidden, bias, dim)
    if post:
        rms_norm(hidden, post, hidden, dim, constants[P.NORM_EPS])
    if constants[P.RESIDUAL_SCALE] == 1.0:
        add_row(x, hidden, dim)
    else:
        add_scaled_row(x, hidden, dim, np.float32(constants[P.RESIDUAL_SCALE]))


@njit(**OPTIONS)
def _norm_phase(shape, batch, constants, norm, add, bias, post):
    """x += hidden (where `add`), y = norm(x), and y's codes; row by row."""
    sync, stride, rows = batch[P.SYNC], shape[P.DIM_STRIDE], batch[P.ROWS]
    weight = shape[P.NORMS] + stride * norm
    first = take(sync) * _ROWS_A_UNIT
    while first < rows:
        for r in range(first, min(rows, first + _ROWS_A_UNIT)):
            x, y = batch[P.X] + stride * r, batch[P.Y] + stride * r
            if add:
                _add_hidden(shape, batch, constants, r, bias, post)
            rms_norm(x, weight, y, shape[P.DIM], constants[P.NORM_EPS])
            _quantize(shape, batch, r, rows, y, np.int64(0), shape[P.DIM])
        first = take(sync) * _ROWS_A_UNIT
    barrier(sync, batch[P.THREADS])


@njit(**OPTIONS)
def _turn(shape, row, heads, position, norm, cosines, sines, eps):
    """Norm and rotate the heads of a row of queries or keys, where the layer does."""
    dims, pairs = shape[P.HEAD_DIM], shape[P.ROPE_PAIRS]
    if norm:
        norm_heads(row, heads, dims, norm, eps)
    if cosines:
        at = 4 * pairs * position
        if shape[P.ROPE_HALVES]:
            rotate_halves(row, heads, dims, pairs, cosines + at, sines + at)
        else:
            rotate(row, heads, dims, pairs, cosines + at, sines + at)


@njit(**OPTIONS)
def _rope_phase(shape, matrices, batch, layer, eps):
    """Norm and rotate queries and keys, and write keys and values into the blocks in the KV type; row by row."""
    sync, rows = batch[P.SYNC], batch[P.ROWS]
    dims, channels = shape[P.HEAD_DIM], shape[P.CHANNELS]
    keys, key_scales = shape[P.KEY_BYTES], shape[P.KEY_SCALE_BYTES]
    values, value_scales = shape[P.VALUE_BYTES], shape[P.VALUE_SCALE_BYTES]
    heads, at = shape[P.KV_HEADS], P.PER_LAYER * layer
    bias_q, bias_k, bias_v = matrices[at, P.M_BIAS], matrices[at + 1, P.M_BIAS], matrices[at + 2, P.M_BIAS]
    norm_q, norm_k = _of_layer(shape, layer, P.L_QUERY_NORM), _of_layer(shape, layer, P.L_KEY_NORM)
    cosines, sines = _of_layer(shape, layer, P.L_COSINES), _of_layer(shape, layer, P.L_SINES)
    first = take(sync) * _ROWS_A_UNIT
    while first < rows:
        for r in range(first, min(rows, first + _ROWS_A_UNIT)):
            position = load_i64(batch[P.POSITIONS] + 8 * r)
            q = batch[P.Q] + batch[P.Q_STRIDE] * r
            k, v = batch[P.K] + batch[P.K_STRIDE] * r, batch[P.V] + batch[P.V_STRIDE] * r
            if bias_q:
                add_row(q, bias_q, shape[P.HEADS] * dims)
            if bias_k:
                add_row(k, bias_k, heads * dims)
            if bias_v:
                add_row(v, bias_v, heads * dims)
            _turn(shape, q, shape[P.HEADS], position, norm_q, cosines, sines, eps)
            _turn(shape, k, heads, position, norm_k, cosines, sines, eps)
            if shape[P.TEMPERATURES]:
                scale_row(q, shape[P.HEADS] * dims, load_f32(shape[P.TEMPERATURES] + 4 * position))
            block = load_i64(load_i64(batch[P.TABLES] + 8 * r) + 8 * (position // BLOCK))
            k0 = block + layer * shape[P.LAYER_BYTES]
            ks0 = k0 + heads * keys
            v0 = ks0 + heads * key_scales
            vs0 = v0 + heads * values
            slot = position % BLOCK
            for h in range(heads):
                key, value = k + 4 * dims * h, v + 4 * dims * h
                at = (k0 + keys * h, ks0 + key_scales * h, v0 + values * h, vs0 + value_scales * h)
                call_kernel(shape[P.WRITE_KV], (key, value, dims, channels, shape[P.SCALE_BLOCKS], slot, *at))
        first = take(sync) * _ROWS_A_UNIT
    barrier(sync, batch[P.THREADS])


@njit(**OPTIONS)
def _attention_phase(me, shape, batch, layer, scale):
    """One unit: a tile of tokens of one session with one KV head, or a share of the blocks that they see."""
    sync, heads, dims, shares = batch[P.SYNC], shape[P.KV_HEADS], shape[P.HEAD_DIM], batch[P.SHARES]
    group = shape[P.HEADS] // heads
    window = _of_layer(shape, layer, P.L_WINDOW)
    scratch = batch[P.SCRATCH] + batch[P.SCRATCH_STRIDE] * me
    sizes = (dims, shape[P.CHANNELS], shape[P.SCALE_BLOCKS])
    unit = take(sync)
    while unit < batch[P.TILES] * heads * shares:
        item = unit // shares
        tile = batch[P.TILE_TABLE] + 24 * (item // heads)
        h = item % heads
        first, tokens, table = load_i64(tile), load_i64(tile + 8), load_i64(tile + 16)
        for t in range(tokens):
            q = batch[P.Q] + batch[P.Q_STRIDE] * (first + t) + 4 * dims * group * h
            copy_scaled(q, scratch + 4 * dims * group * t, dims * group, scale)
        k = shape[P.KEY_BYTES] * h
        ks = shape[P.KEY_BYTES] * heads + shape[P.KEY_SCALE_BYTES] * h
        v = (shape[P.KEY_BYTES] + shape[P.KEY_SCALE_BYTES]) * heads + shape[P.VALUE_BYTES] * h
        vs = (shape[P.KEY_BYTES] + shape[P.KEY_SCALE_BYTES] + shape[P.VALUE_BYTES]) * heads
        vs += shape[P.VALUE_SCALE_BYTES] * h
        rows = tokens * group
        positions = batch[P.POSITIONS] + 8 * first
        behind = scratch + 4 * dims * rows
        partial = batch[P.PARTIAL] + batch[P.PARTIAL_STRIDE] * item
        to = (batch[P.ATTENDED] + batch[P.ATTENDED_STRIDE] * first + 4 * dims * group * h, batch[P.ATTENDED_STRIDE])
        split = (unit % shares, shares, partial)
        offset = layer * shape[P.LAYER_BYTES]
        call_kernel(
            shape[P.ATTEND],
            (rows, group, *sizes, scratch, positions, window, table, offset, k, ks, v, vs, *split, behind, *to),
        )
        if shares > 1 and arrive(batch[P.SHARES_DONE] + 8 * item, shares):
            merge_shares(rows, group, sizes, positions, window, partial, behind, *to)
        unit = take(sync)
    barrier(sync, batch[P.THREADS])


@njit(**OPTIONS)
def _codes_phase(shape, batch, x, x_stride, n):
    """The codes of every row at x, for the matrices of the next phase."""
    if shape[P.QUANTIZED]:
        sync, rows = batch[P.SYNC], batch[P.ROWS]
        size = _piece(rows, n, batch[P.THREADS])
        pieces = (n + size - 1) // size
        unit = take(sync)
        while unit < rows * pieces:
            r, first = unit // pieces, unit % pieces * size
            _quantize(shape, batch, r, rows, x + x_stride * r, first, min(n, first + size))
            unit = take(sync)
        barrier(sync, batch[P.THREADS])


@njit(**OPTIONS)
def _activation_phase(shape, matrices, batch, layer):
    """gated = silu(gated) * raised (or GELU), and its codes; by rows or pieces of rows."""
    sync, rows, at, n = batch[P.SYNC], batch[P.ROWS], P.PER_LAYER * layer, shape[P.FFN]
    bias_gate, bias_up = matrices[at + P.GATE, P.M_BIAS], matrices[at + P.UP, P.M_BIAS]
    size = _piece(rows, n, batch[P.THREADS])
    pieces = (n + size - 1) // size
    unit = take(sync)
    while unit < rows * pieces:
        r, first = unit // pieces, unit % pieces * size
        count, skip = min(n - first, size), 4 * first
        gated, raised = batch[P.GATED] + batch[P.GATED_STRIDE] * r, batch[P.RAISED] + batch[P.RAISED_STRIDE] * r
        if bias_gate:
            add_row(gated + skip, bias_gate + skip, count)
        if bias_up:
            add_row(raised + skip, bias_up + skip, count)
        if shape[P.GELU]:
            gelu_row(gated + skip, raised + skip, count)
        else:
            silu_row(gated + skip, raised + skip, count)
        _quantize(shape, batch, r, rows, gated, first, first + count)
        unit = take(sync)
    barrier(sync, batch[P.THREADS])


@njit(**OPTIONS)
def _output_phase(shape, batch, constants, bias, post):
    """The last norm, for the rows whose logits are wanted only."""
    sync, stride = batch[P.SYNC], shape[P.DIM_STRIDE]
    weight = shape[P.NORMS] + stride * (2 * shape[P.LAYERS])
    i = take(sync)
    while i < batch[P.OUTPUTS]:
        r = load_i64(batch[P.OUTPUT_ROWS] + 8 * i)
        x, y = batch[P.X] + stride * r, batch[P.LAST_HIDDEN] + stride * i
        _add_hidden(shape, batch, constants, r, bias, post)
        rms_norm(x, weight, y, shape[P.DIM], constants[P.NORM_EPS])
        _quantize(shape, batch, i, batch[P.OUTPUTS], y, np.int64(0), shape[P.DIM])
        i = take(sync)
    barrier(sync, batch[P.THREADS])


def forward(me, shape_at, matrices_at, batch_at, constants_at):
    """All layers over the rows of one batch; every thread calls it with its own `me`. Llama, Touvron et al. 2023.

    What other families add (engine/families.py) is skipped where a table has a zero for it.

    Addresses of int64 tables, and of a float64 table of constants (kernels/plan.py). Writes keys and values into the
    rows' blocks, and float32 logits and last hidden states of the output rows. Never raises (NUMERICS rule 7).
    """
    default_rounding()
    shape, batch = integers(shape_at, P.SHAPE_SIZE), integers(batch_at, P.BATCH_SIZE)
    matrices = integer_rows(matrices_at, P.PER_LAYER * shape[P.LAYERS] + 1, P.MATRIX_SIZE)
    constants = floats64(constants_at, P.CONSTANTS_SIZE)
    rows, x_stride = batch[P.ROWS], shape[P.DIM_STRIDE]
    eps, scale = constants[P.NORM_EPS], np.float32(constants[P.ATTENTION_SCALE])
    # As variables, for Numba compiles a function anew for each literal that it is given.
    one, two, three = np.int64(1), np.int64(2), np.int64(3)
    bias, post = np.int64(0), np.int64(0)
    for layer in range(shape[P.LAYERS]):
        at = P.PER_LAYER * layer
        _norm_phase(shape, batch, constants, 2 * layer, layer > 0, bias, post)
        y = batch[P.Y]
        _products(matrices, at + P.WQ, three, batch, y, x_stride, P.Q, P.Q_STRIDE, rows)
        _rope_phase(shape, matrices, batch, layer, eps)
        _attention_phase(me, shape, batch, layer, scale)
        x, stride = batch[P.ATTENDED], batch[P.ATTENDED_STRIDE]
        _codes_phase(shape, batch, x, stride, shape[P.HEADS] * shape[P.HEAD_DIM])
        _products(matrices, at + P.WO, one, batch, x, stride, P.HIDDEN, P.HIDDEN_STRIDE, rows)
        bias, post = matrices[at + P.WO, P.M_BIAS], _of_layer(shape, layer, P.L_ATTENTION_POST_NORM)
        _norm_phase(shape, batch, constants, 2 * layer + 1, layer >= 0, bias, post)
        _products(matrices, at + P.GATE, two, batch, y, x_stride, P.GATED, P.GATED_STRIDE, rows)
        _activation_phase(shape, matrices, batch, layer)
        x, stride = batch[P.GATED], batch[P.GATED_STRIDE]
        _products(matrices, at + P.DOWN, one, batch, x, stride, P.HIDDEN, P.HIDDEN_STRIDE, rows)
        bias, post = matrices[at + P.DOWN, P.M_BIAS], _of_layer(shape, layer, P.L_FFN_POST_NORM)
    _output_phase(shape, batch, constants, bias, post)
    at, x = P.PER_LAYER * shape[P.LAYERS], batch[P.LAST_HIDDEN]
    _products(matrices, at, one, batch, x, x_stride, P.LOGITS, P.LOGITS_STRIDE, batch[P.OUTPUTS])
