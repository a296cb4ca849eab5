"""Linear dynamics from transitions of states: maps of a step, or generators in integral form, also with contexts.

Equal steps: the map of one step by ridge regression (dynamic mode decomposition).

Unequal steps, or contexts: the field A(c) = A_0 + sum_k c_k A_k. The A_k and the contexts of environments are estimated
by alternating least squares. Given contexts, the operators solve one linear system over all environments; given
operators, each context solves one of P numbers. Steps in contexts are damped, not shrunk (with a ridge, contexts would
shrink while operators grow); in the end contexts are standardised: mean 0, covariance 1.

The generator G of the affine flow on [1, s] is estimated from the integral form of the equation. For a current guess of
G, the residual of the exact flow, moved back to the middle of the step, is (to second order) the change of G times the
integral of the state over the step. Hence normal equations G (M M^T) = (T M^T) of moments M and targets T for each
environment, recomputed for each guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from inrflow.encoding.encode import CodeData
from inrflow.numerics.matrix_functions import flow, with_resolved_rates
from inrflow.numerics.principal_components import standardised
from inrflow.numerics.ridge import damped_solve

Equations = tuple[Tensor, Tensor]

_DAMPING = 1e-3
_SETTLED = 1e-6  # tolerance of contexts
_GAIN = 1e-2  # relative decrease below which iteration ends, for unequal steps
ROUNDING = 1e-15  # added to normal equations with unit diagonal


@dataclass
class Transitions:
    """Pairs of successive states: start (P, n), end (P, n), and the time between them, step (P,), internal units."""

    start: Tensor
    end: Tensor
    step: Tensor

    @property
    def uniform(self) -> bool:
        """Whether all steps are equal; False without transitions."""
        return len(self.step) > 0 and bool((self.step - self.step[0]).abs().max() < 1e-4 * self.step[0].abs())

    @property
    def with_one(self) -> Transitions:
        """Transitions of [1, s]."""
        start, end = (pad(state, (1, 0), value=1.0) for state in (self.start, self.end))
        return Transitions(start, end, self.step)

    def truncated(self, size: int) -> Transitions:
        """Transitions of the leading dimensions."""
        return Transitions(self.start[:, :size], self.end[:, :size], self.step)


def transitions_of(data: CodeData) -> Transitions:
    """All pairs of successive observed frames of states (S, T, n)."""
    row, frame = data.observed.nonzero(as_tuple=True)  # ordered by trajectory
    same = row[1:] == row[:-1]
    row, start, end = row[1:][same], frame[:-1][same], frame[1:][same]
    step = data.t[row, end] - data.t[row, start]
    return Transitions(data.codes[row, start].double(), data.codes[row, end].double(), step)


class LinearFit:
    """Ridge regressions of one data set for any size and ridge, from one pass over the transitions.

    Codes are ordered by variance, so the regression on the first n of them is a leading block of the same normal
    equations. The ridge is relative to the mean diagonal of the Gram matrix.
    """

    def __init__(self, transitions: Transitions) -> None:
        self.transitions, start = transitions, transitions.with_one.start
        self.gram, self.cross = start.T @ start, start.T @ transitions.end

    def step_map(self, size: int, ridge: float) -> Tensor:
        """Affine map (n + 1, n + 1) of one time step on [1, s], for uniform steps only. The ridge pulls towards the
        mean."""
        gram = self.gram[: size + 1, : size + 1].clone()
        gram.diagonal()[1:].add_(ridge * gram.diagonal()[1:].mean())
        gram.diagonal()[0].add_(1e-12 * gram[0, 0])
        weights = torch.linalg.solve(gram, self.cross[: size + 1, :size])
        return torch.cat([torch.eye(1, size + 1, dtype=torch.float64), weights.T])


def affine_rollout(
    data: CodeData, step: float | None, step_map: Tensor | None, move: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Forecasts (S, T - 1, n) of states (S, T, n) from the first observed frames, and which (S, T - 1) count.

    Args:
        step: time step of `step_map`, (m, m) or (S, m, m) on [1, s], which is used where the gaps of all trajectories
            equal it.
        move: function of states [1, s] (S, m) and times (S,) that is used for other gaps.
    """
    states, observed = pad(data.codes.double(), (1, 0), value=1.0), data.observed
    gaps = data.t[:, 1:] - data.t[:, :-1]
    finite, gaps = torch.isfinite(gaps), gaps.nan_to_num(0.0)
    alike = [False] * gaps.shape[1]
    if step is not None:
        alike = (((gaps - step).abs() < 1e-3 * step) | ~finite).all(0).tolist()
    begun = observed.cummax(1).values
    late = not bool(observed[:, 0].all())
    state, path = states[:, 0], []
    for i, equal in enumerate(alike):
        if equal and step_map is not None:
            state = state @ step_map.T if step_map.dim() == 2 else torch.einsum("sij,sj->si", step_map, state)
        else:
            state = move(state, gaps[:, i])
        if late:  # forecasts begin at the first observed frame
            state = torch.where(begun[:, i, None], state, states[:, i + 1])
        path.append(state)
    forecast = torch.stack(path, 1) if path else states[:, 1:]
    return forecast[..., 1:], finite & begun[:, :-1] & observed[:, 1:]


