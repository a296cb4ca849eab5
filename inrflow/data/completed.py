"""Sources with values at unobserved points, computed from the observed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource


class CompletedSource(TrajectorySource):
    """A source whose trajectories all have values at the same points.

    Args:
        source: of the observations; its normalisation stays.
        x: (M, d) points.
        values: (T, M, C) of each trajectory, in data units; NaN where unknown.
        times: (T,) of all trajectories, by default those of the source.
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
        return self.__dict__  # no file holds its values

    @property
    def shared_points(self) -> bool:
        """All trajectories share their points."""
        return True
