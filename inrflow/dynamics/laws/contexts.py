"""Contexts of laws: coefficients theta + sum_p c_p by_context_p, with numbers c of the system that a trajectory is of.

Contexts and coefficients are solved in turn from the same normal equations (alternating least squares), with the terms
of one law only: with all terms of a family, contexts of few systems fit other errors and do not generalise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from inrflow.domains import Flows
from inrflow.dynamics.laws.law import Law, integrable, node_rollouts
from inrflow.dynamics.laws.regression import NormalEquations, SparseLaw, sparse_laws
from inrflow.dynamics.laws.setting import Data, EncodedData, Systems, encode
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.numerics.principal_components import standardised

_OF_NOISE = 0.02  # error of integrator steps over the noise
_WIDER, _MOST_OF_POINTS, _MOST_CODES = 3, 0.75, 1600  # harmonics of noisy data: factor, most per point, most codes
_LESS = 0.1  # ratio of misfits below which solved contexts replace given ones
_ROUNDS = 10
_RIDGE = 1e-13  # of scaled normal equations
_SETTLED = 1e-6  # change of standardised contexts
_FLOWN, _SECONDS = 4, 4.0  # of `with_new_contexts`: rounds; seconds of effort
_ROUNDING = 1e-12  # coefficients are zero below this share of by_context


@dataclass(frozen=True)
class LawsWithContexts:
    """Laws with contexts of `count` numbers, on the supports of laws without contexts (`simple`).

    equations: of each trajectory; active: candidate terms; given: given contexts (E, count), None where they are
    solved; known: solved laws by support and count, which searches of the same equations share.
    """

    equations: NormalEquations
    systems: Systems
    active: list[int]
    simple: Sequence[SparseLaw]
    cumulative: bool
    count: int
    given: np.ndarray | None = None
    known: dict[tuple, tuple[np.ndarray, list[SparseLaw]]] = field(default_factory=dict)

    @cached_property
    def laws(self) -> list[tuple[np.ndarray, list[SparseLaw]]]:
        """Contexts, each with laws of several sizes."""
        size = self.equations.gram.shape[-1]
        every = (tuple(tuple(sorted({j % size for j in own})) for own in one[0]) for one in self.simple)
        return [self._on(support) for support in filter(any, dict.fromkeys(every))]

    def _on(self, support: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, list[SparseLaw]]:
        """Contexts solved on a support, and laws of several sizes at these."""
        key = support, self.count, None if self.given is None else self.given.tobytes()
        if key not in self.known:
            self.known[key] = (contexts := self._contexts(support)), self._solved(contexts, support)
        return self.known[key]

    @property
    def misfit(self) -> float:
        """Least misfit of all laws."""
        return min((law[3] for _, solved in self.laws for law in solved), default=math.inf)

    def reselected(self, pays: bool) -> LawsWithContexts:
        """Search on supports that are selected at the contexts of the best law; where these do not pay, at contexts
        solved with all active terms."""
        every = (tuple(sorted(self.active)),) * self.equations.right.shape[-1]
        if not pays or self.given is not None:
            return replace(self, simple=self._on(every)[1])
        contexts, _ = min(self.laws, key=lambda pair: min(law[3] for law in pair[1]))
        return replace(self, simple=self._solved(contexts, every))

    def _contexts(self, support: Sequence[Sequence[int]]) -> np.ndarray:
        return contexts_of(self.equations, self.systems, support, self.count) if self.given is None else self.given

    def _solved(self, contexts: np.ndarray, support: Sequence[Sequence[int]]) -> list[SparseLaw]:
        size, names = self.equations.gram.shape[-1], sorted({j for own in support for j in own})  # few terms of many
        whole = context_columns(names, size, self.count)
        equations = with_contexts(self.equations.only(names), contexts[self.systems.number])
        columns = [context_columns([names.index(j) for j in own], len(names), self.count) for own in support]
        placed = np.eye((1 + self.count) * size)[:, whole]
        return [(tuple(tuple(whole[j] for j in own) for own in chosen), placed @ theta, placed @ std, misfit)
                for chosen, theta, std, misfit in sparse_laws(equations.folded, columns, len(whole))]


def context_searches(searches: Sequence[Callable[..., LawsWithContexts]], count: int, given: Sequence[np.ndarray],
                     solve: bool) -> list[LawsWithContexts]:
    """Searches of several families with contexts of `count` numbers, the least misfit first. Contexts are the best of
    those given (`given`, (E, P)) or, if `solve`, solved ones, where none are given or solved ones explain far more."""
    forms = [form for form in given if form.shape[1] == count]
    known = sorted((min((search(count=count, given=form) for form in forms), key=lambda one: one.misfit)
                    for search in searches if forms), key=lambda one: one.misfit)
    if not solve or known and not replace(known[0], given=None).misfit < _LESS * known[0].misfit:
        return known
    return sorted((search(count=count) for search in searches), key=lambda one: one.misfit)


def contexts_of(equations: NormalEquations, systems: Systems, active: Sequence[Sequence[int]], count: int
                ) -> np.ndarray:
    """Contexts (E, count) of systems, from equations of each trajectory with some active terms of each channel.

    They start from the principal components of the systems' own coefficients, in the metric of their normal matrices,
    that is, in units of their standard errors.
    """
    contexts = np.zeros((systems.total, count))
    if not count:
        return contexts
    names, seen = sorted({j for own in active for j in own}), np.unique(systems.number)
    equations = equations.grouped(systems.number).only(names)
    terms = [[names.index(j) for j in own] for own in active]
    table = np.concatenate([_separate_coefficients(equations, c, own) for c, own in enumerate(terms)], 1)
    values, sizes, _ = np.linalg.svd(table - table.mean(0), full_matrices=False)
    known = min(count, len(sizes))
    contexts[seen, :known] = values[:, :known] * sizes[:known]
    return alternating_least_squares(equations, replace(systems, number=seen), terms, contexts)


def _separate_coefficients(equations: NormalEquations, c: int, active: list[int]) -> np.ndarray:
    """Coefficients (E, M) of channel c in each system alone, in units where their mean normal matrix is 1."""
    weights = equations.weights(c, active)
    grams = np.einsum("l,slij->sij", weights, equations.gram[:, :, active][:, :, :, active])
    rights = np.einsum("l,sli->si", weights, equations.right[:, :, active, c])
    size = np.sqrt(np.maximum(np.einsum("sii->i", grams), 1e-300))
    grams, rights = grams / size / size[:, None] + _RIDGE * np.eye(len(active)), rights / size
    values, vectors = np.linalg.eigh(grams.mean(0))
    return np.linalg.solve(grams, rights[..., None])[..., 0] @ (vectors * np.sqrt(np.maximum(values, 0.0)))


def with_contexts(equations: NormalEquations, contexts: np.ndarray) -> NormalEquations:
    """Equations of trajectories with columns for each term and each product of a context number (S, P) and a term."""
    weights = np.concatenate([np.ones((len(contexts), 1)), contexts], 1)  # (S, 1 + P)
    gram = np.einsum("sa,sb,slij->slaibj", weights, weights, equations.gram)
    right = np.einsum("sa,slic->slaic", weights, equations.right)
    size = weights.shape[1] * equations.gram.shape[-1]
    return replace(equations, gram=gram.reshape(*gram.shape[:2], size, size),
                   right=right.reshape(*right.shape[:2], size, -1))


def alternating_least_squares(equations: NormalEquations, systems: Systems, active: Sequence[list[int]],
                              contexts: np.ndarray, rounds: int = _ROUNDS) -> np.ndarray:
    """Contexts (E, P) by alternating least squares with the coefficients of the active terms of each channel.

    equations: of each system. Contexts are standardised over their systems.
    """
    number, size, channels = systems.number, equations.gram.shape[-1], equations.right.shape[-1]
    seen = np.unique(number)
    contexts = _standard(contexts, seen)
    for _ in range(rounds):
        whole = with_contexts(equations, contexts[number])
        theta, weights = np.zeros(((1 + contexts.shape[1]) * size, channels)), []
        for c, terms in enumerate(active):
            columns = context_columns(terms, size, contexts.shape[1])
            weights.append(whole.weights(c, columns))
            theta[columns, c] = whole.solve(c, columns, weights[c])[0]
        solved = solve_contexts(equations, number, theta.reshape(-1, size, channels), weights, contexts)
        before, contexts = contexts, _standard(solved, seen)
        if np.abs(contexts - before).max() < _SETTLED:
            break
    return contexts


def solve_contexts(equations: NormalEquations, number: np.ndarray, theta: np.ndarray, weights: list[np.ndarray],
                   contexts: np.ndarray) -> np.ndarray:
    """Contexts (E, P) by least squares, given coefficients theta (1 + P, J, C) and weights (L,) of each channel; those
    of systems without equations are kept."""
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


def standardise_contexts(law: Law, systems: np.ndarray) -> Law:
    """Law with contexts of mean 0 and covariance 1 over some systems, and the same coefficients in each system."""
    _, mean, factor = (part.numpy() for part in standardised(torch.tensor(law.contexts[systems])))
    by_context = np.einsum("pq,pjc->qjc", factor, law.by_context)
    contexts = (law.contexts - mean) @ np.linalg.inv(factor).T
    theta = law.theta_at(mean)
    theta = np.where(np.abs(theta) < _ROUNDING * np.abs(by_context).max(0), 0.0, theta)
    return replace(law, theta=theta, by_context=by_context, contexts=contexts)


def context_columns(active: Sequence[int], size: int, count: int) -> list[int]:
    """Columns of the active ones of `size` terms, and of their products with `count` context numbers."""
    return [j + p * size for p in range(1 + count) for j in active]


def _standard(contexts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Contexts (E, P) standardised to mean 0 and covariance 1 over the systems that were seen; 0 for others."""
    result = np.zeros_like(contexts)
    result[seen] = standardised(torch.tensor(contexts[seen]))[0].numpy()
    return result


