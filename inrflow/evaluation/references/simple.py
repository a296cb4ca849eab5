"""References without dynamics: persistence (the last observed frame, kept) and the mean training field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.evaluation.references.base import Reference
from inrflow.evaluation.references.training_data import channel_mean, filled, mean_field, same_points, shared_points


@dataclass
class Persistence(Reference):
    """The last observed frame, kept; a point without an observation takes the value of the nearest observed one.

    Attributes:
        channel_mean: (C,) mean of each channel over the training data, for channels that are not observed at all.
        period: (d,) of the coordinates, 0 where not periodic, or None.
    """

    channel_mean: Tensor
    period: Tensor | None = None

    name = "persistence"
    title = "persistence"

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> Persistence:
        """Applies to all data."""
        period = None if description.period is None else torch.tensor(description.period, dtype=torch.float64)
        return cls(channel_mean(train, validation), period)

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The last observed frame at all times after it; each observed frame is its own forecast."""
        n, frames = observed.shape[1], t.shape[1]
        some = torch.isfinite(observed).flatten(2).any(-1)
        kept = observed.new_empty(len(observed), frames, *observed.shape[2:])
        for s, known in enumerate(some):
            places = x[s if len(x) > 1 else 0].double()
            seen = torch.nonzero(known)[:, 0]
            near: dict[bytes, Tensor] = {}
            for frame in range(frames):
                before = seen[seen <= frame]
                source = int(before[-1] if len(before) else seen[0]) if len(seen) else 0
                if len(places) == 1 and frame > 0 and (frame >= n or not bool(known[frame])):
                    kept[s, frame] = kept[s, frame - 1]
                    continue
                targets = None if len(places) == 1 or source == frame else places[frame]
                origin = places[0] if len(places) == 1 else places[source]
                near = near if len(places) == 1 else {}
                kept[s, frame] = filled(observed[s, source], origin, targets, self.channel_mean, self.period, near)
        return kept


@dataclass
class TrainingMean(Reference):
    """The mean training field where training trajectories share their points and these are asked for, else the channel
    means.

    Attributes:
        channel_mean: (C,) mean of each channel over the training data.
        points: (N, d) shared by all training trajectories, or None.
        field: (N, C) mean training field at these points, or None.
    """

    channel_mean: Tensor
    points: Tensor | None = None
    field: Tensor | None = None

    name = "training_mean"
    title = "training mean"

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> TrainingMean:
        """Applies to all data."""
        mean, points = channel_mean(train, validation), shared_points(train, validation)
        return cls(mean, points, None if points is None else mean_field(train, validation))

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The same at all times."""
        on_points = self.points is not None and x.shape[-2] == len(self.points) and same_points(x, self.points)
        mean = self.field if on_points and self.field is not None else self.channel_mean
        return mean.to(observed).expand(*t.shape, *observed.shape[2:])
