"""Setting of a law search: trajectories and their codes, the choice of domain and harmonics, errors of forecasts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.domains import BOUNDARIES, NATURAL, NO_SLIP, Box, Domain, Flows, Region, Sphere, placed, walled
from inrflow.dynamics.laws.law import Law, max_norm
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.rate_solver import rates_between
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations, normal_equations
from inrflow.dynamics.laws.terms import Term
from inrflow.encoding.conditions import conditions, leaky, steady
from inrflow.encoding.harmonic_codes import (
    HarmonicCodes,
    enough,
    fit_codes,
    held_out_errors,
    tail,
    trajectories_by_points,
    white_noise,
)
from inrflow.errors import UserError

DETERMINED = 0.5  # least share of a code's variance that points determine, for its residual to count
FEW_HARMONICS, _FEWEST, _ENOUGH = 256, 8, 4096  # most and fewest harmonics tried; points they are compared on
_OF_POINTS = {1: 0.95, 2: 0.75, 3: 0.5}  # resolved harmonics per point of a grid, by dimension
FEW_CODES, _FEWEST_TRAJECTORIES, _OF_FEW_CODES = 1024, 8, 12  # codes above which trajectories are sampled
_FEWEST_CODES, _USUAL = 32768, 32  # codes of all sampled trajectories; frames per unit of their length
_TOLD = 0.7  # harmonics per point shared by all trajectories, in two or more dimensions: more are nearly collinear
_MOST_OF_FLOWS = 160  # most modes of flows: their transport costs a sum over all quadrature points per mode
_FEWER = 1.05  # ratio of held-out errors up to which fewer harmonics are preferred
_SOLID = 2.0  # factor on errors of quadratic elements in three dimensions, which cost sixteen times as much
_STILL = 0.5  # the same of harmonics that keep steady values, and of flows: on others, laws let these values drift
_HOPELESS = 5.0  # ratio to the least error above which fewer harmonics are not tried
_LOW_AND_HIGH, _SAMPLED = (0.001, 0.999), 100_000  # quantiles of values, of at most so many
_TIGHT, _HOLDING = 1e-4, 0.01  # errors above which leaky walls are tried; below which, if late, no other basis is
_SHARE, _JUDGES, _LOOKED_AT = 0.2, 8, 16  # share of trajectories that judge laws; most of them; most for the noise
_WINDOW, _WINDOWS = (10, 25), 12  # least and most frames of a window of long trajectories; windows aimed at
_FEW, _SHORTEST, _SLOW = 3, 5, 0.5  # least number of windows; of frames; changes over the variance
_RESOLVED, _NO_FLOW, _UNSURE = 1 / 3, 0.1, 0.02  # of modes of flows: share with equations, largest error; that of noise
_ROUGH, MOST_OF_GRID = 1e-3, 4096  # error above which all harmonics of a grid are used; most codes of these
_COARSE, _TWICE = 1e-4, 2.0  # error above which more harmonics are tried; times the time to choose, for this
_FINE = 1e-6  # unresolved share of the variance on large grids, where enough harmonics are affordable
_FURTHER, _STEPS, _HALVED = 1.6, 2, 0.5  # factor on harmonics; most steps; ratio of errors that justifies each
_SETTLED, _OF_GRID, _FLAT = 0.3, 1e-4, 2.0  # highest harmonics over the error; error of a grid; noise over highest ones

Log = Callable[[str], None]


@dataclass(frozen=True)
class Systems:
    """Systems that trajectories belong to. number (S,): system of each trajectory, 0 to E - 1; total: E; counts:
    context sizes P to try; given: given contexts (E, P), made of known parameters."""

    number: np.ndarray
    total: int = 1
    counts: tuple[int, ...] = ()
    given: tuple[np.ndarray, ...] = ()

    def take(self, rows: np.ndarray) -> Systems:
        """Systems of a subset of the trajectories."""
        return replace(self, number=self.number[rows])

    def split(self, order: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Trajectories to fit laws to, and a share of them to judge laws by, from trajectories in some order.

        A fit of contexts of P numbers needs P + 1 systems, a test one more. Where fewer would remain, trajectories
        judge only if others of their system are fitted; if there are none, all trajectories are used for both.
        """
        judged = max(1, round(share * len(order)))
        left = np.unique(self.number[order[judged:]])
        if not self.counts or len(left) > max(self.counts) + 1 or len(left) == len(np.unique(self.number)):
            return order[judged:], order[:judged]
        firsts = {self.number[row]: row for row in order[::-1]}.values()
        spare = [row for row in order if row not in firsts][:judged]
        return np.setdiff1d(order, spare), np.array(spare if spare else order)


