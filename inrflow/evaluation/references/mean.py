"""The mean training field."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.evaluation.references.base import Reference
from inrflow.evaluation.references.points import same_points
from inrflow.evaluation.references.training_data import channel_mean, mean_field, shared_points


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
