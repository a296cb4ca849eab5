"""Backward kernel, which evaluates a tile's activations again and computes its gradients in one pass.

It writes partial sums, one per tile for gradients of modulations and one per program for gradients of weights, which
the launch reduces in a fixed order. Without atomics, results are bitwise reproducible. Gradients are scaled by a power
of two (SCALE, in device memory) before rounding to operands, to stay within the range of fp16; the reduction undoes it.
"""

# Device code, where tuples grow from layer to layer.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .math import dot, load_points, load_trunk, sine_cosine


@triton.jit
def _layer_forward(t, SHIFT, GAIN, HAS_GAIN: tl.constexpr, SINE: tl.constexpr, TYPE: tl.constexpr):
    """Activation and slope of one layer, as operands, from its product W h."""
    if HAS_GAIN:
        t = t * tl.load(GAIN)[None, :]
    h, slope = sine_cosine(t + tl.load(SHIFT)[None, :], SINE)
    return h.to(TYPE), slope.to(TYPE)


@triton.jit
def backward_kernel(
    X, FIRST, HIDDEN, SHIFT, GAIN, OUTPUT, GRAD, SCALE, TILES, tile_count,
    FIRST_EXACT, GRAD_X, GRAD_SHIFT, GRAD_GAIN, GRAD_FIRST, GRAD_HIDDEN, GRAD_OUTPUT, FEATURES, STORED,
    shift_stride, output_stride, output_count, points_count, stored_stride,
    D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, L: tl.constexpr, C: tl.constexpr, BM: tl.constexpr,
    HAS_GAIN: tl.constexpr, OUTPUT_SHARED: tl.constexpr, MANY_OUTPUTS: tl.constexpr,
    WANT_X: tl.constexpr, WANT_GAIN: tl.constexpr, WANT_WEIGHTS: tl.constexpr, WANT_OUTPUT: tl.constexpr,
    STORE: tl.constexpr, RESIDENT: tl.constexpr, PREC: tl.constexpr, SINE: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Gradients of SCALE * sum(GRAD * field), GRAD (rows, C).

    GRAD_SHIFT, GRAD_GAIN (T, L, H) per tile. WANT_WEIGHTS: GRAD_FIRST (P, 4 DP, H) and GRAD_HIDDEN (P, L-1, H, H) per
    program. STORE: each layer's input and the gradient at its preactivation are written to STORED (2, L-1, rows, H),
    from which the launch computes GRAD_HIDDEN, and GRAD_GAIN beyond the first layer, by matrix products.
    WANT_OUTPUT: GRAD_OUTPUT (P, H, 16) per program if OUTPUT is shared, else (T, H, 16) per tile. MANY_OUTPUTS (a trunk
    shared by the outputs of all samples): GRAD is (S, N, C), OUTPUT (H, S C padded to 64), and the last activations are
    written to FEATURES (N, H) for the gradient of the outputs. FIRST_EXACT (D, H) is the first weight in float32.
    """
    TYPE: tl.constexpr = tl.bfloat16 if PREC == "bf16" else tl.float16
    lane = tl.arange(0, BM)
    unit = tl.arange(0, H)
    channel = tl.arange(0, 16)
    k = tl.arange(0, 4 * DP)
    program = tl.program_id(0)
    scale = tl.load(SCALE)
    square = unit[:, None] * H + unit[None, :]
    weights = ()
    if RESIDENT:
        weights = load_trunk(FIRST, HIDDEN, H, L, DP, PREC)
    if OUTPUT_SHARED and not MANY_OUTPUTS:
        output = tl.load(OUTPUT + unit[:, None] * 16 + channel[None, :])
    if WANT_WEIGHTS or STORE:
        grad_first = tl.zeros((4 * DP, H), tl.float32)
    if WANT_WEIGHTS:
        grad_hidden = ()
        for _ in tl.static_range(L - 1):
            grad_hidden = grad_hidden + (tl.zeros((H, H), tl.float32),)
    if WANT_OUTPUT and OUTPUT_SHARED:
        grad_output = tl.zeros((H, 16), tl.float32)
    for tile in tl.range(program, tile_count, tl.num_programs(0)):
        sample = tl.load(TILES + tile * 4)
        x_row = tl.load(TILES + tile * 4 + 1).to(tl.int64)
        row = tl.load(TILES + tile * 4 + 2).to(tl.int64)
        mask = lane < tl.load(TILES + tile * 4 + 3)
        shift = SHIFT + sample * shift_stride + unit
        gain = GAIN + sample * L * H + unit
        # Activations and slopes of all layers, kept as operands.
        points = load_points(X + x_row * D, lane, mask, 1.0, D, DP, PREC)
        # Loaded for every tile: resident, it would occupy shared memory throughout.
        first = tl.load(FIRST + k[:, None] * H + unit[None, :])
        t = dot(points, first, tl.zeros((BM, H), tl.float32), INTERPRETED)
        h, slope = _layer_forward(t, shift, gain, HAS_GAIN, SINE, TYPE)
        activations = (h,)
        slopes = (slope,)
        stored = STORED + (row + lane)[:, None] * H + unit[None, :]
        for layer in tl.static_range(1, L):
            if STORE:
                tl.store(stored + (layer - 1) * stored_stride.to(tl.int64), activations[layer - 1], mask=mask[:, None])
            if RESIDENT:
                weight = weights[layer][0]
            else:
                weight = tl.load(HIDDEN + (layer - 1) * H * H + square)
            t = dot(activations[layer - 1], weight, tl.zeros((BM, H), tl.float32), INTERPRETED)
            h, slope = _layer_forward(t, shift + layer * H, gain + layer * H, HAS_GAIN, SINE, TYPE)
            activations = activations + (h,)
            slopes = slopes + (slope,)
        # The output layer.
        back = tl.zeros((BM, H), tl.float32)
        if MANY_OUTPUTS:
            tl.store(FEATURES + row * H + (lane[:, None] * H + unit[None, :]), activations[L - 1], mask=mask[:, None])
            column = tl.arange(0, 64)
            padded = tl.cdiv(output_count, 64) * 64
            for start in tl.range(0, padded, 64):
                index = start + column
                source = (index // C).to(tl.int64) * points_count * C + index % C
                grad = tl.load(
                    GRAD + row * C + (source[None, :] + lane[:, None] * C),
                    mask=mask[:, None] & (index < output_count)[None, :],
                    other=0.0,
                )
                many = tl.load(OUTPUT + unit[None, :].to(tl.int64) * padded + index[:, None])
                back = dot((grad * scale).to(TYPE), many, back, INTERPRETED)
        else:
            grad = tl.load(
                GRAD + row * C + (lane[:, None] * C + channel[None, :]),
                mask=mask[:, None] & (channel < C)[None, :],
                other=0.0,
            )
            grad = (grad * scale).to(TYPE)
            if not OUTPUT_SHARED:
                output = tl.load(OUTPUT + sample * output_stride + unit[:, None] * 16 + channel[None, :])
            if WANT_OUTPUT:
                if OUTPUT_SHARED:
                    grad_output = dot(tl.trans(activations[L - 1]), grad, grad_output, INTERPRETED)
                else:
                    outer = dot(tl.trans(activations[L - 1]), grad, tl.zeros((H, 16), tl.float32), INTERPRETED)
                    target = GRAD_OUTPUT + tile * H * 16 + (unit[:, None] * 16 + channel[None, :])
                    tl.store(target, outer)
            back = dot(grad, tl.trans(output), back, INTERPRETED)
        # The hidden layers. Rows beyond the tile's count have zero gradient and add nothing to sums over rows.
        partial = tile * (L * H)
        column = k % DP
        # Rows of the coordinates' high and low parts, and a row of ones.
        augmented = tl.where((k == 2 * DP)[:, None], 1.0, tl.trans(points)).to(TYPE)
        for layer in tl.static_range(L - 1, 0, -1):
            delta = back * slopes[layer].to(tl.float32)
            rounded = delta.to(TYPE)
            # Sums over rows as a small matrix product, cheaper on tensor cores than shuffles.
            total = dot(augmented, rounded, tl.zeros((4 * DP, H), tl.float32), INTERPRETED)
            tl.store(
                GRAD_SHIFT + partial + layer * H + (unit[None, :] + 0 * k[:, None]),
                total,
                mask=(k == 2 * DP)[:, None],
            )
            if RESIDENT:
                weight = weights[layer][0]
            else:
                weight = tl.load(HIDDEN + (layer - 1) * H * H + square)
            if STORE:
                tl.store(stored + (L + layer - 2) * stored_stride.to(tl.int64), rounded, mask=mask[:, None])
            if HAS_GAIN:
                factor = tl.load(gain + layer * H)
                if WANT_GAIN and not STORE:
                    # d gain = column sums of weight * (h^T delta), without dividing by the gain.
                    outer = dot(tl.trans(activations[layer - 1]), rounded, tl.zeros((H, H), tl.float32), INTERPRETED)
                    tl.store(GRAD_GAIN + partial + layer * H + unit, tl.sum(outer * weight.to(tl.float32), axis=0))
                rounded = (delta * factor[None, :]).to(TYPE)
            if WANT_WEIGHTS:
                if HAS_GAIN and WANT_GAIN:
                    updated = grad_hidden[layer - 1] + outer * factor[None, :]
                else:
                    updated = dot(tl.trans(activations[layer - 1]), rounded, grad_hidden[layer - 1], INTERPRETED)
                replaced = ()
                for other in tl.static_range(L - 1):
                    if other == layer - 1:
                        replaced = replaced + (updated,)
                    else:
                        replaced = replaced + (grad_hidden[other],)
                grad_hidden = replaced
            back = dot(rounded, tl.trans(weight), tl.zeros((BM, H), tl.float32), INTERPRETED)
        # The first layer: one product with [x high | x low | 1] gives the gradients of weight and shift.
        delta = back * slopes[0].to(tl.float32)
        rounded = delta.to(TYPE)
        totals = dot(augmented, rounded, tl.zeros((4 * DP, H), tl.float32), INTERPRETED)
        tl.store(
            GRAD_SHIFT + partial + (unit[None, :] + 0 * k[:, None]),
            totals,
            mask=(k == 2 * DP)[:, None],
        )
        if HAS_GAIN:
            factor = tl.load(gain)
            if WANT_GAIN:
                coordinate = (column < D) & (k < 2 * DP)
                exact = tl.load(FIRST_EXACT + column[:, None] * H + unit[None, :], mask=coordinate[:, None], other=0.0)
                tl.store(GRAD_GAIN + partial + unit, tl.sum(totals * exact, axis=0))
            totals = totals * factor[None, :]
        if WANT_WEIGHTS or STORE:
            grad_first += totals
        if WANT_X:
            for coordinate in tl.static_range(D):
                pull = tl.load(FIRST_EXACT + coordinate * H + unit)
                if HAS_GAIN:
                    pull = pull * factor
                total = tl.sum(delta * pull[None, :], axis=1)
                tl.store(GRAD_X + row * D + coordinate + lane * D, total, mask=mask)
    if WANT_WEIGHTS:
        for layer in tl.static_range(L - 1):
            target = GRAD_HIDDEN + (program * (L - 1) + layer) * H * H + square
            tl.store(target, grad_hidden[layer])
    if WANT_WEIGHTS or STORE:
        tl.store(GRAD_FIRST + program * 4 * DP * H + k[:, None] * H + unit[None, :], grad_first)
    if WANT_OUTPUT and OUTPUT_SHARED and not MANY_OUTPUTS:
        tl.store(GRAD_OUTPUT + program * H * 16 + unit[:, None] * 16 + channel[None, :], grad_output)
