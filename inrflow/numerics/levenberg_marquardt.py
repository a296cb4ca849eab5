"""Nonlinear least squares: Gauss-Newton steps damped as by Levenberg (1944) and Marquardt (1963).

`levenberg_marquardt` minimises many small problems of the same kind together, each with a damping of its own.
`damped_descent` minimises one, of which a step may be anything that a damping determines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Point = TypeVar("Point")


@dataclass(frozen=True)
class Minimum:
    """Points (B, U) and their objectives (B,), the dampings (B,) reached, the curvature (B, U, U) of the last step."""

    point: Tensor
    value: Tensor
    damping: Tensor
    curvature: Tensor


def levenberg_marquardt(
    point: Tensor,
    objective: Callable[[Tensor], Tensor],
    linearise: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    steps: int,
    settled: Callable[[Tensor, Tensor], Tensor] = lambda decrement, value: torch.zeros_like(value, dtype=torch.bool),
    damping: Tensor | float = 1e-3,
    lowered: float = 0.2,
    raised: float = 10.0,
    bounds: tuple[float, float] = (1e-9, 1e6),
) -> Minimum:
    """Minimise B sums of squares from points (B, U). A step that does not lower its objective is refused.

    Args:
        objective: values (B,) at points (B, U).
        linearise: J^T J (B, U, U) and -J^T r (B, U) at points, with J the Jacobian of the residuals r.
        steps: at most.
        settled: which problems need no further step, given their Newton decrements (B,), the decrease of the
            objective that an undamped step promises, and their values (B,); all of them end the iteration.
        damping: relative to the diagonal of the curvature; multiplied by `lowered` or `raised` within `bounds`.
    """
    value = objective(point)
    factor = damping.expand_as(value) if isinstance(damping, Tensor) else torch.full_like(value, damping)
    curvature = point.new_zeros(0)
    for _ in range(steps):
        curvature, gradient = linearise(point)
        step = torch.linalg.solve(damped(curvature, factor), gradient)
        proposed = objective(point + step)
        better = proposed < value
        point = torch.where(better[:, None], point + step, point)
        enough = settled((step * gradient).sum(1) * (1 + factor), value)
        value = torch.where(better, proposed, value)
        factor = torch.where(better, factor * lowered, factor * raised).clamp(*bounds)
        if bool(enough.all()):
            break
    return Minimum(point, value, factor, curvature)


def damped(curvature: Tensor, damping: Tensor | float) -> Tensor:
    """Curvature (..., U, U) with its diagonal enlarged by the share `damping` (...,)."""
    share = torch.as_tensor(damping, dtype=curvature.dtype, device=curvature.device)[..., None]
    return curvature + torch.diag_embed(share * curvature.diagonal(dim1=-2, dim2=-1))


@dataclass(frozen=True)
class Linearisation(Generic[Point]):
    """The objective's value at a point, and the points that its linearised residuals propose, by the damping."""

    value: float
    propose: Callable[[float], Point]


def damped_descent(
    point: Point,
    linearise: Callable[[Point], Linearisation[Point] | None],
    objective: Callable[[Point], float],
    *,
    steps: int,
    tries: int,
    damping: float = 1e-3,
    least: float = 1e-12,
    settled: float = 1.0,
) -> tuple[Point, int]:
    """The lowest point that is reached, and how many times the objective was linearised.

    Args:
        linearise: at a point, of which `objective` was asked last. None ends the descent.
        steps, tries: linearisations at most, and dampings tried for each.
        damping: at first; ten times as much after a failure, a tenth, down to `least`, after a success.
        settled: the descent ends where the objective keeps more than this share.
    """
    done = 0
    for done in range(1, steps + 1):  # noqa: B007
        model = linearise(point)
        if model is None:
            break
        for _ in range(tries):
            candidate = model.propose(damping)
            value = objective(candidate)
            if value < model.value:
                break
            damping *= 10.0
        else:
            break
        point, damping = candidate, max(0.1 * damping, least)
        if not value < settled * model.value:
            break
    return point, done
