"""Diagnostic channels: fields that others determine at the same time, as velocities do a pressure.

They have no equation of their own: laws are sought for the other, prognostic channels, and completed by sparse
regressions on these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from inrflow.dynamics.laws.law import Law, largest_of
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations, by_shells, of_shells, supports_of
from inrflow.dynamics.laws.setting import DETERMINED, Data, Ground, encode, evenly, joined
from inrflow.dynamics.laws.terms import INVERSE, VALUE, Product, Term
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import effort

_STATES, _ROWS = 64, 1024  # most states that give equations, and harmonics that are test functions
_NEARLY = 1.5  # times the least share, that of a relation of fewer terms
_PLACES = 24  # low harmonics that a steady part is made of
_UNEXPLAINED = 1e-2  # share of the variance of diagnostic channels, below, and of the changes of others, above
_TRAJECTORIES = 16  # most that tell what a law explains
_SCREENED = -10.0, 0.0, 6  # logarithms of m over that of the longest wave: first, last, number
_WIDTH, _ACCURATE = 2.0, 1e-4  # of the search between these


class Relation(NamedTuple):
    """A channel as sum_j theta_j term_j: terms, theta and std (J,), and the unexplained share of its variance."""

    terms: list[Term]
    theta: np.ndarray
    std: np.ndarray
    share: float


def diagnostic_terms(channels: Sequence[int], dimensions: int) -> list[Term]:
    """Terms of diagnostic channels: a steady part, values, slopes, products of two values, and solutions of the Poisson
    equation for these products and, with natural walls in weak form, for the sources of pressures: db/dx_i and
    d(a db/dx_j)/dx_i."""
    axes, slopes = range(dimensions), [((c, axis),) for c in channels for axis in range(dimensions)]
    values = [((c, VALUE),) for c in channels]
    products: list[Product] = [*values, *(a + b for a, b in itertools.combinations_with_replacement(values, 2))]
    sources: list[Product] = [*values, *(a + b for a in values for b in slopes)]
    return [*(Term(place=m) for m in range(_PLACES)), *(Term((product,)) for product in [*products, *slopes]),
            *(Term((product,), -1) for product in products),
            *(Term((source,), -1, axis, flux=True) for axis in axes for source in sources)]


def relation(ground: Ground, channel: int, terms: list[Term]) -> Relation:
    """Sparse regression of a channel on diagnostic terms of others, at some states of the training data."""
    harmonics = ground.codes.harmonics
    rows, folds = min(harmonics.count, _ROWS), min(FOLDS, len(ground.states))
    library, some = Library.of(terms, harmonics), evenly(len(ground.states), ground.states[0, 0].size, 4 * folds)
    shell, frames = library.shells(rows), max(_STATES // len(some), 2)
    at = np.unique(np.linspace(0, ground.states.shape[1] - 1, frames).astype(int))
    states = ground.states[some][:, at]
    own, parts = states[:, :, channel, :rows], []
    for path in states:
        effort.add(*library.work(len(path), rows))
        with torch.no_grad():
            features = library.within(library.features(torch.tensor(path), rows), channel)
        parts.append(by_shells(features.numpy(), path[:, [channel], :rows], shell))
    gram, right, squares, count = (np.stack([np.sum([part[i] for part in parts[fold::folds]], 0)
                                           for fold in range(folds)]) for i in range(4))
    energy, known, noise = (of_shells(one[None], shell) for one in (
        own.var((0, 1)), ground.known[channel, :rows], ground.spread[some][:, channel, :rows].mean(0)))
    noise = np.where(known < DETERMINED, np.inf, noise)
    equations = NormalEquations(gram, right, squares, count, energy, noise, energy)
    total = ((own - own.mean((0, 1))) ** 2).sum() + 1e-300
    found = []
    for _, theta, std, _ in supports_of(equations, [list(range(len(terms)))], len(terms)):
        active = np.flatnonzero(theta[:, 0])
        left = equations.squares(0, active.tolist(), theta[active, 0]).sum()
        found.append(Relation([terms[j] for j in active], theta[active, 0], std[active, 0], float(left / total)))
    least = min(one.share for one in found)
    return min((one for one in found if one.share <= _NEARLY * least), key=lambda one: len(one.terms))


class Diagnostic(Exception):
    """Raised where some channels are diagnostic."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__(channels)
        self.channels = channels


