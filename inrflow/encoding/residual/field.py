"""Residual fields: what codes leave, or the whole field without codes, as a Gaussian process in space and time.

    u(t, x) = base(t, x) + offset(x) + r(t, x) + noise

The base is what codes give, or the mean. Offsets are constant in time, known at places that training has seen and
kriged between them; r has one `Covariance` a channel. Values are normalised, times internal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.fit import Samples, fit_covariance
from inrflow.encoding.residual.neighbours import Sites, joint, krige
from inrflow.encoding.residual.places import Places

NEIGHBOURS = 48
_APART = 1e3  # time spans between trajectories, so that they are independent
_FEW = 500  # points of which correlations are summed
_FRAMES = 16  # observed frames of a place from which its offset is known


@dataclass
class Rows:
    """Values u (R, C) of single times and places: t (R,), x (R, d), and the identity of each place (R,)."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Offsets:
    """What is constant in time: values (M, C) at known places x (M, d), kriged between them."""

    x: np.ndarray
    value: np.ndarray
    covariances: list[Covariance]

    def __call__(self, places: Places, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (R, C) at points x (R, d) and their variances; exact at known places."""
        distinct, which = np.unique(x, axis=0, return_inverse=True)
        mean, variance = np.empty((2, len(distinct), len(self.covariances)))
        known = {place.tobytes(): index for index, place in enumerate(self.x)}
        own = np.array([known.get(place.tobytes(), -1) for place in distinct])
        zero, here, there = np.zeros(len(distinct)), places(self.x), places(distinct)
        for c, covariance in enumerate(self.covariances):
            some = np.isfinite(self.value[:, c])
            sites = Sites(np.zeros(int(some.sum())), here[some], covariance)
            m, v = krige(sites, torch.as_tensor(self.value[some, c]), zero, there, NEIGHBOURS)
            exact = (own >= 0) & some[own]
            mean[:, c] = np.where(exact, self.value[own, c], m)
            variance[:, c] = np.where(exact, 0.0, v + float(covariance.nugget))
        which = which.reshape(-1)
        return mean[which], variance[which]


@dataclass(frozen=True)
class ResidualField:
    """A Gaussian process in space and time.

    Attributes:
        places: how coordinates are embedded. covariances: of each channel.
        on_codes: whether the base is what codes give, else the mean.
        ahead: without codes as base, whether what is not explained after the last observation is that of the codes.
        offsets: what is constant in time, or None.
    """

    places: Places
    covariances: list[Covariance]
    on_codes: bool
    ahead: bool = False
    offsets: Offsets | None = None

    @classmethod
    def fit(
        cls, places: Places, rows: Rows, on_codes: bool, offsets: bool = False, seed: int = 0,
        near: ResidualField | None = None,
    ) -> ResidualField:
        """By composite likelihood of values minus the base. `offsets`: those of places that are often seen, too.
        `near`: a field of the same data, whose forms are taken."""
        constant = _offsets(places, rows, seed) if offsets else None
        if constant is not None:
            rows = Rows(rows.t, rows.x, rows.u - constant(places, rows.x)[0], rows.place)
        covariances = [
            fit_covariance(_samples(places, rows, c), places.groups, places.moving, seed,
                           None if near is None else near.covariances[c])
            for c in range(rows.u.shape[1])
        ]
        return cls(places, covariances, on_codes, offsets=constant)

    def condition(self, rows: Rows) -> Conditioned:
        """The posterior given values minus the base."""
        return Conditioned(self, rows)

    def inflation(self, x: np.ndarray) -> Tensor:
        """Factors (C,) of the noise of independent values at points x (N, d) that tell as much of what is common to all
        as values with this residual do: mean sums of rows of the correlation matrix."""
        some = x[:: max(1, len(x) // _FEW)]
        y, share = torch.as_tensor(self.places(some)), len(x) / len(some)
        t = torch.zeros(len(y), dtype=torch.float64)
        return torch.stack([
            1 + share * (c(t, y, t, y).sum(1).mean() - c.variance) / (c.variance + c.nugget) for c in self.covariances
        ])

    def without(self, x: np.ndarray) -> ResidualField:
        """The field to which places x (M, d) are new."""
        if self.offsets is None:
            return self
        gone = {place.tobytes() for place in x}
        kept = np.array([place.tobytes() not in gone for place in self.offsets.x])
        return replace(self, offsets=replace(self.offsets, x=self.offsets.x[kept], value=self.offsets.value[kept]))

    # ---- storing ----

    def state(self) -> dict[str, Any]:
        """Nested tensors and plain values."""
        constant = None
        if self.offsets is not None:
            constant = {"x": torch.as_tensor(self.offsets.x), "value": torch.as_tensor(self.offsets.value),
                        "covariances": [_covariance_state(c) for c in self.offsets.covariances]}
        return {"places": asdict(self.places), "on_codes": self.on_codes, "ahead": self.ahead, "offsets": constant,
                "covariances": [_covariance_state(c) for c in self.covariances]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ResidualField:
        """The inverse of `state`."""
        constant = state["offsets"]
        offsets = None if constant is None else Offsets(
            constant["x"].numpy(), constant["value"].numpy(), [_covariance(c) for c in constant["covariances"]])
        places = Places(tuple(state["places"]["period"]), state["places"]["sphere"])
        return cls(places, [_covariance(c) for c in state["covariances"]], state["on_codes"], state["ahead"], offsets)


class Conditioned:
    """A residual field given observed values: a function of time and place."""

    def __init__(self, field: ResidualField, rows: Rows) -> None:
        self.field = field
        self.last = float(rows.t.max())
        u = rows.u if field.offsets is None else rows.u - field.offsets(field.places, rows.x)[0]
        y = field.places(rows.x)
        self._channels = []
        for c, covariance in enumerate(field.covariances):
            seen = np.isfinite(u[:, c])
            sites = Sites(rows.t[seen], y[seen], covariance) if seen.any() else None
            self._channels.append((sites, torch.as_tensor(u[seen, c])))

    def __call__(self, t: np.ndarray, x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (R, C) and variance (R, C) of observations at times (R,) and points (R, d), the base not counted, and
        the shares (R, C) of the variance that the observations explain."""
        y, channels = self.field.places(x), len(self.field.covariances)
        mean, variance, explained = torch.zeros(3, len(t), channels, dtype=torch.float64)
        for c, (sites, values) in enumerate(self._channels):
            covariance = self.field.covariances[c]
            own = covariance.variance.expand(len(t))
            if sites is not None:
                mean[:, c], own = krige(sites, values, t, y, NEIGHBOURS)
            variance[:, c] = own + covariance.nugget
            explained[:, c] = (1 - own / covariance.variance).clamp(0, 1)
        if self.field.offsets is not None:
            offset, unsure = self.field.offsets(self.field.places, x)
            mean, variance = mean + torch.as_tensor(offset), variance + torch.as_tensor(unsure)
        return mean, variance, explained

    def added_to(
        self, mean: Tensor, variance: Tensor, t: Tensor, x: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance (R, C) of observations, given those of what codes give: without noise (C,).

        Args:
            t, x: internal times (R,) and points (R, d).
        """
        times = t.double().numpy()
        own, unsure, explained = self(times, x.double().numpy())
        if self.field.on_codes:
            return mean + own, variance + unsure
        if not self.field.ahead:
            return own, unsure
        left = torch.as_tensor(times > self.last)[:, None] * (1 - explained)
        return own + left * mean, (1 - left) * unsure + left * (variance + noise)

    def sample(self, t: np.ndarray, x: np.ndarray, count: int, seed: int = 0) -> Tensor:
        """Joint draws (count, R, C) of the field, without noise, given the nearest observations of all points."""
        y, random = self.field.places(x), torch.Generator().manual_seed(seed)
        draws = []
        for c, (sites, values) in enumerate(self._channels):
            mean, root = joint(self.field.covariances[c], sites, values, t, y, NEIGHBOURS)
            draws.append(mean + torch.randn(count, len(t), generator=random, dtype=torch.float64) @ root.T)
        result = torch.stack(draws, -1)
        if self.field.offsets is not None:
            distinct, which = np.unique(x, axis=0, return_inverse=True)
            offset, unsure = (torch.as_tensor(v) for v in self.field.offsets(self.field.places, distinct))
            drawn = torch.randn(count, *offset.shape, generator=random, dtype=torch.float64)
            result = result + (offset + unsure.sqrt() * drawn)[:, which.reshape(-1)]
        return result


def _offsets(places: Places, rows: Rows, seed: int) -> Offsets | None:
    """Means of often observed places around the means of all at the same time (two-way additive fit); None where too
    few are seen often enough."""
    _, first, place = np.unique(rows.place, return_index=True, return_inverse=True)
    _, time = np.unique(rows.t, return_inverse=True)
    values, covariances = [], []
    for c in range(rows.u.shape[1]):
        seen = np.isfinite(rows.u[:, c])
        u, p, k = rows.u[seen, c], place[seen], time[seen]
        counts, frames = np.bincount(p, minlength=len(first)), np.bincount(k, minlength=time.max() + 1)
        offset = np.zeros(len(first))
        for _ in range(8):
            common = np.bincount(k, u - offset[p], len(frames)) / np.maximum(frames, 1)
            offset = np.bincount(p, u - common[k], len(first)) / np.maximum(counts, 1)
        offset = np.where(counts >= _FRAMES, offset, np.nan)
        known = np.isfinite(offset)
        if known.sum() < 8:
            return None
        here = places(rows.x[first][known])
        samples = Samples(np.zeros(len(here)), here, np.flatnonzero(known), offset[known])
        values.append(offset)
        covariances.append(fit_covariance(samples, places.groups, (False,) * len(places.groups), seed))
    return Offsets(rows.x[first], np.stack(values, 1), covariances)


def _samples(places: Places, rows: Rows, channel: int) -> Samples:
    seen = np.isfinite(rows.u[:, channel])
    return Samples(rows.t[seen], places(rows.x[seen]), rows.place[seen], rows.u[seen, channel].astype(np.float64))


def rows_of(t: Tensor, x: Tensor, u: Tensor, delay: Tensor | None = None) -> list[Rows]:
    """Rows of each of S trajectories: t (S, T), x (S or 1, T or 1, N, d), u (S, T, N, C), delay (S, T, N)."""
    result = []
    for s in range(len(u)):
        seen = (torch.isfinite(u[s]).any(-1) & torch.isfinite(t[s])[:, None]).numpy()
        frame, point = np.nonzero(seen)
        points = x[s if len(x) > 1 else 0].double().numpy()
        fixed = len(points) == 1
        late = 0.0 if delay is None else delay[s].numpy()[frame, point]
        result.append(Rows(t[s].numpy()[frame] + late, points[np.zeros_like(frame) if fixed else frame, point],
                           u[s].double().numpy()[frame, point], point if fixed else np.arange(len(frame))))
    return result


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of independent trajectories, apart in time; places of the same coordinates are the same."""
    span = max(float(np.ptp(rows.t)) for rows in parts) + 1.0
    t = np.concatenate([rows.t - rows.t.min() + index * _APART * span for index, rows in enumerate(parts)])
    x = np.concatenate([rows.x for rows in parts])
    place = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
    return Rows(t, x, np.concatenate([rows.u for rows in parts]), place)


def _covariance_state(covariance: Covariance) -> dict[str, Any]:
    return {"form": asdict(covariance.form), "parameters": covariance.parameters}


def _covariance(state: dict[str, Any]) -> Covariance:
    form = state["form"]
    return Covariance(Form(tuple(form["smoothness"]), form["memory"], tuple(form["groups"]), tuple(form["moving"]),
                           form["drift"]), state["parameters"])
