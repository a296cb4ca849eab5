"""Polynomials of several variables, or of their powers, logarithms or exponentials: monomials, fits of them, and what
fits miss of points left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.numerics.ridge import damped_solve

_RIDGE = 1e-9
_ALIKE = 3  # parameters from which on all have the same power
MOST_LOGARITHM = 700.0


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


def choices_of_powers(parameters: Tensor, choices: Sequence[float], alike: bool = False) -> list[Tensor]:
    """Powers (Q,) of parameters (E, Q), 0 for logarithms, the simplest first: others than 1 of positive ones alone, and
    infinite ones, for exponentials, of a single one."""
    positive = (parameters > 0).all(0).tolist()
    count = len(positive)
    if count == 1:
        return [torch.tensor([power], dtype=torch.float64) for power in choices
                if positive[0] or power == 1 or math.isinf(power)]
    choices = [power for power in choices if math.isfinite(power)]
    if alike or count >= _ALIKE:
        every = [tuple(power if plus else 1 for plus in positive) for power in choices]
    else:
        every = sorted(itertools.product(*(choices if plus else (1,) for plus in positive)),
                       key=lambda powers: sum(power != 1 for power in powers))
    return [torch.tensor(powers, dtype=torch.float64) for powers in dict.fromkeys(every)]


def raised(parameters: Tensor, powers: Tensor, training: Tensor) -> Tensor:
    """Powers of parameters (..., Q), logarithms where they are 0, exponentials where they are infinite."""
    plain = torch.where(powers > 0, 1.0, parameters)  # powers of which are not asked for
    grown = (powers.sign() * (parameters - training.mean(0)) / spread_of(training)).clamp(max=MOST_LOGARITHM).exp()
    raised = torch.where(powers > 0, parameters**powers, torch.where(powers == 0, plain.log(), 1 / plain))
    return torch.where(powers.isinf(), grown, raised)


def spread_of(training: Tensor) -> Tensor:
    """Two standard deviations (Q,) of parameters (E, Q)."""
    return 2 * training.std(0, correction=0).clamp(min=1e-300)
