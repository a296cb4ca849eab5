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

from inrflow.domains.transform import varying
from inrflow.dynamics.laws.law import Law, max_norm
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.rates import least_near
from inrflow.dynamics.laws.regression import NormalEquations, by_shells, of_shells, sparse_laws
from inrflow.dynamics.laws.setting import DETERMINED, Data, EncodedData, condition_count, evenly_spaced
from inrflow.dynamics.laws.terms import INVERSE, VALUE, Product, Term
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import effort

_STATES, _ROWS = 64, 1024  # most states, and harmonics, that are regressed on
_NEARLY = 1.5  # times the least share, that of a relation of fewer terms
_PLACES = 24  # low harmonics that a steady part is made of
_UNEXPLAINED = 1e-2  # most of the variance of a diagnostic channel
_EXACT = 1e-6  # share below which no other relation is tried
_FAR_LESS = 0.1  # share of what a law leaves of its changes, that the relation may
_TRAJECTORIES = 16  # most that are regressed on
_VALUES, _COPY, _ROUNDED = 10_000, 1e-10, 1e-14  # most values compared; residuals of copies, and of rounding
_ALL_NOISE = 0.9  # share of the variance of a channel from which on white noise is all there is
_SCREENED = -10.0, 1.0, 12  # logarithms of m over that of the longest wave: first, last, number


class Relation(NamedTuple):
    """A channel as sum_j theta_j term_j: terms, theta and std (J,), and the unexplained share of its variance."""

    terms: list[Term]
    theta: np.ndarray
    std: np.ndarray
    share: float


def diagnostic_terms(channels: Sequence[int], dimensions: int, places: int = _PLACES) -> list[Term]:
    """Terms of diagnostic channels: a steady part of `places` harmonics, values, slopes, products of two values, and
    solutions of the Poisson equation for these products and, with natural walls in weak form, for the sources of
    pressures: db/dx_i and d(a db/dx_j)/dx_i."""
    axes, slopes = range(dimensions), [((c, axis),) for c in channels for axis in range(dimensions)]
    values = [((c, VALUE),) for c in channels]
    products: list[Product] = [*values, *(a + b for a, b in itertools.combinations_with_replacement(values, 2))]
    sources: list[Product] = [*values, *(a + b for a in values for b in slopes)]
    return [*(Term(place=m) for m in range(places)), *(Term((product,)) for product in [*products, *slopes]),
            *(Term((product,), -1) for product in products),
            *(Term((source,), -1, axis, flux=True) for axis in axes for source in sources)]