@dataclass(frozen=True)
class Data:
    """Trajectories: times t (S, T), points x (S, N, d), fields u (S, T, N, C), NaN where unobserved, their systems, and
    the variance (C,) of noise in the fields."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    systems: Systems
    noise: np.ndarray | float = 0.0

    @classmethod
    def of(cls, t: np.ndarray, x: np.ndarray, u: np.ndarray, systems: Systems | None = None) -> Data:
        """Data of fields u (S, T, N, C) at times (T,) or (S, T), points (N, d) or (S, N, d); one system by default."""
        return cls(np.broadcast_to(t, u.shape[:2]).astype(np.float64),
                   np.broadcast_to(x, (len(u), *x.shape[-2:])).astype(np.float64), u.astype(np.float64),
                   systems or Systems(np.zeros(len(u), dtype=int)))

    def take(self, rows: np.ndarray) -> Data:
        """Subset of the trajectories, by index."""
        return Data(self.t[rows], self.x[rows], self.u[rows], self.systems.take(rows), self.noise)

    @property
    def subsampled(self) -> Data:
        """Evenly spaced subset of the frames, 32 to 63 of long trajectories, which represents all."""
        every = max(self.u.shape[1] // _USUAL, 1)
        return replace(self, t=self.t[:, ::every], u=self.u[:, ::every])

    def subsample_points(self, seed: int) -> Data:
        """Random subset of the points, at most _ENOUGH, which suffices to compare few harmonics."""
        few = np.sort(np.random.default_rng(seed).permutation(self.u.shape[2])[:_ENOUGH])
        return replace(self, x=self.x[:, few], u=self.u[:, :, few])

    def split(self, seed: int) -> tuple[Data, Data]:
        """Trajectories, or windows of long ones, for the fit and for judging laws; UserError if there are too few."""
        data = windows(self)
        if data.u.shape[1] < 4 or len(data.u) < 2:
            raise UserError(f"a law needs at least 2 trajectories of 4 frames, not {len(self.u)} of {self.u.shape[1]}")
        fitted, judges = data.systems.split(np.random.default_rng(seed).permutation(len(data.u)), _SHARE)
        return data.take(np.sort(fitted)), data.take(np.sort(judges[:_JUDGES]))


def windows(data: Data) -> Data:
    """Windows of long trajectories, or of the only one or two; each starts at the last frame of the one before. Chaotic
    rollouts are thus short. Windows of slow fields are longer, so that their changes exceed the noise."""
    trajectories, frames = data.u.shape[:2]
    length = max(_WINDOW[0], min(_WINDOW[1], trajectories * frames // _WINDOWS))
    if trajectories < _FEW:
        least = max(4, min(_SHORTEST, (frames + 1) // (_FEW - trajectories)))  # two parts of one of eight frames
        length = min(length, max(least, (frames - 1) // -(-_FEW // trajectories) + 1))
    scale = 2 * _SLOW * np.nanvar(data.u, (0, 1, 2))
    while trajectories * ((frames - 1) // (2 * length - 2)) >= _FEW and (np.nanmean(
            (data.u[:, length - 1 :] - data.u[:, : 1 - length]) ** 2, (0, 1, 2)) < scale).all():
        length = 2 * length - 1
    if frames < 2 * length - 1:
        return data
    starts = range(0, frames - length + 1, length - 1)
    rows = np.repeat(np.arange(trajectories), len(starts))
    cut = rows[:, None], np.tile(starts, trajectories)[:, None] + np.arange(length)
    return Data(data.t[cut], data.x[rows], data.u[cut], data.systems.take(rows))


def choose_basis(domains: list[Domain], boundary: str | None, data: Data, seed: int, say: Log,
                 late: Callable[[], bool] = lambda: False) -> tuple[Domain, str, int, float]:
    """Domain, boundary condition and number of harmonics per channel with the least held-out error, and this error.

    Where errors are close, fewer harmonics are preferred. late: whether to stop trying others.
    """
    some = data.take(evenly_spaced(len(data.u), 1, 6))
    meshed = any(isinstance(place, Region) for place in domains)  # which may end inside the box
    boxes: list[Domain] = [place for place in domains if meshed and isinstance(place, Box)]
    domains = [place for place in domains if place not in boxes]
    known, first, alone = None, domains[0], len(domains) == 1  # alone: no other guess
    same = boundary is None and np.equal(some.x, some.x[:1]).all()
    if same and isinstance(first, Box) and first.bounded and (found := walled(first, data.x[0], data.u, known=alone)):
        (first, known), domains = found, [found[0], *(place for place in domains if not isinstance(place, Box))]
    bases: list[tuple[Domain, str]] = [(place, conditions(place, data.x, data.u, seed, known)) for place in domains
                                       if isinstance(place, Box) and place.bounded and boundary is None]
    if same and bases and known is None and isinstance(first, Box) and not late() and (
            there := placed(first, some.x[0], some.u[:_FEW], bases[0][1])):
        domains = [there, *(place for place in domains if not isinstance(place, Box))]
        bases = [(there, conditions(there, data.x, data.u, seed))]
    bases += [(place, kind) for place in domains for kind in ([NO_SLIP] if isinstance(place, Flows) else [boundary] if
                                                             boundary else BOUNDARIES if place.bounded else [NATURAL])
              if (place, kind) not in bases]
    still = [one for own in domains if same and isinstance(own, Region) and (one := own.with_steady(data.x[0], data.u))]
    bases += [one for one in still if one not in bases]
    bases.sort(key=lambda basis: not isinstance(basis[0], Flows))  # flows first: they are given for velocities only
    some = some.subsample_points(seed)
    errors: dict[tuple[int, int], float] = {}
    shared = data.x.shape[-1] > 1 and np.equal(data.x, data.x[:1]).all()
    points = int((_TOLD if shared else 1.0) * np.isfinite(data.u[0, 0, :, 0]).sum())
    linear: dict[str, float] = {}  # errors on linear elements: where large, quadratic ones are skipped
    in_box = cache(partial(choose_basis, boxes, boundary, data, seed, say, late))
    for i in sorted(range(len(bases)), key=lambda i: getattr(bases[i][0], "order", 0)):
        (place, kind), least = bases[i], min(errors.values(), default=np.inf)
        if least < _HOLDING and late():
            break
        order = getattr(place, "order", 0)  # of finite elements
        if boxes and order > 1 and _TIGHT < least and in_box()[3] < _TIGHT:
            return in_box()
        if kind in linear and linear[kind] > _HOPELESS * min(linear.values()):
            continue
        size, most = (_MOST_OF_FLOWS, _NO_FLOW) if isinstance(place, Flows) else (FEW_HARMONICS, math.inf)
        size = min(size, points)
        if place.bounded:
            size = min(size, int(points * place.harmonics(size * condition_count(kind), kind).reached(some.x[0])))
        while size >= _FEWEST:
            errors[i, size] = held_out_errors(place.harmonics(size * condition_count(kind), kind), some.x, some.u, seed)
            if order == 1:
                linear.setdefault(kind, errors[i, size])
            if errors[i, size] > min(_HOPELESS * min(errors.values()), most) or late():
                break
            size = int(size / 1.6)
    if np.isinf(min(errors.values(), default=np.inf)):
        raise UserError(f"{data.x.shape[-2]} points are too few for harmonics along {data.x.shape[-1]} axes; give more")
    factors = [(_SOLID if place.dimensions > 2 and getattr(place, "order", 0) > 1 else 1.0)
               * (_STILL if isinstance(place, Flows) or (place, kind) in still else 1.0) for place, kind in bases]
    worth = {key: error * factors[key[0]] for key, error in errors.items()}
    size, i = min(key[::-1] for key in errors if worth[key] <= _FEWER * min(worth.values()))
    say("held-out points: " + ", ".join(f"{key}: {error:.1e}" for key, error in errors.items()))
    (place, kind), error = bases[i], errors[i, size]
    if boxes and error > _TIGHT and in_box()[3] < error:
        return in_box()
    if error > _TIGHT and not boundary and kind in BOUNDARIES and isinstance(place, Region) and place.dimensions > 1:
        place, kind = steady(place, kind, size, data.x, data.u, seed) or leaky(
            place, kind, size, some.x, some.u, seed, late) or (place, kind)
        error = held_out_errors(place.harmonics(size * condition_count(kind), kind), some.x, some.u, seed)
    return place, kind, size, error


def _extended(place: Domain, boundary: str, data: Data, seed: int, count: int, floor: float) -> tuple[int, float]:
    """More harmonics, as many as an extrapolation of their held-out error to _COARSE requires, and their error; `count`
    and `floor` where this does not halve the error."""
    def error(size: int) -> float:
        return held_out_errors(place.harmonics(size * condition_count(boundary), boundary), some.x, some.u, seed)

    some = data.take(evenly_spaced(len(data.u), 1, 6)).subsample_points(seed)
    falls = math.log(error(int(count / _FURTHER)) / floor)
    steps = min(math.ceil(math.log(floor / _COARSE) / falls), _STEPS) if falls > -math.log(_HALVED) else 0
    more = min(int(count * _FURTHER**steps), int(_TOLD * np.isfinite(data.u[0, 0, :, 0]).sum()))
    return (more, left) if more > count and (left := error(more)) < _HALVED * floor else (count, floor)


def condition_count(boundary: str) -> int:
    """Number of families of harmonics of a comma-separated list of boundary conditions: one for each distinct one."""
    return len(set(boundary.split(", ")))


def resolved_harmonics(domain: Domain, boundary: str, data: Data, flow: bool = False) -> tuple[Domain, int]:
    """The domain with harmonics that the points resolve, and their number: all of a grid of a box, a share of the
    points for flows or scattered points there, half of the points of a sphere, as many as points elsewhere."""
    points = int(np.isfinite(data.u[0, 0, :, 0]).sum())
    if not isinstance(domain, Box):
        return domain, int(_OF_POINTS[3] * points) if isinstance(domain, Sphere) else points
    grid = None if flow else domain.resolved_by_grid(data.x[0], boundary)
    if grid is None or points < len(data.x[0]) or not np.equal(data.x, data.x[:1]).all():
        return domain, int(_OF_POINTS[domain.dimensions] * points)
    return grid, math.prod(grid.functions)


def evenly_spaced(trajectories: int, codes: int, most: int | None = None, frames: int = 1) -> np.ndarray:
    """Indices of evenly spaced trajectories, at most `most`; fewer of many codes or frames."""
    most = min(most or trajectories, trajectories)
    if (codes := codes * max(frames // _USUAL, 1)) > FEW_CODES:
        most = min(most, max(2, min(_FEWEST_TRAJECTORIES, _FEWEST_CODES // codes), _OF_FEW_CODES * FEW_CODES // codes))
    return np.linspace(0, trajectories - 1, most).astype(int)


def forecast_errors(law: Law, data: Data) -> np.ndarray:
    """Squared errors (S,) of forecasts from the first frames, relative to the variance, mean over channels; inf if they
    diverge. The variance of noise in the data is subtracted."""
    result, scale = np.full(len(data.u), np.inf), np.nanvar(data.u, (0, 1, 2)) + 1e-300
    for members, places in trajectories_by_points(data.x):
        paths = law.rollout(first_states(law, places, data, members), data.t[members], data.systems.number[members])
        bounded = torch.isfinite(paths).flatten(1).all(1)
        paths[~bounded] = 0.0
        squares = np.nanmean((law.decode(paths, places) - data.u[members]) ** 2, (1, 2))
        squares = np.maximum(squares - data.noise, _UNSURE * data.noise) / scale
        result[members] = np.where(bounded.numpy(), squares.mean(1), np.inf)
    return result


def first_states(law: Law, x: np.ndarray, data: Data, members: np.ndarray) -> Tensor:
    """States (M, n) at the first frames of members of the data: codes, and rates that lead to the second frames."""
    z = law.encode(x, data.u[members, : 1 + law.has_rates])
    if not law.has_rates:
        return z[:, 0]
    gap, number = torch.tensor(data.t[members, 1] - data.t[members, 0]), data.systems.number[members]
    rates = z.new_zeros(len(z), z.shape[2] // len(law.codes.mean) * len(law.rates))
    for own in ([number == system for system in np.unique(number)] if law.count else [slice(None)]):
        field = law.field(law.context_of(number[own][0]))
        rates[own] = rates_between(field, law.rates, law.max_step, gap[own], z[own, 0], z[own, 1])
    return torch.cat([z[:, 0], rates], 1)


def determined_shares(codes: HarmonicCodes, spread: np.ndarray) -> np.ndarray:
    """Shares (C, K) of the prior variance of codes that points determine, from posterior variances (S, C, K). Zero for
    steady modes and for higher modes of flows, whose equations lack transport by truncated modes."""
    allowed = 1.0 if codes.harmonics.allowed is None else codes.harmonics.allowed
    known = allowed * (1 - spread.mean(0) / codes.variance)
    if codes.harmonics.components > 1:
        known[:, int(_RESOLVED * codes.harmonics.count) :] = 0.0
    known[:, codes.harmonics.count - codes.harmonics.steady :] = 0.0
    return known


def encode(codes: HarmonicCodes, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Codes (S, T, C, K) of trajectories and their variances (S, C, K); codes of steady modes are means over time."""
    states = np.zeros((*data.u.shape[:2], *codes.variance.shape))
    spread = np.zeros((len(states), *states.shape[2:]))
    for members, places in trajectories_by_points(data.x):
        states[members], spread[members] = codes.encode(places, data.u[members])
    steady = states[..., states.shape[-1] - codes.harmonics.steady :]
    steady[:] = steady.mean(1, keepdims=True)
    return states, spread


