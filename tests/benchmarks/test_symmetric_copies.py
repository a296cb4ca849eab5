"""Symmetry copies of trajectories on a grid, against the exact solution at moved points."""

import dataclasses

import numpy as np
import torch
from standing_waves import DESCRIPTION, SIDE, grid, relative, waves

from benchmarks.baselines.symmetric_copies import fit_with_copies, symmetric_copies
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Symmetries
from inrflow.evaluation.references.pod_dmd import PodDmd


def test_symmetry_copies_give_the_dynamics_of_directions_that_training_never_saw():
    along_x, along_y = waves(12, 8, 10, ((1, 0),)), waves(6, 20, 11, ((0, 1),))
    exchange = Symmetries.by_name(["exchange", "translation"], DESCRIPTION)
    description = dataclasses.replace(DESCRIPTION, symmetries=exchange)
    held = along_x.select(slice(9, None))
    alone = PodDmd.fit(along_x.select(slice(0, 9)), held, description)
    moved = fit_with_copies(along_x.select(slice(0, 9)), held, description, 6)
    asked = (along_y.t, along_y.x, along_y.u[:, :1])
    assert relative(alone.forecast(*asked), along_y.u) > 0.5
    assert relative(moved.forecast(*asked), along_y.u) < 1e-6


def test_symmetry_copies_are_the_solution_at_moved_points():
    """A travelling wave with a turned vector: copies hold whole cells' shifts of it, values turned along."""
    turned = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    swap = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    symmetries = Symmetries(np.array([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]), np.zeros((1, 2, 2)), swap, turned)
    description = dataclasses.replace(DESCRIPTION, symmetries=symmetries)
    x = grid()
    u = torch.stack([torch.cos(2 * torch.pi * x[0, 0, :, 0]), torch.sin(4 * torch.pi * x[0, 0, :, 1])], -1)
    batch = TrajectoryBatch(torch.zeros(1, 1, dtype=torch.float64), x, u[None, None])
    copies = symmetric_copies(batch, description, 12, seed=3)
    field = u.reshape(SIDE, SIDE, 2)
    shifts = [torch.roll(field, shift, 0) for shift in range(SIDE)]
    orbit = shifts + [f.transpose(0, 1).flip(-1) for f in shifts]
    orbit += [torch.roll(f, shift, 0) for f in orbit[SIDE:] for shift in range(SIDE)]
    found = {next(i for i, f in enumerate(orbit) if torch.allclose(copy.u[0, 0].reshape(SIDE, SIDE, 2), f))
             for copy in copies}
    assert len(copies) == 12 and len(found) > 3


def test_symmetry_copies_off_the_points_are_left_out():
    scattered = TrajectoryBatch(torch.zeros(1, 1, dtype=torch.float64), torch.rand(1, 1, 30, 2, dtype=torch.float64),
                                torch.rand(1, 1, 30, 2))
    description = dataclasses.replace(DESCRIPTION, symmetries=Symmetries.by_name("translation", DESCRIPTION))
    assert symmetric_copies(scattered, description, 3) == []
    assert symmetric_copies(scattered, DESCRIPTION, 3) == []