class Sample:
    """States of training data by which a channel is regressed on terms of others: codes on leading harmonics."""

    def __init__(self, encoded: EncodedData, channel: int, terms: list[Term]) -> None:
        self.terms, harmonics = terms, encoded.codes.harmonics
        library, rows = Library.of(terms, harmonics), min(harmonics.count, _ROWS)
        some = encoded.some(_TRAJECTORIES)
        frames = np.linspace(0, some.states.shape[1] - 1, max(_STATES // len(some.states), 2)).astype(int)
        states = some.states[:, np.unique(frames)]
        effort.add(*library.work(len(states) * states.shape[1], rows))
        with torch.no_grad():
            self.features = [library.masked(library.features(torch.tensor(path), rows), channel).numpy()
                             for path in states]
        self.shell, self.eigenvalues = library.shells(rows), harmonics.eigenvalues[:rows]
        self.own = states[:, :, [channel], :rows]
        known, noise = (of_shells(one[None, channel, :rows], self.shell)
                        for one in (encoded.known, some.spread.mean(0)))
        self.noise = np.where(known < DETERMINED, np.inf, noise)

    def relation(self, active: list[int], inertia: float = 0.0) -> Relation:
        """Sparse relation of some terms, each with the factor (1 - inertia lap)^-1."""
        symbol = 1 / (1 + inertia * self.eigenvalues)
        parts = [by_shells(features[:, active] * symbol, own, self.shell)
                 for features, own in zip(self.features, self.own, strict=True)]
        gram, right, squares, count = map(np.stack, zip(*parts, strict=True))
        energy = of_shells(self.own.var((0, 1)), self.shell)
        equations = NormalEquations(gram, right, squares, count, energy, self.noise, energy).folded
        total, found = ((self.own - self.own.mean((0, 1))) ** 2).sum() + 1e-300, []
        for _, theta, std, _ in sparse_laws(equations, [[*range(len(active))]], len(active)):
            used = np.flatnonzero(theta[:, 0])
            left = equations.squares(0, used.tolist(), theta[used, 0]).sum()
            found.append(Relation([replace(self.terms[active[j]], inertia=inertia) for j in used], theta[used, 0],
                                  std[used, 0], float(left / total)))
        least = min(one.share for one in found)
        return min((one for one in found if one.share <= _NEARLY * least), key=lambda one: len(one.terms))


def related(encoded: EncodedData, channel: int, others: Sequence[int]) -> Relation:
    """Relation of a channel to others: of `diagnostic_terms`, or, if that explains more, a screened Poisson equation,
    (1 - m lap) channel = sum of a constant, values and products of two."""
    places = min(_PLACES, encoded.codes.harmonics.count)  # small grids have fewer
    terms = diagnostic_terms(others, encoded.train.x.shape[-1], places)
    sample = Sample(encoded, channel, terms)
    if (plain := sample.relation([*range(len(terms))])).share < _EXACT:
        return plain
    local = [j for j, term in enumerate(terms)
             if not (term.power or term.place) and all(axis == VALUE for _, axis in term.products[0])]
    wave = 1 / sample.eigenvalues[varying(torch.tensor(sample.eigenvalues)).numpy()].min()

    def missed(size: float) -> float:
        return sample.relation(local, wave * math.exp(size)).share

    screened = sample.relation(local, wave * math.exp(least_near(missed, np.linspace(*_SCREENED))))
    return min(plain, screened, key=lambda one: one.share)


class Diagnostic(Exception):
    """Raised where some channels are diagnostic."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__(channels)
        self.channels = channels


def copies(u: np.ndarray) -> list[int]:
    """Channels of fields u (S, T, N, C) that are constant, or a constant and multiples of earlier channels, up to
    rounding; NaN where unobserved."""
    rows = u.reshape(-1, u.shape[-1])
    rows = rows[np.isfinite(rows).all(1)]
    rows = rows[:: max(len(rows) // _VALUES, 1)]
    if len(rows) <= rows.shape[1]:
        return []
    left = np.diag(np.linalg.qr(np.column_stack([np.ones(len(rows)), rows]), "r"))[1:] ** 2  # without earlier columns
    most = _COPY * ((rows - rows.mean(0)) ** 2).sum(0) + _ROUNDED * (rows**2).sum(0)
    return np.flatnonzero(left <= most).tolist()


def require_own_fields(encoded: EncodedData, u: np.ndarray) -> None:
    """Raise Diagnostic if some, not all, channels of the encoded fields u (S, T, N, C) are `copies` or white noise."""
    noise = encoded.train.noise > _ALL_NOISE * np.nanvar(encoded.train.u, (0, 1, 2))
    found = {*copies(u), *np.flatnonzero(noise).tolist()}
    if 0 < len(found) < u.shape[-1]:
        raise Diagnostic(sorted(found))


def require_prognostic(encoded: EncodedData, law: Law) -> None:
    """Raise Diagnostic if relations to other channels miss far less of some than a law misses of their changes from the
    first frame to the last; those that miss least are the first."""
    some = encoded.some(_TRAJECTORIES)
    (equations,) = some.equations(law.terms)
    active = [np.flatnonzero(own).tolist() for own in law.theta.T[: len(law.codes.mean)]]
    changes = (some.states[:, -1] - some.states[:, 0]).var(0).sum(1) / (some.states.var((0, 1)).sum(1) + 1e-300)
    most = {c: min(_FAR_LESS * equations.unexplained(c, own, law.theta[own, c]) * changes[c], _UNEXPLAINED)
            for c, own in enumerate(active) if changes[c] > 0}
    kept, found = [*range(len(active))], list[int]()
    while most and len(kept) > 1:
        excess = {c: related(encoded, c, [other for other in kept if other != c]).share - bound
                  for c, bound in most.items()}
        best = min(excess, key=lambda c: excess[c])
        if excess[best] >= 0:
            break
        found.append(best)
        kept.remove(best)
        del most[best]
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
    count = law.codes.harmonics.count // condition_count(law.boundary) * condition_count(boundary)
    few = data.subsampled
    few = few.take(evenly_spaced(len(few.u), count * channels))
    codes = fit_codes(law.domain.harmonics(count, boundary), few.x, few.u)
    encoded = EncodedData.of(replace(law, boundary=boundary, codes=codes), data)
    found = {c: related(encoded, c, kept) for c in range(channels) if c not in kept}
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
                   usual=encoded.usual, largest=max_norm(encoded.states), by_context=placed(law.by_context),
                   values=values, shares=tuple(shares.get(c, 0.0) for c in range(channels)) if shares else (),
                   rates=tuple(kept[c] for c in law.rates))


def _renumbered(term: Term | Sine, at: Sequence[int]) -> Term | Sine:
    """A term of channels with other numbers."""
    if isinstance(term, Sine):
        return replace(term, inputs=tuple(replace(one, channel=at[one.channel]) for one in term.inputs),
                       form=replace(term.form, channel=at[term.form.channel]))
    products = tuple(tuple((c if axis == INVERSE else at[c], axis) for c, axis in product) for product in term.products)
    vector = tuple(at[c] for c in (term.carried if term.solenoidal else term.vector))
    return replace(term, products=products, vector=vector, units=term.sizes if term.solenoidal else term.units)
