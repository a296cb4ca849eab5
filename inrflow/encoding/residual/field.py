"""Residual fields: residuals of codes, or the whole field without codes, as Gaussian processes in space and time.

    u(t, x) = codes(t, x) + w(t) (own(t, x) - codes(t, x)) + noise

`own` is the posterior mean of a Gaussian process around the mean or around the values decoded from codes (`codes`). Its
weight w is constant between the channel's first and last observation, and decays outside. There the difference own -
codes at the nearest observed time persists for a while, like an innovation of an autoregression, and decoded values at
observed places may be kriged to others. Values are normalised, times internal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.encoding.residual.blocks import Samples
from inrflow.encoding.residual.cokriging import CollocatedCokriging
from inrflow.encoding.residual.covariance import Covariance
from inrflow.encoding.residual.earlier import upgraded_ahead
from inrflow.encoding.residual.fit import fit_covariance, fit_values_or_roots, lasting_covariance
from inrflow.encoding.residual.neighbours import Sites, joint, krige, outlier_noise, weights_of_places
from inrflow.encoding.residual.places import Places, recurring
from inrflow.encoding.residual.square_roots import SquareRoots
from inrflow.errors import UserError

_APART = 1e3  # separation of trajectories, in time spans, that makes them independent
_NO_WEIGHT, _FASTEST = 1e-3, 2.0  # least weight of an evaluated field; largest power of growth of deviations
Codes = Callable[[np.ndarray, np.ndarray], Tensor]  # decoded values (T, P, C) at times (T,) and points (P, d)


@dataclass
class Rows:
    """Observations u (R, C) at times t (R,) and points x (R, d), with the identity of each place (R,)."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Decay:
    """Weight of a field at a time h outside of the observations: kept + (1 - kept) exp(-h / memory).

    Attributes:
        memory: decay time; 0: the field acts within a fraction of a time step alone, so that values are continuous.
        kept: share of the weight that does not decay.
        held: decay time of the share exp(-h / held) by which the difference at the nearest observed time replaces that
            at the queried time; 0: the latter alone.
        whole: whether the weight starts at 1 in place of the weight of the channel."""

    memory: float = 0.0
    kept: float = 0.0
    held: float = np.inf
    whole: bool = False

    def __call__(self, away: np.ndarray) -> np.ndarray:
        """Weights at times `away` (...) from the observed ones."""
        fading = np.exp(-away / self.memory) if self.memory > 0 else np.exp(-((4 * away) ** 2))
        return self.kept + (1 - self.kept) * fading

    def stays(self, away: np.ndarray) -> np.ndarray:
        """Shares of the difference at the nearest observed time, at times `away` (...) from it."""
        return np.exp(-away / self.held) if self.held > 0 else np.zeros_like(away)


@dataclass(frozen=True)
class Ahead:
    """A field outside of the observations.

    Attributes:
        decay: of its weight.
        leads, spread: factors on its standard deviations at times from the observations, interpolated log-linearly in
            1 + time, and extrapolated with their last growth. missed: standard deviations of errors of codes there."""

    decay: Decay = Decay()
    leads: tuple[float, ...] = (0.0,)
    spread: tuple[float, ...] = (1.0,)
    missed: tuple[float, ...] = ()

    def factor(self, away: np.ndarray) -> np.ndarray:
        """Factor on standard deviations at a time `away` (...) outside of the observations."""
        time, at, size = np.log1p(away), np.log1p(self.leads), np.log(self.spread)
        late = at >= at[-1] / 2
        growth = np.polyfit(at[late], size[late], 1)[0].clip(0.0, _FASTEST) if late.sum() > 2 else 0.0
        return np.asarray(np.exp(np.interp(time, at, size) + growth * np.maximum(time - at[-1], 0.0)))

    def variance(self, away: np.ndarray) -> np.ndarray:
        """Error variance of codes at a time `away` (...) outside of the observations, 0 where it is not known."""
        return np.interp(np.log1p(away), np.log1p(self.leads), np.square(self.missed or np.zeros(len(self.leads))))


