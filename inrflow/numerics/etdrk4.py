"""ETDRK4: exponential time differencing Runge-Kutta of order four, exact in the linear part of u_t = L u + N(u).

Cox & Matthews 2002, Kassam & Trefethen 2005, in terms of the entire functions phi_k(z) = sum_n z^n / (n + k)!, of
matrices, or of numbers by Taylor series near zero and by recurrence elsewhere, to rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SERIES_TERMS = 20  # 1 / 20! is below the rounding error of float64
_LARGE = 16  # size from which matrices use scaling and doubling of Taylor series


def phi_functions(z: Tensor, order: int = 3) -> list[Tensor]:
    """[phi_0, ..., phi_order] of a real or complex tensor, elementwise, to rounding error."""
    near = z.abs() < 1
    small = torch.where(near, z, 0)
    large = torch.where(near, 1, z)
    exponential = torch.exp(z)
    result, outer = [exponential], exponential
    for k in range(1, order + 1):
        outer = (outer - 1 / math.factorial(k - 1)) / large
        series = torch.full_like(small, 1 / math.factorial(_SERIES_TERMS + k))
        for n in reversed(range(_SERIES_TERMS)):
            series = series * small + 1 / math.factorial(n + k)
        result.append(torch.where(near, series, outer))
    return result


def phi_matrix_functions(z: Tensor, order: int = 3) -> list[Tensor]:
    """[phi_0, ..., phi_order] of matrices (..., C, C). Small matrices: first block row of exp([[z, 1, 0], [0, 0, 1],
    [0, 0, 0]]). Larger ones: Taylor series of z / 2^m, then m doublings with phi_k(2 z) = 2^-k (phi_0(z) phi_k(z) +
    sum_(j=1..k) phi_j(z) / (k - j)!), ten times faster."""
    channels = z.shape[-1]
    eye = torch.eye(channels, dtype=z.dtype, device=z.device)
    if channels < _LARGE:
        augmented = z.new_zeros(*z.shape[:-2], (order + 1) * channels, (order + 1) * channels)
        augmented[..., :channels, :channels] = z
        for block in range(order):
            rows = slice(block * channels, (block + 1) * channels)
            columns = slice((block + 1) * channels, (block + 2) * channels)
            augmented[..., rows, columns] = eye
        exponential = torch.linalg.matrix_exp(augmented)
        return [exponential[..., :channels, k * channels : (k + 1) * channels] for k in range(order + 1)]
    norm = z.detach().abs().sum(-1).amax()
    doublings = math.ceil(math.log2(max(float(norm.nan_to_num(1.0, 1.0)), 1.0)))
    small, inverse = z / 2**doublings, [1 / math.factorial(n) for n in range(_SERIES_TERMS + order + 1)]
    last = eye * inverse[-1]
    for n in reversed(range(_SERIES_TERMS)):
        last = small @ last + eye * inverse[n + order]
    result = [last]
    for k in reversed(range(order)):
        result.insert(0, small @ result[0] + eye * inverse[k])
    for _ in range(doublings):
        for k, product in reversed(list(enumerate((result[0] @ torch.cat(result, -1)).split(channels, -1)))):
            for j in range(1, k + 1):
                product = product + inverse[k - j] * result[j]
            result[k] = product / 2**k
    return result


def coefficients(linear: Tensor, h: Tensor | float, phi: Callable[[Tensor, int], list[Tensor]]) -> list[Tensor]:
    """The six operators of a step h: exp(h L / 2), its integral, exp(h L), and three weights of nonlinear rates."""
    z = h * linear
    half = phi(z / 2, 1)
    p0, p1, p2, p3 = phi(z, 3)
    return [half[0], h / 2 * half[1], p0, h * (p1 - 3 * p2 + 4 * p3), h * (2 * p2 - 4 * p3), h * (4 * p3 - p2)]


def step(u: Tensor, operators: list[Tensor], apply: Callable[[Tensor, Tensor], Tensor],
         nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
    """One step from u (equations 26 to 29 of Cox & Matthews); `apply` applies an operator of `coefficients`."""
    half, half_phi, whole, first, middle, last = operators
    nonlinear_u = nonlinear(u)
    carried = apply(half, u)
    a = carried + apply(half_phi, nonlinear_u)
    nonlinear_a = nonlinear(a)
    b = carried + apply(half_phi, nonlinear_a)
    nonlinear_b = nonlinear(b)
    c = apply(half, a) + apply(half_phi, 2 * nonlinear_b - nonlinear_u)
    return (apply(whole, u) + apply(first, nonlinear_u) + apply(middle, nonlinear_a + nonlinear_b)
            + apply(last, nonlinear(c)))
