"""Time integration of u_t = L u + N(u) in Fourier space, exact in the stiff linear part.

Exponential time differencing Runge-Kutta of order four (ETDRK4: Cox & Matthews 2002, Kassam & Trefethen 2005),
batched over trajectories of which each has its own parameters and its own step. The coefficients are combinations of
the entire functions phi_k(z) = sum_n z^n / (n + k)!, evaluated by their series near zero and by recurrence elsewhere,
which loses no digits. Where N = 0, one exponential is the exact solution over any time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from inrflow.numerics.matrix_functions import phi_matrix_functions

_SERIES_TERMS = 20  # 1 / 20! is below the rounding error of float64
_STEPS_BETWEEN_CHECKS = 16
_MOST_STEPS = 2**20  # to the next output time; a solution that needs more is about to become infinite


class UnresolvedError(Exception):
    """No step size resolves the solution from time `time` on: it blows up, or the equation is not well posed there."""

    def __init__(self, time: float):
        super().__init__(f"no step size resolves the solution at t = {time:g}")
        self.time = time


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


class ExponentialIntegrator:
    """Advances Fourier coefficients u (S, C, *modes).

    `linear`: the symbol L, (S or 1, C or 1, *modes) where it acts on each channel by itself, or (S or 1, C, C,
    *modes) where it mixes channels; real or complex. `nonlinear`: N, coefficients to coefficients, or None.
    `dimensions`: d.
    """

    def __init__(self, linear: Tensor, nonlinear: Callable[[Tensor], Tensor] | None, dimensions: int):
        self._mixing = linear.ndim == dimensions + 3
        # Matrix functions want the channels last.
        self._linear = linear.movedim((1, 2), (-2, -1)) if self._mixing else linear
        self._nonlinear = nonlinear
        self._coefficients: dict[tuple[float, ...], list[Tensor]] = {}

    def solve(self, u: Tensor, times: Tensor, start: float = 0.0, tolerance: float = 1e-7) -> Iterator[Tensor]:
        """Yield the coefficients at each of `times`, (T,) or (S, T), not decreasing, from `u` at time `start`.

        `tolerance` bounds the local error of a step relative to the state's root mean square, in the worst trajectory.
        It is estimated by step doubling at least once between every two times and every 16 steps, and the step is
        halved or doubled by it. UnresolvedError where no step is small enough. Linear equations are exact, without
        steps.
        """
        times = times.expand(u.shape[0], -1)
        now = torch.full((u.shape[0],), start, dtype=torch.float64)
        step = math.inf
        for column in times.unbind(dim=1):
            interval = column - now
            if bool((interval > 0).any()):
                if self._nonlinear is None:
                    u = self._apply(self._coefficients_for(interval, order=0)[0], u)
                else:
                    u, step = self._advance(u, interval, step, tolerance, float(now.min()))
            now = column
            yield u

    def step(self, u: Tensor, h: Tensor) -> Tensor:
        """One ETDRK4 step of length `h` (S,) (equations 26 to 29 of Cox & Matthews, written with phi functions)."""
        assert self._nonlinear is not None
        half, half_phi, whole, first, middle, last = self._coefficients_for(h)
        nonlinear_u = self._nonlinear(u)
        carried = self._apply(half, u)
        a = carried + self._apply(half_phi, nonlinear_u)
        nonlinear_a = self._nonlinear(a)
        b = carried + self._apply(half_phi, nonlinear_a)
        nonlinear_b = self._nonlinear(b)
        c = self._apply(half, a) + self._apply(half_phi, 2 * nonlinear_b - nonlinear_u)
        nonlinear_c = self._nonlinear(c)
        return (
            self._apply(whole, u)
            + self._apply(first, nonlinear_u)
            + self._apply(middle, nonlinear_a + nonlinear_b)
            + self._apply(last, nonlinear_c)
        )

    def _advance(
        self, u: Tensor, interval: Tensor, step: float, tolerance: float, time: float
    ) -> tuple[Tensor, float]:
        """Over `interval` (S,), in blocks of equal steps of which the last is checked; a block that fails is done
        anew.
        """
        remaining = interval
        while (longest := float(remaining.max())) > 0:
            count = max(1, math.ceil(longest / step - 1e-9))
            if count > _MOST_STEPS:
                raise UnresolvedError(time + float(interval.max()) - longest)
            h, block = remaining / count, min(count, _STEPS_BETWEEN_CHECKS)
            before = u
            for _ in range(block - 1):
                before = self.step(before, h)
            fine = self.step(self.step(before, h / 2), h / 2)
            error = 16 / 15 * _relative_difference(self.step(before, h), fine)  # of the whole step, by Richardson
            step = longest / count
            if error > tolerance:
                step /= 2
                continue
            if error < tolerance / 100:  # a doubled step has 32 times the local error; the margin avoids swinging
                step *= 2
            u = fine
            remaining = remaining - block * h if block < count else torch.zeros_like(remaining)
        return u, step

    def _coefficients_for(self, h: Tensor, order: int = 3) -> list[Tensor]:
        """Coefficients of a step, for the step lengths in use kept: order 0 the exponential alone, else those of
        `step`.
        """
        key = (order, *h.tolist())
        if key not in self._coefficients:
            if len(self._coefficients) >= 4:  # per-trajectory times have new steps in every interval
                self._coefficients.clear()
            scale = h if bool((h != h[0]).any()) else h[:1]
            scale = scale.reshape(-1, *[1] * (self._linear.ndim - 1))
            z = scale * self._linear
            phi = phi_matrix_functions if self._mixing else phi_functions
            if order == 0:
                parts = phi(z, 0)
            else:
                half = phi(z / 2, 1)
                p0, p1, p2, p3 = phi(z, 3)
                parts = [
                    half[0],
                    scale / 2 * half[1],
                    p0,
                    scale * (p1 - 3 * p2 + 4 * p3),
                    scale * (2 * p2 - 4 * p3),
                    scale * (4 * p3 - p2),
                ]
            self._coefficients[key] = parts
        return self._coefficients[key]

    def _apply(self, operator: Tensor, u: Tensor) -> Tensor:
        if self._mixing:
            return torch.einsum("s...ij,sj...->si...", operator.to(u.dtype).expand(u.shape[0], *operator.shape[1:]), u)
        if operator.is_complex():
            return operator * u
        return torch.view_as_complex(torch.view_as_real(u) * operator[..., None])


def _relative_difference(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b over that of b, in the worst trajectory; infinite where either is not finite."""
    difference = torch.linalg.vector_norm((a - b).flatten(1), dim=1)
    size = torch.linalg.vector_norm(b.flatten(1), dim=1)
    ratio = difference / size.clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.nan_to_num(ratio, nan=math.inf).max())
