"""Errors of a forecast, gathered block by block into the error part of evaluation.json.

Sums are float64 and kept per channel, apart for the frames inside and beyond the training horizon and for observed and
unobserved points, so that every figure of the report is one division at the end and no block is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray

GROUPS = ("all", "in_t", "out_t", "in_s", "out_s", "in_t_in_s", "in_t_out_s", "out_t_in_s", "out_t_out_s")
NOMINAL_COVERAGE = 0.9
_HALF_WIDTH = 1.6448536269514722  # of the central 90 % interval, in standard deviations of a Gaussian

# Cells of the sums: time (in, out) by points (observed, unobserved, not told).
_TIMES = {"in_t": slice(0, 1), "out_t": slice(1, 2)}
_POINTS = {"in_s": slice(0, 1), "out_s": slice(1, 2)}


def _cells(group: str) -> tuple[slice, slice]:
    times = next((cells for name, cells in _TIMES.items() if group.startswith(name)), slice(None))
    points = next((cells for name, cells in _POINTS.items() if group.endswith(name)), slice(None))
    return times, points


def gaussian_crps(error: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(mean, std^2) where the truth is `error` away from the mean.

    Closed form of Gneiting et al. (2005), equation 5; |error| where std = 0. Units of the values, elementwise.
    """
    certain = std <= 0
    z = error / torch.where(certain, 1.0, std)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return torch.where(certain, error.abs(), score)


class ChannelVariance:
    """Variance of each channel over blocks (..., C) of values, NaN ignored, none of which is kept.

    Blocks are merged by counts, means and squared deviations (Chan et al. 1983), so that a large mean does no harm.
    """

    def __init__(self) -> None:
        self._count: Any = 0.0
        self._mean: Any = 0.0
        self._deviation: Any = 0.0

    def update(self, block: Array) -> None:
        """Add a block (..., C)."""
        values = _float64(block).reshape(-1, block.shape[-1]).cpu().numpy()
        known = np.isfinite(values)
        n = known.sum(0)
        mean = np.where(known, values, 0.0).sum(0) / np.maximum(n, 1)
        deviation = np.where(known, values - mean, 0.0)
        total = np.maximum(self._count + n, 1)
        shift = mean - self._mean
        self._deviation = self._deviation + (deviation**2).sum(0) + shift**2 * self._count * n / total
        self._mean = self._mean + shift * n / total
        self._count = self._count + n

    def value(self) -> np.ndarray:
        """(C,) float64; NaN where nothing is known."""
        count = np.asarray(self._count)
        return np.where(count > 0, self._deviation / np.maximum(count, 1), np.nan)


