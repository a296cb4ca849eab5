"""Grids of ridge parameters, and damped linear solves."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_grid(least: int, most: int, decades: int = 2) -> tuple[float, ...]:
    """Ridge parameters 10^least, ..., 10^most in increasing order, spaced by `decades` powers of ten."""
    return tuple(float(f"1e{exponent}") for exponent in range(least, most + 1, decades))


def damped_solve(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Solutions (..., P) of (hessian (..., P, P) + s I) x = gradient, s being damping times the mean diagonal."""
    strength = damping * hessian.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-300
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype)
    return torch.linalg.solve(hessian + strength[..., None, None] * eye, gradient[..., None])[..., 0]
