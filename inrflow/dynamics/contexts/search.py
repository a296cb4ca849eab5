"""Linear fields with contexts, A(c) = A_0 + sum_k c_k A_k: how many codes, how many contexts, which ridge.

The A_k and the contexts of the training environments are found together by alternating least squares on code
transitions. Given contexts, the operators are one linear solve over all environments; given operators, each context is
a solve of P numbers. Between rounds the normal equations are renewed about the current field, so that the result is
that of the exact flow, not of a finite difference. Contexts are damped, not shrunk (a ridge on them would make them
vanish into the operators), and in the end standardised over the environments: mean 0, covariance 1.

Candidates are scored by rollouts of held-out trajectories of the same environments. A trajectory of a new environment
(as where every trajectory has a context of its own) gets its context from its own transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fitting.linear import affine_rollout
from inrflow.dynamics.fitting.moments import Moments, moments_of
from inrflow.dynamics.states import CodeData, evenly_spread
from inrflow.numerics.matrix_functions import flow
from inrflow.numerics.principal_components import standardised
from inrflow.numerics.ridge import damped_solve, ridge_grid

Equations = tuple[Tensor, Tensor]

_FIRST_RIDGE = 1e-8
_RIDGES = (1e-16, *(ridge for ridge in ridge_grid(-12, -2) if ridge != _FIRST_RIDGE))
_CLEARLY_BETTER = 0.95
_ENOUGH = 1.2  # transitions for each unknown of a row of the operators
_MOMENT_VALUES = 1.2e8
_SMALL = 48  # codes with which contexts are found from nothing
_ROUNDS = 40
_DAMPING = 1e-3
_SETTLED = 1e-6
_ROUNDING = 1e-15  # of normal equations with unit diagonal


@dataclass(frozen=True)
class ContextCandidate:
    """size: codes; contexts: P; ridge: of the operators."""

    size: int
    contexts: int
    ridge: float


class ContextSearch:
    """Fits and judges fields with contexts.

    Args:
        training, environment: codes (S, T, n) of training trajectories and copies, and which environment (S,) each
            belongs to, numbered from 0 to `environments` - 1.
        held, held_environment: of held-out trajectories; -1 where the environment is not among those of training.
        floor: error of the decoder alone, share of the variance.
    """

    def __init__(
        self,
        training: CodeData,
        environment: Tensor,
        environments: int,
        held: CodeData,
        held_environment: Tensor,
        floor: float = 0.0,
    ) -> None:
        self.training, self.environment = training, environment
        self.moments = moments_of(training, environment, environments)
        self.held, self.held_environment = held, held_environment
        self.floor = floor
        self.transitions = int(self.moments.counts.sum())
        seen = training.codes[training.observed]
        self.variance = float((seen - seen.mean(0)).square().sum(1).mean())
        self.new = (held_environment < 0).nonzero()[:, 0]
        self.new_moments: Moments | None = None
        if len(self.new):
            rows = self.new
            part = CodeData(held.codes[rows], held.t[rows], held.observed[rows])
            self.new_moments = moments_of(part, torch.arange(len(rows)), len(rows))

    def determined(self, size: int, contexts: int) -> bool:
        """Whether there are more transitions than unknowns."""
        return self.transitions >= _ENOUGH * (1 + contexts) * (1 + size)

    def fit(
        self, size: int, contexts: Tensor, ridge: float, rounds: int = 6, data: tuple[CodeData, Tensor] | None = None,
    ) -> ContextFit:
        """A field for the first `size` codes; fitted to other `data` than those of training, codes and the number (S,)
        of the environment of each."""
        moments = self.moments if data is None else moments_of(*data, len(self.moments.counts))
        return refine(moments.truncated(size), contexts, ridge, rounds)

    def held_contexts(self, fit: ContextFit) -> Tensor:
        """Contexts (S, P) of the held-out trajectories in a field."""
        contexts = torch.zeros(len(self.held.codes), fit.context_size, dtype=torch.float64)
        known = self.held_environment >= 0
        contexts[known] = fit.contexts[self.held_environment[known]]
        if self.new_moments is not None:
            size = fit.operators.shape[1]
            contexts[self.new] = contexts_of(self.new_moments.truncated(size), fit.operators)
        return contexts

    def score(self, fit: ContextFit) -> float:
        """Mean squared error of rollouts of the held-out trajectories over the variance of the codes; what the field's
        size cuts off counts."""
        return rollout_score(fit, self.held_contexts(fit), self.held, self.moments.step) / self.variance

    def search(self, sizes: Sequence[int], counts: Sequence[int]) -> tuple[ContextCandidate, ContextFit, float]:
        """The best of the code sizes and context sizes, simpler ones first: more must be clearly better; its field and
        the validation error, share of the variance of the codes."""
        scores: dict[ContextCandidate, float] = {}
        fits: dict[ContextCandidate, ContextFit] = {}
        limit = int((_MOMENT_VALUES / max(1, len(self.moments.counts))) ** 0.5)

        def try_one(candidate: ContextCandidate, start: Tensor) -> None:
            fit = self.fit(candidate.size, start, candidate.ridge)
            value = self.score(fit)
            fits[candidate], scores[candidate] = fit, value if value == value else float("inf")

        for count in counts:
            start = fit_contexts(self.moments, count, _FIRST_RIDGE)
            possible = [size for size in sizes if self.determined(size, start.shape[1]) and size <= limit]
            possible = sorted(set(possible)) or [min(sizes)]
            for size in (possible[i] for i in evenly_spread(len(possible), 6)):
                try_one(ContextCandidate(size, start.shape[1], _FIRST_RIDGE), start)
        best = self._best(scores)
        for ridge in _RIDGES:
            try_one(ContextCandidate(best.size, best.contexts, ridge), fits[best].contexts)
        best = self._best(scores)
        return best, fits[best], scores[best]

    def _best(self, scores: dict[ContextCandidate, float]) -> ContextCandidate:
        ordered = sorted(scores, key=lambda c: (c.contexts, c.size, -c.ridge))
        best = ordered[0]
        for candidate in ordered[1:]:
            if scores[candidate] + self.floor < _CLEARLY_BETTER * (scores[best] + self.floor):
                best = candidate
        return best


def rollout_score(fit: ContextFit, contexts: Tensor, held: CodeData, step: float | None) -> float:
    """Mean squared error of rollouts of trajectories at contexts (S, P) from their first observed frames.

    step: the time step that all frames share, if they do.
    """
    size = fit.operators.shape[1]
    distinct, which = torch.unique(contexts, dim=0, return_inverse=True)
    generators = fit.generators(distinct)

    def move(state: Tensor, gap: Tensor) -> Tensor:
        moved = torch.empty_like(state)
        for index, generator in enumerate(generators):
            rows = which == index
            moved[rows] = flow(generator, state[rows], gap[rows])
        return moved

    states = torch.nn.functional.pad(held.codes[..., :size], (1, 0), value=1.0).double()
    maps = torch.linalg.matrix_exp(generators * step)[which] if step else None
    forecast, seen = affine_rollout(states, held.observed, held.t, step or None, maps, move)
    error = held.codes[:, 1:].double().clone()
    error[..., :size] -= forecast[..., 1:]
    value = float(error[seen].square().sum(1).mean()) if bool(seen.any()) else float("inf")
    return value if value == value else float("inf")


def contexts_of_parameters(known: Tensor, contexts: int) -> Tensor:
    """Standardised contexts (E, P) to begin with: standardised known parameters (E, Q) and their squares."""
    if known.shape[1] > contexts:
        known = (known - known.mean(0)) / known.std(0, correction=0).clamp(min=1e-12)
    values = standardised(known)[0][:, :contexts]
    while values.shape[1] < contexts:
        extra = values[:, : contexts - values.shape[1]] ** 2
        values = torch.cat([values, extra], 1)
    return standardised(values[:, : len(values) - 1])[0]


@dataclass
class ContextFit:
    """A linear field with contexts.

    Attributes:
        operators: (1 + P, n, 1 + n), [bias, matrix] of the mean field and of what a unit of each context adds.
        contexts: (E, P) of the training environments, standardised.
        residual: what the flow misses of the transitions, share of the change over a step.
    """

    operators: Tensor
    contexts: Tensor
    residual: float

    @property
    def context_size(self) -> int:
        """P."""
        return self.contexts.shape[1]

    def generators(self, contexts: Tensor | None = None) -> Tensor:
        """Generators (E, 1 + n, 1 + n) on [1, s] at contexts (E, P), those of the training environments if None."""
        return generators_at(self.operators, self.contexts if contexts is None else contexts)


def generators_at(operators: Tensor, contexts: Tensor) -> Tensor:
    """Generators (E, 1 + n, 1 + n) on [1, s] of operators (1 + P, n, 1 + n) at contexts (E, P)."""
    field = torch.einsum("ek,kij->eij", _with_one(contexts), operators)
    return torch.nn.functional.pad(field, (0, 0, 1, 0))


def fit_contexts(moments: Moments, context_size: int, ridge: float) -> Tensor:
    """Contexts (E, P) of the environments when nothing is known of them, standardised; at most E - 1 can be told apart.

    They start from the principal components of how the operators of single environments depart from that of all.
    """
    size = min(context_size, len(moments.counts) - 1)
    small = moments.truncated(min(_SMALL, moments.size))
    gram, target = small.first_guess()
    every = gram.mean(0) + _ROUNDING * gram.mean(0).diagonal().max() * torch.eye(gram.shape[-1], dtype=gram.dtype)
    pooled = torch.linalg.solve(every, target.mean(0).T).T
    apart = torch.linalg.solve(gram + every, (target - pooled @ gram).mT)  # (E, m, n)
    table = (torch.linalg.cholesky(every).T @ apart).flatten(1)  # in units of what they change
    values, sizes, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return refine(small, standardised((values * sizes)[:, :size])[0], ridge, _ROUNDS).contexts


def refine(
    moments: Moments, contexts: Tensor, ridge: float, rounds: int = 8, move_contexts: bool = True
) -> ContextFit:
    """The field for all codes of `moments`, from contexts (E, P); these are solved again too if `move_contexts`."""
    total = max(float(moments.variance().sum()), 1e-300)
    move_contexts = move_contexts and contexts.shape[1] > 0

    def fitted(operators: Tensor, contexts: Tensor) -> tuple[ContextFit, Equations]:
        gram, target, error = moments.about(generators_at(operators, contexts))
        residual = float(error.sum()) / total
        return ContextFit(operators, contexts, residual if residual == residual else float("inf")), (gram, target)

    best, equations = fitted(solve_operators(*moments.first_guess(), contexts, ridge), contexts)
    for _ in range(rounds):
        contexts = best.contexts
        operators = solve_operators(*equations, contexts, ridge)
        for _ in range(2 if move_contexts else 0):
            contexts = solve_contexts(*equations, operators, contexts)
            operators = solve_operators(*equations, contexts, ridge)
        candidate, again = fitted(operators, contexts)
        if not candidate.residual < best.residual:  # fast dynamics: the correction is right for small changes only
            candidate, again = fitted((best.operators + operators) / 2, (best.contexts + contexts) / 2)
            if not candidate.residual < best.residual:
                break
        settled = best.residual - candidate.residual < _SETTLED * candidate.residual
        best, equations = candidate, again
        if settled:
            break
    return in_gauge(best) if move_contexts else best


def contexts_of(moments: Moments, operators: Tensor, rounds: int = 8) -> Tensor:
    """Contexts (E, P) of other environments in a field that is known, from their mean."""
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

    The ridge is relative to the mean diagonal of the moments and spares the bias of the mean field. Codes enter in
    units of their own size, so that rounding does not drown the smallest of them.
    """
    weights = _with_one(contexts)
    parts, m = weights.shape[1], gram.shape[-1]
    total = gram.sum(0).diagonal()
    size = total.clamp(min=1e-30 * float(total.max()) + 1e-300).sqrt()
    scaled = gram / size[:, None] / size
    matrix = torch.einsum("ek,el,eij->kilj", weights, weights, scaled).reshape(parts * m, parts * m)
    right = torch.einsum("ek,eni->kin", weights, target / size).reshape(parts * m, -1)
    added = (ridge * total[1:].mean() / size.square()).repeat(parts)
    added[0] = 0.0
    matrix.diagonal().add_(added + _ROUNDING)
    return torch.linalg.solve(matrix, right).reshape(parts, m, -1).transpose(1, 2) / size


def solve_contexts(gram: Tensor, target: Tensor, operators: Tensor, contexts: Tensor) -> Tensor:
    """Contexts (E, P) that fit each environment best given the operators; a damped step from `contexts`."""
    base, directions = operators[0], operators[1:]
    moved = torch.einsum("kni,eij->eknj", directions, gram)
    hessian = torch.einsum("eknj,lnj->ekl", moved, directions)
    residual = target - torch.einsum("ni,eij->enj", base, gram)
    gradient = torch.einsum("enj,knj->ek", residual, directions) - torch.einsum("ekl,el->ek", hessian, contexts)
    return contexts + damped_solve(hessian, gradient, _DAMPING)


def in_gauge(fit: ContextFit) -> ContextFit:
    """The same field with standardised contexts."""
    contexts, mean, factor = standardised(fit.contexts)
    base = fit.operators[0] + torch.einsum("k,kij->ij", mean, fit.operators[1:])
    directions = torch.einsum("kl,kij->lij", factor, fit.operators[1:])
    return ContextFit(torch.cat([base[None], directions]), contexts, fit.residual)


def _with_one(contexts: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(contexts[:, :1]) if contexts.shape[1] else
                      contexts.new_ones(len(contexts), 1), contexts], 1)
