"""How well predicted standard deviations describe the errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.evaluation.metrics.base import Block, Metric, register_metric
from inrflow.evaluation.metrics.errors import channel_mean, channel_sums
from inrflow.evaluation.metrics.statistics import ChannelStatistics
from inrflow.numerics.normal import HALF_WIDTH_90


def gaussian_crps(error: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(mean, std^2) where the truth is `error` away from the mean.

    Closed form of Gneiting et al. (2005), equation 5; |error| where std = 0. Units of the values, elementwise.
    """
    certain = std <= 0
    z = error / torch.where(certain, 1.0, std)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return torch.where(certain, error.abs(), score)


@register_metric
class Intervals(Metric):
    """Coverage of the 90 % intervals and CRPS, both averaged over channels; null without standard deviations.

    `coverage_90` is the fraction of known values inside the central 90 % interval, `crps` the Gaussian CRPS in standard
    deviations of each channel over the test set.
    """

    name = "intervals"
    titles = {"coverage_90": "90% intervals hold {:.1%} of the values"}

    def __init__(self, channels: ChannelStatistics) -> None:
        super().__init__(channels)
        self._inside, self._crps, self._count = np.zeros((3, len(channels)))

    def update(self, block: Block) -> None:
        """Add a block of trajectories; one without standard deviations is ignored."""
        if block.std is None:
            return
        known, error = block.known, block.error
        std = torch.where(known, block.std.detach().to(known.device).double(), 0.0)
        self._inside += channel_sums(known & (error.abs() <= HALF_WIDTH_90 * std))
        self._crps += channel_sums(torch.where(known, gaussian_crps(error, std), 0.0))
        self._count += channel_sums(known)

    def value(self) -> dict[str, Any]:
        """`coverage_90` and `crps`."""
        variance = self.channels.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            coverage = channel_mean(self._inside / self._count, self._count > 0)
            crps = channel_mean(self._crps / self._count / np.sqrt(variance), (self._count > 0) & (variance > 0))
        return {"coverage_90": coverage, "crps": crps}
