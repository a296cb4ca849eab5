"""Trajectory sources with values at unobserved points that were computed from observed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource


class CompletedSource(TrajectorySource):
    """Source whose trajectories all have values at the same points.

    Args:
        source: source of the observations, whose normalisation is kept.
        x: points (M, d).
        values: values (T, M, C) of each trajectory, in data units; NaN where unknown.
        times: times (T,) of all trajectories, by default those of the source.
    """

    def __init__(self, source: TrajectorySource, x: np.ndarray, values: Sequence[np.ndarray],
                 times: np.ndarray | None = None) -> None:
        super().__init__(source.file, source.frames, seed=source.seed)
        self.points, self.normalisation, self.moves = len(x), source.normalisation, False
        if times is not None:
            self.time_bins, self.times = None, torch.as_tensor(times).expand(len(values), -1)
        points = torch.as_tensor(x)[None, None]
        self._cache = {
            i: TrajectoryBatch(self.times[i : i + 1], points, torch.as_tensor(u, dtype=torch.float32)[None])
            for i, u in enumerate(values)
        }

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__  # its values are in no file

    @property
    def shared_points(self) -> bool:
        """True: all trajectories share their points."""
        return True