class ErrorTable:
    """Errors per channel and group of a forecast in data units, over any number of blocks of trajectories.

    Args:
        channels: C names.

    What it says is normalised by `variance` (C,), that of each channel over the whole test set, which is known in the
    end.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        cells = (2, 3, len(self.channels))
        self._squared, self._count = np.zeros(cells), np.zeros(cells)
        self._inside, self._crps, self._intervals = np.zeros((3, len(self.channels)))
        self._frame_squared = np.zeros((0, len(self.channels)))
        self._frame_count = np.zeros((0, len(self.channels)))
        self._points_told = False
        self._std_told = False

    def update(self, prediction: Array, truth: Array, in_time: Array, observed_points: Array | None = None,
               std: Array | None = None) -> None:
        """Add a block of S trajectories.

        Args:
            prediction, truth: (S, T, N, C); NaN in truth = unknown, ignored. A prediction that is not finite where the
                truth is known makes the figures it enters null.
            in_time: (S, T) bool, frames before the training horizon (frame 0 is one of them).
            observed_points: (S, N) bool, or None where the distinction does not apply.
            std: (S, T, N, C) standard deviation of the prediction, or None.
        """
        expected = _float64(truth)
        known = torch.isfinite(expected)
        error = torch.where(known, _float64(prediction).to(expected.device) - expected, 0.0)
        squared = error.square()
        early = torch.as_tensor(in_time, dtype=torch.bool).to(expected.device)
        places: list[tuple[int, Tensor | None]] = [(2, None)]
        if observed_points is not None:
            self._points_told = True
            seen = torch.as_tensor(observed_points, dtype=torch.bool).to(expected.device)
            places = [(0, seen), (1, ~seen)]
        for row, frames in enumerate((early, ~early)):
            for column, points in places:
                chosen = known & frames[:, :, None, None]
                if points is not None:
                    chosen = chosen & points[:, None, :, None]
                self._squared[row, column] += _sum(torch.where(chosen, squared, 0.0))
                self._count[row, column] += _sum(chosen)
        self._add_frames(squared.sum((0, 2)).cpu().numpy(), known.sum((0, 2)).cpu().numpy())
        if std is not None:
            self._std_told = True
            spread = torch.where(known, _float64(std).to(expected.device), 0.0)
            self._inside += _sum(known & (error.abs() <= _HALF_WIDTH * spread))
            self._crps += _sum(torch.where(known, gaussian_crps(error, spread), 0.0))
            self._intervals += _sum(known)

    def _add_frames(self, squared: np.ndarray, count: np.ndarray) -> None:
        missing = len(squared) - len(self._frame_squared)
        if missing > 0:
            self._frame_squared = np.pad(self._frame_squared, ((0, missing), (0, 0)))
            self._frame_count = np.pad(self._frame_count, ((0, missing), (0, 0)))
        self._frame_squared[:len(squared)] += squared
        self._frame_count[:len(count)] += count

    # ---- what it says ----

    def report(self, variance: Any) -> dict[str, Any]:
        """The error part of evaluation.json: `mse`, `nmse`, `per_channel`, `coverage_90`, `crps`.

        `mse` and `nmse` hold every group of GROUPS, the mean over channels of the per-channel value (channels without
        any known value in a group, and for `nmse` without variance, are left out); null where a group does not apply,
        is empty, or holds a prediction that is not finite. `coverage_90` is the fraction of known values inside the
        central 90 % interval, averaged over channels; `crps` is the Gaussian CRPS in standard deviations of each
        channel, averaged over channels.
        """
        variance = self._checked(variance)
        mse = self._mse()
        nmse = mse / variance
        per_channel = {channel: {"mse": self._groups(mse[:, index]), "nmse": self._groups(nmse[:, index])}
                       for index, channel in enumerate(self.channels)}
        coverage = crps = None
        if self._std_told:
            with np.errstate(divide="ignore", invalid="ignore"):
                coverage = _number(_mean(self._inside / self._intervals, self._intervals > 0))
                crps = _number(_mean(self._crps / self._intervals / np.sqrt(variance),
                                     (self._intervals > 0) & (variance > 0)))
        return {**self.errors(variance), "per_channel": per_channel, "coverage_90": coverage, "crps": crps}

    def errors(self, variance: Any) -> dict[str, dict[str, float | None]]:
        """`mse` and `nmse` alone, as the report gives them for a reference forecast."""
        variance = self._checked(variance)
        mse = self._mse()
        known = np.stack([self._count[_cells(group)].sum((0, 1)) > 0 for group in GROUPS])
        tables = {"mse": (mse, known), "nmse": (mse / variance, known & (variance > 0))}
        return {name: self._groups([_mean(values, channels) for values, channels in zip(table, chosen, strict=True)])
                for name, (table, chosen) in tables.items()}

    def by_frame(self, variance: Any) -> np.ndarray:
        """NMSE of every frame by its place in the trajectory, mean over channels: (T,), NaN where nothing is known."""
        variance = self._checked(variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self._frame_squared / self._frame_count / variance
        chosen = (self._frame_count > 0) & (variance > 0)
        return np.array([_mean(frame, channels) for frame, channels in zip(values, chosen, strict=True)])

    def _mse(self) -> np.ndarray:
        """(groups, C), NaN where a group holds no value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([self._squared[_cells(group)].sum((0, 1)) / self._count[_cells(group)].sum((0, 1))
                             for group in GROUPS])

    def _checked(self, variance: Any) -> np.ndarray:
        """(C,), NaN where it is not positive."""
        given = np.asarray(variance, np.float64)
        if given.shape != (len(self.channels),):
            raise ValueError(f"variance has shape {given.shape} for {len(self.channels)} channels")
        return np.where(given > 0, given, np.nan)

    def _groups(self, values: Iterable[float]) -> dict[str, float | None]:
        return {group: _number(value) if self._points_told or not group.endswith("_s") else None
                for group, value in zip(GROUPS, values, strict=True)}


def _float64(values: Array) -> Tensor:
    return torch.as_tensor(np.array(values, np.float64) if isinstance(values, np.ndarray) else values).detach().double()


def _sum(values: Tensor) -> np.ndarray:
    return values.sum((0, 1, 2), dtype=torch.float64).cpu().numpy()


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[chosen].mean()) if chosen.any() else math.nan


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
