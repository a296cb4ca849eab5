"""POD + DMD fitted to symmetry copies of the training data as well, for data on grids that the symmetries keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.transformations import Augmentation
from inrflow.evaluation.references.pod_dmd import PodDmd
from inrflow.evaluation.references.training_data import SAME, extent, nearest, wrapped


def fit_with_copies(
    train: TrajectoryBatch, validation: TrajectoryBatch, description: Description, count: int, seed: int = 0
) -> PodDmd | None:
    """POD + DMD of trajectories and `count` copies of each; None where it does not apply, or no copy is on the grid."""
    copies = symmetric_copies(train, description, count, seed)
    if not copies:
        return None
    every = [train, *copies]
    moved = replace(train, t=torch.cat([batch.t for batch in every]), u=torch.cat([batch.u for batch in every]))
    return PodDmd.fit(moved, validation, description)


def _matching(moved: Tensor, grid: Tensor, period: Tensor | None) -> Tensor | None:
    """Index of the moved point that lies on each point of the grid, (N,); None where they are not the same points."""
    tolerance = float(SAME * extent(grid))
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
        elements = Augmentation(description.symmetries, size, description.period).sample(random, len(batch))
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
