"""Closed-form dynamics against generators that are known and flows by scipy's matrix exponential."""

import numpy as np
import pytest
import torch
from affine_systems import A, B, affine, tensor
from scipy.linalg import expm

from inrflow.dynamics.fitting.linear import LinearFit, Transitions, fit_irregular, transitions_of
from inrflow.encoding.encode import CodeData
from inrflow.numerics.matrix_functions import generator_of


def trajectories(times, matrix=A, bias=B, seed=0):
    """States (S, T, n) at times (S, T), exact."""
    random = np.random.default_rng(seed)
    states = []
    for t in times:
        start = np.append(1.0, random.standard_normal(len(bias)))
        states.append([(expm(affine(matrix, bias) * (one - t[0])) @ start)[1:] for one in t])
    return tensor(np.array(states)), tensor(times)


def uniform(step=1.0, count=6, frames=8):
    return trajectories(np.tile(np.arange(frames) * step, (count, 1)))


def irregular(count=6, frames=8, seed=3):
    random = np.random.default_rng(seed)
    return trajectories(np.cumsum(random.uniform(0.3, 1.6, (count, frames)), 1))


def everywhere(states):
    return torch.ones(states.shape[:2], dtype=torch.bool)


# ---- pairs of frames ----


def test_transitions_join_successive_observed_frames_of_one_trajectory():
    states = torch.arange(12, dtype=torch.float32).reshape(2, 6, 1)
    times = tensor([[0, 1, 2, 4, 5, 6], [0, 1, 3, 4, np.nan, np.nan]])
    observed = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    pairs = transitions_of(CodeData(states, times, observed))
    assert pairs.start[:, 0].tolist() == [0, 2, 7, 8] and pairs.end[:, 0].tolist() == [2, 3, 8, 9]
    assert pairs.step.tolist() == [2, 2, 2, 1]
    assert pairs.start.dtype == torch.float64 and not pairs.uniform
    assert pairs.truncated(1).start.shape == (4, 1)


def test_steps_are_uniform_up_to_rounding_only():
    def pairs(step):
        return Transitions(torch.zeros(3, 1), torch.zeros(3, 1), tensor(step))

    assert pairs([0.1, 0.1 + 1e-9, 0.1]).uniform and not pairs([0.1, 0.101, 0.1]).uniform
    assert not Transitions(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0)).uniform


# ---- uniform steps ----


@pytest.mark.parametrize("step", [0.25, 1.0, 2.0])
def test_the_generator_is_recovered_from_uniform_transitions(step):
    states, times = uniform(step)
    fit = LinearFit(transitions_of(CodeData(states, times, everywhere(states))))
    step_map = fit.step_map(4, 0.0)
    np.testing.assert_allclose(step_map, expm(affine(A, B) * step), atol=1e-9)
    matrix, bias = generator_of(step_map, step)
    np.testing.assert_allclose(matrix, A, atol=1e-8)
    np.testing.assert_allclose(bias, B, atol=1e-8)


def test_the_leading_block_is_the_regression_on_the_leading_codes():
    random = np.random.default_rng(5)
    start, end = random.standard_normal((30, 6)), random.standard_normal((30, 6))
    fit = LinearFit(Transitions(tensor(start), tensor(end), torch.ones(30)))
    design = np.hstack([np.ones((30, 1)), start[:, :3]])
    direct = np.linalg.lstsq(design, end[:, :3], rcond=None)[0]
    step_map = fit.step_map(3, 0.0)
    np.testing.assert_allclose(step_map[1:, 0], direct[0], atol=1e-9)
    np.testing.assert_allclose(step_map[1:, 1:], direct[1:].T, atol=1e-9)
    np.testing.assert_array_equal(step_map[0], [1, 0, 0, 0])


def test_the_ridge_is_that_of_the_augmented_least_squares_problem():
    random = np.random.default_rng(6)
    start, end = random.standard_normal((20, 3)) + 0.5, random.standard_normal((20, 3))
    ridge = 0.3
    strength = ridge * (start**2).sum(0).mean()
    design = np.vstack([np.insert(start, 0, 1.0, 1), np.insert(np.sqrt(strength) * np.eye(3), 0, 0.0, 1)])
    direct = np.linalg.lstsq(design, np.vstack([end, np.zeros((3, 3))]), rcond=None)[0]
    pairs = Transitions(tensor(start), tensor(end), torch.ones(20))
    found = LinearFit(pairs).step_map(3, ridge).numpy()
    np.testing.assert_allclose(found[1:, 1:], direct[1:].T, atol=1e-9)
    np.testing.assert_allclose(found[1:, 0], direct[0], atol=1e-9)