def related(ground: Ground, channel: int, others: Sequence[int]) -> Relation:
    """Relation of a channel to others: of `diagnostic_terms`, or, where this explains too little, of a screened Poisson
    equation, (1 - m lap) channel = sum of a constant, values and products of two."""
    terms = diagnostic_terms(others, ground.train.x.shape[-1])
    if (plain := relation(ground, channel, terms)).share < _UNEXPLAINED:
        return plain
    local = [term for term in terms if not (term.power or term.place) and all(axis < 0 for _, axis in term.products[0])]
    longest = 1 / ground.codes.harmonics.eigenvalues[ground.codes.harmonics.eigenvalues > 0].min()

    def screened(size: float) -> Relation:
        return relation(ground, channel, [replace(term, inertia=longest * math.exp(size)) for term in local])

    tried = np.linspace(*_SCREENED)
    best = tried[int(np.argmin([screened(size).share for size in tried]))]
    found = minimize_scalar(lambda size: screened(size).share, bounds=(best - _WIDTH, best + _WIDTH), method="bounded",
                            options={"xatol": _ACCURATE})
    return min(plain, screened(found.x), key=lambda one: one.share)


def require_prognostic(ground: Ground, law: Law) -> None:
    """Raise Diagnostic if other channels determine some whose rates the law does not explain; the best determined ones
    are the first."""
    some = ground.some(_TRAJECTORIES)
    (equations,) = some.equations(law.terms)
    active = [np.flatnonzero(own).tolist() for own in law.theta.T[: len(law.codes.mean)]]
    left = [c for c, own in enumerate(active) if equations.missed(c, own, law.theta[own, c]) > _UNEXPLAINED]
    kept, found = [*range(len(active))], list[int]()
    while left and len(kept) > 1:
        shares = {c: related(ground, c, [other for other in kept if other != c]).share for c in left}
        best = min(left, key=lambda c: shares[c])
        if not shares[best] < _UNEXPLAINED:
            break
        found.append(best)
        left.remove(best)
        kept.remove(best)
    if found:
        raise Diagnostic(sorted(found))


def completed(law: Law, t: np.ndarray, x: np.ndarray, u: np.ndarray, kept: Sequence[int], boundary: str) -> Law:
    """The law of the channels `kept` of fields u (S, T, N, C), with relations for all others, whose boundary conditions
    are given."""
    data, channels = Data.of(t, x, u), u.shape[-1]
    size = channels + law.theta.shape[1] - len(kept)
    at = [*kept, *range(channels, size)]  # rates, phases
    own, theirs = (kind.split(", ") for kind in (law.boundary, boundary))
    kinds = [theirs[c if len(theirs) > 1 else 0] for c in range(channels)]
    for i, c in enumerate(kept):
        kinds[c] = own[i if len(own) > 1 else 0]
    boundary = ", ".join(kinds) if len(set(kinds)) > 1 else kinds[0]
    count = law.codes.harmonics.count // joined(law.boundary) * joined(boundary)
    few = data.thinned
    few = few.take(evenly(len(few.u), count * channels))
    codes = fit_codes(law.domain.harmonics(count, boundary), few.x, few.u)
    ground = Ground(law.domain, boundary, codes, data, *encode(codes, data))
    found = {c: related(ground, c, kept) for c in range(channels) if c not in kept}
    terms = [_renumbered(term, at) for term in law.terms]
    terms += dict.fromkeys(term for one in found.values() for term in one.terms if term not in terms)

    def placed(columns: np.ndarray) -> np.ndarray:
        result = np.zeros((*columns.shape[:-2], len(terms), size))
        result[..., : columns.shape[-2], at] = columns
        return result

    theta, std = placed(law.theta), placed(law.std)
    values = np.zeros_like(theta)
    for c, one in found.items():
        rows = [terms.index(term) for term in one.terms]
        values[rows, c], std[rows, c] = one.theta, one.std
    about = None if law.about is None else np.zeros((len(law.about), size))
    if about is not None:
        about[:, at] = law.about
    shares = dict(zip(kept, law.shares, strict=False))
    return replace(law, boundary=boundary, terms=tuple(terms), theta=theta, std=std, codes=codes, about=about,
                   largest=largest_of(ground.states), by_context=placed(law.by_context), values=values,
                   shares=tuple(shares.get(c, 0.0) for c in range(channels)) if shares else (),
                   rates=tuple(kept[c] for c in law.rates))


def _renumbered(term: Term | Sine, at: Sequence[int]) -> Term | Sine:
    """A term of channels with other numbers."""
    if isinstance(term, Sine):
        return replace(term, inputs=tuple(replace(one, channel=at[one.channel]) for one in term.inputs),
                       form=replace(term.form, channel=at[term.form.channel]))
    products = tuple(tuple((c if axis == INVERSE else at[c], axis) for c, axis in product) for product in term.products)
    vector = tuple(at[c] for c in term.carried) if term.solenoidal else ()
    return replace(term, products=products, vector=vector, units=term.sizes if term.solenoidal else term.units)
