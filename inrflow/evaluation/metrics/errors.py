"""Mean squared errors by time, by points and by channel.

Sums are float64 and kept per channel, apart for the frames inside and beyond the training horizon and for observed and
unobserved points, so that every figure is one division at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.evaluation.metrics.base import Block, Metric, register_metric
from inrflow.evaluation.metrics.statistics import ChannelStatistics

GROUPS = ("all", "in_t", "out_t", "in_s", "out_s", "in_t_in_s", "in_t_out_s", "out_t_in_s", "out_t_out_s")

# Cells of the sums: time (in, out) by points (observed, unobserved, either).
_TIMES = {"in_t": slice(0, 1), "out_t": slice(1, 2)}
_POINTS = {"in_s": slice(0, 1), "out_s": slice(1, 2)}


def _cells(group: str) -> tuple[slice, slice]:
    times = next((cells for name, cells in _TIMES.items() if group.startswith(name)), slice(None))
    points = next((cells for name, cells in _POINTS.items() if group.endswith(name)), slice(None))
    return times, points


@register_metric
class SquaredErrors(Metric):
    """Mean squared errors in data units (`mse`) and in units of each channel's variance over the test set (`nmse`).

    Both hold every group of GROUPS: the mean over channels of the per-channel value. Channels without a known value in
    a group, and for `nmse` without variance, are left out. A group is null where it does not apply, is empty, or holds
    a prediction that is not finite.
    """

    name = "squared_errors"
    titles = {"mse": "MSE", "nmse": "NMSE"}
    compared = ("mse", "nmse")

    def __init__(self, channels: ChannelStatistics) -> None:
        super().__init__(channels)
        cells = (2, 3, len(channels))
        self._squared, self._count = np.zeros(cells), np.zeros(cells)
        self._frame_squared, self._frame_count = np.zeros((2, 0, len(channels)))
        self._by_points = False

    def update(self, block: Block) -> None:
        """Add a block of trajectories."""
        known, squared = block.known, block.error.square()
        early = block.in_time.to(known.device)
        places: list[tuple[int, Tensor | None]] = [(2, None)]
        if block.observed_points is not None:
            self._by_points = True
            seen = block.observed_points.to(known.device)
            places = [(0, seen), (1, ~seen)]
        for row, frames in enumerate((early, ~early)):
            for column, points in places:
                chosen = known & frames[:, :, None, None]
                if points is not None:
                    chosen = chosen & points[:, None, :, None]
                self._squared[row, column] += channel_sums(torch.where(chosen, squared, 0.0))
                self._count[row, column] += channel_sums(chosen)
        added = ((0, max(0, known.shape[1] - len(self._frame_count))), (0, 0))
        self._frame_squared, self._frame_count = np.pad(self._frame_squared, added), np.pad(self._frame_count, added)
        self._frame_squared[: known.shape[1]] += squared.sum((0, 2)).cpu().numpy()
        self._frame_count[: known.shape[1]] += known.sum((0, 2)).cpu().numpy()

    def value(self) -> dict[str, Any]:
        """`mse` and `nmse` by group, and `per_channel`: channel -> the same two."""
        mse, variance = self._mse(), self.channels.variance
        nmse = mse / variance
        known = np.stack([self._count[_cells(group)].sum((0, 1)) > 0 for group in GROUPS])
        chosen = {"mse": known, "nmse": known & (variance > 0)}
        tables = {"mse": mse, "nmse": nmse}
        means = {name: self._groups(channel_mean(*pair) for pair in zip(table, chosen[name], strict=True))
                 for name, table in tables.items()}
        each = {channel: {name: self._groups(table[:, c].tolist()) for name, table in tables.items()}
                for c, channel in enumerate(self.channels.names)}
        return {**means, "per_channel": each}

    def by_frame(self) -> np.ndarray:
        """NMSE (T,) of every frame by its position in the trajectory, mean over channels; NaN where unknown."""
        variance = self.channels.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self._frame_squared / self._frame_count / variance
        chosen = (self._frame_count > 0) & (variance > 0)
        return np.array([channel_mean(*pair) for pair in zip(values, chosen, strict=True)])

    def _mse(self) -> np.ndarray:
        """MSE (groups, C), NaN where a group holds no value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([self._squared[_cells(group)].sum((0, 1)) / self._count[_cells(group)].sum((0, 1))
                             for group in GROUPS])

    def _groups(self, values: Iterable[float]) -> dict[str, float | None]:
        return {group: value if self._by_points or not group.endswith("_s") else None
                for group, value in zip(GROUPS, values, strict=True)}


def channel_sums(values: Tensor) -> np.ndarray:
    """Sums (C,) over trajectories, frames and points of values (S, T, N, C), in float64."""
    return values.sum((0, 1, 2), dtype=torch.float64).cpu().numpy()


def channel_mean(values: np.ndarray, chosen: np.ndarray) -> float:
    """The mean over chosen channels of values (C,); NaN where none is chosen."""
    return float(values[chosen].mean()) if chosen.any() else math.nan
