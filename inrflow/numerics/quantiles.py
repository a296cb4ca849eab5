"""Quantiles that hold for new groups of values."""

from __future__ import annotations

import numpy as np
from torch import Tensor

_MANY = 100  # groups, of which one moves no quantile


def quantile_of_others(values: Tensor, number: Tensor, share: float = 0.9) -> float:
    """The quantile of values (B,) whose level, of the other trajectories, holds a share of those of each trajectory.

    Values of a trajectory have errors in common, so that a new one has fewer below the quantile of a few others: the
    level is that at which trajectories left out, one after the other, hold the share (`number` (B,) tells them apart).
    The largest value where none does; the plain quantile of a single trajectory, and of so many that one of them moves
    no quantile.
    """
    order = values.argsort()
    every, which = values[order].numpy(), number[order].numpy()
    names = np.unique(which)
    if not 1 < len(names) <= _MANY:
        return float(np.quantile(every, share))
    parts = [(every[which == one], every[which != one]) for one in names]

    def held(level: float) -> float:
        return float(np.mean([np.searchsorted(own, others[round(level * (len(others) - 1))], "right") / len(own)
                              for own, others in parts]))

    low, high = 0.5, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= share else (middle, high)
    return float(np.quantile(every, high))