def test_a_strong_ridge_pulls_to_the_mean():
    states, times = uniform()
    pairs = transitions_of(CodeData(states, times, everywhere(states)))
    fit = LinearFit(pairs)
    mean = fit.step_map(4, 1e8)
    np.testing.assert_allclose(mean[1:, 1:], np.zeros((4, 4)), atol=1e-6)
    np.testing.assert_allclose(mean[1:, 0], pairs.end.mean(0), atol=1e-6)


def test_the_ridge_does_not_depend_on_the_unit_of_the_codes():
    states, times = uniform()
    maps = [LinearFit(transitions_of(CodeData(scale * states, times, everywhere(states)))).step_map(4, 0.1)[1:, 1:]
            for scale in (1.0, 1e3)]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-9)


# ---- unequal steps ----


def test_the_generator_is_recovered_from_irregular_transitions():
    states, times = irregular()
    matrix, bias = fit_irregular(transitions_of(CodeData(states, times, everywhere(states))), 0.0)
    np.testing.assert_allclose(matrix, A, atol=1e-8)
    np.testing.assert_allclose(bias, B, atol=1e-8)


def test_missing_frames_make_longer_steps_of_the_same_flow():
    states, times = uniform(0.5, count=8)
    observed = torch.as_tensor(np.random.default_rng(1).random((8, 8)) > 0.3)
    pairs = transitions_of(CodeData(states, times, observed))
    assert not pairs.uniform
    matrix, bias = fit_irregular(pairs, 0.0)
    np.testing.assert_allclose(matrix, A, atol=1e-8)
    np.testing.assert_allclose(bias, B, atol=1e-8)


def test_irregular_and_uniform_fits_agree_where_both_apply():
    states, times = uniform()
    pairs = transitions_of(CodeData(states, times, everywhere(states)))
    matrix, bias = fit_irregular(pairs, 0.0)
    expected = generator_of(LinearFit(pairs).step_map(4, 0.0), 1.0)
    np.testing.assert_allclose(matrix, expected[0], atol=1e-8)
    np.testing.assert_allclose(bias, expected[1], atol=1e-8)


def test_what_is_over_within_a_step_is_slow_enough_for_an_integrator_and_rests_where_it_did():
    """A mode that decays by e^6 in every step: rk4 diverges on it with a step as long."""
    states, times = irregular(count=12)
    fast = torch.zeros_like(states[..., :1])
    fast[:, 0] = 1.0
    for frame in range(1, states.shape[1]):
        decay = torch.exp(-6 * (times[:, frame] - times[:, frame - 1]))[:, None]
        fast[:, frame] = 0.3 + decay * (fast[:, frame - 1] - 0.3)
    pairs = transitions_of(CodeData(torch.cat([states, fast], -1), times, everywhere(states)))
    matrix, bias = fit_irregular(pairs, 0.0)
    fastest = 2 / float(pairs.step.median())
    assert float(torch.linalg.eigvals(matrix).real.min()) > -1.001 * fastest
    assert -float(torch.linalg.solve(matrix, bias)[-1]) == pytest.approx(0.3, abs=0.02)
    slow, _ = fit_irregular(transitions_of(CodeData(states, times, everywhere(states))), 0.0)
    np.testing.assert_allclose(matrix[:-1, :-1], slow, atol=0.05)


def test_the_ridge_of_an_irregular_fit_shrinks_the_generator():
    states, times = irregular()
    pairs = transitions_of(CodeData(states, times, everywhere(states)))
    norms = [float(fit_irregular(pairs, ridge)[0].norm()) for ridge in (0.0, 1e-2, 1.0, 1e6)]
    assert norms[0] > norms[1] > norms[2] > norms[3] and norms[3] < 1e-4


def test_noise_in_irregular_transitions_costs_accuracy_in_proportion():
    states, times = irregular(count=40)
    errors = []
    for level in (1e-3, 1e-2):
        noisy = states + level * torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).double()
        matrix, _ = fit_irregular(transitions_of(CodeData(noisy, times, everywhere(states))), 0.0)
        errors.append(float((matrix - tensor(A)).norm()))
    assert errors[0] < 0.01 and 5 < errors[1] / errors[0] < 20
