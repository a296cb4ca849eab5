"""Augmentation of trajectories by random elements of the symmetry group."""

from __future__ import annotations

import numpy as np

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Symmetries, Transformations


class Augmentation:
    """Random symmetry copies of trajectories: points moved, values transformed. False where no symmetry is known."""

    def __init__(self, symmetries: Symmetries, extent: np.ndarray, period: tuple[float, ...] | None):
        self.symmetries, self.extent, self.period = symmetries, extent, period

    def __bool__(self) -> bool:
        return len(self.symmetries) > 0

    def __call__(self, batch: TrajectoryBatch, random: np.random.Generator) -> TrajectoryBatch:
        """Every trajectory of the batch (data units), moved by its own random element of the group."""
        return batch.transformed(self.sample(random, len(batch))) if self else batch

    def sample(self, random: np.random.Generator, count: int) -> Transformations:
        """Random elements of the group."""
        return self.symmetries.sample(random, count, self.extent, self.period)


def moved_batch(
    source: TrajectorySource, trajectories: np.ndarray, augmentation: Augmentation | None, random: np.random.Generator
) -> TrajectoryBatch:
    """Normalised trajectories, each moved by a random symmetry where an augmentation with any is given."""
    if not augmentation:
        return source.batch(trajectories)
    moved = augmentation(source.batch(trajectories, normalised=False), random)
    return moved.with_values(source.normalisation.apply(moved.u))
