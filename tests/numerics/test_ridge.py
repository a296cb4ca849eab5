"""The choice of a ridge by validation errors, and damped solves."""

import pytest
import torch

from inrflow.numerics.ridge import damped_solve, improves, leading_ridge, ridge_grid


def chosen(errors):
    return leading_ridge([(10.0**i, error) for i, error in enumerate(errors)], lambda error: error)


def test_a_grid_rises_by_decades_to_both_of_its_ends():
    assert ridge_grid(-6, -2) == (1e-6, 1e-4, 1e-2)
    assert ridge_grid(-9, -8, 1) == (1e-9, 1e-8)


def test_the_least_error_leads_and_failures_are_passed_over():
    assert chosen([None, 3.0, 1.0, 1.02, 2.0]) == (1.0, 100.0, 1.0)
    assert chosen([None, float("nan"), float("inf")]) is None


def test_ridges_beyond_the_rise_of_the_error_are_not_judged():
    judged = []

    def judge(error):
        judged.append(error)
        return error

    leading_ridge([(1.0, 1.0), (2.0, 2.0), (3.0, 0.5)], judge)
    assert judged == [1.0, 2.0]


@pytest.mark.parametrize(("score", "best", "worth"), [(1.0, None, True), (0.98, 1.0, True), (0.999, 1.0, False)])
def test_a_correction_must_gain_a_little(score, best, worth):
    assert improves(score, best) == worth


def test_damping_vanishes_with_its_strength_and_bears_a_direction_without_curvature():
    hessian = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    gradient = torch.tensor([[1.0, -1.0], [3.0, 0.0]], dtype=torch.float64)
    found = damped_solve(hessian, gradient, 1e-10)
    torch.testing.assert_close(found[0], torch.linalg.solve(hessian[0], gradient[0]), rtol=1e-8, atol=0)
    torch.testing.assert_close(found[1], torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=1e-8, atol=0)
