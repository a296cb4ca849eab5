"""Runge and Kutta's method against closed forms."""

import math

import pytest
import torch

from inrflow.dynamics.flow.runge_kutta import rk4_integrals, rk4_path, rk4_step

DT = torch.tensor([0.3, -0.2], dtype=torch.float64)


def test_a_step_of_a_linear_rate_is_the_exponential_to_fourth_order():
    start = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    end = rk4_step(lambda t, s: 1.5 * s, torch.zeros(2), start, DT)
    series = sum((1.5 * DT) ** k / math.factorial(k) for k in range(5))
    torch.testing.assert_close(end, start * series[:, None], rtol=1e-14, atol=0)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    """ds/dt = s cos(t) has the solution exp(sin(t)) for s(0) = 1."""
    start, dt, zero = torch.ones(1, 1, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64), torch.zeros(())
    errors = []
    for steps in (8, 16):
        path = rk4_path(lambda t, s: s * t.cos(), zero.double(), start, dt, steps)
        assert path.shape == (steps + 1, 1, 1)
        expected = (torch.arange(steps + 1).double() * 2.0 / steps).sin().exp()
        errors.append(float((path[:, 0, 0] - expected).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)


def test_features_are_integrated_with_the_quadrature_of_the_state():
    """A rate that is linear in features: the change of the state is their integral times the weights, to rounding."""
    weights = torch.tensor([[0.4], [-1.3]], dtype=torch.float64)

    def evaluate(t, s):
        features = torch.cat([s, s.square()], -1)
        return features @ weights, (features, torch.ones(2, 3, 2, dtype=torch.complex128))

    start = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    end, (integral, ones) = rk4_integrals(evaluate, torch.zeros(2), start, DT, steps=5)
    torch.testing.assert_close(start + integral @ weights, end, rtol=1e-14, atol=0)
    torch.testing.assert_close(ones, DT[:, None, None].expand(2, 3, 2).to(torch.complex128), rtol=1e-14, atol=0)
    whole = rk4_path(lambda t, s: evaluate(t, s)[0], torch.zeros(2), start, DT, 5)[-1]
    torch.testing.assert_close(end, whole, rtol=1e-14, atol=0)
