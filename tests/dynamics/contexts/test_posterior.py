"""The context of a system by Gauss-Newton through the flow against contexts that are known."""

import numpy as np
import pytest
import torch
from context_systems import CONTEXTS, SIZE, operators, trajectories

from inrflow.dynamics.contexts.posterior import solve_context
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData

PRIOR = torch.zeros(CONTEXTS).double(), torch.eye(CONTEXTS).double()
INTEGRATOR = Integrator(step=0.25)


def known_field():
    parts = operators()
    field = VectorField.of(SIZE, context_size=CONTEXTS).double()
    field.set_linear(parts[0, :, 1:], parts[0, :, 0])
    field.linear.set_context(parts[1:, :, 1:], parts[1:, :, 0])
    return field


@pytest.mark.parametrize("context", [[0.3, -0.2], [2.5, -2.0]])
@pytest.mark.parametrize("irregular", [False, True])
def test_a_context_is_found_near_and_far_from_its_mean(context, irregular):
    data, _ = trajectories(operators(), [context], each=1, irregular=irregular)
    found = solve_context(known_field(), INTEGRATOR, data, *PRIOR)
    np.testing.assert_allclose(found.mean, context, atol=1e-3)
    assert found.misfit < 1e-6 and float(found.covariance.diagonal().max()) < 1e-4


def test_more_frames_say_more_and_none_leave_the_prior():
    data, _ = trajectories(operators(), [[0.5, 0.5]], each=1, frames=8)
    noisy = data.codes + 0.02 * torch.randn(data.codes.shape, generator=torch.Generator().manual_seed(0)).double()
    spreads = []
    for frames in (3, 8):
        part = data.frames(frames)
        part.codes = noisy[:, :frames]
        spreads.append(float(solve_context(known_field(), INTEGRATOR, part, *PRIOR).covariance.diagonal().sum()))
    assert spreads[1] < 0.7 * spreads[0]
    found = solve_context(known_field(), INTEGRATOR, data.frames(1), *PRIOR)
    torch.testing.assert_close(found.mean, PRIOR[0])
    torch.testing.assert_close(found.covariance, PRIOR[1])


def test_errors_are_within_the_standard_deviations_that_are_told():
    errors = []
    for seed in range(8):
        data, _ = trajectories(operators(), [[0.5, -0.8]], each=1, seed=seed)
        data.codes = data.codes + 0.03 * torch.randn(data.codes.shape, generator=torch.Generator().manual_seed(seed))
        found = solve_context(known_field(), INTEGRATOR, data, *PRIOR)
        errors.append((found.mean - torch.tensor([0.5, -0.8])) / found.covariance.diagonal().sqrt())
    ratio = float(torch.stack(errors).square().mean().sqrt())
    assert 0.2 < ratio < 1.6


def test_a_turn_of_waves_is_found_where_long_spans_have_other_minima():
    """dz/dt = (1 + c) J z, a few radians in eight frames at c = 0, several turns more at the true one."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    field = VectorField.of(2, context_size=1).double()
    field.set_linear(turn, torch.zeros(2).double())
    field.linear.set_context(turn[None], torch.zeros(1, 2).double())
    t = 0.5 * torch.arange(12).double()
    angle = 3.4 * t
    codes = torch.stack([angle.cos(), angle.sin()], -1)[None]
    data = CodeData(codes, t[None], torch.ones(1, 12, dtype=torch.bool))
    found = solve_context(field, Integrator(step=0.05), data, torch.zeros(1).double(), torch.eye(1).double())
    np.testing.assert_allclose(found.mean, [2.4], atol=1e-3)


class Autocatalysis(torch.nn.Module):
    """ds/dt = (1 + c) s^2: at c = 0 infinite after a time of 1 / s."""

    is_linear_at_context = False

    def forward(self, t, state):
        s, c = state[:, :1], state[:, 1:]
        return torch.cat([(1 + c) * s**2, torch.zeros_like(c)], 1)


def test_spans_that_diverge_at_the_mean_context_tell_nothing():
    t = torch.arange(10).double()[None]
    data = CodeData((1 / (1 + 0.5 * t))[..., None], t, torch.ones(1, 10, dtype=torch.bool))
    found = solve_context(Autocatalysis(), INTEGRATOR, data, torch.zeros(1).double(), 9 * torch.eye(1).double())
    assert float(found.mean) == pytest.approx(-1.5, abs=1e-2) and found.misfit < 1e-6


class Counted(Integrator):
    """Counts its integrations."""

    calls = 0

    def __call__(self, *arguments, **options):
        Counted.calls += 1
        return super().__call__(*arguments, **options)


class Growth(torch.nn.Module):
    """dp/dt = (1 + c) p (1 - p), of many populations."""

    is_linear_at_context = False

    def forward(self, t, state):
        p, c = state[:, :-1], state[:, -1:]
        return torch.cat([(1 + c) * p * (1 - p), torch.zeros_like(c)], 1)


def test_a_context_that_short_spans_tell_takes_a_handful_of_integrations_and_is_as_good():
    random = torch.Generator().manual_seed(0)
    start, t = torch.rand(1, 1, 40, generator=random, dtype=torch.float64), torch.arange(10).double()[None, :, None] / 4
    codes = 1 / (1 + (1 / start - 1) * torch.exp(-1.3 * t))
    data = CodeData(codes, t[..., 0], torch.ones(1, 10, dtype=torch.bool))
    Counted.calls = 0
    found = solve_context(Growth(), Counted(step=0.05), data, torch.zeros(1).double(), torch.eye(1).double())
    assert float(found.mean) == pytest.approx(0.3, abs=1e-4)
    assert Counted.calls <= 5


def test_a_context_on_a_curve_is_found_from_the_best_of_several_starts():
    """c = (p, p^2 - 1), with p = 1.4: an estimate of p, whose variance is that along the curve."""
    def curve(p):
        return torch.cat([p, p**2 - 1], 1)

    p = 1.4
    data, _ = trajectories(operators(), [[p, p**2 - 1]], each=1)
    prior = torch.zeros(1).double(), 100 * torch.eye(1).double()
    starts = torch.tensor([[-1.5], [0.0], [1.0]]).double()
    found = solve_context(known_field(), INTEGRATOR, data, *prior, near=starts, curve=curve)
    np.testing.assert_allclose(found.mean, [p], atol=1e-3)
    free = solve_context(known_field(), INTEGRATOR, data, *PRIOR)
    slope = torch.tensor([1.0, 2 * p]).double()
    assert float(1 / (slope @ torch.linalg.solve(free.covariance, slope))) == pytest.approx(
        float(found.covariance), rel=1.0)
