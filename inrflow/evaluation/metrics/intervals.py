"""Coverage and CRPS of predicted standard deviations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from inrflow.evaluation.metrics.base import Block, Metric, register_metric
from inrflow.evaluation.metrics.errors import channel_mean, channel_sums
from inrflow.evaluation.metrics.statistics import ChannelStatistics
from inrflow.numerics.normal import HALF_WIDTH_90, gaussian_crps

_FEWEST = 3  # trajectories for a standard error


@register_metric
class Intervals(Metric):
    """Coverage of the 90 % intervals and CRPS, both averaged over channels; null without standard deviations.

    `coverage_90` is the fraction of known values inside the central 90 % interval, `crps` the Gaussian CRPS in standard
    deviations of each channel over the test set. `coverage_90_error` is the standard error of the former as a mean over
    trajectories, within which errors are correlated; null for fewer than three.
    """

    name = "intervals"
    titles = {"coverage_90": "90% intervals hold {:.1%} of the values",
              "coverage_90_error": "standard error of this share, from how trajectories differ: {:.1%}"}

    def __init__(self, channels: ChannelStatistics) -> None:
        super().__init__(channels)
        self._inside, self._crps, self._count = np.zeros((3, len(channels)))
        self._shares: list[float] = []

    def update(self, block: Block) -> None:
        """Add a block of trajectories; blocks without standard deviations are ignored."""
        if block.std is None:
            return
        known, error = block.known, block.error
        std = torch.where(known, block.std.detach().to(known.device).double(), 0.0)
        inside = known & (error.abs() <= HALF_WIDTH_90 * std)
        self._inside += channel_sums(inside)
        self._shares += [float(some.sum() / number.sum()) for some, number in zip(inside, known, strict=True)
                         if number.any()]
        self._crps += channel_sums(torch.where(known, gaussian_crps(error, std), 0.0))
        self._count += channel_sums(known)

    def value(self) -> dict[str, Any]:
        """`coverage_90`, `coverage_90_error` and `crps`."""
        variance = self.channels.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            coverage = channel_mean(self._inside / self._count, self._count > 0)
            crps = channel_mean(self._crps / self._count / np.sqrt(variance), (self._count > 0) & (variance > 0))
        shares = self._shares
        error = float(np.std(shares, ddof=1)) / math.sqrt(len(shares)) if len(shares) >= _FEWEST else None
        return {"coverage_90": coverage, "coverage_90_error": error, "crps": crps}
