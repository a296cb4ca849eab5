"""Rows that each have a time of their own, gathered around evenly spaced knots in time, the frames of such data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrflow.data.frames import place_rows

_ROWS = 150  # around a knot: enough to say something of a whole field
_FEWEST, _MOST = 8, 400  # knots
_SCATTERED = 4  # fewer rows than this at a time, on average, are no frame


@dataclass(frozen=True)
class Knots:
    """Evenly spaced times (K,) that stand for windows of `width` around them."""

    times: np.ndarray
    width: float

    @classmethod
    def over(cls, first: float, last: float, rows: float) -> Knots:
        """For `rows` rows between two times; the fewer rows there are, the wider the windows."""
        return cls._even(first, last, int(np.clip(round(rows / _ROWS), _FEWEST, _MOST)))

    @classmethod
    def spaced(cls, first: float, last: float, width: float) -> Knots:
        """Windows of about this width between two times, up to a number of them."""
        return cls._even(first, last, int(np.clip(np.ceil((last - first) / width), 1, _MOST)))

    @classmethod
    def _even(cls, first: float, last: float, count: int) -> Knots:
        width = (last - first) / count
        return cls(first + width * (np.arange(count) + 0.5), width)

    def gather(
        self, t: np.ndarray, x: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows t (R,), x (R, d), u (R, C) as x (K, N, d), u (K, N, C) and their delays t - knot (K, N), and which knots
        (K,) have any row. Windows are padded with NaN values at points of their own or of another window."""
        knot = np.clip(((t - self.times[0]) / self.width + 0.5).astype(int), 0, len(self.times) - 1)
        order = np.argsort(knot, kind="stable")
        knot, t, x, u = knot[order], t[order], x[order], u[order]
        used, starts, counts = np.unique(knot, return_index=True, return_counts=True)
        row = np.repeat(np.arange(len(used)), counts)
        column = np.arange(len(t)) - np.repeat(starts, counts)
        values = np.concatenate([u, (t - self.times[knot])[:, None]], 1)
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
