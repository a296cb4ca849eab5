"""fit_network_law: laws with a pointwise network of sines beside a few terms, its output layer solved.

The hidden layer is random (Rahimi & Recht 2007), scaled to the data, so that a network is a number of further columns
of the normal equations that terms of laws have; a ridge, chosen by trajectories that are left out, keeps it smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.domains import Domain
from inrflow.domains.transform import transform_of
from inrflow.dynamics.laws.contexts import alternate, contexts_of, standard, with_contexts
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.law import Law, integrable, own_paths, well_posed
from inrflow.dynamics.laws.network.layer import Layer
from inrflow.dynamics.laws.network.sine import (
    FLUX,
    LAPLACIAN,
    NONLOCAL,
    SLOPE,
    SMOOTHED,
    TRANSPORT,
    VALUE,
    Form,
    Local,
    Sine,
)
from inrflow.dynamics.laws.refinement.ending import finer
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations
from inrflow.dynamics.laws.setting import Data, Ground, Log, Systems, encode, evenly, forecast_errors
from inrflow.dynamics.laws.terms import Term
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes
from inrflow.errors import UserError
from inrflow.numerics.effort import OutOfTime, effort

_FEWEST, _LEFT = 160, 0.02  # harmonics that networks see, at least; share of what a short law misses, beyond these
_ROWS = 100  # harmonics that give equations
_TRAJECTORIES, _FEW = 16, 6  # that give equations, at most; those by which networks are compared
_TRIED = 3  # of these networks
_UNITS, _COLUMNS = (64, 128), 256  # of a network of one feature, and of several; columns of all its forms
_SPAN = (0.25, 1.5)  # deviations of weights, of features in units of their own deviations
_LENGTHS = (0.15, 0.4, 1.0)  # of smoothed fields, in units of the longest wave over 2 pi
_RIDGES = tuple(10.0**power for power in range(-12, 0))
_OF_CONTEXTS, _ALTERNATED = 1e-8, 8  # ridge while contexts are solved in turn with the network, and how often
_SMOOTHER = 1.05  # times the least left-out misfit, up to which a larger ridge is taken: it extrapolates better
_FEWER = 1.02  # the same for fewer terms beside the network
_HARDLY = 2.0  # times the least error, which that of the least misfit may have
_ROUNDS, _GAIN = 4, 0.9  # passes along a network's own flow, and what each must leave of the error for another one
_SOLVED, _SEARCHED = 0.4, 0.6  # shares of the time
_STEPS = 64  # of an interval, at most
_INVERSE = 10  # products of matrices that one inverse takes
_EXPLAINED = 0.5  # share of changes that networks may leave, to be tried


@dataclass(frozen=True)
class Architecture:
    """What a network sees, what is made of it, and how many hidden units it has."""

    name: str
    inputs: tuple[Local, ...]
    forms: tuple[Form, ...] = (Form(),)

    def sines(self, mean: np.ndarray, deviation: np.ndarray, seed: int, factor: int = 1) -> list[Sine]:
        """Hidden units of random weights and phases; mean, deviation (I,): of the features."""
        units = factor * max(min(_UNITS[len(self.inputs) > 1], _COLUMNS // len(self.forms)), 16)
        generator = np.random.default_rng(seed)
        scale = np.exp(generator.uniform(math.log(_SPAN[0]), math.log(_SPAN[1]), (units, 1)))
        weights = scale * generator.standard_normal((units, len(self.inputs))) / deviation
        phases = generator.uniform(0, 2 * np.pi, units) - weights @ mean
        return [Sine(self.inputs, tuple(w.tolist()), float(b), form) for form in self.forms
                for w, b in zip(weights, phases, strict=True)]


def architectures(domain: Domain, channels: int, longest: float) -> list[Architecture]:
    """Networks that are tried, the quickest first; longest: wave of the domain over 2 pi."""
    each, axes = range(channels), range(domain.dimensions)
    values = tuple(Local(VALUE, c) for c in each)
    lengths = [longest * factor for factor in _LENGTHS]
    smoothed = tuple(Local(SMOOTHED, c, 0, length) for c in each for length in lengths)
    found = [Architecture("values", values), Architecture("smoothed values", values + smoothed)]
    found.append(Architecture("diffusion", values, (Form(), Form(LAPLACIAN))))
    found.append(Architecture("smoothed", values, (Form(), *(Form(NONLOCAL, 0, 0, length) for length in lengths))))
    if domain.kind != "sphere":
        found.append(Architecture("transport", values, (Form(), *(Form(TRANSPORT, c, j) for c in each for j in axes))))
    if domain.kind != "sphere" and domain.dimensions == 1:
        slopes = tuple(Local(SLOPE, c, 0) for c in each)
        found.append(Architecture("flux", slopes + tuple(Local(LAPLACIAN, c) for c in each), (Form(FLUX),)))
    return found


def moments(inputs: Sequence[Local], codes: HarmonicCodes, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations (I,) of features of states (S, T, C, K)."""
    transform = transform_of(codes.harmonics, 2)
    unit = Sine(tuple(inputs), (1.0,) * len(inputs), 0.0)
    layer = Layer([unit], transform, torch.tensor(codes.harmonics.eigenvalues))
    flat = states.reshape(-1, *states.shape[2:])
    seen = layer.seen(torch.tensor(flat[:: max(len(flat) // 64, 1)]))
    return seen.mean((0, 2)).numpy(), seen.std((0, 2)).numpy() + 1e-12


def fit_network_law(
    t: np.ndarray, x: np.ndarray, u: np.ndarray, basis: Law | Ground, *, seconds: float = 30.0, seed: int = 0,
    log: Log | None = None, systems: Systems | None = None, units: Sequence[float] | None = None,
    most: float = _EXPLAINED, missed: float = np.inf,
) -> Law:
    """The law with a network whose forecasts of held-out trajectories are best; arguments are those of `fit_law`.

    basis: the law of a few terms that was found, whose terms may stand beside the network, or where none was, the
    ground on which it was sought; missed: least error of the laws so far; most: share of changes that it may leave.
    Raises UserError where none forecasts.
    """
    start, short = effort(), basis if isinstance(basis, Law) else None
    say: Log = log or (lambda _: None)
    train, judge = Data.of(t, x, u, systems).parted(seed)
    domain, boundary, count = basis.domain, basis.boundary, seen_by(basis.codes, missed)
    codes = fit_codes(domain.harmonics(count, boundary), train.x, train.thinned.u)
    some = train if train.systems.counts else train.take(
        evenly(len(train.u), codes.variance.size, _TRAJECTORIES, train.u.shape[1]))
    ground = Ground(domain, boundary, codes, some, *encode(codes, some))
    search = Search(ground, judge, short, terms_beside(ground, short, units), seed, say)
    with suppress(OutOfTime):
        search.run(start, seconds, most)
    if (law := search.best) is None:
        raise UserError("no network forecasts the held-out trajectories")
    with suppress(OutOfTime):
        for _, better in finer(law, train, judge, start + seconds, say, False):
            law = better
    law = replace(law, shares=shares(law, ground.states))
    return standard(law, np.unique(train.systems.number)) if law.count else law


def seen_by(codes: HarmonicCodes, missed: float) -> int:
    """How many harmonics networks see beside laws that miss so much: what they do not see counts against them."""
    tails = codes.variance[:, ::-1].cumsum(1)[:, ::-1]
    seen = int(((tails / tails[:, :1]).mean(0) > _LEFT * missed).sum())
    return min(max(_FEWEST, seen), codes.harmonics.count)


def shares(law: Law, states: np.ndarray) -> tuple[float, ...]:
    """Root mean square of what the network adds to the rates of each channel, relative to that of all terms."""
    library = law.field().library
    assert library.network is not None
    flat = np.zeros((len(states), states.shape[2], law.codes.harmonics.count))
    flat[..., : states.shape[3]] = states[:, states.shape[1] // 2]
    z = torch.tensor(flat)
    mine = library.network.rates(z, torch.tensor(law.theta)[library.sines])
    rates = law.field()(0.0, z.flatten(1)).reshape(z.shape)
    return tuple((mine.square().sum((0, 2)) / rates.square().sum((0, 2)).clamp_min(1e-300)).sqrt().tolist())


@dataclass
class Search:
    """Networks, tried in turn; the law with the least error of forecasts so far."""

    ground: Ground
    judge: Data
    short: Law | None
    terms: list[Term]
    seed: int
    say: Log
    best: Law | None = None
    least: float = np.inf

    def run(self, start: float, seconds: float, most: float) -> None:
        """Try architectures that leave less than a share `most` of changes, from an effort on, then those that are best
        along their own flow, with more units."""
        ground = self.ground
        longest = 1 / float(np.sqrt(ground.codes.harmonics.eigenvalues[1]))
        likely: list[tuple[float, Architecture, list[Sine]]] = []
        few = ground if ground.train.systems.counts else ground.some(_FEW)
        for one in architectures(ground.domain, ground.states.shape[2], longest):
            if effort() > start + _SOLVED * seconds and likely:
                break
            sines = one.sines(*moments(one.inputs, ground.codes, ground.states), self.seed)
            _, (share, misfit) = solved(few, self.short, self.terms, sines)
            if share < most:
                likely.append((misfit, one, sines))
        scored: list[tuple[float, Architecture, list[Sine], Law]] = []
        for misfit, one, sines in sorted(likely, key=lambda each: each[0])[:_TRIED]:
            if effort() > start + _SEARCHED * seconds and any(len(sines) >= len(wider) for _, _, wider, _ in scored):
                continue  # when time is over, smaller ones alone
            law, _ = solved(ground, self.short, self.terms, sines)
            error, tried = self.tried(f"{one.name} (misfit {misfit:.2f})", sines, law)
            if tried is not None:
                scored.append((error, one, sines, tried))
        if not scored:
            return
        least = min(scored, key=lambda each: each[0])
        first = next(each for each in scored if each[0] <= _HARDLY * least[0])  # the least misfit comes first
        until = start + seconds
        for error, one, sines, law in [first] if first is least else [first, least]:
            for factor in (1, 2) if 2 * len(sines) <= _COLUMNS else (1,):
                if factor > 1:
                    sines = one.sines(*moments(one.inputs, ground.codes, ground.states), self.seed, factor)
                error, law = self.followed(one.name, sines, error, law, until)
                if effort() > until:
                    return
                if not error <= self.least:
                    break

    def followed(self, name: str, sines: list[Sine], error: float, law: Law, until: float) -> tuple[float, Law]:
        """A law solved again along its own flow, at least once, and while its forecasts improve; taken unless they are
        clearly worse, for errors of splines have one sign, and add up beyond the frames."""
        for _ in range(_ROUNDS):
            paths = own_paths(law, self.ground.train.t, self.ground.states, self.ground.train.systems.number)
            if paths is None:
                break
            solution, _ = solved(self.ground, self.short, self.terms, sines, paths)
            after, new = self.tried(f"{name}, along its flow", sines, solution)
            if new is None or after > error / (_GAIN if len(new.terms) == len(law.terms) else 1):
                break
            if after < self.least / _GAIN:
                self.best, self.least = new, after
            before, error, law = error, after, new
            if error >= _GAIN * before or effort() > until:
                break
        return error, law

    def tried(self, name: str, sines: list[Sine], law: Law) -> tuple[float, Law | None]:
        """The geometric mean of the errors of a law's forecasts, and the law with its step; None where it cannot be
        integrated, or has no network."""
        t = self.ground.train.t
        one = integrable(law, t, self.ground.states) if well_posed(law, float((t[:, -1] - t[:, 0]).max())) else None
        if one is None or not one.has_network or one.longest * _STEPS < np.diff(t).max():
            return np.inf, None
        error = float(np.exp(np.log(forecast_errors(one, self.judge) + 1e-300).mean()))  # one may lie near a threshold
        self.say(f"  {error:.2e} with a network of {name}, {len(sines)} columns, effort {effort():.1f} s")
        if error < self.least:
            self.best, self.least = one, error
        return (error, one) if np.isfinite(error) else (np.inf, None)


def terms_beside(ground: Ground, short: Law | None, units: Sequence[float] | None) -> list[Term]:
    """Terms that may stand beside a network: linear ones, transport, and those of a short law that are no products of
    values."""
    families = families_of(ground.domain, ground.codes.harmonics, ground.states, units).terms
    few = [term for name in ("linear", "transport", "flow") for term in families.get(name, ()) if term.power < 2]
    few += [term for term in (short.terms if short else ()) if isinstance(term, Term)]
    return [term for term in dict.fromkeys(few) if len(term.products) > 1 or term.power or term.varies
            or len(term.products[0]) < 2 or any(axis >= 0 for _, axis in term.products[0])]


def solved(ground: Ground, short: Law | None, terms: Sequence[Term], sines: Sequence[Sine],
           paths: Tensor | None = None) -> tuple[Law, np.ndarray]:
    """The law of a network and those terms that matter beside it, from equations along splines or `paths`.

    And of left-out trajectories the share of changes that it leaves, and the mean logarithm of that, shell by shell.
    """
    every: list[Term | Sine] = [*terms, *sines]
    channels = ground.states.shape[2]
    systems = ground.train.systems
    (each,) = ground.equations(every, folds=len(ground.states), rows=_ROWS, paths=paths)
    effort.add(products=2 * len(ground.states) * ground.states.shape[1] * _ROWS * len(every) ** 2)
    few = short if short and 0 < short.count <= max(systems.counts, default=0) else None  # each costs as many columns
    contexts, told = np.zeros((systems.total, 0)), few is not None and few.told
    if systems.counts:
        contexts = few.contexts if few else contexts_of(
            each, systems, [list(range(len(terms)))] * channels, max(systems.counts))
        if not told:
            one = replace(each.grouped(systems.number), ridge=_OF_CONTEXTS)
            contexts = alternate(one, replace(systems, number=np.unique(systems.number)),
                                 [list(range(len(every)))] * channels, contexts, _ALTERNATED)
    several = 1 + contexts.shape[1]
    equations = with_contexts(each, contexts[systems.number]).grouped(np.arange(len(ground.states)) % FOLDS)
    beside = [j + p * len(every) for p in range(several) for j in range(len(terms))]
    simple = [j for j, term in enumerate(terms) if term == Term() or (term.linear and not term.power and term.axis < 0)]
    held = sines[0].form == Form() and any(one.kind == VALUE for one in sines[0].inputs)
    plain = [j + p * len(every) for p in range(several) for j in simple] if held else []
    network = [j + p * len(every) for p in range(several) for j in range(len(terms), len(every))]
    effort.add(products=_INVERSE * channels * len(_RIDGES) * FOLDS * (several * len(every)) ** 3)
    theta, std = np.zeros((2, several * len(every), channels))
    misfit = np.zeros(2)
    for c in range(channels):
        best, active, weights = _of_channel(equations, c, beside, plain, network)
        theta[active, c], inverse = best.solve(c, active, weights)
        std[active, c] = np.sqrt(np.maximum(np.diag(inverse), 0.0))
        misfit += np.array(best.left_out(c, active, weights)) / channels
    theta, std = (a.reshape(several, len(every), channels) for a in (theta, std))
    return ground.law(every, theta[0], std[0], by_context=theta[1:], contexts=contexts, told=told), misfit


def _of_channel(equations: NormalEquations, c: int, beside: list[int], plain: list[int], network: list[int]
                ) -> tuple[NormalEquations, list[int], np.ndarray]:
    """Equations with a ridge, active terms, and weights of shells, of a channel; chosen by left-out trajectories.

    beside: terms, of which some that a network holds, `plain`, do not stand beside it; without a network where that
    leaves as little.
    """
    others = [j for j in beside if j not in plain]
    smoothed = np.isin(np.arange(equations.gram.shape[-1]), network)
    ridged = [replace(equations, ridge=np.where(smoothed, ridge, _RIDGES[0])) for ridge in _RIDGES]
    weights = ridged[len(ridged) // 3].weights(c, [*others, *network])
    misfits = np.array([one.misfit(c, [*others, *network], weights) for one in ridged])
    best = ridged[int(np.flatnonzero(misfits <= _SMOOTHER * misfits.min()).max())]
    active, least = _fewest(best, c, others, network, weights)
    bare, without = _fewest(best, c, beside, [], weights)
    return best, bare if without <= _FEWER * least else active, weights


def _fewest(equations: NormalEquations, c: int, terms: list[int], kept: list[int], weights: np.ndarray
            ) -> tuple[list[int], float]:
    """As few terms as leave hardly more than the least misfit, with those that are kept; and that misfit."""
    path = equations.eliminations(c, terms, weights, kept)
    least = min(misfit for _, misfit in path)
    return [active for active, misfit in path if misfit <= _FEWER * least][-1], least
