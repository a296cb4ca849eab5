"""Forward-mode kernel: activations of a tile and their tangents in several directions, layer by layer.

DIRECTIONS tangents share one evaluation of the activations.
"""

# Device code, where tuples grow from layer to layer.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .math import as_operand, dot, load_operand, load_points, load_trunk, matmul, sine_cosine


@triton.jit
def tangent_kernel(
    X, FIRST, HIDDEN, SHIFT, GAIN, OUTPUT, BIAS, RESULT, TILES, tile_count,
    X_TANGENT, SHIFT_TANGENT, GAIN_TANGENT, OUTPUT_TANGENT, BIAS_TANGENT, FACTOR, RESULT_TANGENT, directions,
    shift_stride, output_stride, bias_stride,
    x_direction, shift_direction, gain_direction, output_direction, bias_direction, result_direction,
    shift_tangent_stride, gain_tangent_stride, output_tangent_stride, bias_tangent_stride,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, L: tl.constexpr, C: tl.constexpr, BM: tl.constexpr,
    DIRECTIONS: tl.constexpr, RESIDENT: tl.constexpr, HAS_GAIN: tl.constexpr,
    OF_X: tl.constexpr, OF_SHIFT: tl.constexpr, OF_GAIN: tl.constexpr, OF_OUTPUT: tl.constexpr, OF_BIAS: tl.constexpr,
    PREC: tl.constexpr, SINE: tl.constexpr, SCALE: tl.constexpr, RADIANS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """RESULT (rows, C) and RESULT_TANGENT (K, rows, C) in K directions. The first grid axis runs over tiles, the second
    over groups of DIRECTIONS directions.

    `*_direction` are strides between directions, `*_stride` between samples. FACTOR (1,) is a power of two by which
    tangents are scaled inside the kernel, to stay within the range of operands. RADIANS converts a product of scaled
    weights to radians, the unit of all tangents.
    """
    lane = tl.arange(0, BM)
    unit = tl.arange(0, H)
    channel = tl.arange(0, 16)
    k = tl.arange(0, 4 * DP)
    output_square = unit[:, None] * 16 + channel[None, :]
    factor = tl.load(FACTOR)
    weights = ()
    if RESIDENT:
        weights = load_trunk(FIRST, HIDDEN, H, L, DP, PREC)
    group = tl.program_id(1)
    for tile in tl.range(tl.program_id(0), tile_count, tl.num_programs(0)):
        sample = tl.load(TILES + tile * 4).to(tl.int64)
        x_row = tl.load(TILES + tile * 4 + 1).to(tl.int64)
        row = tl.load(TILES + tile * 4 + 2).to(tl.int64)
        mask = lane < tl.load(TILES + tile * 4 + 3)
        if RESIDENT:
            first = weights[0][0]
        else:
            first = tl.load(FIRST + k[:, None] * H + unit[None, :])
        points = load_points(X, x_row + lane, mask, 1.0, D, DP, PREC)
        h = as_operand(tl.zeros((BM, H), tl.float32), PREC)
        tangents = ()
        for layer in tl.static_range(L):
            offset = layer * H + unit
            if layer == 0:
                product = dot(points, first, tl.zeros((BM, H), tl.float32), INTERPRETED)
            else:
                if RESIDENT:
                    weight = weights[layer]
                else:
                    pointers = HIDDEN + (layer - 1) * H * H + unit[:, None] * H + unit[None, :]
                    weight = load_operand(pointers, (L - 1) * H * H, PREC)
                product = matmul(h, weight, tl.zeros((BM, H), tl.float32), PREC, INTERPRETED)
            gain = tl.full((H,), 1.0, tl.float32)
            if HAS_GAIN:
                gain = tl.load(GAIN + sample * L * H + offset)
            t = product * (gain * SCALE)[None, :] + tl.load(SHIFT + sample * shift_stride + offset)[None, :]
            value, slope = sine_cosine(t, SINE)
            advanced = ()
            for q in tl.static_range(DIRECTIONS):
                direction = tl.minimum(group * DIRECTIONS + q, directions - 1).to(tl.int64)
                change = tl.zeros((BM, H), tl.float32)
                if layer > 0:
                    change = matmul(tangents[q], weight, change, PREC, INTERPRETED)
                elif OF_X:
                    moved = load_points(X_TANGENT + direction * x_direction, x_row + lane, mask, factor, D, DP, PREC)
                    change = dot(moved, first, change, INTERPRETED)
                change = change * (gain * RADIANS)[None, :]
                if OF_GAIN:
                    source = GAIN_TANGENT + direction * gain_direction + sample * gain_tangent_stride + offset
                    change += product * (tl.load(source) * (factor * RADIANS))[None, :]
                if OF_SHIFT:
                    source = SHIFT_TANGENT + direction * shift_direction + sample * shift_tangent_stride + offset
                    change += (tl.load(source) * factor)[None, :]
                advanced = advanced + (as_operand(change * slope, PREC),)
            tangents = advanced
            h = as_operand(value, PREC)
        output = load_operand(OUTPUT + sample * output_stride + output_square, H * 16, PREC)
        target = row * C + (lane[:, None] * C + channel[None, :])
        valid = mask[:, None] & (channel < C)[None, :]
        if group == 0:
            u = matmul(h, output, tl.zeros((BM, 16), tl.float32), PREC, INTERPRETED) * SCALE
            u += tl.load(BIAS + sample * bias_stride + channel, mask=channel < C, other=0.0)[None, :]
            tl.store(RESULT + target, u, mask=valid)
        for q in tl.static_range(DIRECTIONS):
            index = group * DIRECTIONS + q
            direction = tl.minimum(index, directions - 1).to(tl.int64)
            present = (index + 0 * channel < directions)[None, :]
            change = matmul(tangents[q], output, tl.zeros((BM, 16), tl.float32), PREC, INTERPRETED)
            if OF_OUTPUT:
                source = OUTPUT_TANGENT + direction * output_direction + sample * output_tangent_stride
                change = matmul(h, load_operand(source + output_square, H * 16, PREC), change, PREC, INTERPRETED)
            change = change * (SCALE / factor)
            if OF_BIAS:
                source = BIAS_TANGENT + direction * bias_direction + sample * bias_tangent_stride + channel
                change += tl.load(source, mask=channel < C, other=0.0)[None, :]
            tl.store(RESULT_TANGENT + direction * result_direction + target, change, mask=valid & present)