@dataclass(frozen=True)
class ChannelField:
    """The Gaussian process of one channel.

    Attributes:
        on_codes: whether it is a process of residuals of codes.
        weight: its weight in the sum with decoded values.
        spread: factor on its own standard deviations between the observations. within: in gaps of places, if `kriged`.
        observed, new: the field outside of the observations, at observed places and at others.
        fewest: number of observed places per frame below which codes alone are used.
        known: (M, d) places at which codes alone are used.
        kriged: whether decoded values at unobserved places are kriged, outside of the observations, from observed ones.
        roots: square root transform of values, before the process; None: no transform.
    """

    covariance: Covariance
    on_codes: bool = False
    weight: float = 1.0
    spread: float = 1.0
    within: float = 1.0
    observed: Ahead = Ahead()
    new: Ahead = Ahead()
    fewest: float = 0.0
    known: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    kriged: bool = False
    roots: SquareRoots | None = None

    def left_to_codes(self, x: np.ndarray) -> np.ndarray:
        """Which of points x (R, d) are places at which codes alone are used."""
        known = {place.tobytes() for place in self.known}
        return np.array([place.tobytes() in known for place in x], dtype=bool)

    def outside(self, away: np.ndarray, new: np.ndarray) -> Tensor:
        """At times `away` (R,) outside of the observations, at places that are `new` (R,) or not: weights of
        differences and of standard deviations, shares that persist, factors on standard deviations, and added
        variances, (5, R)."""
        both = [[(1.0 if one.decay.whole else self.weight) * one.decay(away), one.decay.stays(away), one.factor(away)]
                for one in (self.observed, self.new)]
        found = np.where(new, both[1], both[0])
        later, between = away > 0, np.where(new | (not self.kriged), self.spread, self.within)
        found[0], found[2] = (np.where(later, found[k], at) for k, at in ((0, self.weight), (2, between)))
        kriged = self.kriged & new & later
        nugget = float(self.covariance.nugget) * (self.roots.stretch if self.roots else 1.0)
        missed = np.maximum(self.observed.variance(away) - nugget, 0.0)  # in standard deviations
        wide, added = np.where(kriged, self.weight, found[0]), np.where(kriged, missed, 0.0)
        return torch.as_tensor(np.stack([found[0], wide, found[1], found[2], added]))

    @classmethod
    def fit(
        cls, places: Places, rows: Rows, channel: int, on_codes: bool = False, seed: int = 0,
        near: ChannelField | None = None, richer: bool = True, lasting: bool = False,
    ) -> ChannelField:
        """Fit by composite likelihood: with the form of `near`, the simplest one, or `richer` ones; or a `lasting`
        process."""
        seen, u = np.isfinite(rows.u[:, channel]), rows.u[:, channel].astype(np.float64)
        samples = Samples(rows.t[seen], places(rows.x[seen]), rows.place[seen], u[seen])
        kind = places.groups, places.moving
        if lasting:
            return cls(lasting_covariance(samples, *kind), on_codes)
        if near is None:
            covariance, roots = fit_values_or_roots(samples, *kind, seed, richer)
            return cls(covariance, on_codes, roots=roots)
        roots = None if on_codes else near.roots
        samples.value = roots(samples.value) if roots else samples.value
        return cls(fit_covariance(samples, *kind, seed, near.covariance, richer), on_codes, roots=roots)


