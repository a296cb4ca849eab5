"""Polynomials of several variables: their monomials, fits of them, and what fits miss of points left out."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from inrflow.numerics.ridge import damped_solve

_RIDGE = 1e-9


def monomials(values: Tensor, degree: int) -> Tensor:
    """All products (..., F) of up to `degree` of the values (..., Q), the constant first."""
    columns = [torch.ones_like(values[..., 0])]
    for order in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(values.shape[-1]), order):
            columns.append(values[..., list(chosen)].prod(-1))
    return torch.stack(columns, -1)


def ridge_solution(design: Tensor, target: Tensor) -> Tensor:
    """Coefficients (F, P) of least squares of targets (E, P) by a design (E, F), with a slight ridge."""
    return damped_solve(design.T @ design, target.T @ design, _RIDGE).T


def left_out(design: Tensor, target: Tensor) -> Tensor:
    """What the fit to all other environments misses of each one, (E, P)."""
    rows = torch.arange(len(design))
    return torch.stack([target[e] - design[e] @ ridge_solution(design[rows != e], target[rows != e]) for e in rows])
