"""Time integration of u_t = L u + N(u) in Fourier space, exact in the stiff linear part.

ETDRK4, batched over trajectories with individual parameters and step lengths. If N = 0, one exponential is the exact
solution over any time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from inrflow.numerics import etdrk4

_STEPS_BETWEEN_CHECKS = 16
_MOST_STEPS = 2**20  # to the next output time; a solution that needs more is about to become infinite


class UnresolvedError(Exception):
    """Error if no step size resolves the solution from time `time` on, by blow-up or an ill-posed equation."""

    def __init__(self, time: float):
        super().__init__(f"no step size resolves the solution at t = {time:g}")
        self.time = time


class ExponentialIntegrator:
    """Exponential time integrator (ETDRK4) of Fourier coefficients u (S, C, *modes).

    `linear`: symbol L, (S or 1, C or 1, *modes) if it acts on each channel separately, or (S or 1, C, C, *modes) if it
    mixes channels; real or complex. `nonlinear`: N, coefficients to coefficients, or None. `dimensions`: d.
    """

    def __init__(self, linear: Tensor, nonlinear: Callable[[Tensor], Tensor] | None, dimensions: int):
        self._mixing = linear.ndim == dimensions + 3
        # Matrix functions need the channels last.
        self._linear = linear.movedim((1, 2), (-2, -1)) if self._mixing else linear
        self._nonlinear = nonlinear
        self._coefficients: dict[tuple[float, ...], list[Tensor]] = {}

    def solve(self, u: Tensor, times: Tensor, tolerance: float = 1e-7) -> Iterator[Tensor]:
        """Yield the coefficients at each of `times`, (T,) or (S, T), not decreasing, from `u` at time 0.

        `tolerance` bounds the local error of a step relative to the state's root mean square, in the worst trajectory.
        It is estimated by step doubling at least once between consecutive times and every 16 steps, and the step is
        halved or doubled accordingly. Raises UnresolvedError if no step is small enough. Linear equations are solved
        exactly, without steps.
        """
        times = times.expand(u.shape[0], -1)
        now = torch.zeros(u.shape[0], dtype=torch.float64)
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
        """One step of length `h` (S,)."""
        assert self._nonlinear is not None
        return etdrk4.step(u, self._coefficients_for(h), self._apply, self._nonlinear)

    def _advance(
        self, u: Tensor, interval: Tensor, step: float, tolerance: float, time: float
    ) -> tuple[Tensor, float]:
        """Coefficients after `interval` (S,), in blocks of equal steps whose last step is checked (a failed block is
        repeated), and the final step length.
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
            error = 16 / 15 * _relative_difference(self.step(before, h), fine)  # of the full step (Richardson)
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
        """Cached coefficients for step lengths h (S,): of `step`, or with order 0 the exponential alone."""
        key = (order, *h.tolist())
        if key not in self._coefficients:
            if len(self._coefficients) >= 4:  # per-trajectory times have new steps in every interval
                self._coefficients.clear()
            scale = h if bool((h != h[0]).any()) else h[:1]
            scale = scale.reshape(-1, *[1] * (self._linear.ndim - 1))
            phi = etdrk4.phi_matrix_functions if self._mixing else etdrk4.phi_functions
            parts = (etdrk4.coefficients(self._linear, scale, phi) if order else phi(scale * self._linear, 0))
            self._coefficients[key] = parts
        return self._coefficients[key]

    def _apply(self, operator: Tensor, u: Tensor) -> Tensor:
        if self._mixing:
            return torch.einsum("s...ij,sj...->si...", operator.to(u.dtype).expand(u.shape[0], *operator.shape[1:]), u)
        if operator.is_complex():
            return operator * u
        return torch.view_as_complex(torch.view_as_real(u) * operator[..., None])


def _relative_difference(a: Tensor, b: Tensor) -> float:
    """Norm of a - b relative to that of b, for the worst trajectory; infinite if either is not finite."""
    difference = torch.linalg.vector_norm((a - b).flatten(1), dim=1)
    size = torch.linalg.vector_norm(b.flatten(1), dim=1)
    ratio = difference / size.clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.nan_to_num(ratio, nan=math.inf).max())
