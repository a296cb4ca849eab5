"""Number of diverging forecasts."""

from __future__ import annotations

from typing import Any

import torch

from inrflow.evaluation.metrics.base import Block, Metric, register_metric
from inrflow.evaluation.metrics.statistics import ChannelStatistics

_FAR = 10.0  # distance from the truth, in ranges of the channel's true values


@register_metric
class Divergence(Metric):
    """Number of trajectories whose forecast diverges: `diverged`, null where none does.

    A forecast diverges where it is not finite, or its error exceeds 10 ranges of the true values of its channel.
    """

    name = "divergence"
    titles = {"diverged": "forecasts of {:d} trajectories diverge, so that errors are large or no numbers: do not use "
              "them that far in time; give more training trajectories or frames"}

    def __init__(self, channels: ChannelStatistics) -> None:
        super().__init__(channels)
        self._count = 0

    def update(self, block: Block) -> None:
        """Add a block of trajectories."""
        truth = block.truth.double()
        high = torch.where(block.known, truth, -torch.inf).amax((0, 1, 2))
        low = torch.where(block.known, truth, torch.inf).amin((0, 1, 2))
        off = block.error.abs() > _FAR * (high - low).clamp_min(0.0) + 1e-300
        diverged = block.known & (off & (high > low) | ~torch.isfinite(block.error))
        self._count += int(diverged.flatten(1).any(1).sum())

    def value(self) -> dict[str, Any]:
        """`diverged`."""
        return {"diverged": self._count or None}
