"""Polynomials in several variables, or in their powers, logarithms or exponentials: monomials, least-squares fits, and
leave-one-out residuals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.numerics.ridge import damped_solve

_RIDGE = 1e-9
_ALIKE = 3  # number of parameters from which all share one power
MOST_LOGARITHM = 700.0
SQUARES = (1, 2, 0, -1)  # powers, 0 for logarithms
_STRAIGHT = 1e-6  # largest error of an affine form


def monomials(values: Tensor, degree: int) -> Tensor:
    """All monomials (..., F) up to `degree` of the values (..., Q), the constant first."""
    columns = [torch.ones_like(values[..., 0])]
    for order in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(values.shape[-1]), order):
            columns.append(values[..., list(chosen)].prod(-1))
    return torch.stack(columns, -1)


def ridge_solution(design: Tensor, target: Tensor) -> Tensor:
    """Least-squares coefficients (F, P) of targets (E, P) for a design matrix (E, F), with a small ridge."""
    return damped_solve(design.T @ design, target.T @ design, _RIDGE).T


def left_out(design: Tensor, target: Tensor) -> Tensor:
    """Leave-one-out residuals (E, P): target of each environment minus the prediction fitted to all others."""
    rows = torch.arange(len(design))
    return torch.stack([target[e] - design[e] @ ridge_solution(design[rows != e], target[rows != e]) for e in rows])


def choices_of_powers(parameters: Tensor, choices: Sequence[float], alike: bool = False) -> list[Tensor]:
    """Candidate powers (Q,) of parameters (E, Q), the simplest first; 0 denotes a logarithm and +-infinity an
    exponential. Powers other than 1 need positive parameters, infinite ones a single parameter."""
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
    """Parameters (..., Q) to given powers (Q,); logarithms where the power is 0, exponentials where it is infinite."""
    plain = torch.where(powers > 0, 1.0, parameters)  # not used for positive powers
    grown = (powers.sign() * (parameters - training.mean(0)) / spread_of(training)).clamp(max=MOST_LOGARITHM).exp()
    raised = torch.where(powers > 0, parameters**powers, torch.where(powers == 0, plain.log(), 1 / plain))
    return torch.where(powers.isinf(), grown, raised)


def spread_of(training: Tensor) -> Tensor:
    """Two standard deviations (Q,) of parameters (E, Q)."""
    return 2 * training.std(0, correction=0).clamp(min=1e-300)


def affine(parameters: Tensor, contexts: Tensor, names: Sequence[str]
           ) -> tuple[Tensor, Tensor, Tensor, list[str]] | None:
    """Affine form of contexts (E, P) = base + slopes f: base (P,), slopes (P, Q), sizes (Q,) and names of f, which are
    parameters (E, Q), their logarithms, reciprocals or squares; None where contexts are not affine in these."""
    for powers in choices_of_powers(parameters, SQUARES):
        design = monomials(raised(parameters, powers, parameters), 1)
        found = torch.linalg.lstsq(design, contexts).solution
        if float((contexts - design @ found).abs().max()) < _STRAIGHT:
            forms = {1: "{}", 2: "{}^2", 0: "log({})", -1: "/ {}"}
            sizes = design[:, 1:].abs().amax(0)
            return found[0], found[1:].T, sizes, [forms[int(p)].format(n) for p, n in zip(powers, names, strict=True)]
    return None
