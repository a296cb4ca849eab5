"""States from codes: memory that completes a frame to a state, and the seasonal mean of forced systems."""

import numpy as np
import pytest
import torch

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear import LinearFit, fit_irregular, transitions_of
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import SeasonalMean, frames_needed, memory_directions, past_frames, with_memory
from inrflow.encoding.encode import CodeData


def data(codes, times, observed=None):
    codes = torch.as_tensor(codes, dtype=torch.float64)
    times = torch.as_tensor(times, dtype=torch.float64).expand(codes.shape[:2])
    return CodeData(codes, times, torch.isfinite(times) if observed is None else observed)


def pendulums(times, count=6, seed=0):
    """Positions (S, T, 1) of x'' = -0.49 x with random amplitudes and phases: velocity is not seen."""
    random = np.random.default_rng(seed)
    amplitude, phase = random.uniform(0.5, 2, (count, 1)), random.uniform(0, 2 * np.pi, (count, 1))
    return (amplitude * np.cos(0.7 * times + phase))[..., None]


def one_step_error(states, pairs, step_map):
    start = torch.cat([torch.ones(len(pairs.start), 1).double(), pairs.start], 1)
    return float((pairs.end[:, 0] - (start @ step_map.T)[:, 1]).square().mean() / pairs.end[:, 0].square().mean())


def test_memory_makes_a_second_order_system_seen_without_velocity_predictable():
    seen = data(pendulums(np.arange(12.0)), np.arange(12.0))
    errors = {}
    for memory in (0, 1):
        states = with_memory(seen, 1, memory_directions(seen, 1, memory) if memory else None)
        pairs = transitions_of(states)
        errors[memory] = one_step_error(states, pairs, LinearFit(pairs).step_map(1 + memory, 1e-12))
    assert errors[0] > 0.1 and errors[1] < 1e-20


def test_memory_is_the_rate_of_change_since_the_frame_before_along_the_directions():
    random = np.random.default_rng(1)
    codes, times = random.standard_normal((2, 4, 3)), np.array([[0.0, 0.5, 2.0, 2.2], [0.0, 1.0, 2.0, 3.0]])
    directions = torch.as_tensor(random.standard_normal((2, 2)))
    states = with_memory(data(codes, times), 2, directions)
    rate = np.diff(codes[..., :2], axis=1) / np.diff(times)[..., None]
    np.testing.assert_array_equal(states.codes[..., :2], codes[..., :2])
    np.testing.assert_allclose(states.codes[:, 1:, 2:], rate @ directions.numpy(), rtol=1e-12)
    assert not states.observed[:, 0].any() and states.observed[:, 1:].all()


def test_longer_memory_goes_on_to_rates_of_rates():
    codes = np.random.default_rng(6).standard_normal((2, 7, 3))
    seen = data(codes, 0.5 * np.arange(7.0))
    directions = memory_directions(seen, 2, 5)
    states = with_memory(seen, 2, directions)
    rates = [np.diff(codes[..., :2], k, axis=1) / 0.5**k for k in (1, 2, 3)]
    np.testing.assert_allclose(states.codes[:, 1:, 2:4], rates[0], rtol=1e-12)
    np.testing.assert_allclose(states.codes[:, 2:, 4:6], rates[1], rtol=1e-12)
    np.testing.assert_allclose(states.codes[:, 3:, 6:], rates[2] @ directions.numpy()[:, 4:], rtol=1e-12)
    assert states.observed[0].tolist() == [False] * 3 + [True] * 4
    assert (past_frames(2, 5), frames_needed(2, 5), frames_needed(2, 0)) == (3, 5, 1)