@dataclass
class Moments:
    """Transitions of each environment, on [1, codes]."""

    transitions: list[Transitions]

    @property
    def size(self) -> int:
        """Number of codes n."""
        return self.transitions[0].start.shape[-1] - 1

    @property
    def counts(self) -> Tensor:
        """Transitions (E,) of each environment."""
        return torch.tensor([len(pairs.start) for pairs in self.transitions])

    def truncated(self, size: int) -> Moments:
        """Moments of the first `size` codes."""
        return Moments([pairs.truncated(size + 1) for pairs in self.transitions])

    def first_guess(self) -> Equations:
        """Normal equations (E, m, m) and (E, n, m) of the trapezoidal rule, which needs no initial guess; m = n + 1."""
        return _normal_equations([(pairs.step[:, None] * (pairs.start + pairs.end) / 2, pairs.end - pairs.start)
                                  for pairs in self.transitions])

    def about(self, generators: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normal equations (E, m, m) and (E, n, m) linearised about generators (E, m, m), and the sums of squares (E,)
        of the residuals of their flow at the end of the steps."""
        parts, errors = [], []
        for pairs, generator in zip(self.transitions, generators, strict=True):
            half = pairs.step / 2
            middle = flow(generator, pairs.start, half)
            predicted = flow(generator, middle, half)
            missed = flow(generator, pairs.end - predicted, -half)
            parts.append((pairs.step[:, None] * (pairs.start + 4 * middle + predicted) / 6, missed))  # Simpson's rule
            errors.append((pairs.end - predicted).square().sum())
        gram, target = _normal_equations(parts)
        return gram, target + (generators @ gram)[:, 1:], torch.stack(errors)

    def variance(self) -> Tensor:
        """Sums of squares (E,) of the changes over a step: the residual of constant states."""
        return torch.stack([(pairs.end - pairs.start).square().sum() for pairs in self.transitions])


def moments_of(data: CodeData, environment: Tensor, environments: int) -> Moments:
    """Transitions of codes of trajectories, grouped by environments (S,), which are numbered from 0.

    Environments without any transition give moments of zero.
    """
    return Moments([transitions_of(data.at(environment == e)).with_one for e in range(environments)])


def _normal_equations(parts: list[tuple[Tensor, Tensor]]) -> Equations:
    """Normal equations (E, m, m) and (E, n, m) of the moments and targets (P, m) of each environment."""
    return (torch.stack([moment.T @ moment for moment, _ in parts]),
            torch.stack([(target.T @ moment)[1:] for moment, target in parts]))


@dataclass
class ContextFit:
    """A linear field with contexts.

    Attributes:
        operators: (1 + P, n, 1 + n), [bias, matrix] of the mean field and of each context.
        contexts: (E, P) of the training environments, standardised unless `given`.
        residual: squared residual of the flow over a step, relative to the squared change.
        ridge: of the operators.
        given: whether contexts were given (known parameters) instead of fitted.
    """

    operators: Tensor
    contexts: Tensor
    residual: float
    ridge: float
    given: bool = False

    @property
    def size(self) -> int:
        """Number of codes n."""
        return self.operators.shape[1]

    @property
    def context_size(self) -> int:
        """Number of components P of a context."""
        return self.contexts.shape[1]

    def generators(self, contexts: Tensor | None = None) -> Tensor:
        """Generators (E, 1 + n, 1 + n) on [1, s] at contexts (E, P), those of the training environments if None."""
        return generators_at(self.operators, self.contexts if contexts is None else contexts)


def generators_at(operators: Tensor, contexts: Tensor) -> Tensor:
    """Generators (E, 1 + n, 1 + n) on [1, s] for operators (1 + P, n, 1 + n) at contexts (E, P)."""
    field = torch.einsum("ek,kij->eij", pad(contexts, (1, 0), value=1.0), operators)
    return pad(field, (0, 0, 1, 0))


def refine(moments: Moments, contexts: Tensor, ridge: float, rounds: int = 8, gain: float = 1e-6, given: bool = False
           ) -> ContextFit:
    """The field for all codes of `moments`, starting from contexts (E, P), which are refitted unless `given`; iterates
    while the residual of the flow decreases by more than a share `gain`."""
    total = max(float(moments.variance().sum()), 1e-300)

    def fitted(operators: Tensor, contexts: Tensor) -> tuple[ContextFit, Equations]:
        gram, target, error = moments.about(generators_at(operators, contexts))
        residual = float(error.sum()) / total
        residual = residual if residual == residual else math.inf
        return ContextFit(operators, contexts, residual, ridge, given), (gram, target)

    best, equations = fitted(solve_operators(*moments.first_guess(), contexts, ridge), contexts)
    for _ in range(rounds):
        contexts = best.contexts
        operators = solve_operators(*equations, contexts, ridge)
        for _ in range(2 if contexts.shape[1] and not given else 0):
            contexts = solve_contexts(*equations, operators, contexts)
            operators = solve_operators(*equations, contexts, ridge)
        candidate, again = fitted(operators, contexts)
        if not candidate.residual < best.residual:  # fast dynamics: the linearisation holds for small changes only
            candidate, again = fitted((best.operators + operators) / 2, (best.contexts + contexts) / 2)
            if not candidate.residual < best.residual:
                break
        settled = best.residual - candidate.residual < gain * candidate.residual
        best, equations = candidate, again
        if settled:
            break
    if given or not best.context_size:
        return best
    contexts, mean, factor = standardised(best.contexts)  # of the same field
    base, directions = best.operators[0], best.operators[1:]
    return replace(best, contexts=contexts, operators=torch.cat([
        (base + torch.einsum("k,kij->ij", mean, directions))[None], torch.einsum("kl,kij->lij", factor, directions)]))


def contexts_of(moments: Moments, operators: Tensor, rounds: int = 8) -> Tensor:
    """Contexts (E, P) of other environments for known operators, starting from the mean context."""
    contexts = torch.zeros(len(moments.counts), len(operators) - 1, dtype=torch.float64)
    equations = moments.first_guess()
    for _ in range(rounds):
        before = contexts
        contexts = solve_contexts(*equations, operators, contexts)
        if float((contexts - before).abs().max()) < _SETTLED:
            break
        equations = moments.about(generators_at(operators, contexts))[:2]
    return contexts


def solve_operators(gram: Tensor, target: Tensor, contexts: Tensor, ridge: float) -> Tensor:
    """Operators (1 + P, n, m) that solve the normal equations gram (E, m, m), target (E, n, m) at contexts (E, P).

    The ridge is relative to the mean diagonal of the moments; the bias of the mean field is not penalised. Codes are
    scaled to unit moments so that rounding does not dominate the smallest ones.
    """
    weights = pad(contexts, (1, 0), value=1.0)
    parts, m = weights.shape[1], gram.shape[-1]
    total = gram.sum(0).diagonal()
    size = total.clamp(min=1e-30 * float(total.max()) + 1e-300).sqrt()
    scaled = gram / size[:, None] / size
    matrix = torch.einsum("ek,el,eij->kilj", weights, weights, scaled).reshape(parts * m, parts * m)
    right = torch.einsum("ek,eni->kin", weights, target / size).reshape(parts * m, -1)
    added = (ridge * total[1:].mean() / size.square()).repeat(parts)
    added[0] = 0.0
    matrix.diagonal().add_(added + ROUNDING)
    return torch.linalg.solve(matrix, right).reshape(parts, m, -1).transpose(1, 2) / size


def solve_contexts(gram: Tensor, target: Tensor, operators: Tensor, contexts: Tensor) -> Tensor:
    """Contexts (E, P) of least squares for given operators; a damped step from `contexts`."""
    base, directions = operators[0], operators[1:]
    moved = torch.einsum("kni,eij->eknj", directions, gram)
    hessian = torch.einsum("eknj,lnj->ekl", moved, directions)
    residual = target - torch.einsum("ni,eij->enj", base, gram)
    gradient = torch.einsum("enj,knj->ek", residual, directions) - torch.einsum("ekl,el->ek", hessian, contexts)
    return contexts + damped_solve(hessian, gradient, _DAMPING)


def fit_irregular(transitions: Transitions, ridge: float) -> tuple[Tensor, Tensor]:
    """Matrix A (n, n) and bias b (n,) of ds/dt = A s + b from transitions over unequal steps; exact for exact data.

    The ridge is relative to the mean square of the states; the bias is not penalised.
    """
    operators = refine(Moments([transitions.with_one]), torch.zeros(1, 0).double(), ridge, gain=_GAIN).operators[0]
    return with_resolved_rates(operators[:, 1:], operators[:, 0], float(transitions.step.median()))
