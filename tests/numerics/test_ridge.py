"""Grids of ridges, and damped solves."""

import torch

from inrflow.numerics.ridge import damped_solve, ridge_grid


def test_a_grid_rises_by_decades_to_both_of_its_ends():
    assert ridge_grid(-6, -2) == (1e-6, 1e-4, 1e-2)
    assert ridge_grid(-9, -8, 1) == (1e-9, 1e-8)


def test_damping_vanishes_with_its_strength_and_bears_a_direction_without_curvature():
    hessian = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    gradient = torch.tensor([[1.0, -1.0], [3.0, 0.0]], dtype=torch.float64)
    found = damped_solve(hessian, gradient, 1e-10)
    torch.testing.assert_close(found[0], torch.linalg.solve(hessian[0], gradient[0]), rtol=1e-8, atol=0)
    torch.testing.assert_close(found[1], torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=1e-8, atol=0)