@dataclass(frozen=True)
class ResidualField:
    """Gaussian processes in space and time, for each channel one, or None where codes alone are used.

    Attributes:
        places: embedding of the coordinates.
    """

    places: Places
    channels: tuple[ChannelField | None, ...]

    def state(self) -> dict[str, Any]:
        """State as nested tensors and plain values."""
        return {"places": asdict(self.places), "channels": [None if c is None else _state(c) for c in self.channels]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ResidualField:
        """The inverse of `state`. Raises UserError for states of versions without weights or with means of places."""
        if any(c and c.get("offsets") is not None for c in state.get("channels", [{"offsets": ()}])):
            raise UserError("the residual field of this run was written by an earlier version; train it again")
        stored: dict[str, Any] = {name: v if name == "sphere" else tuple(v) for name, v in state["places"].items()}
        return cls(Places(**stored), tuple(None if c is None else _channel(c) for c in state["channels"]))


class Conditioned:
    """A residual field conditioned on observed values, and its combination with decoded values.

    rows: observations; codes: (R, C) decoded values there; given: decoded values at other times and points.
    """

    def __init__(self, field: ResidualField, rows: Rows, codes: np.ndarray, given: Codes) -> None:
        self.field, self._given = field, given
        self._spans: list[tuple[float, float]] = []  # first and last observed times of channels
        self._sites: list[tuple[Sites, Tensor] | None] = []
        self._for_new: list[Sites | None] = []  # of channels, for predictions at unobserved places
        self._places: list[set[bytes]] = []  # observed places of channels
        y, self._points = field.places(rows.x), list[np.ndarray]()
        left = rows.u - np.where([one is not None and one.on_codes for one in field.channels], codes, 0.0)
        for c, channel in enumerate(field.channels):
            seen = np.isfinite(rows.u[:, c])
            its = rows.t[seen] if seen.any() else rows.t
            self._spans.append((float(its.min()), float(its.max())))
            self._points.append(np.unique(rows.x[seen], axis=0))
            self._places.append({place.tobytes() for place in field.places(self._points[-1])})
            if channel is not None and channel.roots:
                left[:, c] = channel.roots(left[:, c])
            if channel is None or not seen.any() or seen.sum() < channel.fewest * len(np.unique(rows.t[seen])):
                self._sites.append(None)
                self._for_new.append(None)
                continue
            u = left[seen, c]
            covariance = channel.covariance.followed(rows.t[seen], y[seen], u)
            sites, values = Sites(rows.t[seen], y[seen], covariance), torch.as_tensor(u)
            doubtful = outlier_noise(sites, values) if np.isfinite(covariance.doubtful) else np.zeros(len(u))
            louder = doubtful + covariance.loudness(torch.as_tensor(sites.y)).numpy()
            self._sites.append((Sites(sites.t, sites.y, covariance, doubtful), values))
            self._for_new.append(Sites(sites.t, sites.y, covariance, louder) if louder.any() else None)
        self._cokriging = CollocatedCokriging(rows.t, y, left, self._sites)

    def alone(self, c: int) -> Conditioned:
        """The field of one channel; for the others codes alone are used."""
        other = copy(self)
        other._sites = [sites if channel == c else None for channel, sites in enumerate(self._sites)]
        return other

    def own(self, c: int, t: np.ndarray, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and variance (R,) of observations of a channel by its process, at times (R,) and points (R, d)."""
        channel, (mean, variance) = self.field.channels[c], self._process(c, t, x)
        return channel.roots.moments(mean, variance) if channel and channel.roots else (mean, variance)

    def _process(self, c: int, t: np.ndarray, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and variance (R,) of observations of the process itself, before the inverse transform of roots."""
        channel, sites = self.field.channels[c], self._sites[c]
        assert channel is not None
        y = self.field.places(x)
        if sites is None:
            mean = torch.zeros(len(t), dtype=torch.float64)
            variance = channel.covariance.variance_at(torch.as_tensor(y))
        else:
            new = self._new(c, y) if self._for_new[c] else np.zeros(len(y), dtype=bool)
            mean, variance = torch.empty(2, len(t), dtype=torch.float64)
            for rows, given in ((new, self._for_new[c] or sites[0]), (~new, sites[0])):
                if rows.any():
                    mean[rows], variance[rows] = krige(given, sites[1], t[rows], y[rows])
        # The variance grows beyond the box of the training data.
        whole, nugget = channel.covariance.variance + channel.covariance.nugget, channel.covariance.nugget
        mean, variance = self._cokriging.conditioned(c, t, y, mean, variance + nugget)
        return mean, variance + torch.as_tensor(self.field.places.beyond(y)) * whole

    def codes(self, c: int, t: np.ndarray, x: np.ndarray, new: np.ndarray) -> Tensor:
        """Decoded values (R,) of a channel at times (R,) and points (R, d), those at `new` (R,) points kriged from
        decoded values at the observed places at the same time."""
        channel, seen, result = self.field.channels[c], self._points[c], torch.empty(len(t), dtype=torch.float64)
        assert channel is not None
        for when in np.unique(t[~new]):
            rows = ~new & (t == when)
            result[rows] = self._given(t[rows][:1], x[rows])[0, :, c].double()
        if new.any():
            times, which = np.unique(t[new], return_inverse=True)
            given = self._given(times, seen)[torch.as_tensor(which.reshape(-1)), :, c].double()
            weights = weights_of_places(channel.covariance, self.field.places(seen), self.field.places(x[new]))
            result[new] = (weights * given).sum(1)
        return result

    def _new(self, c: int, y: np.ndarray) -> np.ndarray:
        """Which of embedded places (R, p) have no observation of a channel."""
        return np.array([place.tobytes() not in self._places[c] for place in np.ascontiguousarray(y)], dtype=bool)

    def joint(self, c: int, std: Tensor, t: np.ndarray, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor] | None:
        """Parts of the standard deviation of observations at times (R,) and points (R, d): total (R,), factors (R,) on
        the correlation of codes, and covariance (R, R) of the process, relative to the total; None where codes alone
        are used.

        Args:
            std: (R,) standard deviations of observations by codes alone.
        """
        channel, sites = self.field.channels[c], self._sites[c]
        if channel is None or sites is None:
            return None
        inside = t.clip(*self._spans[c])
        away, y = np.abs(t - inside), self.field.places(x)
        _, wide, stays, factor, added = channel.outside(away, self._new(c, y))
        wide = wide.masked_fill(torch.as_tensor(channel.left_to_codes(x)), 0.0)
        parts = [(when, part) for when, part in ((inside, stays), (t, 1 - stays)) if bool(part.any())]
        times, shares = np.concatenate([when for when, _ in parts]), torch.cat([part for _, part in parts])
        variance, of_values = (sum(part * of(c, when, x)[1].sqrt() for when, part in parts) ** 2
                               for of in (self._process, self.own))
        every = joint(self._for_new[c] or sites[0], times, np.tile(y, (len(parts), 1))) * shares * shares[:, None]
        covariance = every.view(len(parts), len(t), len(parts), len(t)).sum((0, 2))
        less = (variance - channel.covariance.nugget) / covariance.diagonal().clamp(min=1e-300)
        covariance *= less.sqrt() * less.sqrt()[:, None]  # added noise of loud places does not apply to themselves
        own, codes = parts_of_std(channel, wide, of_values + added, std)
        own *= factor
        size = (own.square() + codes.square()).sqrt()
        share = own / size / variance.sqrt()
        return own + codes, codes / size, covariance * share * share[:, None]

    def combined(self, mean: Tensor, std: Tensor | None, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation (R, C) of observations at internal times t (R,) and points x (R, d), given those
        by codes alone."""
        times, points = t.double().numpy(), x.double().numpy()
        mean, std = mean.double().clone(), None if std is None else std.double().clone()
        for c, channel in enumerate(self.field.channels):
            if channel is None or self._sites[c] is None:
                continue
            away = np.abs(times - (inside := times.clip(*self._spans[c])))
            here = ~channel.left_to_codes(points)
            for rows in (np.flatnonzero(here & (away == 0)), np.flatnonzero(here & (away > 0))):
                later = len(rows) > 0 and away[rows[0]] > 0
                new = self._new(c, self.field.places(points[rows])) if later or channel.kriged else rows < 0  # none
                weight, wide, stays, factor, added = channel.outside(away[rows], new)
                some = wide > _NO_WEIGHT
                if not bool(some.any()):
                    continue
                rows, new = rows[some.numpy()], new[some.numpy()]
                weight, wide, stays, factor, added = (part[some] for part in (weight, wide, stays, factor, added))
                stays = stays * later  # else both times coincide
                new &= later and channel.kriged
                if new.any():
                    mean[rows[new], c] = self.codes(c, times[rows[new]], points[rows[new]], new[new])
                differs, deviation = torch.zeros(2, len(rows), dtype=torch.float64)
                if bool((stays < 1).any()):
                    own, variance = self.own(c, times[rows], points[rows])
                    differs += (1 - stays) * (own if channel.on_codes else own - mean[rows, c])
                    deviation += (1 - stays) * variance.sqrt()
                if bool((stays > 0).any()):  # evaluated once for each point
                    asked = np.concatenate([inside[rows, None], points[rows]], 1)
                    distinct, first, which = np.unique(asked, axis=0, return_index=True, return_inverse=True)
                    at = distinct[:, 0], distinct[:, 1:]
                    own, variance = self.own(c, *at)
                    if not channel.on_codes:
                        own = own - self.codes(c, *at, new[first])
                    differs += stays * own[which.reshape(-1)]
                    deviation += stays * variance.sqrt()[which.reshape(-1)]
                mean[rows, c] += weight * differs
                if std is not None:
                    own, codes = parts_of_std(channel, wide, deviation.square() + added, std[rows, c])
                    std[rows, c] = factor * own + codes
        return mean, std


def parts_of_std(channel: ChannelField, weight: Tensor, variance: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations (R,) of the process, with a variance (R,), and of codes, with `std` (R,) alone, whose sum is
    that of the weighted combination, as errors of both are taken as fully correlated."""
    if channel.on_codes:  # uncertain themselves
        covariance = channel.covariance
        explained = covariance.variance + covariance.nugget - variance
        variance = torch.maximum(variance, std.square() - explained)
    return weight * variance.sqrt(), (1 - weight) * std


def rows_of(t: Tensor, x: Tensor, u: Tensor, delay: Tensor | None = None) -> list[Rows]:
    """Observations of each of S trajectories: t (S, T), x (S or 1, T or 1, N, d), u (S, T, N, C), delay (S, T, N)."""
    result = []
    for s in range(len(u)):
        seen = (torch.isfinite(u[s]).any(-1) & torch.isfinite(t[s])[:, None]).numpy()
        frame, point = np.nonzero(seen)
        points = x[s if len(x) > 1 else 0].double().numpy()
        fixed = len(points) == 1
        late = 0.0 if delay is None else delay[s].numpy()[frame, point]
        place = point if fixed or delay is None else np.arange(len(frame))
        result.append(Rows(t[s].numpy()[frame] + late, points[np.zeros_like(frame) if fixed else frame, point],
                           u[s].double().numpy()[frame, point], place))
    return result


def joined(parts: Sequence[Rows]) -> Rows:
    """Observations of several trajectories, separated in time to be independent. Places are identified by their
    coordinates, those of columns, or, where few of these recur, by sensor (of each trajectory)."""
    span = max(float(np.ptp(rows.t)) for rows in parts) + 1.0
    t = np.concatenate([rows.t - rows.t.min() + index * _APART * span for index, rows in enumerate(parts)])
    x = np.concatenate([rows.x for rows in parts])
    place = recurring(x)
    if place is None:
        most = 1 + max(int(rows.place.max()) for rows in parts)
        place = np.concatenate([rows.place + index * most for index, rows in enumerate(parts)])
    return Rows(t, x, np.concatenate([rows.u for rows in parts]), place)


def _state(channel: ChannelField) -> dict[str, Any]:
    return {"covariance": channel.covariance.state(), "on_codes": channel.on_codes, "weight": channel.weight,
            "spread": channel.spread, "within": channel.within, "fewest": channel.fewest,
            "ahead": [asdict(channel.observed), asdict(channel.new)], "known": torch.as_tensor(channel.known),
            "kriged": channel.kriged, "roots": channel.roots and asdict(channel.roots)}


def _channel(state: dict[str, Any]) -> ChannelField:
    covariance = Covariance.from_state(state["covariance"])
    if "ahead" not in state:
        state = state | upgraded_ahead(state, covariance)
    observed, new = (Ahead(Decay(**one["decay"]), *(tuple(one.get(key, ())) for key in ("leads", "spread", "missed")))
                     for one in state["ahead"])
    return ChannelField(covariance, state["on_codes"], state["weight"], state["spread"],
                        state.get("within", state["spread"]), observed, new, state.get("fewest", 0.0),
                        state.get("known", torch.empty(0, 0)).numpy(), state.get("kriged", False),
                        SquareRoots(**state["roots"]) if state.get("roots") else None)
