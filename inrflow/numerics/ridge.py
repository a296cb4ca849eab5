"""The choice of a ridge by a validation error, for the closed-form fits that are corrected along their own flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

Solution = TypeVar("Solution")

_CLEARLY_BETTER = 0.99
_WORSE = 1.05


def ridge_grid(least: int, most: int, decades: int = 2) -> tuple[float, ...]:
    """Ridges 10^least, ..., 10^most in rising order, so many decades apart."""
    return tuple(float(f"1e{exponent}") for exponent in range(least, most + 1, decades))


def leading_ridge(
    solutions: Iterable[tuple[float, Solution | None]], judge: Callable[[Solution], float]
) -> tuple[float, float, Solution] | None:
    """Error, ridge and solution of the ridge that does best; None where every one fails or diverges.

    Ridges come in rising order. A solution is None where its ridge is too small for the precision of the sums.
    """
    leading: tuple[float, float, Solution] | None = None
    for ridge, solution in solutions:
        score = float("inf") if solution is None else judge(solution)
        if leading is not None and score > _WORSE * leading[0]:
            break  # errors only rise with the ridge from here on
        if solution is not None and math.isfinite(score) and (leading is None or score < leading[0]):
            leading = score, ridge, solution
    return leading


def improves(score: float, best: float | None) -> bool:
    """Whether a correction with this error is worth keeping over the best one so far, None before the first."""
    return best is None or score <= _CLEARLY_BETTER * best


def damped_solve(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Solutions (..., P) of hessian (..., P, P) x = gradient, damped relative to the mean diagonal."""
    strength = damping * hessian.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-300
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype)
    return torch.linalg.solve(hessian + strength[..., None, None] * eye, gradient[..., None])[..., 0]
