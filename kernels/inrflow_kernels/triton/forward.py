"""Forward kernels, which evaluate all layers of a tile of points without storing its activations.

`siren_kernel` evaluates (sample, point) pairs. `shared_trunk_kernel` is for output modulation alone: all samples share
the activations of a point, which are multiplied by all their output weights at once.

The tile table TILES has int32 rows (sample, first row of X, first row of the result, number of rows) and represents
shared, per-sample and ragged points alike. Programs are persistent; each processes every num_programs-th tile.
"""

# Device code, where tuples grow from layer to layer.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .math import load_operand, load_points, load_trunk, matmul, trunk


@triton.jit
def siren_kernel(
    X, FIRST, HIDDEN, SHIFT, GAIN, OUTPUT, BIAS, RESULT, TILES, tile_count,
    shift_stride, output_stride,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, HC: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
    BM: tl.constexpr, RESIDENT: tl.constexpr,
    HAS_GAIN: tl.constexpr, OUTPUT_SHARED: tl.constexpr, BIAS_SHARED: tl.constexpr,
    PREC: tl.constexpr, SINE: tl.constexpr, SCALE: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """RESULT (rows, C). Strides are per sample, 0 for shared arguments; OUTPUT is (H, 16), zero padded."""
    lane = tl.arange(0, BM)
    unit = tl.arange(0, HC)
    channel = tl.arange(0, 16)
    weights = ()
    if RESIDENT:
        weights = load_trunk(FIRST, HIDDEN, H, L, DP, PREC)
        if OUTPUT_SHARED:
            resident = load_operand(OUTPUT + unit[:, None] * 16 + channel[None, :], H * 16, PREC)
    for tile in tl.range(tl.program_id(0), tile_count, tl.num_programs(0)):
        sample = tl.load(TILES + tile * 4).to(tl.int64)
        x_row = tl.load(TILES + tile * 4 + 1).to(tl.int64)
        row = tl.load(TILES + tile * 4 + 2).to(tl.int64)
        mask = lane < tl.load(TILES + tile * 4 + 3)
        points = load_points(X, x_row + lane, mask, 1.0, D, DP, PREC)
        h = trunk(
            points, FIRST, HIDDEN, weights, SHIFT + sample * shift_stride, GAIN + sample * L * H,
            BM, H, HC, L, DP, RESIDENT, HAS_GAIN, PREC, SINE, SCALE, INTERPRETED,
        )  # fmt: skip
        u = tl.zeros((BM, 16), tl.float32)
        for chunk in tl.static_range(H // HC):
            if RESIDENT and OUTPUT_SHARED:
                output = resident
            else:
                pointers = OUTPUT + sample * output_stride + (chunk * HC + unit)[:, None] * 16 + channel[None, :]
                output = load_operand(pointers, H * 16, PREC)
            u = matmul(h[chunk], output, u, PREC, INTERPRETED)
        if BIAS_SHARED:
            bias = tl.load(BIAS + channel, mask=channel < C, other=0.0)
        else:
            bias = tl.load(BIAS + sample * C + channel, mask=channel < C, other=0.0)
        u = u * SCALE + bias[None, :]
        target = RESULT + (row + lane)[:, None] * C + channel[None, :]
        tl.store(target, u, mask=mask[:, None] & (channel < C)[None, :])


@triton.jit
def shared_trunk_kernel(
    X, FIRST, HIDDEN, SHIFT, OUTPUT, BIAS, RESULT, points_count, output_count,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, HC: tl.constexpr, L: tl.constexpr, C: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, RESIDENT: tl.constexpr,
    PREC: tl.constexpr, SINE: tl.constexpr, SCALE: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """RESULT (S, N, C) from OUTPUT (H, S C padded to BN), operands, and BIAS (S C). The first grid axis runs over tiles
    of points, the second over groups of outputs; every program evaluates the trunk of its tile."""
    lane = tl.arange(0, BM)
    unit = tl.arange(0, HC)
    column = tl.arange(0, BN)
    row = tl.program_id(0).to(tl.int64) * BM
    mask = row + lane < points_count
    weights = ()
    if RESIDENT:
        weights = load_trunk(FIRST, HIDDEN, H, L, DP, PREC)
    points = load_points(X, row + lane, mask, 1.0, D, DP, PREC)
    h = trunk(
        points, FIRST, HIDDEN, weights, SHIFT, SHIFT, BM, H, HC, L, DP, RESIDENT, False, PREC, SINE, SCALE, INTERPRETED
    )  # fmt: skip
    padded = tl.cdiv(output_count, BN) * BN
    for block in tl.range(tl.program_id(1), padded // BN, tl.num_programs(1)):
        output_index = block * BN + column
        u = tl.zeros((BM, BN), tl.float32)
        for chunk in tl.static_range(H // HC):
            pointers = OUTPUT + (chunk * HC + unit)[:, None].to(tl.int64) * padded + output_index[None, :]
            u = matmul(h[chunk], load_operand(pointers, padded.to(tl.int64) * H, PREC), u, PREC, INTERPRETED)
        valid = output_index < output_count
        u = u * SCALE + tl.load(BIAS + output_index, mask=valid, other=0.0)[None, :]
        sample = (output_index // C).to(tl.int64)
        target = (sample * points_count * C + output_index % C)[None, :] + lane[:, None] * C
        tl.store(RESULT + row * C + target, u, mask=mask[:, None] & valid[None, :])
