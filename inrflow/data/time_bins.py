"""Time bins: frames made of rows that each have a time of their own (asynchronous sensors, tracks)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrflow.data.observations import place_rows

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
