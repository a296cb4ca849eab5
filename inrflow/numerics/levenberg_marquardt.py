"""Nonlinear least squares: Gauss-Newton steps damped as by Levenberg (1944) and Marquardt (1963).

`levenberg_marquardt` minimises a batch of small problems of the same kind, each with its own damping. `damped_descent`
minimises a single objective over points of any type.
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
    """Points (B, U), objectives (B,), final dampings (B,), and curvatures (B, U, U) of the last linearisation."""

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
    """Minimise B sums of squares from points (B, U). Steps that do not lower their objective are rejected.

    Args:
        objective: values (B,) at points (B, U).
        linearise: J^T J (B, U, U) and -J^T r (B, U) at points, with J the Jacobian of the residuals r.
        steps: largest number of iterations.
        settled: convergence test (B,) given the Newton decrements (B,), the predicted decrease of the objective for an
            undamped step, and the objectives (B,); the iteration ends once all problems have converged.
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
    """Curvature (..., U, U) with its diagonal multiplied by 1 + `damping` (...,)."""
    share = torch.as_tensor(damping, dtype=curvature.dtype, device=curvature.device)[..., None]
    return curvature + torch.diag_embed(share * curvature.diagonal(dim1=-2, dim2=-1))


@dataclass(frozen=True)
class Linearisation(Generic[Point]):
    """Value of the objective at a point, and the trial point proposed by its linearisation for a given damping."""

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
    """The lowest point that is found, and the number of linearisations.

    Args:
        linearise: called at a point for which `objective` was evaluated last; None ends the descent.
        steps, tries: largest numbers of linearisations, and of dampings tried for each.
        damping: initial value; multiplied by 10 after a failure and by 0.1, down to `least`, after a success.
        settled: the descent ends if a step leaves more than this share of the objective.
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
