"""Quadratic closed-form dynamics against systems whose equations are known."""

import numpy as np
import pytest
import torch
from torchdiffeq import odeint

from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.quadratic_fit import QuadraticFit, _lagrange
from inrflow.dynamics.states import CodeData


def lorenz(t, s):
    """A slowed Lorenz system in units of order one."""
    x, y, z = s.unbind(-1)
    return 0.1 * torch.stack([10 * (y - x), 28 * x - y - 20 * x * z, 20 * x * y - 8 / 3 * z], -1)


def trajectories(count, frames, irregular, seed=0):
    random = np.random.default_rng(seed)
    start = torch.as_tensor(random.uniform(-0.5, 0.5, (count, 3)) + [0, 0, 1])
    steps = 1 + (random.uniform(-0.4, 0.4, (count, frames - 1)) if irregular else np.zeros((count, frames - 1)))
    t = torch.as_tensor(0.4 * np.concatenate([np.zeros((count, 1)), steps.cumsum(1)], 1))
    codes = torch.stack(
        [odeint(lorenz, s, times, rtol=1e-9, atol=1e-10) for s, times in zip(start, t, strict=True)]
    )
    return CodeData(codes, t / 0.4, torch.ones(count, frames, dtype=torch.bool))


def error_of(field, data):
    with torch.no_grad():
        predicted = Integrator(step=0.1)(field, data.codes[:, 0], data.t)
    return float((predicted - data.codes).square().mean() / data.codes.square().mean())


@pytest.mark.parametrize("irregular", [False, True])
def test_quadratic_dynamics_are_found_from_transitions(irregular):
    training, unseen = trajectories(24, 10, irregular), trajectories(4, 8, irregular, seed=1)
    form = QuadraticFit(training, 6).search(lambda field: error_of(field, unseen))
    assert form is not None
    assert len(form.ridges) > 1  # corrections along the flow were made
    assert form.score < 1e-6
    scaled = form.matrix / 0.4  # of a unit of the data's time
    expected = torch.tensor([[-1.0, 1.0, 0.0], [2.8, -0.1, 0.0], [0.0, 0.0, -0.8 / 3]], dtype=torch.float64)
    assert float((scaled - expected).abs().max()) < 0.03


def test_fewer_transitions_than_unknowns_give_the_solution_of_the_normal_equations():
    data = trajectories(2, 4, False)
    fit = QuadraticFit(data, 6)
    assert fit.dual
    short = fit.solver(fit.interpolated())(1e-3)
    fit.dual = False
    tall = fit.solver(fit.interpolated())(1e-3)
    torch.testing.assert_close(short, tall, rtol=1e-2, atol=1e-4)


def test_frames_that_nobody_observed_are_bridged():
    whole = trajectories(12, 10, False)
    observed = whole.observed.clone()
    observed[::2, 4] = False
    codes = torch.where(observed[..., None], whole.codes, torch.nan)
    form = QuadraticFit(CodeData(codes, whole.t, observed), 6).refit((1e-6, 1e-7, 1e-7))
    assert error_of(form.field(), trajectories(4, 6, False, seed=2)) < 1e-3


def test_a_refit_on_the_same_data_repeats_the_search():
    data = trajectories(12, 8, False)
    fit = QuadraticFit(data, 6)
    found = fit.search(lambda field: error_of(field, data), corrections=1)
    again = QuadraticFit(data, 6).refit(found.ridges)
    torch.testing.assert_close(again.weight, found.weight)


def test_lagrange_polynomials_reproduce_polynomials():
    nodes = torch.tensor([[0.0, 1.0, 2.5, 3.0]], dtype=torch.float64)
    t = torch.tensor([[0.3, 2.9]], dtype=torch.float64)
    values = _lagrange(nodes, t) @ (nodes[0] ** 3 - 2 * nodes[0])[:, None]
    torch.testing.assert_close(values[0, :, 0], t[0] ** 3 - 2 * t[0])
