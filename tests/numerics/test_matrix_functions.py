"""Flows and logarithms of affine dynamics against scipy's matrix functions."""

import numpy as np
import pytest
import torch
from affine_systems import A, B, affine, tensor
from scipy.linalg import expm, logm

from inrflow.numerics.matrix_functions import flow, generator_of


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_generator_of_inverts_the_exponential_with_oscillating_growing_and_decaying_modes(step):
    random = np.random.default_rng(8)
    basis = random.standard_normal((5, 5))
    blocks = np.zeros((5, 5))
    blocks[:2, :2] = [[0.1, 2.2], [-2.2, 0.1]]  # growing, 2.2 radians a unit
    blocks[2:4, 2:4] = [[-0.5, 0.7], [-0.7, -0.5]]
    blocks[4, 4] = -1.5
    matrix, bias = basis @ blocks @ np.linalg.inv(basis), random.standard_normal(5)
    found, constant = generator_of(tensor(expm(affine(matrix, bias) * step)), step)
    np.testing.assert_allclose(found, matrix, atol=1e-10)
    np.testing.assert_allclose(constant, bias, atol=1e-10)


def test_generator_of_agrees_with_scipys_logarithm_of_a_fitted_map():
    random = np.random.default_rng(9)
    step_map = affine(np.eye(4) + 0.2 * random.standard_normal((4, 4)), random.standard_normal(4))
    step_map[0, 0] = 1.0
    matrix, bias = generator_of(tensor(step_map), 0.5)
    expected = logm(step_map).real / 0.5
    np.testing.assert_allclose(matrix, expected[1:, 1:], atol=1e-9)
    np.testing.assert_allclose(bias, expected[1:, 0], atol=1e-9)


def test_a_negative_real_eigenvalue_becomes_a_fast_decay_and_the_others_stay():
    random = np.random.default_rng(10)
    basis, _ = np.linalg.qr(random.standard_normal((3, 3)))
    step_map = affine(basis @ np.diag([0.9, 0.5, -0.3]) @ basis.T, np.zeros(3))
    step_map[0, 0] = 1.0
    matrix, bias = generator_of(tensor(step_map), 1.0)
    assert torch.isfinite(matrix).all()
    np.testing.assert_allclose(basis.T @ matrix.numpy() @ basis, np.diag([np.log(0.9), np.log(0.5), -2.0]), atol=1e-10)
    np.testing.assert_allclose(bias, 0, atol=1e-12)


@pytest.mark.parametrize(("eigenvalue", "rate"), [(0.0, -2.0), (1e-8, -2.0), (1e4, 2.0)])
def test_rates_beyond_what_a_step_can_tell_are_limited(eigenvalue, rate):
    step_map = affine(np.diag([0.9, eigenvalue]), np.zeros(2))
    step_map[0, 0] = 1.0
    matrix, _ = generator_of(tensor(step_map), 1.0)
    np.testing.assert_allclose(matrix, np.diag([np.log(0.9), rate]), atol=1e-10)


def test_the_fixed_point_stays_where_a_rate_is_limited():
    step_map = affine(np.diag([0.5, -0.4]), np.array([1.0, 2.8]))  # at rest in (2, 2)
    step_map[0, 0] = 1.0
    matrix, bias = generator_of(tensor(step_map), 1.0)
    np.testing.assert_allclose(matrix.numpy() @ np.array([2.0, 2.0]) + bias.numpy(), 0, atol=1e-10)


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.0, -0.5), (1e-13, -1e-9), (1e-5, 3e-7)])
def test_drift_of_modes_at_rest_or_almost_at_rest_is_kept(rates):
    basis, bias = np.array([[1.0, 0.5], [-0.3, 1.0]]), np.array([0.7, -0.2])
    matrix = basis @ np.diag(rates) @ np.linalg.inv(basis)
    found, constant = generator_of(tensor(expm(affine(matrix, bias) * 0.5)), 0.5)
    np.testing.assert_allclose(found, matrix, atol=1e-12)
    np.testing.assert_allclose(constant, bias, atol=1e-9)


def test_critical_damping_whose_eigenvectors_coincide_has_its_generator():
    matrix, bias = np.array([[0.1, 1.0], [-0.36, -1.1]]), np.array([0.7, -0.2])  # both rates -0.5
    found, constant = generator_of(tensor(expm(affine(matrix, bias))), 1.0)
    np.testing.assert_allclose(found, matrix, atol=1e-6)
    np.testing.assert_allclose(constant, bias, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_flow_is_the_matrix_exponential_over_times_of_each_state(scale):
    random = np.random.default_rng(11)
    states, times = random.standard_normal((7, 5)), scale * random.uniform(-1, 1, 7)
    generator = affine(A, B)
    expected = np.stack([expm(generator * t) @ s for s, t in zip(states, times, strict=True)])
    found = flow(tensor(generator), tensor(states), tensor(times))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_flow_says_that_it_cannot_reach_what_is_too_far():
    assert torch.isnan(flow(1e6 * torch.eye(2).double(), torch.ones(3, 2).double(), torch.ones(3).double())).all()
    assert flow(torch.eye(2).double(), torch.ones(0, 2).double(), torch.ones(0).double()).shape == (0, 2)


@pytest.mark.parametrize("turn", [0.82, 0.95, 0.999])
def test_waves_up_to_half_the_rate_of_frames_keep_their_frequency(turn):
    angle, fit = turn * np.pi, np.eye(3)
    fit[1:, 1:] = 0.99 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, _ = generator_of(tensor(fit), 0.5)
    assert np.linalg.eigvals(matrix.numpy()).imag.max() == pytest.approx(angle / 0.5)
    np.testing.assert_allclose(expm(0.5 * matrix.numpy()), fit[1:, 1:], atol=1e-9)


def test_fast_decays_are_kept_where_they_are_asked_for():
    step_map = affine(np.diag([0.9, 1e-4, 1e-9]), np.zeros(3))
    step_map[0, 0] = 1.0
    matrix, _ = generator_of(tensor(step_map), 0.5, decay=14.0)
    np.testing.assert_allclose(matrix, np.diag([np.log(0.9), np.log(1e-4), -14.0]) / 0.5, atol=1e-10)


@pytest.mark.parametrize("lengths", [[0.31], [0.28, 0.3, 0.31], np.linspace(0.1, 0.4, 24)])
def test_states_flow_over_few_lengths_of_time_as_over_many(lengths):
    random = np.random.default_rng(11)
    generator = affine(random.standard_normal((6, 6)) * 3, random.standard_normal(6))
    generator[0] = 0.0
    times = np.resize(lengths, 24) * (1 + 1e-14 * random.standard_normal(24))  # differences of a calendar round
    states = random.standard_normal((24, 7))
    expected = np.stack([expm(generator * t) @ s for t, s in zip(times, states, strict=True)])
    np.testing.assert_allclose(flow(tensor(generator), tensor(states), tensor(times)), expected, rtol=1e-9, atol=1e-9)
