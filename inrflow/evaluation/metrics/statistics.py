"""Running statistics of the channels of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


class ChannelStatistics:
    """Names of the channels and the variance of each over blocks (..., C) of values; NaN is ignored, no block is kept.

    Blocks are merged by counts, means and squared deviations (Chan et al. 1983), which is stable for large means.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._count: Any = 0.0
        self._mean: Any = 0.0
        self._deviation: Any = 0.0

    def __len__(self) -> int:
        return len(self.names)

    def update(self, block: Tensor) -> None:
        """Add a block (..., C)."""
        values = block.detach().double().reshape(-1, block.shape[-1]).cpu().numpy()
        known = np.isfinite(values)
        n = known.sum(0)
        mean = np.where(known, values, 0.0).sum(0) / np.maximum(n, 1)
        deviation = np.where(known, values - mean, 0.0)
        total = np.maximum(self._count + n, 1)
        shift = mean - self._mean
        self._deviation = self._deviation + (deviation**2).sum(0) + shift**2 * self._count * n / total
        self._mean = self._mean + shift * n / total
        self._count = self._count + n

    @property
    def variance(self) -> np.ndarray:
        """Variances (C,) float64; NaN for a channel that is constant or never known."""
        count = np.broadcast_to(self._count, len(self.names))
        variance = np.broadcast_to(self._deviation, len(self.names)) / np.maximum(count, 1)
        return np.where(variance > 0, variance, np.nan)
