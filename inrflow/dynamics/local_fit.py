"""Local dynamics of environments in closed form: coefficients by Gauss-Newton through the flow, contexts from them.

The coefficients of all environments together start from the trapezoidal rule, which is linear in them; Gauss-Newton on
single steps of the flow then finds those of each environment, with the curvature of its misfit. In that metric the
coefficients of the environments are approximated as theta_0 + sum_j c_j theta_j by alternating least squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrflow.dynamics.context_fit import whitened
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.local_field import LocalField
from inrflow.dynamics.states import CodeData

_STEP = 1e-5  # of the differences by the coefficients, which are of order one
_SETTLED = 1e-3
_SERVES = 0.1  # a slope by which the cost falls to less than this share is used again
_MOST_TRANSITIONS = 64  # of each environment: they hold many more values than there are coefficients


@dataclass
class Estimate:
    """coefficients (K, C), curvature (K C, K C) of the misfit there, and the misfit: mean square of a step's error."""

    coefficients: Tensor
    curvature: Tensor
    misfit: float


def fit_local(
    field: LocalField,
    data: CodeData,
    environment: Tensor,
    integrator: Integrator,
    iterations: int = 6,
    progress: Callable[[str], None] = lambda note: None,
) -> Tensor:
    """Fit the field, in place, to codes of trajectories that belong to environments (S,) counted from 0.

    Returns the contexts (E, P) of the environments, whitened.
    """
    count = int(environment.max()) + 1
    parts = []
    for e in range(count):
        rows = environment == e
        parts.append(CodeData(data.codes[rows], data.t[rows], data.observed[rows]))
    pooled = gauss_newton(field, data, first_guess(field, data), integrator, iterations // 2, rough=True)
    each = [gauss_newton(field, part, pooled.coefficients, integrator, iterations) for part in parts]
    if not all(math.isfinite(one.misfit) for one in each):  # the flow of an environment diverges from a rough start
        pooled = gauss_newton(field, data, first_guess(field, data), integrator, iterations)
        each = [gauss_newton(field, part, pooled.coefficients, integrator, iterations) for part in parts]
    progress(f"local dynamics of all environments: misfit {pooled.misfit:.1e}")
    progress(f"of each environment: misfit {max(one.misfit for one in each):.1e} at most")
    operators, contexts = low_rank(each, field.context_size)
    with torch.no_grad():
        field.coefficients.copy_(operators)
    return contexts


def transitions(data: CodeData, most: int = 10**9) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (Q, Z) at the start and at the end of steps between observed frames, and their times (Q, 2)."""
    both = data.observed[:, :-1] & data.observed[:, 1:]
    rows, frames = both.nonzero(as_tuple=True)
    if len(rows) > most:
        kept = torch.linspace(0, len(rows) - 1, most).round().long()
        rows, frames = rows[kept], frames[kept]
    times = torch.stack([data.t[rows, frames], data.t[rows, frames + 1]], 1)
    return data.codes[rows, frames].double(), data.codes[rows, frames + 1].double(), times


def first_guess(field: LocalField, data: CodeData, ridge: float = 1e-6) -> Tensor:
    """Coefficients (K, C) that the trapezoidal rule finds: one linear solve, no flow."""
    start, end, times = transitions(data, 4 * _MOST_TRANSITIONS)
    gap = (times[:, 1] - times[:, 0])[:, None, None, None]
    with torch.no_grad():
        design = (field.rates_of_terms(start) + field.rates_of_terms(end)) * gap / 2
    design = design.permute(0, 3, 1, 2).flatten(0, 1).flatten(1)
    scale = design.square().mean(0).sqrt().clamp(min=1e-300)
    design = design / scale
    gram = design.T @ design / len(design) + ridge * torch.eye(design.shape[1], dtype=design.dtype)
    solved = torch.linalg.solve(gram, design.T @ (end - start).flatten() / len(design)) / scale
    return solved.reshape(field.coefficients.shape[1:])


def gauss_newton(
    field: LocalField, data: CodeData, start: Tensor, integrator: Integrator, iterations: int, rough: bool = False
) -> Estimate:
    """Coefficients whose flow carries every frame to the next, by Levenberg and Marquardt's method.

    rough: for a start: few frames, and the curvature is that where the last slope was taken.
    """
    begin, end, times = transitions(data, _MOST_TRANSITIONS // 4 if rough else _MOST_TRANSITIONS)
    size = start.numel()
    eye = torch.eye(size, dtype=torch.float64)

    def residual(flat: Tensor) -> Tensor:
        """What the flow misses (B, Q Z) at coefficients (B, K C)."""
        own = flat.reshape(-1, *start.shape).repeat_interleave(len(begin), 0)
        repeats = len(flat)
        with torch.no_grad():
            field_at = _AtCoefficients(field, own)
            ends = integrator(field_at, begin.repeat(repeats, 1), times.repeat(repeats, 1), check=False)[:, 1]
        return (end.repeat(repeats, 1) - ends).reshape(repeats, -1)

    found, damping = start.flatten().clone(), 1e-3
    missed = residual(found[None])[0]
    cost = float(missed.square().sum())
    curvature = eye
    steep, at = True, found  # where the slope was taken
    for _ in range(iterations):
        if steep:  # else the last slope still serves
            slope, at = (missed - residual(found + _STEP * eye)) / _STEP, found
        if not bool(torch.isfinite(slope).all()):
            break
        curvature, gradient = slope @ slope.T, slope @ missed
        before, damping_before = cost, damping
        for _ in range(8):
            damped = curvature + damping * torch.diag(curvature.diagonal()) + 1e-14 * curvature.diagonal().mean() * eye
            proposed = found + torch.linalg.solve(damped, gradient)
            ends = residual(proposed[None])[0]
            if float(ends.square().sum()) < cost:
                found, missed, cost, damping = proposed, ends, float(ends.square().sum()), max(damping / 10, 1e-10)
                break
            damping *= 10
        if steep and not before - cost > _SETTLED * before:
            break
        if cost == before:  # the old slope has led nowhere
            damping = damping_before
        steep = cost > _SERVES * before
    if not rough and at is not found:
        slope = (missed - residual(found + _STEP * eye)) / _STEP
        curvature = slope @ slope.T
    return Estimate(found.reshape(start.shape), curvature, cost / len(begin))


def low_rank(estimates: list[Estimate], context_size: int, rounds: int = 200, starts: int = 5) -> tuple[Tensor, Tensor]:
    """Operators (1 + P, K, C) and whitened contexts (E, P) nearest to the estimates in the metric of their curvatures.

    At most E - 1 contexts can be told apart; the others stay zero.
    """
    shape = estimates[0].coefficients.shape
    values = torch.stack([one.coefficients.flatten() for one in estimates])
    metric = torch.stack([one.curvature for one in estimates])
    eye = torch.eye(values.shape[1], dtype=torch.float64)
    metric = metric + 1e-10 * metric.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * eye
    E, n = values.shape
    P = min(context_size, E - 1)
    random = torch.Generator().manual_seed(0)
    ones = torch.ones(E, 1, dtype=torch.float64)
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(starts):
        contexts = whitened(torch.randn(E, P, generator=random, dtype=torch.float64))[0] if P else ones[:, :0]
        operators = values.new_zeros(1 + P, n)
        for _ in range(rounds):
            weights = torch.cat([ones, contexts], 1)
            matrix = torch.einsum("ek,el,eij->kilj", weights, weights, metric).reshape((1 + P) * n, -1)
            right = torch.einsum("ek,eij,ej->ki", weights, metric, values).flatten()
            matrix = matrix + 1e-12 * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)
            operators = torch.linalg.solve(matrix, right).reshape(1 + P, n)
            if not P:
                break
            hessian = torch.einsum("ki,eij,lj->ekl", operators[1:], metric, operators[1:])
            hessian = hessian + 1e-9 * hessian.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(P).double()
            gradient = torch.einsum("ki,eij,ej->ek", operators[1:], metric, values - operators[0])
            contexts, mean, factor = whitened(torch.linalg.solve(hessian, gradient))
            operators = torch.cat([operators[:1] + mean @ operators[1:], factor.T @ operators[1:]])
        left = values - operators[0] - contexts @ operators[1:]
        misfit = float(torch.einsum("ei,eij,ej->", left, metric, left))
        if best is None or misfit < best[0]:
            best = misfit, operators, contexts
    assert best is not None
    operators, contexts = best[1], best[2]
    missing = context_size - P
    operators = torch.cat([operators, operators.new_zeros(missing, n)]).reshape(1 + context_size, *shape)
    return operators, torch.cat([contexts, contexts.new_zeros(E, missing)], 1)


class _AtCoefficients(nn.Module):
    """A local field whose states (S, Z) have coefficients (S, K, C) of their own."""

    def __init__(self, field: LocalField, coefficients: Tensor) -> None:
        super().__init__()
        self.field, self.coefficients = field, coefficients

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return self.field.rates(state, self.coefficients)
