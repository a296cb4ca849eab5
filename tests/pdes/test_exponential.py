"""The exponential integrator: its order against a fine solution, its step control."""

import math

import numpy as np
import pytest
import torch

from inrflow.pdes.exponential import ExponentialIntegrator, UnresolvedError


def logistic(rate: float) -> ExponentialIntegrator:
    """u' = rate u - u^2, one mode, whose solution is rate / (1 + (rate / u0 - 1) exp(-rate t))."""
    linear = torch.full((1, 1, 1), rate, dtype=torch.float64)
    return ExponentialIntegrator(linear, lambda u: -(u**2), dimensions=1)


def logistic_solution(rate: float, t: float, start: float = 0.1) -> float:
    return rate / (1 + (rate / start - 1) * math.exp(-rate * t))


@pytest.mark.parametrize("mixing", [False, True])
def test_the_step_has_order_four(mixing):
    """Halving the step lowers the error 16 times, with a diagonal symbol and with one given as matrices."""
    rate = 2.0
    integrator = logistic(rate)
    if mixing:
        linear = torch.full((1, 1, 1, 1), rate, dtype=torch.float64)
        integrator = ExponentialIntegrator(linear, lambda u: -(u**2), dimensions=1)
    errors = []
    for steps in (10, 20, 40):
        u = torch.full((1, 1, 1), 0.1, dtype=torch.complex128)
        for _ in range(steps):
            u = integrator.step(u, torch.tensor([2.0 / steps], dtype=torch.float64))
        errors.append(abs(u.item() - logistic_solution(rate, 2.0)))
    orders = [math.log2(errors[k] / errors[k + 1]) for k in range(2)]
    assert min(orders) > 3.8 and max(orders) < 4.3


def test_step_control_keeps_the_tolerance_at_times_of_each_trajectory():
    times = torch.tensor([[0.0, 0.4, 3.0], [0.1, 2.0, 2.0], [0.7, 0.8, 5.0]], dtype=torch.float64)
    start = torch.full((3, 1, 1), 0.1, dtype=torch.complex128)
    for tolerance in (1e-6, 1e-10):
        frames = torch.stack(list(logistic(2.0).solve(start, times, tolerance=tolerance)), dim=1).real[..., 0, 0]
        expected = [[logistic_solution(2.0, float(t)) for t in row] for row in times]
        np.testing.assert_allclose(frames.numpy(), expected, rtol=100 * tolerance)


def test_a_solution_that_ends_in_finite_time_is_refused():
    """u' = u^2 from 1 is infinite at t = 1."""
    integrator = ExponentialIntegrator(torch.zeros(1, 1, 1, dtype=torch.float64), lambda u: u**2, dimensions=1)
    times = torch.tensor([0.5, 2.0], dtype=torch.float64)
    frames = integrator.solve(torch.ones(1, 1, 1, dtype=torch.complex128), times)
    assert abs(next(frames).item() - 2) < 1e-6
    with pytest.raises(UnresolvedError) as caught:
        next(frames)
    assert abs(caught.value.time - 1) < 1e-3
