"""Coefficients of an equation that differ between systems: affine in a few contexts, by alternating least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.dynamics.contexts.alternate import whitened
from inrflow.numerics.normal_equations import NormalEquations

_PULL = 1e-6  # of a system's own coefficients towards those of all, in the metric of all
_DAMPING = 1e-9
_ROUNDS = 30
_SETTLED = 1e-6


def departures(parts: list[NormalEquations], pooled: Tensor, kept: Tensor) -> Tensor:
    """How far (E, U) the coefficients of each system lie from those of all, `pooled` (U,)."""
    total = NormalEquations.total(parts)
    places = kept.nonzero()[:, 0]
    unit = total.units()[places]
    metric = total.gram[places][:, places] / unit / unit[:, None] / len(parts)
    eye = torch.eye(len(places), dtype=metric.dtype)
    result = torch.zeros(len(parts), len(pooled), dtype=torch.float64)
    for e, part in enumerate(parts):
        own = part.gram[places][:, places] / unit / unit[:, None]
        missed = (part.right - part.gram @ pooled)[places] / unit
        result[e, places] = torch.linalg.solve(own + _PULL * metric + 1e-12 * eye, missed) / unit
    return result


def leading_contexts(apart: Tensor, metric: Tensor, count: int) -> Tensor:
    """Whitened contexts (E, P): the leading directions of coefficients (E, U) in a metric (U, U)."""
    unit = metric.diagonal().clamp(min=1e-300).sqrt()
    factor = torch.linalg.cholesky(metric / unit / unit[:, None] + 1e-12 * torch.eye(len(unit), dtype=metric.dtype))
    left = torch.linalg.svd((apart - apart.mean(0)) * unit @ factor, full_matrices=False)[0]
    return whitened(left[:, :count])[0]


def alternate(
    parts: list[NormalEquations], contexts: Tensor, kept: Tensor, forced: bool, fixed: bool, ridge: float
) -> tuple[Tensor, Tensor]:
    """Operators (1 + P, U) and contexts (E, P) that explain the transitions best, from contexts on.

    kept: ((1 + P) U,) coefficients that are not 0. fixed: the contexts are known and stay.
    """
    size = contexts.shape[1] + 1
    before = float("inf")
    for _ in range(1 if fixed or size == 1 else _ROUNDS):
        joined = NormalEquations.joined(parts, contexts)
        flat = joined.solve(kept, forced, ridge)
        misfit = joined.misfit(flat, forced)
        operators = flat.reshape(size, -1)
        if fixed or size == 1 or not misfit < (1 - _SETTLED) * before:
            break
        before = misfit
        force = joined.force(flat) if forced else torch.zeros(len(joined.change_by_code), dtype=torch.float64)
        contexts = whitened(torch.stack([best_context(part, operators, force) for part in parts]))[0]
    return operators, contexts


def best_context(part: NormalEquations, operators: Tensor, force: Tensor) -> Tensor:
    """The context (P,) that explains the transitions of one system best."""
    moved = part.gram @ operators[1:].T  # (U, P)
    hessian = operators[1:] @ moved
    gradient = operators[1:] @ (part.right - part.by_code.T @ force - part.gram @ operators[0])
    damping = _DAMPING * hessian.diagonal().mean() + 1e-300
    return torch.linalg.solve(hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype), gradient)
