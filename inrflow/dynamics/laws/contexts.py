"""Contexts of laws: coefficients theta + sum_p c_p by_context_p, with numbers c of the system that a trajectory is of.

Contexts and coefficients are solved in turn from the same normal equations (alternating least squares). Unknown
contexts start from the coefficient whose differences between systems explain most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.regression import NormalEquations
from inrflow.numerics.principal_components import standardised

_ROUNDS, _FIRST_ROUNDS = 30, 5
_SETTLED = 1e-6  # change of standardised contexts
_ROUNDING = 1e-12  # of what contexts add to a coefficient


@dataclass(frozen=True)
class Systems:
    """E systems of trajectories.

    number (S,): from 0 to E - 1; counts: numbers of contexts to try; start: contexts (E, P) that known parameters
    suggest, None where nothing is known.
    """

    number: np.ndarray
    total: int = 1
    counts: tuple[int, ...] = ()
    start: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Systems:
        """Those of some trajectories."""
        return replace(self, number=self.number[rows])

    def split(self, order: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Trajectories (in some order) that laws are fitted to, and a share that judges them.

        Contexts of P numbers are told by P + 1 systems at least, and tested by one more: where fewer would be left, a
        trajectory judges only if another one of its system is fitted to; without any, those that are fitted judge.
        """
        judged = max(1, round(share * len(order)))
        left = np.unique(self.number[order[judged:]])
        if not self.counts or len(left) > max(self.counts) + 1 or len(left) == len(np.unique(self.number)):
            return order[judged:], order[:judged]
        firsts = {self.number[row]: row for row in order[::-1]}.values()
        spare = [row for row in order if row not in firsts][:judged]
        return np.setdiff1d(order, spare), np.array(spare if spare else order)


def contexts_of(equations: NormalEquations, systems: Systems, active: list[int], count: int) -> np.ndarray:
    """Contexts (E, count) of systems, from equations of each trajectory with some active terms."""
    if not count:
        return np.zeros((systems.total, 0))
    equations, start = equations.grouped(systems.number), systems.start
    systems = replace(systems, number=np.unique(systems.number))
    contexts = first_contexts(equations, systems, active, count) if start is None else start[:, :count]
    return alternate(equations, systems, active, contexts)


def with_contexts(equations: NormalEquations, contexts: np.ndarray) -> NormalEquations:
    """Equations of trajectories with a column for each term, then for each product of context (S, P) and term."""
    weights = np.concatenate([np.ones((len(contexts), 1)), contexts], 1)  # (S, 1 + P)
    gram = np.einsum("sa,sb,slij->slaibj", weights, weights, equations.gram)
    right = np.einsum("sa,slic->slaic", weights, equations.right)
    size = weights.shape[1] * equations.gram.shape[-1]
    return replace(equations, gram=gram.reshape(*gram.shape[:2], size, size),
                   right=right.reshape(*right.shape[:2], size, -1))


def first_contexts(equations: NormalEquations, systems: Systems, active: list[int], count: int) -> np.ndarray:
    """Contexts (E, count), one by one: differences of the coefficient that explain most, then solved."""
    contexts = np.zeros((systems.total, 0))
    for _ in range(count):
        whole = with_contexts(equations, contexts[systems.number])
        columns = _columns(whole, equations, active)
        best = (-1.0, contexts[:, :0])
        for c in range(whole.right.shape[-1]):
            weights = whole.weights(c, columns)
            theta, _ = whole.solve(c, columns, weights)
            gram = np.einsum("l,slij->sij", weights, whole.gram[:, :, columns][:, :, :, columns])
            left = np.einsum("l,sli->si", weights, whole.right[:, :, columns, c]) - gram @ theta
            curve = np.diagonal(gram, axis1=1, axis2=2)
            slope, curve = (np.stack([np.bincount(systems.number, one, systems.total) for one in each.T], 1)
                            for each in (left[:, : len(active)], curve[:, : len(active)]))
            apart = slope / np.maximum(curve, 1e-300)
            gains = np.where(curve > 0, slope * apart, 0.0).sum(0)
            if gains.max() > best[0]:
                best = float(gains.max()), apart[:, [int(gains.argmax())]]
        contexts = np.concatenate([contexts, best[1]], 1)
        contexts = alternate(equations, systems, active, contexts, _FIRST_ROUNDS)
    return contexts


def alternate(equations: NormalEquations, systems: Systems, active: list[int], contexts: np.ndarray,
              rounds: int = _ROUNDS) -> np.ndarray:
    """Contexts (E, P), solved in turn with the coefficients of active terms, and standardised over their systems.

    equations: of each system.
    """
    number, size, channels = systems.number, equations.gram.shape[-1], equations.right.shape[-1]
    seen = np.unique(number)
    contexts = _standard(contexts, seen)
    for _ in range(rounds):
        whole = with_contexts(equations, contexts[number])
        theta, weights = np.zeros(((1 + contexts.shape[1]) * size, channels)), []
        columns = _columns(whole, equations, active)
        for c in range(channels):
            weights.append(whole.weights(c, columns))
            theta[columns, c] = whole.solve(c, columns, weights[c])[0]
        solved = contexts_given(equations, number, theta.reshape(-1, size, channels), weights, contexts)
        before, contexts = contexts, _standard(solved, seen)
        if np.abs(contexts - before).max() < _SETTLED:
            break
    return contexts


def contexts_given(equations: NormalEquations, number: np.ndarray, theta: np.ndarray, weights: list[np.ndarray],
                   contexts: np.ndarray) -> np.ndarray:
    """Contexts (E, P) of systems, given coefficients theta (1 + P, J, C) and weights (L,) of each channel; those of
    systems without equations are kept."""
    result = contexts.copy()
    for system in np.unique(number):
        rows = np.flatnonzero(number == system)
        matrix, right = 0.0, 0.0
        for c, each in enumerate(weights):
            gram = np.tensordot(each, equations.gram[rows].sum(0), 1)
            left = np.einsum("l,sli->i", each, equations.right[rows][..., c]) - gram @ theta[0, :, c]
            matrix, right = matrix + theta[1:, :, c] @ gram @ theta[1:, :, c].T, right + theta[1:, :, c] @ left
        result[system] = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
    return result


def standard(law: Law, systems: np.ndarray) -> Law:
    """The law with contexts of mean 0 and covariance 1 over some systems: other numbers for the same coefficients."""
    if not law.count:
        return law
    _, mean, factor = (part.numpy() for part in standardised(torch.tensor(law.contexts[systems])))
    by_context = np.einsum("pq,pjc->qjc", factor, law.by_context)
    contexts = (law.contexts - mean) @ np.linalg.inv(factor).T
    theta = law.theta_at(mean)
    theta = np.where(np.abs(theta) < _ROUNDING * np.abs(by_context).max(0), 0.0, theta)
    return replace(law, theta=theta, by_context=by_context, contexts=contexts)


def _columns(whole: NormalEquations, equations: NormalEquations, active: list[int]) -> list[int]:
    """Columns of the active terms and of their products with contexts."""
    size = equations.gram.shape[-1]
    return [j + start for start in range(0, whole.gram.shape[-1], size) for j in active]


def _standard(contexts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Contexts (E, P) whose mean is 0 and covariance 1 over those of systems that were seen; 0 for others."""
    result = np.zeros_like(contexts)
    result[seen] = standardised(torch.tensor(contexts[seen]))[0].numpy()
    return result