def with_new_contexts(law: Law, train: Data, judge: Data) -> Law:
    """Law with contexts of systems that only `judge` has, solved from equations along splines and then, without rates,
    repeatedly along its own flow."""
    rows = np.flatnonzero(~np.isin(judge.systems.number, train.systems.number))
    if law.contexts_given or not len(rows):
        return law
    encoded = EncodedData.of(law, judge.take(rows))
    number = encoded.train.systems.number
    theta = np.concatenate([law.theta[None], law.by_context])[..., law.columns]
    active, new = [np.flatnonzero(own).tolist() for own in (theta != 0).any(0).T], np.unique(number)
    for system in new:
        own, paths = encoded.take(np.flatnonzero(number == system)), None
        with suppress(OutOfTime), effort.limited(Limit(effort() + _SECONDS / len(new))):
            for _ in range(_FLOWN):
                (equations,) = own.equations(law.terms, paths=paths, rates=law.rates)
                weights = [equations.weights(c, terms) for c, terms in enumerate(active)]
                same = np.full(len(equations.gram), system)
                law = replace(law, contexts=solve_contexts(equations, same, theta, weights, law.contexts))
                paths = None if law.has_rates else node_rollouts(law, own.train.t, own.states, own.train.systems.number)
                if paths is None:
                    break
    return law


def on_more_harmonics(law: Law, train: Data) -> Law:
    """Law on more harmonics, including those hidden by noise, which its flow determines and products need; with steps
    as accurate as the noise requires."""
    observed, few = int(np.isfinite(train.u[0, 0, :, 0]).sum()), law.codes.harmonics.count
    count = min(_WIDER * few, int(_MOST_OF_POINTS * observed), _MOST_CODES // train.u.shape[-1])
    if isinstance(law.domain, Flows):
        return law
    codes = fit_codes(law.domain.harmonics(count, law.boundary), train.x, train.u) if count > few else law.codes
    states = encode(codes, train)[0]
    states[..., few:] = 0.0  # noise there would require shorter steps than rollouts do
    error = _OF_NOISE * float(np.sqrt(np.max(train.noise / np.nanvar(train.u, (0, 1, 2)))))
    return integrable(replace(law, codes=codes), train.t, states, error) or law
