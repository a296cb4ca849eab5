"""Batches of trajectories as stacked tensors, on which solves and training steps work; their normalisation, and
internal time, in which their typical step is 1; and numbers that stand for missing values by convention, told from
values by how far off they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GRID = 2.0**30  # internal times in a unit
_CLOSE = 1e-6  # relative distance of a stored number from the one that was meant
_WILD = 20.0  # deviations of training, within which values are expected
#: Written in place of missing values by loggers, models and archives.
_NINES = (777.7, 888.8, 999, 999.9, 999.99, 6999, 7777, 8888, 9999, 9999.9, 32766, 32767, 32768, 99999, 999999)
_POWERS = (1e10, 1e15, 1e20, 1e30, 1e34, 1e35, 1e36, 9.96921e36)
CONVENTIONS = np.array([-99, -99.9, -99.99, *(sign * number for number in _NINES + _POWERS for sign in (-1, 1))])


@dataclass
class TrajectoryBatch:
    """S trajectories of T frames of N points.

    Attributes:
        t: times (S, T), float64; NaN pads the end of a shorter trajectory.
        x: points (S or 1, T or 1, N, d); 1 where trajectories or frames share their points.
        u: values (S, T, N, C), in normalised units; NaN = not observed.
        delay: time offset of each value from its frame's time, (S, T, N) in the units of t; None where there is none.
    """

    t: Tensor
    x: Tensor
    u: Tensor
    delay: Tensor | None = None

    def __len__(self) -> int:
        return len(self.u)

    @property
    def observed(self) -> Tensor:
        """Frames with at least one observed value, (S, T) bool."""
        return torch.isfinite(self.u).flatten(2).any(-1) & torch.isfinite(self.t)

    def select(self, index: Tensor | slice) -> TrajectoryBatch:
        """A subset of the trajectories."""
        delay = None if self.delay is None else self.delay[index]
        return TrajectoryBatch(self.t[index], self.x if len(self.x) == 1 else self.x[index], self.u[index], delay)

    def first_frames(self, count: int) -> TrajectoryBatch:
        """The first `count` frames of every trajectory."""
        return self.frames(slice(0, count))

    def frames(self, index: slice | Tensor) -> TrajectoryBatch:
        """Some frames of every trajectory."""
        x = self.x if self.x.shape[1] == 1 else self.x[:, index]
        delay = None if self.delay is None else self.delay[:, index]
        return TrajectoryBatch(self.t[:, index], x, self.u[:, index], delay)

    def windows(self, starts: Iterable[int], length: int) -> TrajectoryBatch:
        """Spans of `length` frames from each of `starts` on, as trajectories: those of all trajectories for the first,
        then for the next."""
        parts = [self.frames(slice(start, start + length)) for start in starts]
        x = self.x if self.x.shape[:2] == (1, 1) else torch.cat([p.x.expand(len(self), *p.x.shape[1:]) for p in parts])
        delay = None if self.delay is None else torch.cat([p.delay for p in parts if p.delay is not None])
        return TrajectoryBatch(torch.cat([p.t for p in parts]), x, torch.cat([p.u for p in parts]), delay)

    def at(self, places: Tensor) -> TrajectoryBatch:
        """A subset of the points."""
        delay = None if self.delay is None else self.delay[:, :, places]
        return TrajectoryBatch(self.t, self.x[:, :, places], self.u[:, :, places], delay)

    def thinned(self, most: int) -> tuple[TrajectoryBatch, Tensor]:
        """Every k-th frame, and of these every k-th point, so that about `most` places and times are left; and which
        points these are."""
        every = max(1, self.u[..., 0].numel() // most)
        frames = min(every, self.u.shape[1])
        points = torch.arange(0, self.u.shape[2], max(1, every // frames))
        return self.frames(slice((frames - 1) // 2, None, frames)).at(points), points

    def with_values(self, u: Tensor) -> TrajectoryBatch:
        """The same times and points with other values."""
        return TrajectoryBatch(self.t, self.x, u, self.delay)

    def delays(self) -> Tensor | None:
        """Time offsets of the groups, (G, N)."""
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
        """Points (N, d) where all share them, else (B, N, d), and values (B, N, C) of frames `index` (B, 2), float32.
        """
        s, t = index.T
        u = self.u[s, t].float()
        if self.x.shape[:2] == (1, 1):
            return self.x[0, 0].float(), u
        return self.x[s if len(self.x) > 1 else 0 * s, t if self.x.shape[1] > 1 else 0 * t].float(), u

    def some_frames(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same of at most so many observed frames, evenly spread, and which (B, 2) these are."""
        seen = self.observed.nonzero()
        seen = seen[torch.linspace(0, len(seen) - 1, min(len(seen), most)).long()]
        return *self.gathered(seen), seen


