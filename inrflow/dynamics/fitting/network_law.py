"""fit_network_law: laws with a pointwise network of sines beside a few terms, whose output layer is solved.

The hidden layer is random (Rahimi & Recht 2007) and scaled to the data, so that the network adds columns to the normal
equations of a law; a ridge, chosen by left-out trajectories, keeps it smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inrflow.domains import Box, Domain
from inrflow.domains.box import PERIODIC
from inrflow.domains.transform import transform_of
from inrflow.dynamics.laws.contexts import (
    alternating_least_squares,
    context_columns,
    contexts_of,
    standardise_contexts,
    with_contexts,
)
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.law import Law, integrable, node_rollouts, well_posed
from inrflow.dynamics.laws.network.sine import (
    COSINE,
    DIFFUSIVITY,
    FLUX,
    LAPLACIAN,
    NONLOCAL,
    PLACE,
    SINE,
    SLOPE,
    SMOOTHED,
    TRANSPORT,
    VALUE,
    Form,
    Input,
    Layer,
    Sine,
)
from inrflow.dynamics.laws.refinement.final import finer
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations
from inrflow.dynamics.laws.setting import (
    Data,
    EncodedData,
    Log,
    Systems,
    encode,
    evenly_spaced,
    first_states,
    forecast_errors,
)
from inrflow.dynamics.laws.terms import Term
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes, trajectories_by_points
from inrflow.errors import UserError
from inrflow.numerics.effort import Limit, OutOfTime, effort

_FEWEST, _LEFT = 160, 0.02  # least number of harmonics of networks; share of the error of a short law beyond them
_ROWS = 100  # number of harmonics whose equations are used
_TRAJECTORIES, _FEW = 16, 6  # largest numbers of trajectories for the fit, and for the comparison of networks
_TRIED = 3  # number of networks that are tried
_UNITS, _COLUMNS = (64, 128), 256  # units for one feature, and for several; columns of all forms together
_SPAN = (0.25, 1.5)  # range of standard deviations of weights, for standardised features
_LENGTHS = (0.15, 0.4, 1.0)  # of smoothing, in units of the longest wavelength over 2 pi
_RIDGES = tuple(10.0**power for power in range(-12, 0))
_OF_CONTEXTS, _ALTERNATED = 1e-8, 8  # ridge and rounds of the alternation of contexts and network
_SMOOTHER = 1.05  # tolerance of the least misfit for a larger ridge, which extrapolates better
_FEWER = 1.02  # tolerance of the least misfit for fewer terms
_HARDLY = 2.0  # times the least forecast error, up to which the network of least misfit is preferred
_ROUNDS, _GAIN = 4, 0.9  # refits along own rollouts, and error ratio that justifies another one
_SOLVED, _SEARCHED = 0.4, 0.6  # shares of the budget for the comparison and for the search
_VAIN, _FAIR = 2.0, 10.0  # limit of effort until a network has been forecast: over the budget, at least
_STEPS = 64  # largest number of steps in an interval
_BEYOND, _LOOKED_AT = 0.1, 8  # margin of the range of the data; trajectories that are forecast
_INVERSE = 5  # cost of an inverse in matrix products
_EXPLAINED = 0.5  # largest unexplained share of changes of networks to be tried


@dataclass(frozen=True)
class Architecture:
    """Inputs of a network, the forms in which its output enters a law, and its number of hidden units."""

    name: str
    inputs: tuple[Input, ...]
    forms: tuple[Form, ...] = (Form(),)

    def sines(self, mean: np.ndarray, deviation: np.ndarray, seed: int, factor: int = 1) -> list[Sine]:
        """Hidden units with random weights and phases; mean, deviation (I,): of the features."""
        units = factor * max(min(_UNITS[len(self.inputs) > 1], _COLUMNS // len(self.forms)), 16)
        generator = np.random.default_rng(seed)
        scale = np.exp(generator.uniform(math.log(_SPAN[0]), math.log(_SPAN[1]), (units, 1)))
        weights = scale * generator.standard_normal((units, len(self.inputs))) / deviation
        phases = generator.uniform(0, 2 * np.pi, units) - weights @ mean
        return [Sine(self.inputs, tuple(w.tolist()), float(b), form) for form in self.forms
                for w, b in zip(weights, phases, strict=True)]


def architectures(domain: Domain, channels: int, longest: float) -> list[Architecture]:
    """Networks to try, the cheapest first; longest: largest wavelength of the domain over 2 pi."""
    each, axes = range(channels), range(domain.dimensions)
    values = tuple(Input(VALUE, c) for c in each)
    lengths = [longest * factor for factor in _LENGTHS]
    smoothed = tuple(Input(SMOOTHED, c, 0, length) for c in each for length in lengths)
    found = [Architecture("values", values), Architecture("values and place", values + places(domain)),
             Architecture("smoothed values", values + smoothed)]
    found.append(Architecture("diffusion", values, (Form(), Form(LAPLACIAN))))
    found.append(Architecture("diffusivity", values, (Form(), *(Form(DIFFUSIVITY, c) for c in each))))
    found.append(Architecture("smoothed", values, (Form(), *(Form(NONLOCAL, 0, 0, length) for length in lengths))))
    if not domain.curved:
        slopes = tuple(Input(SLOPE, c, j) for c in each for j in axes)
        found.append(Architecture("transport", values, (Form(), *(Form(TRANSPORT, c, j) for c in each for j in axes))))
        found.append(Architecture("slopes", values + slopes))
        bent = tuple(Input(LAPLACIAN, c) for c in each) if domain.dimensions == 1 else ()
        found.append(Architecture("flux", slopes + bent, tuple(Form(FLUX, 0, j) for j in axes)))
    return found


def places(domain: Domain) -> tuple[Input, ...]:
    """Inputs that tell places on a domain: coordinates, or their cosines and sines along periodic axes."""
    found: list[Input] = []
    for axis in range(3 if domain.curved else domain.dimensions):
        if isinstance(domain, Box) and domain.axes[axis] == PERIODIC:
            length = (domain.upper[axis] - domain.lower[axis]) / (2 * math.pi)
            found += [Input(kind, 0, axis, length) for kind in (COSINE, SINE)]
        else:
            found.append(Input(PLACE, 0, axis))
    return tuple(found)


def moments(inputs: Sequence[Input], codes: HarmonicCodes, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (I,) of features of states (S, T, C, K)."""
    transform = transform_of(codes.harmonics, 2)
    unit = Sine(tuple(inputs), (1.0,) * len(inputs), 0.0)
    layer = Layer([unit], transform, torch.tensor(codes.harmonics.eigenvalues))
    flat = states.reshape(-1, *states.shape[2:])
    seen = layer.inputs_at_points(torch.tensor(flat[:: max(len(flat) // 64, 1)]))
    return seen.mean((0, 2)).numpy(), seen.std((0, 2)).numpy() + 1e-12


def fit_network_law(
    t: np.ndarray, x: np.ndarray, u: np.ndarray, basis: Law | EncodedData, *, seconds: float = 30.0, seed: int = 0,
    log: Log | None = None, systems: Systems | None = None, units: Sequence[float] | None = None,
    most: float = _EXPLAINED, missed: float = np.inf,
) -> Law:
    """The law with a network whose forecasts of held-out trajectories are best; arguments are those of `fit_law`.

    basis: the law of a few terms found before, whose terms may stand beside the network, or, without one, its setting
    (`EncodedData`: domain, harmonics and codes); missed: least error of the laws so far; most: largest share of changes
    that a network may leave unexplained. Raises UserError if no network forecasts.
    """
    start, short = effort(), basis if isinstance(basis, Law) else None
    say: Log = log or (lambda _: None)
    train, judge = Data.of(t, x, u, systems).split(seed)
    domain, boundary, count = basis.domain, basis.boundary, harmonics_for_network(basis.codes, missed)
    codes = fit_codes(domain.harmonics(count, boundary), train.x, train.subsampled.u)
    some = train if train.systems.counts else train.take(
        evenly_spaced(len(train.u), codes.variance.size, _TRAJECTORIES, train.u.shape[1]))
    encoded = EncodedData(domain, boundary, codes, some, *encode(codes, some))
    search = Search(encoded, judge, short, terms_beside_network(encoded, short, units), seed, say)
    late = Limit(asked=lambda: search.best is None and effort() > start + max(_VAIN * seconds, _FAIR))
    with suppress(OutOfTime), effort.limited(late):
        search.run(start, seconds, most)
    if (law := search.best) is None:
        raise UserError("no network forecasts the held-out trajectories")
    with suppress(OutOfTime):
        for _, better in finer(law, train, judge, start + seconds, say, False):
            law = better
    law = replace(law, shares=shares(law, encoded.states))
    return standardise_contexts(law, np.unique(train.systems.number)) if law.count else law


def harmonics_for_network(codes: HarmonicCodes, missed: float) -> int:
    """Number of harmonics that networks act on: the variance beyond is below a share of the error of other laws."""
    tails = codes.variance[:, ::-1].cumsum(1)[:, ::-1]
    seen = int(((tails / tails[:, :1]).mean(0) > _LEFT * missed).sum())
    return min(max(_FEWEST, seen), codes.harmonics.count)


def shares(law: Law, states: np.ndarray) -> tuple[float, ...]:
    """Root mean square of the rates of the network, relative to that of all terms, for each channel."""
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
    """Search over networks, and the law with the least forecast error so far."""

    encoded: EncodedData
    judge: Data
    short: Law | None
    terms: list[Term]
    seed: int
    say: Log
    best: Law | None = None
    least: float = np.inf

    def run(self, start: float, seconds: float, most: float) -> None:
        """Try architectures that leave less than a share `most` of changes unexplained, then refine the best along
        their own rollouts, with more units; `start`: effort at the beginning, `seconds`: budget."""
        encoded = self.encoded
        longest = 1 / float(np.sqrt(encoded.codes.harmonics.eigenvalues[1]))
        likely: list[tuple[float, Architecture, list[Sine]]] = []
        few = encoded if encoded.train.systems.counts else encoded.some(_FEW)
        for tried, one in enumerate(architectures(encoded.domain, encoded.states.shape[2], longest)):
            if tried and effort() > start + (_SOLVED if likely else 1.0) * seconds:
                break
            sines = one.sines(*moments(one.inputs, encoded.codes, encoded.states), self.seed)
            _, (share, misfit) = solved(few, self.short, self.terms, sines)
            if share < most:
                likely.append((misfit, one, sines))
        scored: list[tuple[float, Architecture, list[Sine], Law]] = []
        for misfit, one, sines in sorted(likely, key=lambda each: each[0])[:_TRIED]:
            if effort() > start + _SEARCHED * seconds and any(len(sines) >= len(wider) for _, _, wider, _ in scored):
                continue  # late: only networks with fewer columns
            law, _ = solved(encoded, self.short, self.terms, sines)
            error, forecast = self.tried(f"{one.name} (misfit {misfit:.2f})", sines, law)
            if forecast is not None:
                scored.append((error, one, sines, forecast))
        if not scored:
            return
        least = min(scored, key=lambda each: each[0])
        first = next(each for each in scored if each[0] <= _HARDLY * least[0])  # ordered by misfit
        until = start + seconds
        for error, one, sines, law in [first] if first is least else [first, least]:
            for factor in (1, 2) if 2 * len(sines) <= _COLUMNS else (1,):
                if factor > 1:
                    sines = one.sines(*moments(one.inputs, encoded.codes, encoded.states), self.seed, factor)
                error, law = self.followed(one.name, sines, error, law, until)
                if effort() > until:
                    return
                if not error <= self.least:
                    break

    def followed(self, name: str, sines: list[Sine], error: float, law: Law, until: float) -> tuple[float, Law]:
        """A law solved again along its own rollouts, at least once and while its forecasts improve. The result is
        accepted unless clearly worse, since errors of splines have one sign and accumulate beyond the frames."""
        for _ in range(_ROUNDS):
            paths = node_rollouts(law, self.encoded.train.t, self.encoded.states, self.encoded.train.systems.number)
            if paths is None:
                break
            solution, _ = solved(self.encoded, self.short, self.terms, sines, paths)
            after, new = self.tried(f"{name}, refitted along its rollouts", sines, solution)
            if new is None or after > error / (_GAIN if len(new.terms) == len(law.terms) else 1):
                break
            if after < self.least / _GAIN and self.stays(new):
                self.best, self.least = new, after
            before, error, law = error, after, new
            if error >= _GAIN * before or effort() > until:
                break
        return error, law

    def tried(self, name: str, sines: list[Sine], law: Law) -> tuple[float, Law | None]:
        """Geometric mean of the forecast errors of a law, and the law with its time step; None if it cannot be
        integrated or has no network."""
        t = self.encoded.train.t
        one = integrable(law, t, self.encoded.states) if well_posed(law, t) else None
        if one is None or not one.has_network or one.max_step * _STEPS < np.diff(t).max():
            return np.inf, None
        error = float(np.exp(np.log(forecast_errors(one, self.judge) + 1e-300).mean()))  # robust to single ones
        self.say(f"  error {error:.2e} with a network of {name}, {len(sines)} columns, effort {effort():.1f} s")
        if error < self.least and self.stays(one):
            self.best, self.least = one, error
        return (error, one) if np.isfinite(error) else (np.inf, None)

    @cached_property
    def limits(self) -> tuple[Tensor, Tensor]:
        """Lower and upper limits (C, 1) of values over twice the observed time: those of the training data, which may
        move on at the pace of the second half, with a margin."""
        seen = self.at_points(torch.tensor(self.encoded.states)).transpose(0, 2).flatten(2)  # (C, T, S Q)
        lowest, highest, middle = seen.amin(2), seen.amax(2), seen.shape[1] // 2 - 1
        margin = _BEYOND * (highest.amax(1) - lowest.amin(1))
        low = lowest.amin(1) - margin + 2 * (lowest[:, -1] - lowest[:, middle]).clamp_max(0)
        high = highest.amax(1) + margin + 2 * (highest[:, -1] - highest[:, middle]).clamp_min(0)
        return low[:, None], high[:, None]

    def at_points(self, codes: Tensor) -> Tensor:
        """Fields (..., Q) of codes (..., K) at quadrature points."""
        return transform_of(self.encoded.codes.harmonics, 2).fields(codes)

    def stays(self, law: Law) -> bool:
        """Whether forecasts over twice the observed time stay within `limits`, beyond which a network says nothing."""
        low, high = self.limits
        members, places = next(iter(trajectories_by_points(self.judge.x)))
        t, z = self.judge.t[members[0]], first_states(law, places, self.judge, members[:_LOOKED_AT])
        last = law.rollout(z, np.append(t, 2 * t[-1] - t[0]), self.judge.systems.number[members[0]])[:, -1]
        ends = self.at_points(last.unflatten(1, law.codes.mean.shape)).transpose(0, 1).flatten(1)
        stays = bool(((ends >= low) & (ends <= high)).all())
        if not stays:
            self.say("  its forecasts leave the range of the data within twice the observed time")
        return stays


def terms_beside_network(encoded: EncodedData, short: Law | None, units: Sequence[float] | None) -> list[Term]:
    """Terms that may stand beside a network: linear ones, transport, and those of a short law that are not products of
    values."""
    families = families_of(encoded.domain, encoded.codes.harmonics, encoded.states, units).terms
    few = [term for name in ("linear", "transport", "flow") for term in families.get(name, ()) if term.power < 2]
    few += [term for term in (short.terms if short else ()) if isinstance(term, Term)]
    return [term for term in dict.fromkeys(few) if len(term.products) > 1 or term.power or term.varies
            or len(term.products[0]) < 2 or any(axis >= 0 for _, axis in term.products[0])]


def solved(encoded: EncodedData, short: Law | None, terms: Sequence[Term], sines: Sequence[Sine],
           paths: Tensor | None = None) -> tuple[Law, np.ndarray]:
    """The law of a network and of relevant terms beside it, from equations along splines or trajectories `paths`.

    Also, for left-out trajectories, the unexplained share of changes, and the mean over shells of its logarithm.
    """
    every: list[Term | Sine] = [*terms, *sines]
    channels = encoded.states.shape[2]
    systems = encoded.train.systems
    (each,) = encoded.equations(every, folds=len(encoded.states), rows=_ROWS, paths=paths)
    effort.add(products=2 * len(encoded.states) * encoded.states.shape[1] * _ROWS * len(every) ** 2)
    few = short if short and 0 < short.count <= max(systems.counts, default=0) else None  # they multiply columns
    contexts, given = np.zeros((systems.total, 0)), few is not None and few.contexts_given
    if systems.counts:
        contexts = few.contexts if few else contexts_of(
            each, systems, [list(range(len(terms)))] * channels, max(systems.counts))
        if not given:
            one = replace(each.grouped(systems.number), ridge=_OF_CONTEXTS)
            contexts = alternating_least_squares(one, replace(systems, number=np.unique(systems.number)),
                                                 [list(range(len(every)))] * channels, contexts, _ALTERNATED)
    size, count = len(every), contexts.shape[1]
    equations = with_contexts(each, contexts[systems.number]).folded
    beside = context_columns(range(len(terms)), size, count)
    simple = [j for j, term in enumerate(terms) if term == Term() or (term.linear and not term.power and term.axis < 0)]
    held = sines[0].form == Form() and any(one.kind == VALUE for one in sines[0].inputs)
    plain = context_columns(simple, size, count) if held else []
    network = context_columns(range(len(terms), size), size, count)
    effort.add(products=_INVERSE * channels * len(_RIDGES) * FOLDS * ((1 + count) * size) ** 3)
    theta, std = np.zeros((2, (1 + count) * size, channels))
    misfit = np.zeros(2)
    for c in range(channels):
        best, active, weights = _of_channel(equations, c, beside, plain, network)
        theta[active, c], inverse = best.solve(c, active, weights)
        std[active, c] = np.sqrt(np.maximum(np.diag(inverse), 0.0))
        misfit += np.array(best.cross_validated(c, active, weights)) / channels
    theta, std = (a.reshape(1 + count, size, channels) for a in (theta, std))
    return encoded.law(every, theta[0], std[0], by_context=theta[1:], contexts=contexts, contexts_given=given), misfit


def _of_channel(equations: NormalEquations, c: int, beside: list[int], plain: list[int], network: list[int]
                ) -> tuple[NormalEquations, list[int], np.ndarray]:
    """Equations with the chosen ridge, active terms, and weights of shells for a channel; chosen by cross-validation.

    beside: candidate terms; `plain`: those that the network can represent, which are excluded beside it. The network is
    dropped if the terms alone leave as small a residual.
    """
    others = [j for j in beside if j not in plain]
    smoothed = np.isin(np.arange(equations.gram.shape[-1]), network)
    ridges = [np.where(smoothed, ridge, _RIDGES[0]) for ridge in _RIDGES]
    weights = replace(equations, ridge=ridges[len(ridges) // 3]).weights(c, [*others, *network])
    added = equations.added_shells(weights)
    misfits = np.array([_fewest(replace(added, ridge=one), c, [], [*others, *network])[1] for one in ridges])
    ridge = ridges[int(np.flatnonzero(misfits <= _SMOOTHER * misfits.min()).max())]
    best, added = replace(equations, ridge=ridge), replace(added, ridge=ridge)
    active, least = _fewest(added, c, others, network)
    bare, without = _fewest(added, c, beside, [])
    return best, bare if without <= _FEWER * least else active, weights


def _fewest(equations: NormalEquations, c: int, terms: list[int], kept: list[int]) -> tuple[list[int], float]:
    """The fewest terms, with `kept`, of nearly the least cross-validated misfit, and that misfit; of one shell."""
    path = equations.eliminations(c, terms, np.ones(1), kept)
    least = min(misfit for _, misfit in path)
    return [active for active, misfit in path if misfit <= _FEWER * least][-1], least