def test_frames_whose_past_is_missing_do_not_count():
    observed = torch.tensor([[1, 1, 0, 1, 1, 0]], dtype=torch.bool)
    times = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, np.nan]])
    seen = data(np.random.default_rng(0).standard_normal((1, 6, 2)), times, observed)
    states = with_memory(seen, 2, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    assert states.observed.tolist() == [[False, True, False, False, True, False]]
    assert torch.isfinite(states.codes).all()


@pytest.mark.parametrize("directions", [None, torch.zeros(2, 0, dtype=torch.float64)])
def test_without_memory_states_are_the_leading_codes(directions):
    seen = data(np.random.default_rng(0).standard_normal((2, 3, 4)), np.arange(3.0))
    states = with_memory(seen, 2, directions)
    assert torch.equal(states.codes, seen.codes[..., :2]) and torch.equal(states.observed, seen.observed)


def test_memory_directions_are_those_of_most_motion():
    random = np.random.default_rng(2)
    basis, _ = np.linalg.qr(random.standard_normal((3, 3)))
    steps = random.standard_normal((5, 20, 3)) * [0.1, 3.0, 1.0]
    seen = data(np.cumsum(steps, 1) @ basis.T, np.arange(20.0))
    directions = memory_directions(seen, 3, 2).numpy()
    rates = np.diff(seen.codes.numpy(), axis=1).reshape(-1, 3)
    leading = np.linalg.svd(rates)[2][:2].T  # right singular vectors
    np.testing.assert_allclose(np.abs(directions.T @ leading), np.eye(2), atol=1e-8)


def test_parts_are_joined_and_cut():
    first, second = data(np.zeros((1, 4, 2)), np.arange(4.0)), data(np.ones((2, 4, 2)), np.arange(4.0))
    joined = CodeData.join([first, second])
    assert joined.codes.shape == (3, 4, 2) and joined.codes[1:].min() == 1 and joined.t.shape == (3, 4)
    assert joined.frames(2).codes.shape == (3, 2, 2) and joined.frames(2).observed.shape == (3, 2)


# ---- seasonal mean ----


def seasonal(t, period):
    """Constant, first and second harmonic of two codes, (..., 2)."""
    w = 2 * np.pi / period
    return np.stack([3 + 2 * np.cos(w * t) - np.sin(2 * w * t), -1 + 0.5 * np.sin(w * t) + np.cos(2 * w * t)], -1)


def test_a_seasonal_mean_is_found_at_irregular_times_with_missing_frames():
    random = np.random.default_rng(3)
    times = np.sort(random.uniform(0, 40, (3, 50)), 1)
    observed = torch.as_tensor(random.random((3, 50)) > 0.3)
    codes = seasonal(times, 9.0)
    codes[~observed.numpy()] = 1e6
    mean = SeasonalMean.fit(data(codes, times, observed), 9.0, 2)
    t = np.linspace(-10, 60, 33)
    np.testing.assert_allclose(mean(torch.as_tensor(t)), seasonal(t, 9.0), atol=2e-5)  # a ridge of 1e-6 is in the fit
    np.testing.assert_allclose(mean.coefficients, [[3, -1], [2, 0], [0, 1], [0, 0.5], [-1, 0]], atol=2e-5)


def test_without_a_period_the_mean_is_zero():
    seen = data(np.ones((2, 3, 4)), np.arange(3.0))
    mean = SeasonalMean.fit(seen, 0.0, 2)
    assert torch.equal(mean(seen.t), torch.zeros(2, 3, 4, dtype=torch.float64))
    bias, forcing = mean.forcing(torch.eye(4, dtype=torch.float64))
    assert forcing is None and torch.equal(bias, torch.zeros(4, dtype=torch.float64))


def test_forcing_makes_the_mean_a_solution_of_the_field():
    matrix = torch.tensor([[-0.3, 0.8], [-0.5, -0.2]], dtype=torch.float64)
    times = torch.linspace(0, 30, 61, dtype=torch.float64)[None]
    mean = SeasonalMean.fit(data(seasonal(times.numpy(), 9.0), times), 9.0, 2)
    bias, forcing = mean.forcing(matrix)
    field = VectorField.of(2, forcing_period=9.0, forcing_harmonics=2).double()
    field.set_linear(matrix, bias, forcing)
    with torch.no_grad():
        found = Integrator(step=0.05)(field, mean(times[:, 0]), times)
    torch.testing.assert_close(found, mean(times), rtol=0, atol=1e-6)


def test_deviations_from_the_mean_relax_with_the_matrix():
    matrix = torch.tensor([[-0.3, 0.8], [-0.5, -0.2]], dtype=torch.float64)
    times = torch.tensor([[2.0, 3.7]], dtype=torch.float64)
    coefficients = torch.as_tensor(np.random.default_rng(4).standard_normal((5, 2)))
    mean = SeasonalMean(coefficients, 9.0)
    field = VectorField.of(2, forcing_period=9.0, forcing_harmonics=2).double()
    field.set_linear(matrix, *mean.forcing(matrix))
    deviation = torch.tensor([[0.4, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        end = Integrator(step=0.02)(field, mean(times[:, 0]) + deviation, times)[:, 1]
    expected = mean(times[:, 1]) + deviation @ torch.linalg.matrix_exp(1.7 * matrix).T
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-8)


def test_memory_and_irregular_steps_are_a_system_of_their_own_only_approximately():
    """A rate over the last, unequal step is not the velocity now: the fit is better with memory, but not exact."""
    times = np.cumsum(np.random.default_rng(5).uniform(0.5, 1.0, (6, 20)), 1)
    seen = data(pendulums(times), times)
    errors = {}
    for memory in (0, 1):
        states = with_memory(seen, 1, memory_directions(seen, 1, memory) if memory else None)
        pairs = transitions_of(states)
        matrix, bias = fit_irregular(pairs, 1e-10)
        field = VectorField.of(1 + memory).double()
        field.set_linear(matrix, bias)
        with torch.no_grad():
            times = torch.stack([torch.zeros_like(pairs.step), pairs.step], 1)
            end = Integrator(step=0.1)(field, pairs.start, times)[:, 1]
        errors[memory] = float((end[:, 0] - pairs.end[:, 0]).square().mean() / pairs.end[:, 0].square().mean())
    assert errors[1] < 0.05 * errors[0]