@dataclass
class Normalisation:
    """u_normalised = (u - mean) / scale, one mean and scale (C,) for each channel, in the data's units.

    least: (C,) 0 of amounts, which are never negative, -inf of other channels; None: not known.
    most: (C,) largest magnitude of a normalised value of training; None: not known.
    """

    mean: Tensor
    scale: Tensor
    least: Tensor | None = None
    most: Tensor | None = None

    @property
    def limit(self) -> Tensor:
        """(C,) magnitude up to which normalised values are expected: twice that of training's, at least `_WILD`."""
        least = torch.full_like(self.scale, _WILD)
        return least if self.most is None else torch.maximum(least, 2 * self.most.to(least))

    def far(self, u: Tensor) -> list[int]:
        """Channels of which half of the values (..., C) in data units or more are twice as far from the mean as any of
        training's, or beyond `limit` where these are not known."""
        limit = self.limit if self.most is None else 2 * self.most
        sizes = self.apply(u).abs().flatten(0, -2).nanmedian(0).values
        return (sizes > limit.to(sizes)).nonzero()[:, 0].tolist()

    def apply(self, u: Tensor) -> Tensor:
        """Values (..., C) in data units to normalised ones."""
        return (u - self.mean.to(u)) / self.scale.to(u)

    def invert(self, u: Tensor) -> Tensor:
        """Normalised values (..., C) to data units."""
        return u * self.scale.to(u) + self.mean.to(u)

    def possible(self, u: Any) -> Any:
        """Values (..., C) in data units, those of amounts no less than 0."""
        if self.least is None:
            return u
        return torch.maximum(u, self.least.to(u)) if isinstance(u, Tensor) else np.maximum(u, self.least.numpy())


@dataclass(frozen=True)
class TimeScale:
    """Internal time tau = (t - origin) / unit; unit is the typical step of the training data."""

    origin: float
    unit: float

    def internal(self, t: Tensor) -> Tensor:
        """Internal times of data times, as multiples of a power of 2: equal steps differ by no rounding, so that they
        share exponentials and batches."""
        tau = (t.double() - self.origin) / self.unit
        return tau + ((tau * _GRID).round() / _GRID - tau).detach()

    def is_after(self, t: float, tau: Tensor) -> bool:
        """Whether a data time comes after an internal one."""
        return bool(self.internal(torch.tensor(t, dtype=torch.float64)) > tau)

    def external(self, tau: Tensor) -> Tensor:
        """Data times of internal times."""
        return tau.double() * self.unit + self.origin

    @classmethod
    def of(cls, times: Tensor) -> TimeScale:
        """From training times (S, T), NaN-padded."""
        steps = (times[:, 1:] - times[:, :-1]).flatten()
        return cls(float(times[:, 0].nanmedian()), float(steps.nanmedian()))


class Markers:
    """Numbers of CONVENTIONS that stand for missing values of channels, in values that come in one block or several.

    Such a number lies outside of all others, farther from these than they are from each other, and than any is from 0:
    999 may be a pressure among others.
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
        """The numbers that stand for missing values, by the index of the channel."""
        result = {}
        for c, (low, high, seen) in enumerate(zip(self._low, self._high, self._seen, strict=True)):
            wide = max(high - low, abs(low), abs(high)) if high > low else np.inf
            if its := [value for value in seen if max(low - value, value - high) > wide]:
                result[c] = its
        return result

    def told(self, where: object) -> dict[int, list[float]]:
        """The same, of which it warns; `where`: whose values they are."""
        for c, its in (found := self.found).items():
            words = " or ".join(f"{value:g}" for value in its)
            warnings.warn(f"{where}: {sum(self._seen[c][value] for value in its)} of {self._count} values of "
                          f"{self._channels[c]} are {words}, where all others lie between {self._low[c]:g} and "
                          f"{self._high[c]:g}; they are taken for missing ones", stacklevel=3)
        return found


def blanked(u: np.ndarray, markers: Mapping[int, Sequence[float]]) -> np.ndarray:
    """Values u (..., C) with NaN for those of `markers`, by the index of the channel."""
    u = u.copy() if markers else u
    for c, its in markers.items():
        u[..., c][np.isin(u[..., c], np.array(its, u.dtype))] = np.nan
    return u