@dataclass(frozen=True)
class EncodedData:
    """Training data of laws: codes ("states") (S, T, C, K) of `train`, and their variances ("spread") (S, C, K)."""
    domain: Domain
    boundary: str
    codes: HarmonicCodes
    train: Data
    states: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, law: Law, data: Data) -> EncodedData:
        """Data encoded on the harmonics of a law."""
        return cls(law.domain, law.boundary, law.codes, data, *encode(law.codes, data))

    @property
    def known(self) -> np.ndarray:
        """Shares (C, K) of the prior variance of codes that points determine."""
        return determined_shares(self.codes, self.spread)

    @property
    def noisy(self) -> bool:
        """Whether values have noise beyond what harmonics leave."""
        return bool(np.any(self.train.noise))

    @cached_property
    def usual(self) -> np.ndarray:
        """Low and high values (2, C) of the data."""
        every = self.train.u.reshape(-1, self.train.u.shape[-1])
        if len(every) > _SAMPLED:  # at random, as those at even distances may be of one place
            every = every[np.random.default_rng(0).integers(len(every), size=_SAMPLED)]
        return np.nanquantile(every, _LOW_AND_HIGH, 0)

    def take(self, rows: np.ndarray) -> EncodedData:
        """Subset of the trajectories, by index."""
        return replace(self, train=self.train.take(rows), states=self.states[rows], spread=self.spread[rows])

    def since(self, first: int) -> EncodedData:
        """Frames from index `first` on."""
        train = replace(self.train, t=self.train.t[:, first:], u=self.train.u[:, first:])
        return replace(self, train=train, states=self.states[:, first:])

    def some(self, most: int) -> EncodedData:
        """Evenly spaced trajectories, at most `most`; fewer where codes or frames are many."""
        return self.take(evenly_spaced(len(self.states), self.states[0, 0].size, most, self.states.shape[1]))

    def law(self, terms: Sequence[Term | Sine], theta: np.ndarray, std: np.ndarray, **further: Any) -> Law:
        """Law on these harmonics with coefficients theta (J, C) and their standard errors."""
        return Law(self.domain, self.boundary, tuple(terms), theta, std, self.codes, largest=max_norm(self.states),
                   usual=self.usual, **further)

    def equations(self, terms: Sequence[Term | Sine], kinds: Sequence[bool] = (False,), folds: int = FOLDS,
                  **further: Any) -> list[NormalEquations]:
        """Results of `normal_equations`, by default of changes between frames."""
        return normal_equations(terms, self.codes.harmonics, self.train.t, self.states, self.spread, self.known, kinds,
                                folds, **further)


