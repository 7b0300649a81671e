"""The numbers that a forward pass is given: positions in its int64 tables, shared by the builder and the kernel.

A kernel takes three tables of plain integers (sizes, addresses), so that it has one signature for every model.
"""

from __future__ import annotations

from engine.kernels.target import target

BLOCK = 64  # tokens of a block of keys and values
# Tokens that share a pass over a group of matrix rows: as many as there are registers for, 32 with AVX-512.
TILE = 8 if target().dot == "vnni" else 6
TILES_OF = (1, 2, 4, 8) if TILE == 8 else (1, 3, 6)  # tokens: the sizes of tiles that there is code for
CODES_BYTES = 32 + 4 * 6  # of 32 columns of a token as codes (kernels/activations.py)
SOME, MANY = 4, 8  # query rows of attention's tiles: of the small one, and of the largest that any CPU has
_VECTOR = 64  # bytes of 16 float32
SYNC_BYTES = 256  # of the area where threads meet, a few cache lines

# shape (int64): fixed for a model
(
    LAYERS,
    DIM,  # width of the residual stream
    DIM_STRIDE,  # bytes of a float32 row of it, padded to whole vectors
    FFN,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    CHANNELS,  # head dimension padded to whole vectors: the width of a value row in a block
    ROPE_PAIRS,
    SCALE_BLOCKS,  # q8_0 keys and values: scales a head and token
    NORMS,  # address of (2 * layers + 1, dim padded) float32
    MATRICES,  # address of the table below
    LAYER_BYTES,  # of one layer in a block
    KEY_BYTES,  # of one KV head's keys, key scales, values, value scales in a block
    KEY_SCALE_BYTES,
    VALUE_BYTES,
    VALUE_SCALE_BYTES,
    QUANTIZED,  # 1 where any matrix wants codes of the activations
    ATTEND,  # addresses of the kernels for the KV type
    WRITE_KV,
    LAYER_TABLE,  # address of (layers, LAYER_SIZE) int64, below
    ROPE_HALVES,  # 1 where rotary pairs are (i, i + pairs), 0 where they are (2i, 2i+1)
    TEMPERATURES,  # address of (context,) float32 that rotated queries are multiplied by, or 0
    GELU,  # 1 where the gate goes through GELU, 0 through SiLU
    SHAPE_SIZE,
) = range(25)

# a layer's numbers (int64); an address of 0: the layer has no such thing
(
    L_WINDOW,  # how many of the newest keys a row sees, its own included
    L_COSINES,  # addresses of (context, pairs) float32
    L_SINES,
    L_QUERY_NORM,  # addresses of (head dimension padded,) float32
    L_KEY_NORM,
    L_ATTENTION_POST_NORM,  # addresses of (dim padded,) float32
    L_FFN_POST_NORM,
    LAYER_SIZE,
) = range(8)

# How many keys a row sees in a layer where it sees all.
ALL_KEYS = 1 << 40

# constants (float64): fixed for a model
(
    NORM_EPS,
    ATTENTION_SCALE,  # queries are multiplied by it, rounded to float32
    RESIDUAL_SCALE,  # what a block gives is multiplied by it, rounded to float32, before it is added to the stream
    CONSTANTS_SIZE,
) = range(4)

# matrices (int64, one row each): 7 a layer in this order, then the output head
WQ, WK, WV, WO, GATE, UP, DOWN = range(7)
PER_LAYER = 7
# M_BIAS: address of (rows padded to 16,) float32 that whoever reads the products first adds to them, or 0
M_KERNEL, M_QUANTIZED, M_ADDRESS, M_GROUPS, M_STEPS, M_GROUP_BYTES, M_BIAS, MATRIX_SIZE = range(8)

# batch (int64): fixed for one step
(
    ROWS,
    OUTPUTS,  # rows whose logits are wanted
    X,  # addresses of float32 rows: the residual stream, …
    Y,  # … the normed rows, …
    HIDDEN,  # … what a block adds to the stream, …
    Q,  # … queries, …
    K,
    V,
    ATTENDED,
    GATED,
    RAISED,  # … the up projection
    LOGITS,
    HIDDEN_STRIDE,  # bytes of a row, in the order of the addresses above
    Q_STRIDE,
    K_STRIDE,
    V_STRIDE,
    ATTENDED_STRIDE,
    GATED_STRIDE,
    RAISED_STRIDE,
    LOGITS_STRIDE,
    CODES,  # address of the quantized activations of the phase (kernels/activations.py)
    CODES_STRIDE,  # bytes of a tile of tokens
    POSITIONS,  # address of (rows,) int64
    TABLES,  # address of (rows,) int64: each row's block table
    TILES,  # number of attention tiles
    TILE_TABLE,  # address of (tiles, 3) int64: first row, rows, block table
    SHARES,  # into how many shares a tile's blocks are split among threads
    PARTIAL,  # address of the results of the blocks of each tile and KV head, where there are several shares
    PARTIAL_STRIDE,  # bytes a tile and KV head
    SHARES_DONE,  # address of (tiles, KV heads) int64 of zeros
    OUTPUT_ROWS,  # address of (outputs,) int64
    LAST_HIDDEN,  # address of (outputs, dim padded) float32: the normed rows that the head reads
    SCRATCH,  # address of the threads' scratch
    SCRATCH_STRIDE,  # bytes a thread
    SYNC,  # address of the sync area
    THREADS,
    BATCH_SIZE,
) = range(37)


def scratch_bytes(rows: int, dims: int, channels: int) -> int:
    """Bytes of scratch that attention wants for an item of `rows` query rows (kernels/attention.py, _layout)."""
    padded = rows + MANY
    widened, scored = 4 * BLOCK * (dims + channels), 4 * BLOCK * MANY
    fresh = 2 * _VECTOR + 4 * MANY * channels
    return widened + scored + fresh + 4 * _VECTOR + padded * (2 * _VECTOR + 4 * channels + 4 * dims)


def partial_bytes(rows: int, channels: int) -> int:
    """Room for what one block gives all groups of an item of `rows` query rows."""
    return 2 * _VECTOR * -(-rows // SOME) + 4 * (rows + MANY) * channels
