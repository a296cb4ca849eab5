"""Observations of one trajectory as a window of frames."""

from __future__ import annotations

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.data.time_bins import TimeBins, is_scattered
from inrflow.errors import UserError

_BIN = 0.5  # internal time units between the frames made of rows whose times all differ


def window_of(
    observations: Observations, description: Description, unit: float, gather: bool = True
) -> TrajectoryBatch:
    """Frames (1, K, ...) of one trajectory, data units. Raises UserError where they do not fit the description.

    Args:
        unit: of internal time, in the data's.
        gather: rows that each have a time of their own become frames at equally spaced times, each value with the time
            by which it was seen late; needs a decoder that is affine in the code.
    """
    frames = observations.frames()
    d, channels = len(description.coordinates), len(description.channels)
    if frames.x.shape[-1] != d or frames.u.shape[-1] != channels:
        raise UserError(
            f"the observations have {frames.x.shape[-1]} coordinates and {frames.u.shape[-1]} channels; the surrogate "
            f"of {description.name} has {d} ({', '.join(description.coordinates)}) and {channels} "
            f"({', '.join(description.channels)})"
        )
    x, u = torch.as_tensor(frames.x), torch.as_tensor(frames.u)
    numbers = None if observations.graph is None else observations.graph[1]
    if numbers is not None:
        u = _attached(observations, numbers)
    if not (gather and is_scattered(len(observations), len(frames))):
        return TrajectoryBatch(torch.as_tensor(frames.t)[None], x[None] if x.dim() == 3 else x[None, None], u[None])
    seen = np.isfinite(frames.u).any(-1)
    t = np.broadcast_to(frames.t[:, None], seen.shape)[seen]
    places = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))[seen]
    bins = TimeBins.of_width(float(t.min()), float(t.max()), _BIN * unit)
    found = bins.gather(t, places, frames.u[seen])
    place, u, delay = (torch.as_tensor(v) for v in (found[0], found[1], found[2].astype(float)))
    if numbers is not None:
        u = _attached(observations, bins.gather(t, places, numbers[seen])[1])
    return TrajectoryBatch(torch.as_tensor(bins.times)[None], place[None], u[None], delay[None])


def _attached(observations: Observations, numbers: np.ndarray) -> torch.Tensor:
    """Observed values with their gradient, in the shape of their numbers, NaN where there is none."""
    assert observations.graph is not None
    where = torch.as_tensor(numbers)
    taken = observations.graph[0].cpu().flatten()[where.nan_to_num(0.0).long()]
    return torch.where(torch.isnan(where), torch.nan, taken)