def prepare_data(data: Data, domains: list[Domain], boundary: str | None, seed: int, say: Log,
                 late: Callable[[float], bool] = lambda _: False, most_codes: int = MOST_OF_GRID
                 ) -> tuple[EncodedData, Data, float]:
    """Training data on harmonics as `choose_basis` finds them, trajectories that judge laws, and the held-out error of
    the harmonics. late(n): whether n times the time for this is over. most_codes: on a grid of more points than
    MOST_OF_GRID. Raises UserError if these are modes of flows that represent little."""
    train, judge = data.split(seed)
    few, channels = train.subsampled, train.u.shape[-1]
    place, boundary, count, floor = choose_basis(domains, boundary, few, seed, say, lambda: late(1.0))
    if isinstance(place, Flows) and floor > _NO_FLOW:
        raise UserError(f"divergence-free modes leave {100 * floor:.0f} % of the variance at held-out points")
    small, rough, highest = count < FEW_HARMONICS, floor > _ROUGH, 0.0
    if small or floor > _COARSE:  # more harmonics may help: all of a grid, if affordable
        grid, every = resolved_harmonics(place, boundary, train)
        most = FEW_HARMONICS if small else MOST_OF_GRID // channels
        whole = (small or rough) and (grid is not place or place.kind == "sphere" and rough)
        if whole and count < every <= most and (flat := tail(  # flat if noise
                grid.harmonics(every * condition_count(boundary), boundary), few.x[0], few.u)) < _SETTLED * floor:
            place, count, floor, highest = grid, every, _SETTLED * floor if small else _OF_GRID, flat
        elif not (small or late(_TWICE)):
            fine = enough(grid.harmonics(every, boundary), few.x[0], few.u, _FINE, most_codes // channels) if (
                rough and grid is not place and condition_count(boundary) == 1 and most_codes > FEW_HARMONICS * channels
                and np.isfinite(data.u).all()) else None
            place = grid if fine else place
            count, floor = fine or _extended(place, boundary, few, seed, count, floor)
    some = few.take(evenly_spaced(len(few.u), count * channels))
    codes = fit_codes(place.harmonics(count * condition_count(boundary), boundary), some.x, some.u)
    holding, used = codes.used(place)
    if used < codes.harmonics.count:  # products would fill harmonics that are empty in the data
        place, codes = holding, fit_codes(holding.harmonics(used, boundary), some.x, some.u)
    told = fit_codes(place.harmonics(int(_TOLD * count) * condition_count(boundary), boundary), some.x, some.u
                     ) if highest else codes  # all of a grid leave no residual: noise is estimated on fewer harmonics
    noise = white_noise(told, train.x[:_LOOKED_AT], train.u[:_LOOKED_AT])
    noise *= not highest or (noise / np.nanvar(train.u, (0, 1, 2))).mean() <= _FLAT * highest
    train, judge = replace(train, noise=noise), replace(judge, noise=noise)
    return EncodedData(place, boundary, codes, train, *encode(codes, train)), judge, floor
