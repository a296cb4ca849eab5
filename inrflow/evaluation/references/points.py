"""Sets of points: whether two are the same, and which of them are nearest."""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 1e-5  # points closer than this fraction of the extent are one point
_PAIRS = 1 << 22  # distances held at once


def same_points(a: Tensor, b: Tensor) -> bool:
    """Whether a and b (..., N, d) hold the same N points in the same order, up to rounding."""
    if a.shape[-2:] != b.shape[-2:]:
        return False
    tolerance = SAME * extent(b).clamp(min=1e-300)
    return bool(((a - b).abs() <= tolerance).all())


def extent(x: Tensor) -> Tensor:
    """Size of the box around points (..., d), the largest of its sides."""
    flat = x.reshape(-1, x.shape[-1])
    return (flat.amax(0) - flat.amin(0)).max()


def wrapped(difference: Tensor, period: Tensor | None) -> Tensor:
    """Differences of coordinates (..., d), the shortest way round where a coordinate is periodic (period > 0)."""
    if period is None:
        return difference
    step = torch.where(period > 0, period, 1.0)
    return torch.where(period > 0, difference - step * torch.round(difference / step), difference)


def nearest(targets: Tensor, sources: Tensor, period: Tensor | None = None) -> Tensor:
    """Index into sources (K, d) of the nearest one of each of the targets (M, d): (M,)."""
    block = max(1, _PAIRS // max(1, len(sources)))
    return torch.cat([wrapped(part[:, None] - sources, period).square().sum(-1).argmin(1)
                      for part in targets.split(block)])


def filled(u: Tensor, sources: Tensor, targets: Tensor | None, otherwise: Tensor, period: Tensor | None,
           neighbours: dict[bytes, Tensor]) -> Tensor:
    """Complete values (M, C) at targets (M, d) from values u (N, C) at sources (N, d), NaN where not observed.

    Nearest-neighbour interpolation from the observed points.

    Args:
        targets: None for the sources themselves.
        otherwise: (C,) values of channels that are observed nowhere.
        neighbours: cache of the nearest points by mask, for one pair of sources and targets.
    """
    complete = otherwise.to(u).repeat(len(u if targets is None else targets), 1)
    for channel in range(u.shape[1]):
        seen = torch.isfinite(u[:, channel])
        if not bool(seen.any()):
            continue
        if targets is None and bool(seen.all()):
            complete[:, channel] = u[:, channel]
            continue
        mask = seen.numpy().tobytes()
        if mask not in neighbours:
            places = torch.nonzero(seen)[:, 0]
            neighbours[mask] = places[nearest(sources if targets is None else targets, sources[places], period)]
        complete[:, channel] = u[neighbours[mask], channel]
        if targets is None:
            complete[seen, channel] = u[seen, channel]
    return complete
