"""Linear fields with contexts in closed form: A(c) = A_0 + sum_k c_k A_k, the A_k and the contexts of the training
environments found together by alternating least squares on code transitions.

Given contexts, the operators are one linear solve over all environments; given operators, each context is a solve of P
numbers. Between rounds the normal equations are renewed about the current field, so that the result is that of the
exact flow, not of a finite difference. Contexts are damped, not shrunk (a ridge on them would make them vanish into
the operators), and in the end standardised over the environments: mean 0, covariance 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fitting.moments import Moments
from inrflow.numerics.principal_components import standardised
from inrflow.numerics.ridge import damped_solve

Equations = tuple[Tensor, Tensor]

_SMALL = 48  # codes with which contexts are found from nothing
_ROUNDS = 40
_DAMPING = 1e-3
_SETTLED = 1e-6
_ROUNDING = 1e-15  # of normal equations with unit diagonal


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
