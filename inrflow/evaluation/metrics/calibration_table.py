"""Calibration by lead time after the last observation and by distance to the nearest one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.evaluation.metrics.base import Block, Metric, register_metric
from inrflow.evaluation.metrics.statistics import ChannelStatistics
from inrflow.numerics.normal import gaussian_crps, half_width

LEVELS = (50, 80, 90, 95)  # per cent
LEADS = (0.0, 1.5, 3.5, 10.5, 30.5, float("inf"))  # upper ends, in time steps of training
DISTANCES = (0.0, 0.5, 1.0, 2.0, float("inf"))  # upper ends, in median distances between neighbouring observed places
_HALF_WIDTHS = [half_width(level / 100) for level in LEVELS]


class _Rows:
    """Sums for B groups and C channels: counts, values inside of intervals of each level, CRPS and squared z."""

    def __init__(self, ends: tuple[float, ...], channels: int) -> None:
        self.ends = ends
        self.sums = np.zeros((len(LEVELS) + 3, len(ends), channels))

    def add(self, where: Tensor, known: Tensor, values: list[Tensor]) -> None:
        """Add values (S, T, N, C), masked by `known`, to the groups of `where` (S, T or 1, N or 1)."""
        group = torch.bucketize(where, torch.tensor(self.ends, dtype=where.dtype)).clamp(max=len(self.ends) - 1)
        for index in group.unique().tolist():
            chosen = known & (group == index)[..., None]
            self.sums[:, index] += [torch.where(chosen, v, 0).sum((0, 1, 2)).cpu().numpy() for v in values]

    def table(self, variance: np.ndarray) -> list[dict[str, Any]]:
        """A row for each group that has values, with means over the channels."""
        rows, low = [], 0.0
        for index, high in enumerate(self.ends):
            count, *inside, crps, squares = self.sums[:, index]
            some = (count > 0) & (variance > 0)
            if some.any():
                shares = [float((one[some] / count[some]).mean()) for one in inside]
                rows.append({
                    "above": low if index else None, "up_to": high, "values": int(count.sum()),
                    **{f"coverage_{level}": share for level, share in zip(LEVELS, shares, strict=True)},
                    "crps": float((crps[some] / count[some] / np.sqrt(variance[some])).mean()),
                    "z_spread": float(np.sqrt(squares[some] / count[some]).mean()),
                })
            low = high
        return rows


@register_metric
class CalibrationTable(Metric):
    """`calibration`: rows `by_lead` and `by_distance` with the coverage of intervals of 50 to 95 %, CRPS in standard
    deviations of the channels, and root mean square of standardised errors (ideally 1)."""

    name = "calibration_table"

    def __init__(self, channels: ChannelStatistics) -> None:
        super().__init__(channels)
        self._rows = {"by_lead": _Rows(LEADS, len(channels)), "by_distance": _Rows(DISTANCES, len(channels))}

    def update(self, block: Block) -> None:
        """Add a block of trajectories; blocks without standard deviations are ignored."""
        if block.std is None:
            return
        std = block.std.detach().double().clamp(min=1e-300)
        known = block.known & torch.isfinite(std) & torch.isfinite(block.prediction)
        error = torch.where(known, block.error, 0.0)
        std = torch.where(known, std, 1.0)
        z = error / std
        inside = [z.abs() <= half for half in _HALF_WIDTHS]
        values = [known, *inside, gaussian_crps(error, std), z.square()]
        if block.lead is not None:
            self._rows["by_lead"].add(block.lead[:, :, None].nan_to_num(0.0), known, values)
        if block.distance is not None:
            self._rows["by_distance"].add(block.distance[:, None], known, values)

    def value(self) -> dict[str, Any]:
        """The tables; null where there are no standard deviations."""
        tables = {name: rows.table(self.channels.variance) for name, rows in self._rows.items()}
        return {"calibration": tables if any(tables.values()) else None}
