"""Observations of a test trajectory that are assimilated before its forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource, observed_points
from inrflow.errors import UserError


@dataclass(frozen=True)
class Observe:
    """Settings of the observations of a test trajectory.

    Attributes:
        frames: number of first frames; None: as many as forecasts of the surrogate need.
        points: fraction of the points; None: that of training.
        noise: standard deviation of added noise, in units of each channel's standard deviation.
        context: which contexts the trajectories have, see `known_contexts`.
    """

    frames: int | None = 1
    points: float | None = None
    noise: float = 0.0
    context: str = "auto"

    def check(self, source: TrajectorySource | None = None) -> None:
        """Raise UserError where a value is out of range, or more frames are asked for than a source has."""
        if self.frames is not None and self.frames < 1:
            raise UserError(f"observe.frames={self.frames}; at least one frame must be observed")
        if self.points is not None and not 0 < self.points <= 1:
            raise UserError(f"observe.points={self.points:g}; give a fraction above 0 and at most 1")
        if self.noise < 0:
            raise UserError(f"observe.noise={self.noise:g}; give a standard deviation of 0 or more")
        if source is not None and self.frames is not None and self.frames > source.times.shape[1]:
            raise UserError(f"observe.frames={self.frames}, but no trajectory of {source.file.path} has more than "
                            f"{source.times.shape[1]} frames; give no more")


@dataclass
class Observed:
    """Observations of the first K frames of S trajectories, in data units.

    Attributes:
        everywhere: values at all points, NaN where not observed, (S, K, N, C).
        window: the observed points alone, as they are assimilated.
    """

    everywhere: Tensor
    window: TrajectoryBatch


def points_of(trajectories: np.ndarray, points: int, fraction: float, seed: int, same: bool) -> Tensor:
    """Indices (S, n) of the observed points of each trajectory, given by their numbers (S,)."""
    return torch.as_tensor(np.stack([observed_points(seed, int(i), points, fraction, same) for i in trajectories]))


def observations(window: TrajectoryBatch, points: Tensor | None, noise: Tensor | None) -> Observed:
    """A window's values at some `points` (S, n) of each trajectory (None: all), with `noise` (S, K, N, C) added."""
    values = window.u if noise is None else window.u + noise
    if points is None:
        return Observed(values, window.with_values(values))
    rows = torch.arange(len(window))[:, None]
    unseen = torch.ones(len(window), values.shape[2], dtype=torch.bool)
    unseen[rows, points] = False
    x, shared = window.x, bool((points == points[:1]).all())
    if shared and len(x) == 1:
        places = x[:, :, points[0]]
    else:
        places = x.expand(len(window), *x.shape[1:]).transpose(1, 2)[rows, points].transpose(1, 2)
    chosen = values.transpose(1, 2)[rows, points].transpose(1, 2)
    delay = None if window.delay is None else window.delay.transpose(1, 2)[rows, points].transpose(1, 2)
    everywhere = values.masked_fill(unseen[:, None, :, None], float("nan"))
    return Observed(everywhere, TrajectoryBatch(window.t, places, chosen, delay))


def distance_to_observed(batch: TrajectoryBatch, observed: Observed) -> Tensor | None:
    """Distances (S, N) of the points of a batch to the nearest observed place of their trajectory, relative to the
    median distance between neighbouring places; None where points move."""
    if batch.x.shape[1] > 1 or observed.everywhere.shape[2] != batch.u.shape[2]:
        return None
    seen = torch.isfinite(observed.everywhere).any(-1).any(1)
    result = torch.zeros(seen.shape, dtype=torch.float64)
    for s in (~seen).any(1).nonzero()[:, 0].tolist():
        x = batch.x[s if len(batch.x) > 1 else 0, 0].double().numpy()
        known = x[seen[s].numpy()]
        if len(known) < 2:
            return None
        tree = cKDTree(known)
        spacing = float(np.median(tree.query(known, 2)[0][:, 1])) or 1.0
        result[s] = torch.as_tensor(tree.query(x)[0] / spacing)
    return result
