"""Training and validation data as the reference forecasts take them."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.references.points import same_points


def shared_points(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor | None:
    """The points (N, d) that all trajectories share at all times, float64; None where they do not."""
    parts = [train] if validation is None else [train, validation]
    if any(part.x.shape[:2] != (1, 1) or not same_points(part.x, train.x) for part in parts):
        return None
    return train.x[0, 0].double()


def channel_mean(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor:
    """Mean of each channel over all values, (C,) float64; 0 for a channel without any."""
    parts = [train] if validation is None else [train, validation]
    values = torch.cat([part.u.double().flatten(0, 2) for part in parts])
    return values.nanmean(0).nan_to_num(0.0)


def mean_field(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor:
    """Mean of each channel at each of the shared points, (N, C) float64; that of the channel where nothing is known."""
    values = stacked(train, validation).u.double().flatten(0, 1)
    return torch.where(torch.isfinite(values).any(0), values.nanmean(0), channel_mean(train, validation))


def split(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> tuple[TrajectoryBatch, TrajectoryBatch | None]:
    """The data as given, but for a single validation trajectory that continues a single training trajectory: joined to
    it, without any validation data."""
    if validation is None or not len(train) == len(validation) == 1:
        return train, validation
    kept = torch.isfinite(train.t[0])
    if not bool(validation.t[0, 0] > train.t[0, kept].max()):
        return train, validation
    return TrajectoryBatch(torch.cat([train.t[:, kept], validation.t], 1), train.x,
                           torch.cat([train.u[:, kept], validation.u], 1)), None


def stacked(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> TrajectoryBatch:
    """All trajectories in one batch on the shared points, the shorter padded with NaN."""
    train, validation = split(train, validation)
    if validation is None:
        return train
    frames = max(train.t.shape[1], validation.t.shape[1])
    t, u = [], []
    for batch in (train, validation):
        missing = frames - batch.t.shape[1]
        t.append(torch.nn.functional.pad(batch.t, (0, missing), value=torch.nan))
        u.append(torch.nn.functional.pad(batch.u, (0, 0, 0, 0, 0, missing), value=torch.nan))
    return TrajectoryBatch(torch.cat(t), train.x, torch.cat(u))
