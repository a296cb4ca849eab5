"""Frames: observations of one trajectory, arranged by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frames:
    """Observations of one trajectory, frame by frame.

    t: (T,) float64, increasing times. x: (N, d) float64 where all frames share their points, else (T, N, d).
    u: (T, N, C) float32, NaN where not observed. Frames with fewer points are padded: u is NaN there, and x repeats a
    point of the same frame so that coordinates stay finite.
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray

    @property
    def moving(self) -> bool:
        """Whether each frame has its own points."""
        return self.x.ndim == 3

    def __len__(self) -> int:
        """The number of frames T."""
        return len(self.t)


def group_rows(t: np.ndarray, x: np.ndarray, u: np.ndarray, collapse: bool = True) -> Frames:
    """Rows t (R,), x (R, d), u (R, C) of one trajectory, in any order, as frames of equal times (R at least 1).

    With `collapse`, x becomes (N, d) where all frames hold the same points in the same order.
    """
    order = np.argsort(t, kind="stable")
    t, x, u = t[order], x[order], u[order]
    times, starts, counts = np.unique(t, return_index=True, return_counts=True)
    frame = np.repeat(np.arange(len(times)), counts)
    column = np.arange(len(t)) - np.repeat(starts, counts)
    return place_rows(times, frame, column, x, u, collapse)


def place_rows(times: np.ndarray, frame: np.ndarray, column: np.ndarray, x: np.ndarray, u: np.ndarray,
               collapse: bool = True) -> Frames:
    """Padded frames with row r at frame[r], column[r]; every frame must have a row in column 0."""
    width = int(column.max()) + 1
    placed_u = np.full((len(times), width, u.shape[-1]), np.nan, np.float32)
    placed_u[frame, column] = u
    placed_x = np.empty((len(times), width, x.shape[-1]), np.float64)
    first = column == 0
    placed_x[frame[first]] = x[first][:, None, :]
    placed_x[frame, column] = x
    if collapse and len(frame) == len(times) * width and np.array_equal(placed_x, placed_x[:1].repeat(len(times), 0)):
        placed_x = placed_x[0]
    return Frames(np.asarray(times, np.float64), placed_x, placed_u)
