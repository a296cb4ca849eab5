"""Observations of one trajectory as a window of frames, and time bins: frames made of rows that each have a time of
their own (asynchronous sensors, tracks)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.observations import Observations, place_rows
from inrflow.errors import UserError

_BIN = 0.5  # internal time units between the frames made of rows whose times all differ
_ROWS = 150  # per bin on average: enough to determine the larger scales of a field
_FEWEST, _MOST = 8, 400  # bins
_SCATTERED = 4  # with fewer rows than this at a time, on average, times are no frames


@dataclass(frozen=True)
class TimeBins:
    """K windows of equal `width`, side by side; `times` (K,) are their centres."""

    times: np.ndarray
    width: float

    @classmethod
    def for_rows(cls, first: float, last: float, rows: float) -> TimeBins:
        """Bins for `rows` rows between two times: the fewer rows, the wider the bins."""
        return cls._even(first, last, int(np.clip(round(rows / _ROWS), _FEWEST, _MOST)))

    @classmethod
    def of_width(cls, first: float, last: float, width: float) -> TimeBins:
        """Bins of at most this width between two times, up to a number of them."""
        return cls._even(first, last, int(np.clip(np.ceil((last - first) / width), 1, _MOST)))

    @classmethod
    def _even(cls, first: float, last: float, count: int) -> TimeBins:
        width = (last - first) / count
        return cls(first + width * (np.arange(count) + 0.5), width)

    def gather(
        self, t: np.ndarray, x: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows t (R,), x (R, d), u (R, C) arranged by bin.

        Returns x (K, N, d), u (K, N, C), time offsets from the centres (K, N), and which bins hold any row (K,) bool.
        Bins are padded with NaN values at points of the same bin or, in empty bins, of another one.
        """
        bins = np.clip(((t - self.times[0]) / self.width + 0.5).astype(int), 0, len(self.times) - 1)
        order = np.argsort(bins, kind="stable")
        bins, t, x, u = bins[order], t[order], x[order], u[order]
        used, starts, counts = np.unique(bins, return_index=True, return_counts=True)
        row = np.repeat(np.arange(len(used)), counts)
        column = np.arange(len(t)) - np.repeat(starts, counts)
        values = np.concatenate([u, (t - self.times[bins])[:, None]], 1)
        placed = place_rows(self.times[used], row, column, x, values, collapse=False)
        width = placed.u.shape[1]
        wide_x = np.tile(placed.x[:1, :1], (len(self.times), width, 1))
        wide_u = np.full((len(self.times), width, u.shape[1] + 1), np.nan, np.float32)
        wide_x[used], wide_u[used] = placed.x, placed.u
        present = np.zeros(len(self.times), bool)
        present[used] = True
        return wide_x, wide_u[..., :-1], np.nan_to_num(wide_u[..., -1]), present


def is_scattered(rows: int, frames: int) -> bool:
    """Whether `rows` rows at `frames` different times are too few at a time to be frames."""
    return frames > _FEWEST and rows < _SCATTERED * frames


def window_of(
    observations: Observations, description: Description, unit: float, gather: bool = True
) -> TrajectoryBatch:
    """Frames (1, K, ...) of one trajectory, data units. Raises UserError where they do not fit the description.

    Args:
        unit: of internal time, in the data's.
        gather: rows that each have a time of their own become frames at equally spaced times, each value with the time
            by which it was seen late; needs a decoder that is affine in the code.
    """
    frames = observations.frames()
    d, channels = len(description.coordinates), len(description.channels)
    if frames.x.shape[-1] != d or frames.u.shape[-1] != channels:
        raise UserError(
            f"the observations have {frames.x.shape[-1]} coordinates and {frames.u.shape[-1]} channels; the surrogate "
            f"of {description.name} has {d} ({', '.join(description.coordinates)}) and {channels} "
            f"({', '.join(description.channels)})"
        )
    x, u = torch.as_tensor(frames.x), torch.as_tensor(frames.u)
    numbers = None if observations.graph is None else observations.graph[1]
    if numbers is not None:
        u = _attached(observations, numbers)
    if not (gather and is_scattered(len(observations), len(frames))):
        return TrajectoryBatch(torch.as_tensor(frames.t)[None], x[None] if x.dim() == 3 else x[None, None], u[None])
    seen = np.isfinite(frames.u).any(-1)
    t = np.broadcast_to(frames.t[:, None], seen.shape)[seen]
    places = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))[seen]
    bins = TimeBins.of_width(float(t.min()), float(t.max()), _BIN * unit)
    found = bins.gather(t, places, frames.u[seen])
    place, u, delay = (torch.as_tensor(v) for v in (found[0], found[1], found[2].astype(float)))
    if numbers is not None:
        u = _attached(observations, bins.gather(t, places, numbers[seen])[1])
    return TrajectoryBatch(torch.as_tensor(bins.times)[None], place[None], u[None], delay[None])


def _attached(observations: Observations, numbers: np.ndarray) -> torch.Tensor:
    """Observed values with their gradient, in the shape of their numbers, NaN where there is none."""
    assert observations.graph is not None
    where = torch.as_tensor(numbers)
    taken = observations.graph[0].cpu().flatten()[where.nan_to_num(0.0).long()]
    return torch.where(torch.isnan(where), torch.nan, taken)
