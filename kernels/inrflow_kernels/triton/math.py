"""Device functions of all kernels: sine and cosine, split 16-bit operands, matrix products, the trunk of one tile.

Precision (`PREC`): "fp16" and "bf16" round the operands of every product and accumulate in float32; "fp16x3" splits
each operand into a sum of two fp16 numbers and computes three of the four partial products, with errors like those of
float32. Activations lie in [-1, 1], where fp16 is more accurate than tf32 or bf16 at the same throughput.
"""

# Device code, where tuples grow from layer to layer.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice


@triton.jit
def _half_turn_reduction(t):
    """Exact range reduction t = k/2 + s, |t| < 2^21, in turns: s in [-1/4, 1/4] and the sign bit of (-1)^k."""
    shifted = t * 2.0 + 12582912.0  # adding 1.5 * 2^23 leaves the nearest integer k in the low mantissa bits
    s = tl.fma(shifted - 12582912.0, -0.5, t)
    return s, (shifted.to(tl.int32, bitcast=True) & 1) << 31


@triton.jit
def _flip(value, sign):
    return (value.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _sine_polynomial(s):
    """sin(2 pi s), |s| <= 1/4, by a minimax polynomial in s^2."""
    u = s * s
    p = tl.fma(u, 39.536706, -76.5497823)
    p = tl.fma(u, p, 81.6010041)
    p = tl.fma(u, p, -41.341655)
    p = tl.fma(u, p, 6.28318516)
    return p * s


@triton.jit
def _cosine_polynomial(s):
    """cos(2 pi s), |s| <= 1/4, by a minimax polynomial in s^2."""
    u = s * s
    p = tl.fma(u, -24.9822378, 60.1440151)
    p = tl.fma(u, p, -85.4535716)
    p = tl.fma(u, p, 64.9393466)
    p = tl.fma(u, p, -19.7392085)
    return tl.fma(u, p, 1.0)


@triton.jit
def sine(t, SINE: tl.constexpr):
    """sin(t), with t in radians for "fast" (special function unit) and "plain" (interpreter), in turns for "exact"."""
    if SINE == "fast":
        return libdevice.fast_sinf(t)
    elif SINE == "plain":
        return tl.sin(t)
    else:
        s, sign = _half_turn_reduction(t)
        return _flip(_sine_polynomial(s), sign)


@triton.jit
def sine_cosine(t, SINE: tl.constexpr):
    """sin(t) and cos(t), with t in the unit of `sine`."""
    if SINE == "fast":
        return libdevice.fast_sinf(t), libdevice.fast_cosf(t)
    elif SINE == "plain":
        return tl.sin(t), tl.cos(t)
    else:
        s, sign = _half_turn_reduction(t)
        return _flip(_sine_polynomial(s), sign), _flip(_cosine_polynomial(s), sign)


@triton.jit
def as_operand(a, PREC: tl.constexpr):
    """Tuple of 16-bit operands whose sum represents float32 values."""
    if PREC == "fp16x3":
        high = a.to(tl.float16)
        return high, (a - high.to(tl.float32)).to(tl.float16)
    elif PREC == "bf16":
        return (a.to(tl.bfloat16),)
    else:
        return (a.to(tl.float16),)


@triton.jit
def load_operand(pointers, low_plane, PREC: tl.constexpr):
    """Operands stored in memory; those of fp16x3 have their low parts `low_plane` elements after the high parts."""
    if PREC == "fp16x3":
        return tl.load(pointers), tl.load(pointers + low_plane)
    else:
        return (tl.load(pointers),)


@triton.jit
def dot(a, b, acc, INTERPRETED: tl.constexpr):
    """acc + a b with 16-bit operands, widened in the interpreter, which multiplies bfloat16 as integers."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        return tl.dot(a, b, acc)


@triton.jit
def matmul(a, b, acc, PREC: tl.constexpr, INTERPRETED: tl.constexpr):
    """acc + a b for operand tuples, smaller partial products first."""
    if PREC == "fp16x3":
        acc = dot(a[1], b[0], acc, INTERPRETED)
        acc = dot(a[0], b[1], acc, INTERPRETED)
    return dot(a[0], b[0], acc, INTERPRETED)


@triton.jit
def load_points(X, rows, mask, factor, D: tl.constexpr, DP: tl.constexpr, PREC: tl.constexpr):
    """(BM, 4 DP) operand [high | low | high | low] of factor * coordinates at the given rows of X.

    Multiplied by rows [high, high, low, low] of the first weight, it gives the product to twice the precision of an
    operand. Rounding the first layer instead would dominate the error.
    """
    TYPE: tl.constexpr = tl.bfloat16 if PREC == "bf16" else tl.float16
    k = tl.arange(0, 4 * DP)
    column = k % DP
    x = tl.load(X + (rows[:, None] * D + column[None, :]), mask=mask[:, None] & (column < D)[None, :], other=0.0)
    x = x * factor
    high = x.to(TYPE).to(tl.float32)
    return tl.where((k // DP % 2 == 1)[None, :], x - high, high).to(TYPE)


@triton.jit
def modulate(product, SHIFT, GAIN, HAS_GAIN: tl.constexpr, SCALE: tl.constexpr):
    """gain * product + shift, where SCALE cancels the power of two in the weights."""
    shift = tl.load(SHIFT)
    if HAS_GAIN:
        return tl.fma(product, (tl.load(GAIN) * SCALE)[None, :], shift[None, :])
    elif SCALE != 1.0:
        return tl.fma(product, SCALE, shift[None, :])
    else:
        return product + shift[None, :]


@triton.jit
def load_trunk(FIRST, HIDDEN, H: tl.constexpr, L: tl.constexpr, DP: tl.constexpr, PREC: tl.constexpr):
    """Operands of all layers' weights, resident on the multiprocessor for all tiles."""
    unit = tl.arange(0, H)
    k = tl.arange(0, 4 * DP)
    weights = ((tl.load(FIRST + k[:, None] * H + unit[None, :]),),)
    for layer in tl.static_range(L - 1):
        pointers = HIDDEN + layer * H * H + unit[:, None] * H + unit[None, :]
        weights = weights + (load_operand(pointers, (L - 1) * H * H, PREC),)
    return weights


@triton.jit
def _wide_layer(
    h, layer, HIDDEN, SHIFT, GAIN,
    BM: tl.constexpr, H: tl.constexpr, HC: tl.constexpr, L: tl.constexpr,
    HAS_GAIN: tl.constexpr, PREC: tl.constexpr, SINE: tl.constexpr, SCALE: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """One hidden layer with activations in a tuple of HC-wide chunks and weights streamed from memory."""
    unit = tl.arange(0, HC)
    result = ()
    for out in tl.static_range(H // HC):
        t = tl.zeros((BM, HC), tl.float32)
        for chunk in tl.static_range(H // HC):
            rows = chunk * HC + unit
            pointers = HIDDEN + (layer - 1) * H * H + rows[:, None] * H + (out * HC + unit)[None, :]
            t = matmul(h[chunk], load_operand(pointers, (L - 1) * H * H, PREC), t, PREC, INTERPRETED)
        column = layer * H + out * HC + unit
        t = modulate(t, SHIFT + column, GAIN + column, HAS_GAIN, SCALE)
        result = result + (as_operand(sine(t, SINE), PREC),)
    return result


@triton.jit
def trunk(
    points, FIRST, HIDDEN, weights, SHIFT, GAIN,
    BM: tl.constexpr, H: tl.constexpr, HC: tl.constexpr, L: tl.constexpr, DP: tl.constexpr, RESIDENT: tl.constexpr,
    HAS_GAIN: tl.constexpr, PREC: tl.constexpr, SINE: tl.constexpr, SCALE: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Last hidden activations of a tile in H / HC chunks of operands. SHIFT and GAIN point to the tile's sample."""
    unit = tl.arange(0, HC)
    k = tl.arange(0, 4 * DP)
    h = ()
    for out in tl.static_range(H // HC):
        column = out * HC + unit
        if RESIDENT:
            first = weights[0][0]
        else:
            first = tl.load(FIRST + k[:, None] * H + column[None, :])
        t = dot(points, first, tl.zeros((BM, HC), tl.float32), INTERPRETED)
        t = modulate(t, SHIFT + column, GAIN + column, HAS_GAIN, SCALE)
        h = h + (as_operand(sine(t, SINE), PREC),)
    if RESIDENT:
        for layer in tl.static_range(1, L):
            t = matmul(h[0], weights[layer], tl.zeros((BM, H), tl.float32), PREC, INTERPRETED)
            t = modulate(t, SHIFT + layer * H + unit, GAIN + layer * H + unit, HAS_GAIN, SCALE)
            h = (as_operand(sine(t, SINE), PREC),)
    else:
        # A dynamic loop: unrolled, the compiler loads all layers' streamed weights at once and spills registers.
        for layer in tl.range(1, L):
            h = _wide_layer(
                h, layer, HIDDEN, SHIFT, GAIN, BM, H, HC, L, HAS_GAIN, PREC, SINE, SCALE, INTERPRETED
            )  # fmt: skip
    return h
