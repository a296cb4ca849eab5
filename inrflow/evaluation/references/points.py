"""Points as the reference forecasts see them: are two sets one, what was observed near, which moves keep a grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description

_SAME = 1e-5  # points closer than this fraction of the extent are one point
_PAIRS = 1 << 22  # distances held at once


def same_points(a: Tensor, b: Tensor) -> bool:
    """Whether a and b (..., N, d) hold the same N points in the same order, up to rounding."""
    if a.shape[-2:] != b.shape[-2:]:
        return False
    tolerance = _SAME * extent(b).clamp(min=1e-300)
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
    """Values u (N, C) at sources (N, d), NaN where not observed, as complete values at targets (M, d).

    A value not observed is that of the nearest observed point, or `otherwise` (C,) for a channel without any. targets
    None: the sources themselves. `neighbours` remembers those of masks met before, for one pair of sources and targets.
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


def persistence(x: Tensor, observed: Tensor, frames: int, otherwise: Tensor, period: Tensor | None) -> Tensor:
    """The last observed frame, kept: (S, frames, N, C).

    x (S or 1, T or 1, N, d); observed (S, n, N, C), values of the first n frames, NaN where not observed: each of them
    is its own forecast, with the nearest observed value where a point has none.
    """
    S, n, N, C = observed.shape
    some = torch.isfinite(observed).flatten(2).any(-1)
    kept = observed.new_empty(S, frames, N, C)
    for s in range(S):
        places = x[s if len(x) > 1 else 0].double()
        seen = torch.nonzero(some[s])[:, 0]
        neighbours: dict[bytes, Tensor] = {}
        for frame in range(frames):
            before = seen[seen <= frame]
            source = int(before[-1] if len(before) else seen[0]) if len(seen) else 0
            if len(places) == 1 and frame > 0 and (frame >= n or not bool(some[s, frame])):
                kept[s, frame] = kept[s, frame - 1]
            elif len(places) == 1:
                kept[s, frame] = filled(observed[s, source], places[0], None, otherwise, period, neighbours)
            else:
                targets = None if source == frame else places[frame]
                kept[s, frame] = filled(observed[s, source], places[source], targets, otherwise, period, {})
    return kept


# ---- symmetry copies that stay on the grid ----

def _matching(moved: Tensor, grid: Tensor, period: Tensor | None) -> Tensor | None:
    """Index of the moved point that lies on each point of the grid, (N,); None where they are not the same points."""
    tolerance = float(_SAME * extent(grid))
    place = {tuple(row): index for index, row in enumerate(_cell(grid, grid, period, tolerance))}
    found = [place.get(tuple(row)) for row in _cell(moved, grid, period, tolerance)]
    if len(place) < len(grid) or None in found or len(set(found)) < len(grid):
        return None
    order = torch.empty(len(grid), dtype=torch.long)
    order[torch.tensor(found)] = torch.arange(len(grid))
    return order if bool((wrapped(moved[order] - grid, period).abs() <= tolerance).all()) else None


def _cell(x: Tensor, grid: Tensor, period: Tensor | None, tolerance: float) -> list[list[int]]:
    """Whole numbers that agree for points within rounding; the odd offset keeps grid points off the cells' edges."""
    offset = x - grid.amin(0) + 0.37 * 4 * tolerance
    if period is not None:
        offset = torch.where(period > 0, offset.remainder(torch.where(period > 0, period, 1.0)), offset)
    return torch.floor(offset / (4 * tolerance)).long().tolist()


def symmetric_copies(batch: TrajectoryBatch, description: Description, count: int,
                     seed: int = 0) -> list[TrajectoryBatch]:
    """`count` copies of trajectories (data units) under declared symmetries that carry shared points onto themselves.

    Every trajectory is moved by an element of its own: a random one of the group, shifted so that the first point falls
    on the nearest point. Elements that do not map the points onto themselves are left out, and a trajectory without one
    stays as it is. An empty list where points are not shared, or nothing maps them onto themselves.
    """
    if batch.x.shape[:2] != (1, 1) or not len(description.symmetries) or count < 1:
        return []
    grid = batch.x[0, 0].double()
    period = None if description.period is None else torch.tensor(description.period, dtype=torch.float64)
    random = np.random.default_rng([seed, len(batch)])
    size = (grid.amax(0) - grid.amin(0)).numpy()
    copies, moved_any = [], False
    for _ in range(count):
        elements = description.symmetries.sample(random, len(batch), size, description.period)
        values = batch.u.clone()
        for index in range(len(batch)):
            A, Q = torch.as_tensor(elements.A[index]), torch.as_tensor(elements.Q[index])
            moved = grid @ A.T + torch.as_tensor(elements.b[index])
            target = grid[nearest(moved[:1], grid, period)]
            order = _matching(moved + wrapped(target - moved[:1], period), grid, period)
            if order is not None:
                values[index] = batch.u[index][:, order] @ Q.T.to(batch.u)
                moved_any = True
        copies.append(TrajectoryBatch(batch.t, batch.x, values))
        if not moved_any:
            return []
    return copies
