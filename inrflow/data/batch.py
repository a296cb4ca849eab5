"""Batches of trajectories as stacked tensors; normalisation of values; internal time, with a typical step of 1; and
detection of conventional fill values (such as -9999), which lie far from all other values."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GRID = 2.0**30  # resolution of internal times, per unit
_CLOSE = 1e-6  # relative rounding error of a stored fill value
_WILD = 20.0  # standard deviations of the training data within which values are expected
#: Fill values written by loggers, models and archives.
_NINES = (777.7, 888.8, 999, 999.9, 999.99, 6999, 7777, 8888, 9999, 9999.9, 32766, 32767, 32768, 99999, 999999)
_POWERS = (9.99e8, 1e10, 1e15, 1e20, 9.999e20, 1e30, 9.99e33, 1e34, 1e35, 1e36, 9.96921e36)
CONVENTIONS = np.array([-99, -99.9, -99.99, *(sign * number for number in _NINES + _POWERS for sign in (-1, 1))])


@dataclass
class TrajectoryBatch:
    """Batch of S trajectories of T frames of N points.

    Attributes:
        t: times (S, T), float64; NaN pads the end of shorter trajectories.
        x: points (S or 1, T or 1, N, d); 1 if trajectories or frames share their points.
        u: values (S, T, N, C), in normalised units; NaN = not observed.
        delay: time offset (S, T, N) of each value from its frame's time, in the units of t; None if there is none.
    """

    t: Tensor
    x: Tensor
    u: Tensor
    delay: Tensor | None = None

    def __len__(self) -> int:
        return len(self.u)

    @property
    def observed(self) -> Tensor:
        """Mask (S, T) of the frames with at least one observed value."""
        return torch.isfinite(self.u).flatten(2).any(-1) & torch.isfinite(self.t)

    def select(self, index: Tensor | slice) -> TrajectoryBatch:
        """Subset of the trajectories."""
        delay = None if self.delay is None else self.delay[index]
        return TrajectoryBatch(self.t[index], self.x if len(self.x) == 1 else self.x[index], self.u[index], delay)

    def first_frames(self, count: int) -> TrajectoryBatch:
        """The first `count` frames of every trajectory."""
        return self.frames(slice(0, count))

    def frames(self, index: slice | Tensor) -> TrajectoryBatch:
        """Subset of the frames of every trajectory."""
        x = self.x if self.x.shape[1] == 1 else self.x[:, index]
        delay = None if self.delay is None else self.delay[:, index]
        return TrajectoryBatch(self.t[:, index], x, self.u[:, index], delay)

    def begun(self) -> TrajectoryBatch:
        """Batch of trajectories from their first observed frames on, padded at the end; itself if all begin with one,
        or values have times of their own."""
        first, count = self.observed.int().argmax(1), self.u.shape[1]
        if self.delay is not None or not bool(first.any()):
            return self
        index, rows = torch.arange(count) + first[:, None], torch.arange(len(self))[:, None]
        after, index = index >= count, index.clamp(max=count - 1)
        x = self.x if self.x.shape[1] == 1 else self.x.expand(len(self), *self.x.shape[1:])[rows, index]
        return TrajectoryBatch(self.t[rows, index].masked_fill(after, torch.nan), x,
                               self.u[rows, index].masked_fill(after[..., None, None], torch.nan))

    def windows(self, starts: Iterable[int], length: int) -> TrajectoryBatch:
        """Windows of `length` frames from each of `starts` on, as trajectories: all trajectories of the first start,
        then of the next."""
        parts = [self.frames(slice(start, start + length)) for start in starts]
        x = self.x if self.x.shape[:2] == (1, 1) else torch.cat([p.x.expand(len(self), *p.x.shape[1:]) for p in parts])
        delay = None if self.delay is None else torch.cat([p.delay for p in parts if p.delay is not None])
        return TrajectoryBatch(torch.cat([p.t for p in parts]), x, torch.cat([p.u for p in parts]), delay)

    def at(self, places: Tensor) -> TrajectoryBatch:
        """Subset of the points, or with a mask (S, T or more, N) of values, the batch with these alone."""
        if places.ndim == 3:
            return self.with_values(self.u.masked_fill(~places[:, : self.u.shape[1], :, None], torch.nan))
        delay = None if self.delay is None else self.delay[:, :, places]
        return TrajectoryBatch(self.t, self.x[:, :, places], self.u[:, :, places], delay)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, d) if they are fixed (those of the first trajectory), else (S, T, N, d), and where (..., N) they
        are observed (fixed ones: all)."""
        known = torch.isfinite(self.u).any(-1)
        if self.x.shape[1] == 1:
            return self.x[0, 0].double().numpy(), np.ones(known.shape[2], dtype=bool)
        return self.x.expand(*known.shape, self.x.shape[-1]).double().numpy(), known.numpy()

    def thinned(self, most: int) -> tuple[TrajectoryBatch, Tensor]:
        """Every k-th frame, and in these every k-th point, with about `most` known values; and the indices of these
        points."""
        every = max(1, int(torch.isfinite(self.u).any(-1).sum()) // most)
        frames = min(every, self.u.shape[1])
        points = torch.arange(0, self.u.shape[2], max(1, every // frames))
        return self.frames(slice((frames - 1) // 2, None, frames)).at(points), points

    def later(self, past: int, leads: int, most: int) -> tuple[TrajectoryBatch, Tensor]:
        """At most `leads` of the frames after the first `past`, denser at early ones, at every k-th point, with about
        `most` values; and the indices of these points."""
        count = self.u.shape[1] - past
        frames = torch.as_tensor(np.unique(np.geomspace(1, count, min(count, leads)).round().astype(int)) - 1) + past
        points = torch.arange(0, self.u.shape[2], max(1, len(self) * len(frames) * self.u.shape[2] // most))
        return self.frames(frames).at(points), points

    def with_values(self, u: Tensor) -> TrajectoryBatch:
        """Batch with the same times and points, and other values."""
        return TrajectoryBatch(self.t, self.x, u, self.delay)

    def delays(self) -> Tensor | None:
        """Time offsets (G, N) of the `groups`."""
        return None if self.delay is None else self.delay.flatten(0, 1)

    def groups(self) -> tuple[Tensor, Tensor]:
        """Frames grouped by shared points: x (G, N, d) and u (G, F, N, C), F frames in each of G groups."""
        trajectories, frames, points, channels = self.u.shape
        if self.x.shape[1] > 1:
            x = self.x.expand(trajectories, frames, *self.x.shape[2:])
            return x.flatten(0, 1), self.u.reshape(-1, 1, points, channels)
        if self.x.shape[0] == 1:
            return self.x[:, 0], self.u.reshape(1, -1, points, channels)
        return self.x[:, 0], self.u

    def gathered(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points, (N, d) if shared by all, else (B, N, d), and values (B, N, C) of the frames `index` (B, 2), float32.
        """
        s, t = index.T
        u = self.u[s, t].float()
        if self.x.shape[:2] == (1, 1):
            return self.x[0, 0].float(), u
        return self.x[s if len(self.x) > 1 else 0 * s, t if self.x.shape[1] > 1 else 0 * t].float(), u

    def some_frames(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points and values (see `gathered`) of at most `most` evenly spread observed frames, and their indices (B, 2).
        """
        seen = self.observed.nonzero()
        seen = seen[torch.linspace(0, len(seen) - 1, min(len(seen), most)).long()]
        return *self.gathered(seen), seen


@dataclass
class Normalisation:
    """Normalisation u_normalised = (u - mean) / scale, with mean and scale (C,) of each channel in the data's units.

    least: (C,) lower bounds in data units: 0 for amounts, which are never negative, else -inf; None: unknown.
    most: (C,) largest magnitudes of normalised training values; None: unknown.
    """

    mean: Tensor
    scale: Tensor
    least: Tensor | None = None
    most: Tensor | None = None

    @property
    def limit(self) -> Tensor:
        """Largest plausible magnitudes (C,) of normalised values: twice those in training, at least `_WILD`."""
        least = torch.full_like(self.scale, _WILD)
        return least if self.most is None else torch.maximum(least, 2 * self.most.to(least))

    def far(self, u: Tensor) -> list[int]:
        """Channels whose median distance from the mean, of values (..., C) in data units, is above twice the largest in
        training, or above `limit` if that is unknown."""
        limit = self.limit if self.most is None else 2 * self.most
        sizes = self.apply(u).abs().flatten(0, -2).nanmedian(0).values
        return (sizes > limit.to(sizes)).nonzero()[:, 0].tolist()

    def apply(self, u: Tensor) -> Tensor:
        """Normalised values of values (..., C) in data units."""
        return (u - self.mean.to(u)) / self.scale.to(u)

    def invert(self, u: Tensor) -> Tensor:
        """Values in data units of normalised values (..., C)."""
        return u * self.scale.to(u) + self.mean.to(u)

    def possible(self, u: Any) -> Any:
        """Values (..., C) in data units, with amounts clipped at 0."""
        if self.least is None:
            return u
        return torch.maximum(u, self.least.to(u)) if isinstance(u, Tensor) else np.maximum(u, self.least.numpy())


@dataclass(frozen=True)
class TimeScale:
    """Conversion to internal time tau = (t - origin) / unit; unit is the typical step of the training data."""

    origin: float
    unit: float

    def internal(self, t: Tensor) -> Tensor:
        """Internal times of data times, rounded to multiples of a power of 2, so that equal steps are exactly equal and
        share matrix exponentials and batches."""
        tau = (t.double() - self.origin) / self.unit
        return tau + ((tau * _GRID).round() / _GRID - tau).detach()

    def is_after(self, t: float, tau: Tensor) -> bool:
        """Whether a data time is later than an internal time."""
        return bool(self.internal(torch.tensor(t, dtype=torch.float64)) > tau)

    def external(self, tau: Tensor) -> Tensor:
        """Data times of internal times."""
        return tau.double() * self.unit + self.origin

    @classmethod
    def of(cls, times: Tensor) -> TimeScale:
        """Time scale of training times (S, T), padded by NaN."""
        steps = (times[:, 1:] - times[:, :-1]).flatten()
        return cls(float(times[:, 0].nanmedian()), float(steps.nanmedian()))


class Markers:
    """Detector of fill values (numbers of CONVENTIONS) in channels, fed with values in one or several blocks.

    A fill value lies outside of all other values, farther than their range and than their largest magnitude: 999 may be
    a regular pressure.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = list(channels)
        self._low, self._high = (np.full(len(channels), sign * np.inf) for sign in (1, -1))
        self._seen: list[dict[float, int]] = [{} for _ in channels]
        self._count = 0  # of values of a channel

    def look(self, u: np.ndarray) -> Markers:
        """Add values (..., C)."""
        self._count += u[..., 0].size
        for c, values in enumerate(np.moveaxis(u, -1, 0)):
            known = values[np.isfinite(values)]
            special = np.zeros(known.shape, bool)
            room = np.abs(CONVENTIONS) * _CLOSE
            for one in CONVENTIONS[(known.min(initial=np.inf) <= CONVENTIONS + room)
                                   & (known.max(initial=-np.inf) >= CONVENTIONS - room)]:
                special |= np.isclose(known, one, rtol=_CLOSE, atol=0)
            for value, count in zip(*np.unique(known[special], return_counts=True), strict=True):
                self._seen[c][float(value)] = self._seen[c].get(float(value), 0) + int(count)
            others = known[~special]
            self._low[c] = min(self._low[c], others.min(initial=np.inf))
            self._high[c] = max(self._high[c], others.max(initial=-np.inf))
        return self

    @property
    def found(self) -> dict[int, list[float]]:
        """Fill values by channel index."""
        result = {}
        for c, (low, high, seen) in enumerate(zip(self._low, self._high, self._seen, strict=True)):
            wide = max(high - low, abs(low), abs(high)) if high > low else np.inf
            if its := [value for value in seen if max(low - value, value - high) > wide]:
                result[c] = its
        return result

    def fill_values(self, where: object) -> dict[int, list[float]]:
        """Fill values by channel index, with a warning that names `where` they were found."""
        for c, its in (found := self.found).items():
            words = " or ".join(f"{value:g}" for value in its)
            warnings.warn(f"{where}: {sum(self._seen[c][value] for value in its)} of {self._count} values of "
                          f"{self._channels[c]} are {words}, where all others lie between {self._low[c]:g} and "
                          f"{self._high[c]:g}; they are taken as missing", stacklevel=3)
        return found


def blanked(u: np.ndarray, markers: Mapping[int, Sequence[float]]) -> np.ndarray:
    """Values u (..., C) with NaN in place of the fill values `markers` (by channel index)."""
    u = u.copy() if markers else u
    for c, its in markers.items():
        u[..., c][np.isin(u[..., c], np.array(its, u.dtype))] = np.nan
    return u


def repeated_rows(path: Path, keys: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys (R, k) of the rows with values u (R, C), and those that repeat another, with a warning."""
    used = ~np.isnan(u).all(-1)
    order = np.lexsort(keys[used].T)
    keys, values = keys[used][order], u[used][order]
    repeated = (keys[1:] == keys[:-1]).all(1)
    if repeated.any():
        apart = int((repeated & (np.abs(values[1:] - values[:-1]) > 0).any(1)).sum())
        differ = f", {apart} with other values; at places that occur at several times their mean is used"
        warnings.warn(f"{path}: {repeated.sum()} of {len(keys)} rows repeat the time and place of another"
                      + (differ if apart else ", with the same values"), stacklevel=3)
    return keys, keys[1:][repeated]
