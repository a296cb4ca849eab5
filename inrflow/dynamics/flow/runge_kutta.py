"""The classical Runge-Kutta method of order 4, and integrals of features along its steps.

For fits of vector fields that are linear in their unknowns: the integral of the features along the flow, by the same
quadrature as the state, is the row of the least-squares problem.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Rate = Callable[[Tensor, Tensor], Tensor]
RateAndFeatures = Callable[[Tensor, Tensor], tuple[Tensor, tuple[Tensor, ...]]]


def rk4_step(rate: Rate, t: Tensor, state: Tensor, dt: Tensor) -> Tensor:
    """States (S, ...) after one step of durations dt (S,) or () from `state` (S, ...) at times t (S,) or ().

    `rate` maps times and states to ds/dt, (S, ...).
    """
    return rk4_integrals(lambda now, at: (rate(now, at), ()), t, state, dt)[0]


def rk4_path(rate: Rate, t: Tensor, state: Tensor, dt: Tensor, steps: int) -> Tensor:
    """States (steps + 1, S, ...) at the start and after each of `steps` equal steps over durations dt (S,) or ()."""
    path, part = [state], dt / steps
    for i in range(steps):
        path.append(rk4_step(rate, t + i * part, path[-1], part))
    return torch.stack(path)


def rk4_integrals(
    evaluate: RateAndFeatures, t: Tensor, state: Tensor, dt: Tensor, steps: int = 1
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """States (S, ...) after `steps` equal steps over durations dt (S,) or (), and the integrals of features on the way.

    `evaluate` maps times and states to the rate (S, ...) and a tuple of features (S, ...); the integrals have their
    shapes.
    """
    part = dt / steps
    integrals: tuple[Tensor, ...] = ()
    for i in range(steps):
        begin, middle, end = t + i * part, t + i * part + part / 2, t + (i + 1) * part
        first, features_1 = evaluate(begin, state)
        second, features_2 = evaluate(middle, state + _leading(part / 2, first) * first)
        third, features_3 = evaluate(middle, state + _leading(part / 2, second) * second)
        fourth, features_4 = evaluate(end, state + _leading(part, third) * third)
        state = state + _leading(part / 6, first) * (first + 2 * second + 2 * third + fourth)
        over = tuple(
            _leading(part / 6, one) * (one + 2 * two + 2 * three + four)
            for one, two, three, four in zip(features_1, features_2, features_3, features_4, strict=True)
        )
        integrals = tuple(a + b for a, b in zip(integrals, over, strict=True)) if integrals else over
    return state, integrals


def _leading(dt: Tensor, like: Tensor) -> Tensor:
    """Durations (S,) or () in a shape that multiplies `like` (S, ...)."""
    real = like.real.dtype if like.is_complex() else like.dtype
    return dt.to(real).reshape(*dt.shape, *[1] * (like.dim() - dt.dim()))
