"""Families of candidate terms of laws, simplest first, and the sparse regression on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from inrflow.domains import HELD, Box, Domain, Flows, Harmonics, Sphere
from inrflow.domains.box import PERIODIC
from inrflow.domains.transform import transform_of, varying
from inrflow.dynamics.laws.contexts import LawsWithContexts, context_searches
from inrflow.dynamics.laws.flow import TERMS
from inrflow.dynamics.laws.law import Law, integrable, node_rollouts
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations, SparseLaw, left_out_frames, sparse_laws
from inrflow.dynamics.laws.setting import FEW_CODES, MOST_OF_GRID, EncodedData
from inrflow.dynamics.laws.terms import (
    INVERSE,
    LAPLACIAN,
    OTHER_HARMONICS,
    SECOND,
    VALUE,
    Term,
    anisotropic_terms,
    basic_terms,
    centred_terms,
    darcy_terms,
    drag_terms,
    drift_terms,
    fractional_laplacians,
    per_density_terms,
    quadratic_terms,
    seasonal_terms,
    slope_fluxes,
)

_COMBINED = (("linear", "products"), ("linear", "transport"), ("linear", "products", "transport"),
             ("linear", "products", "transport", "fluxes"))
_ORDERS = (1, 2)  # highest powers of the Laplacian, tried in turn
_FRAMES = 16  # sampled, at most
_FAR, _VARIES = 0.02, 0.02  # divisors: least over largest value, deviation over mean, at least
_LOW, _MORE, _WINDS = 24, 64, 512  # harmonics of a in a u; in forces, fluxes; in a du/dx, times linear terms
_OF_SIGN = 0.1  # share of values of each sign in channels that change sign
_STEADY, _NOISE, _DIVERGENCE = 1e-3, 2.0, 1e-2  # bounds: change of means over others, over noise; divergence
_TRAJECTORIES = 32  # most trajectories of a regression
_PAYS, _FURTHER, _AGAIN = 0.5, 0.2, 2  # largest misfit over that without contexts, with fewer; repetitions
_FITTED, _MOST_COLUMNS = 1e-6, 160  # misfit below which contexts suffice; most columns of repeated searches
_FEWEST_FRAMES, _SETTLED, _LOOKED_AT = 6, 0.1, 8  # frames left at least; ratio of errors without a frame; trajectories
_ALONG, _ROUNDS, _SETTLING = 16, 6, 0.9  # of `rollout_regression`: trajectories; rounds; largest ratio of misfits
_ROUGHLY, _TOLD = 1e-2, 1e-3  # integrator error there; misfit below which other families are not tried


@dataclass(frozen=True)
class Families:
    """Terms by family, combinations of families for joint regressions (`combined`), and further families (`later`).
    inertia: of each channel, whose terms are those with this inertia; empty if all channels have the same terms."""

    terms: dict[str, list[Term]]
    combined: tuple[tuple[str, ...], ...] = _COMBINED
    later: tuple[Families, ...] = ()
    inertia: tuple[float, ...] = ()

    @property
    def all_terms(self) -> list[Term]:
        """Terms of all families."""
        return [term for family in self.terms.values() for term in family]

    @property
    def active(self) -> list[list[int]]:
        """Indices of the terms of each combination of families: without lap^2, then with it.

        Without: a small lap^2 often compensates errors of splines or of the domain's outline; with the wrong sign, it
        makes short waves grow without limit.
        """
        every = self.all_terms
        found = ([every.index(term) for name in names for term in self.terms[name] if term.highest_power <= order or (
            name == "steep")] for names in self.combined for order in _ORDERS)
        return [list(active) for active in dict.fromkeys(map(tuple, found))]

    def beside(self, more: dict[str, list[Term]], combined: Sequence[tuple[str, ...]] = ()) -> Families:
        """Families with further terms, all of them in each combination of these families, by default their own."""
        known = (names for names in combined or self.combined if set(names) <= set(self.terms))
        return Families({**self.terms, **more}, tuple((*names, *more) for names in known))

    def with_season(self, channels: int, harmonics: Harmonics) -> Families:
        """Families with forces of a season, whose cosine and sine are the channels after `channels` others."""
        season = seasonal_terms(channels, min(harmonics.lowest(_LOW).count, harmonics.count))
        return self.beside({"season": season}, (("linear",), *self.combined))

    def with_inertia(self, inertia: Sequence[float]) -> Families:
        """Families of terms of (1 - m lap) du/dt, with an inertia m for each channel."""
        return replace(self, inertia=tuple(inertia), terms={
            name: [replace(term, inertia=m) for m in dict.fromkeys(inertia) for term in terms]
            for name, terms in self.terms.items()})

    def active_by_channel(self, active: list[int], channels: int, period: float) -> list[list[int]]:
        """Active terms of each channel; with a period, each of the last two channels has the other as its only term."""
        every = self.all_terms
        turned = [[every.index(Term((((channels + c, VALUE),),)))] for c in (-1, -2)] if period else []
        return [[j for j in active if every[j].inertia == m] for m in self.inertia] or [
            active] * (channels - len(turned)) + turned

    def with_multipliers(self, domain: Domain, harmonics: Harmonics, channels: int) -> Iterator[Families]:
        """Families with fractional powers of the Laplacian, without and with transport; then with terms divided by
        distances from an axis of rotation. None for flows and velocities."""
        if {"linear", "transport", "products"} <= set(self.terms) and not isinstance(domain, Flows):
            more = fractional_laplacians(channels, domain.dimensions, domain.curved)
            yield self.beside({"multipliers": more}, (("linear",), ("linear", "transport")))
            away = [(j, INVERSE) for j, low in enumerate(transform_of(harmonics, 2).points.min(0)) if low > 0 and not (
                isinstance(domain, Box) and (domain.axes[j] == PERIODIC or domain.lower[j] < -1e-9 * low))]
            if away and domain.kind in ("box", "region"):
                about = [Term(((*own, *(by,) * power),)) for by in away for c in range(channels)
                         for own, power in ((((c, by[0]),), 1), (((c, VALUE),), 1), (((c, VALUE),), 2))]
                yield self.beside({"about": about})

    def steep(self, domain: Domain, channels: int) -> Iterator[Families]:
        """Families with lap^3 and, on lines, fifth derivatives and u^2 du/dx. None for flows and velocities."""
        if {"linear", "transport", "products"} <= set(self.terms) and not isinstance(domain, Flows):
            line, each = domain.dimensions == 1, range(channels)
            steep = [Term((((c, VALUE),),), *order) for order in ((3, VALUE), (2, 0))[: 1 + line] for c in each]
            squares = self.terms["products"][: line * channels * (channels + 1) // 2]
            steep += [Term(((*square.products[0], (c, 0)),)) for square in squares for c in each]
            yield self.beside({"steep": steep}, self.combined[2 * line - 1 :])

    def further(self, encoded: EncodedData) -> Iterator[Families]:
        """Families, in turn: `later` ones; in flat space linear anisotropic terms, flows in porous media, quadratic
        anisotropic terms and fluxes by slopes; terms less their means, if these are constant in time; drifts; terms
        divided by channels far from zero (boxes)."""
        domain, harmonics, states = encoded.domain, encoded.codes.harmonics, encoded.states
        yield from self.later
        if not {"linear", "products", "transport", "fluxes"} <= set(self.terms) or isinstance(domain, Flows):
            return
        axes = domain.axes if isinstance(domain, Box) else ("",) * domain.dimensions
        ways = anisotropic_terms(states.shape[2], axes) if domain.kind in ("box", "region") else []
        flat = domain.kind == "box" and domain.dimensions == 2 and states[0, 0].size <= MOST_OF_GRID  # dense tables
        if ways:
            yield self.beside({"directed": ways}, (("linear",), *self.combined))
        if flat:
            yield self.beside({"driven": darcy_terms(states.shape[2])}, (("linear",), *self.combined[:2]))
        fewest = ("linear",), ("linear", "products"), self.combined[-1]
        if ways and domain.dimensions > 1:
            cubes = [term for term in self.terms["fluxes"] if term.power and len(term.products[0]) > 2]
            squares = quadratic_terms(states.shape[2], range(domain.dimensions))
            yield replace(self, terms={**self.terms, "fluxes": cubes}).beside(
                {"directed": ways, "quadratic": squares}, fewest)
        if not domain.curved:
            yield self.beside({"by slopes": slope_fluxes(states.shape[2], range(domain.dimensions))}, fewest)
        with_mean = harmonics.allowed is None and not bool(varying(torch.tensor(harmonics.eigenvalues))[0])
        steady = _STEADY * states[..., 1:].std() + _NOISE * encoded.spread[..., 0].max() ** 0.5
        if with_mean and states[..., 0].std(1).max() < steady:
            yield Families({name: centred_terms(terms) for name, terms in self.terms.items()}, self.combined)
        drifts = {**self.terms, "fluxes": [term for term in self.terms["fluxes"] if not term.power],
                  "drifts": drift_terms(states.shape[2], range(domain.dimensions))}
        yield Families(drifts, (("linear", "products", "drifts"), tuple(drifts)))
        if states.shape[2] < 2:
            return
        fields = transform_of(harmonics, 2).fields(some_frames(states)).movedim(1, 0)
        for channel, values in enumerate(fields if isinstance(domain, Box) else ()):
            if bool(values.min() > _FAR * values.max()) and values.std() > _VARIES * values.mean():
                by = per_density_terms(channel, states.shape[2], domain.dimensions)
                flow = "linear", "transport"
                yield Families({**self.terms, **by}, ((*flow, "divided"), (*flow, "fluxes", "divided"), (*flow, *by)))

    def with_varying_coefficients(self, domain: Domain, harmonics: Harmonics) -> Iterator[Families]:
        """Families with coefficients a(x), in turn: a force a; div(a grad u) of one channel or of all, as a small one
        of another channel, which compensates errors of splines, makes short waves grow; d(a u)/dx; a u and a du/dx.
        None for modes of flows and seasons."""
        if harmonics.components > 1 or "season" in self.terms:
            return
        winds = max(_LOW, min(_MORE, _WINDS // (len(self.terms["linear"]) * domain.dimensions)))
        low, more, many = (range(1, min(harmonics.lowest(most).count, harmonics.count))
                           for most in (_LOW, _MORE, winds))
        yield self.beside({"force": [Term(place=m) for m in more]})
        if "products" not in self.terms:
            return
        values = [term for term in self.terms["linear"] if not term.power]
        own = [term for term in values if term.linear]
        fluxes = {f"flux {term.products[0][0][0]}": [replace(term, power=1),
                                                     *(replace(term, place=m, flux=True) for m in more)]
                  for term in own}
        mixed = [(*beside, name) for beside in (("values",), ("values", "products")) for name in fluxes]
        yield Families({"values": values, "products": self.terms["products"], **fluxes}, (("values", *fluxes), *mixed))
        slopes = [replace(term, axis=axis) for term in own for axis in range(domain.dimensions)]
        parts = {"places": [replace(term, place=m) for term in own for m in low],
                 "winds": [replace(term, place=m) for term in slopes for m in many]}
        carried = [replace(term, flux=True) for term in parts["winds"]]  # conservative
        yield self.beside({"slopes": slopes, "carried": carried}, (
            ("linear",), ("linear", "products"), ("linear", "transport")))
        yield Families({**self.terms, "slopes": slopes, **parts}, (("linear", "products", "places"), (
            "linear", "products", "slopes", "winds"), ("linear", "products", "slopes", "places", "winds")))


def regress(datasets: Sequence[EncodedData], families: Families, period: float = 0.0, rates: Sequence[int] = ()
            ) -> list[tuple[float, Law]]:
    """Misfits and sparse laws of several sizes from families of terms, least misfit first; with contexts if these pay.

    datasets: training data, or several on shapes with as many harmonics, whose equations are added; laws are on the
    first. period: of a forcing, whose cosine and sine are the last two channels. rates: channels of second order.
    """
    systems = datasets[0].train.systems
    several = len(datasets) == 1 and bool(systems.counts)  # all are used: a system may have few
    datasets = datasets if several else [one.some(_TRAJECTORIES) for one in datasets]
    first, channels, terms = datasets[0], datasets[0].states.shape[2], families.all_terms
    found: dict[tuple, tuple[float, Law]] = {}

    def add(contexts: np.ndarray, solved: Sequence[SparseLaw], cumulative: bool, given: bool = False) -> None:
        for supports, theta, std, misfit in solved:
            key = supports, contexts.shape[1], cumulative
            if misfit < found.get(key, (np.inf,))[0]:
                theta, std = (a.reshape(1 + contexts.shape[1], len(terms), channels) for a in (theta, std))
                found[key] = misfit, first.law(terms, theta[0], std[0], by_context=theta[1:], contexts=contexts,
                                               contexts_given=given, period=period)

    searches, actives = [], families.active
    if families.combined == _COMBINED:  # squares alone, too, as cubes mimic them in fields that are alike
        squares = [j for j in actives[0] if len(terms[j].products[0]) < 3]
        actives = [squares, *actives][squares == actives[0] :]
    kinds = (False, True)[: 1 + (first.states[0, 0].size <= FEW_CODES)]  # many take long, and have little noise
    singly = several or len(datasets) > 1
    parts = [one.equations(terms, kinds, len(one.states) if singly else FOLDS, rates=rates) for one in datasets]
    for cumulative, *of_kind in zip(kinds, *parts, strict=True):
        each, known = NormalEquations.added(of_kind), dict[tuple, tuple[np.ndarray, list[SparseLaw]]]()
        for active in actives:
            simple = sparse_laws(each.folded, families.active_by_channel(active, channels, period), len(terms))
            add(np.zeros((systems.total, 0)), simple, cumulative)
            searches.append(partial(LawsWithContexts, each, systems, active, simple, cumulative, known=known))
    paying = list(found.values())
    least, fewest = min(misfit for misfit, _ in paying), min(systems.counts, default=0)
    further = {form.shape[1] for form in systems.given if several and form.shape[1] < max(systems.counts) + 2}
    for count in sorted({*systems.counts, *further}) if several else ():
        most, costly = least * (_PAYS if count == fewest else _FURTHER), (1 + count) * len(terms) > _MOST_COLUMNS
        if (least < _FITTED and count != fewest) or (costly and misfit_of_all(first, terms, parts[0]) > most):
            break
        pays = (own := context_searches(searches, count, systems.given, count in systems.counts))[0].misfit < most
        again = [one for one in own[: _AGAIN if pays else None] if (1 + count) * len(one.active) <= _MOST_COLUMNS]
        for one in [*own, *(search.reselected(pays) for search in again)]:
            for contexts, solved in one.laws:
                add(contexts, solved, one.cumulative, one.given is not None)
        paying += [pair for (_, size, _), pair in found.items() if size == count and pair[0] < most]
        least = min(misfit for misfit, _ in paying)
    return sorted(paying, key=lambda pair: pair[0])


def misfit_of_all(encoded: EncodedData, terms: Sequence[Term], given: Sequence[NormalEquations] = (),
                  kept: Sequence[int] | None = None) -> float:
    """Unexplained share of changes with all terms, or those `kept`, mean over channels; with separate coefficients in
    each system, a lower bound of that with contexts. The least one of several equations with a fold for each
    trajectory, if given."""
    number, every = encoded.train.systems.number, given or encoded.equations(terms, folds=len(encoded.states))
    return min(float((one if kept is None else one.only(kept)).misfits(number).mean()) for one in every)


def without_transients(encoded: EncodedData) -> EncodedData | None:
    """Training data without first frames in which fields settle within less than a gap; None if there are none."""
    return encoded.since(first) if (first := transient_frames(encoded.train.t, encoded.states)) else None


def transient_frames(t: np.ndarray, codes: np.ndarray) -> int:
    """Number of first frames of codes (S, T, C, K) that splines should leave out: where fields settle within less than
    an interval, splines through them oscillate at later frames, too."""
    some = slice(None, None, max(len(codes) // _LOOKED_AT, 1))
    size, first, least = np.diff(codes, axis=1).var((0, 1, 3))[:, None] + 1e-300, 0, np.inf
    while codes.shape[1] - first >= _FEWEST_FRAMES:
        missed = float((left_out_frames(t[some], codes[some], first) / size).sum())
        if not missed < _SETTLED * least:
            return max(first - 1, 0)
        first, least = first + 1, missed
    return max(first - 1, 0)


def rollout_regression(encoded: EncodedData, law: Law, families: Families) -> Iterator[list[Law]]:
    """Iterate over the best laws so far, with coefficients regressed along their own flow, until misfits settle.

    Splines in time are poor where waves pass a point, or decay, between frames: they hide weak terms and rank families
    wrongly. The support of the given law comes first, then all families, until one explains the data.
    """
    channels, terms, some = encoded.states.shape[2], law.terms, encoded.some(_ALONG)
    t, states, number = some.train.t, some.states, some.train.systems.number
    each = [families.active_by_channel(one, channels, law.period) for one in families.active]
    used = set(np.flatnonzero((law.theta != 0).any(1)))
    least, best = np.inf, list[Law]()

    def starts() -> Iterator[tuple[list[SparseLaw], list[list[int]]]]:
        yield [((), law.theta, law.std, np.inf)], next(one for one in each if used <= {j for own in one for j in own})
        (equations,) = some.equations(terms)
        every = ((sparse_laws(equations, active, len(terms)), active) for active in each)
        yield from sorted(every, key=lambda start: start[0][0][-1])

    for solved, active in starts():
        before = np.inf
        for _ in range(_ROUNDS):
            one = integrable(replace(law, theta=solved[0][1], std=solved[0][2]), t, states, _ROUGHLY)
            paths = None if one is None else node_rollouts(one, t, states, number)
            if paths is None:
                break
            (equations,) = some.equations(terms, paths=paths)
            solved = sparse_laws(equations, active, len(terms))
            if solved[0][-1] < least:
                least, best = solved[0][-1], [replace(law, theta=theta, std=std) for _, theta, std, _ in solved]
            yield best
            if not solved[0][-1] < _SETTLING * before:
                break
            before = solved[0][-1]
        if least < _TOLD:
            break


def families_of(domain: Domain, harmonics: Harmonics, states: np.ndarray, units: Sequence[float] | None = None
                ) -> Families:
    """Families of terms for codes (S, T, C, K) on harmonics of a domain; units (C,) of channels, 1 by default."""
    channels, units = states.shape[2], units or (1.0,) * states.shape[2]
    if isinstance(domain, Flows):
        return Families(TERMS)
    terms = basic_terms(channels, domain.dimensions, domain.curved, isinstance(domain, Sphere))
    if harmonics.allowed is not None:  # of channels with different boundary conditions
        terms["linear"] += [Term((((c, OTHER_HARMONICS),),)) for c in range(channels)]
    vectors = solenoidal(domain, harmonics, states, units)
    if not vectors:
        drags = drag_terms(changing_sign(domain, harmonics, states), channels, units)
        return Families(terms, later=(Families(terms).beside({"drag": drags}),) if drags else ())
    held = [first for first, ends in (harmonics.vectors or {}).items() if any(HELD in pair for pair in ends)]
    return with_vectors(terms, vectors, units, held)


def with_vectors(terms: dict[str, list[Term]], vectors: Sequence[tuple[int, ...]], units: Sequence[float],
                 held: Sequence[int] = ()) -> Families:
    """Families of terms where some channels are components of divergence-free vectors, and the combinations to regress.

    terms: of `basic_terms`; vectors: channels (d,) of each; units (C,): of all channels. Vectors carry themselves, each
    other and scalars. Forces by scalars are projected on divergence-free fields (P), by lap^-1 of second derivatives
    where there are no walls. held: first channels of vectors with no-slip walls, where P acts on Laplacians, too.
    Later: tension P(lap a grad b) and fluxes lap m; the divergence of a stress stretched by velocity gradients.
    """
    linear, d = terms["linear"], len(vectors[0])
    scalars = [c for c in range(len(units)) if not any(c in vector for vector in vectors)]
    own = [tuple(units[c] for c in vector) for vector in vectors]
    every = [(vector, unit, j) for vector, unit in zip(vectors, own, strict=True) for j in range(d)]
    rows = [row for row in every if row[0][0] in held]
    bent = [Term((((vector[j], LAPLACIAN),),), solenoidal=True, vector=vector, units=unit) for vector, unit, j in rows]
    if len(vectors) == 1 and not scalars:
        flow = [Term.transport(j, units) for j in range(d)]
        return Families({"linear": linear, "flow": flow + bent}, (("linear", "flow"),))
    flow = bent + [Term.transport(j, a, velocity, vector, b) for velocity, a in zip(vectors, own, strict=True)
                   for vector, b, j in every]
    flow += [Term((((c, VALUE), (s, j)),)) for velocity in vectors for j, c in enumerate(velocity) for s in scalars]
    forces = [Term((((s, VALUE),),), -1, SECOND + 3 * i + j) for s in scalars for i in range(d) for j in range(i, d)]
    if rows:
        forces = [Term((((s, VALUE),),), axis=i, solenoidal=True, vector=vector, units=unit, row=j)
                  for s in scalars for vector, unit, j in rows for i in range(d)]
    products = [term for term in terms["products"] if {c for c, _ in term.products[0]} <= set(scalars)]
    combined = (("linear", "flow"), ("linear", "flow", "forces"), ("linear", "flow", "forces", "products"))
    first = {"linear": linear, "flow": flow, "forces": forces, "products": products}
    if not scalars:
        return Families(first, combined[:1])
    tension = [Term(tuple(((a, LAPLACIAN), (b, axis)) for axis in range(d)), solenoidal=True, vector=vector, units=unit,
                    row=j) for a in scalars for b in scalars for vector, unit, j in every]
    stress = [Term((((s, axis),),), axis=i, solenoidal=True, vector=vector, units=unit, row=j)
              for s in scalars for axis in range(d) for vector, unit, j in every for i in range(d)]
    slopes = [Term((((c, axis),),)) for vector in vectors for c in vector for axis in range(d)]
    stretching = [Term((((s, VALUE), term.products[0][0]),)) for s in scalars for term in slopes]
    fluxes = [replace(term, power=1) for term in products]
    return Families(first, combined, (
        Families({**first, "tension": tension, "fluxes": fluxes},
                 (("linear", "flow", "products", "fluxes", "tension"),)),
        Families({"linear": linear, "flow": flow, "slopes": slopes, "stretching": stretching, "stress": stress}, (
            ("linear", "flow", "slopes", "stretching", "stress"),))))


def some_frames(states: np.ndarray) -> torch.Tensor:
    """A few frames (B, C, K), evenly spaced, of codes (S, T, C, K)."""
    frames = states.reshape(-1, *states.shape[2:])
    return torch.tensor(frames[:: max(len(frames) // _FRAMES, 1)])


def changing_sign(domain: Domain, harmonics: Harmonics, states: np.ndarray) -> list[tuple[int, ...]]:
    """Channels of both signs, alone and as consecutive components (d,) of vectors, of codes (S, T, C, K)."""
    below = (transform_of(harmonics, 2).fields(some_frames(states)) < 0).double().mean((0, 2))
    turning = ((below > _OF_SIGN) & (below < 1 - _OF_SIGN)).tolist()
    return [tuple(range(c, c + d)) for d in dict.fromkeys((1, domain.dimensions))
            for c in range(len(turning) - d + 1) if all(turning[c : c + d])]


def solenoidal(domain: Domain, harmonics: Harmonics, states: np.ndarray, units: Sequence[float]
               ) -> list[tuple[int, ...]]:
    """Consecutive channels that are components of a divergence-free vector, on a box with such harmonics."""
    d, found = domain.dimensions, list[tuple[int, ...]]()
    if not (isinstance(domain, Box) and d > 1) or harmonics.vectors == {}:
        return found
    transform, frames = transform_of(harmonics, 2), some_frames(states) * torch.tensor(units)[:, None]
    slopes = torch.stack([transform.fields(frames, axis) for axis in range(d)])  # (d, B, C, Q)
    for first in range(states.shape[2] - d + 1):
        mine = slopes[:, :, first : first + d]
        divergence = mine.diagonal(dim1=0, dim2=2).sum(-1)
        if first > max(map(max, found), default=-1) and first in (harmonics.vectors or (first,)) and bool(
                divergence.square().mean() < _DIVERGENCE * mine.square().sum((0, 2)).mean()):
            found.append(tuple(range(first, first + d)))
    return found
