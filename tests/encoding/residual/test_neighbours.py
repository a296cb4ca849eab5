"""Conditioning on near observations: exact where all are near, and robust."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.neighbours import Sites, joint, krige, left_out, outlier_noise

COVARIANCE = Covariance.of(Form((1.5, 0.5), 0.5, (0, 1), (True, True)), [0.2, 1.0, 0.3], [3.0, 2.0, 0.5], 0.05,
                           [[0.5, 0.3], [0.1, 0.2]])


def observations(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.uniform(0, 4, count), random.uniform(0, 1, (count, 2)), random.standard_normal(count)


def exact(t: np.ndarray, y: np.ndarray, u: np.ndarray, at: np.ndarray, there: np.ndarray) -> tuple:
    """Mean and covariance of the field by the textbook (Rasmussen and Williams, 2.25 and 2.26)."""
    as_tensors = [torch.as_tensor(v) for v in (t, y, at, there)]
    noisy = COVARIANCE(*as_tensors[:2], *as_tensors[:2]).numpy() + float(COVARIANCE.nugget) * np.eye(len(t))
    across = COVARIANCE(*as_tensors[2:], *as_tensors[:2]).numpy()
    own = COVARIANCE(*as_tensors[2:], *as_tensors[2:]).numpy()
    return across @ np.linalg.solve(noisy, u), own - across @ np.linalg.solve(noisy, across.T)


def test_kriging_with_all_neighbours_is_the_exact_posterior():
    t, y, u = observations(40)
    at, there, _ = observations(15, seed=1)
    mean, variance = krige(Sites(t, y, COVARIANCE), torch.as_tensor(u), at, there, 40)
    expected, covariance = exact(t, y, u, at, there)
    np.testing.assert_allclose(mean.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(variance.numpy(), np.diag(covariance), atol=1e-6)


def network() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forty frames of twenty places, a draw."""
    random = np.random.default_rng(4)
    t, y = np.repeat(np.arange(40.0) / 4, 20), np.tile(random.uniform(0, 1, (20, 2)), (40, 1))
    tt, yy = torch.as_tensor(t), torch.as_tensor(y)
    matrix = COVARIANCE(tt, yy, tt, yy).numpy() + float(COVARIANCE.nugget) * np.eye(len(t))
    return t, y, np.linalg.cholesky(matrix) @ random.standard_normal(len(t))


def test_windows_of_a_network_come_close_to_the_exact_posterior():
    t, y, u = network()
    sites = Sites(t, y, COVARIANCE)
    at, there = np.array([-1.0, 5.0, 5.1, 9.75, 30.0]), np.random.default_rng(5).uniform(0, 1, (5, 2))
    assert sites.windowed
    assert len({tuple(sites.window(int(k))) for k in np.searchsorted(sites.times, at[1:3])}) == 2
    mean, variance = krige(sites, torch.as_tensor(u), at, there)
    expected, covariance = exact(t, y, u, at, there)
    np.testing.assert_allclose(mean.numpy(), expected, atol=0.03)
    np.testing.assert_allclose(variance.numpy(), np.diag(covariance), rtol=0.05)


def test_sensors_that_move_are_told_by_those_that_came_by_at_other_times():
    random = np.random.default_rng(6)
    slow = Covariance.of(Form((1.5, 1.5), 0.5, (0, 1), (True, True)), [1e-6, 1.0, 1e-6], [1.0, 1e4, 1.0], 1e-3,
                         2 * [[0.2, 0.2]])
    t, y = np.repeat(np.arange(60.0), 10), random.uniform(0, 1, (600, 2))  # ten sensors in a field that stays
    at, there = np.full(20, 30.5), random.uniform(0.1, 0.9, (20, 2))
    with torch.no_grad():
        seen = [torch.as_tensor(part) for part in (t, y)]
        noisy = slow(*seen, *seen) + 1e-3 * torch.eye(600)
        u = torch.linalg.cholesky(noisy) @ torch.as_tensor(random.standard_normal(600))
        expected = slow(torch.as_tensor(at), torch.as_tensor(there), *seen) @ torch.linalg.solve(noisy, u)
    mean, _ = krige(Sites(t, y, slow), u, at, there)
    assert float((mean - expected).square().mean() / expected.var()) < 1e-3


def test_paths_in_a_field_that_changes_come_close_to_the_exact_posterior():
    random = np.random.default_rng(7)
    field = Covariance.of(Form((2.5,), 0.5, (0, 1), (True, True)), [1e-6, 1.0], [1.0, 30.0], 1e-2, [[0.3, 0.3]])
    t = np.repeat(np.arange(210.0), 10)  # ten sensors, more values than a window holds
    y = (random.uniform(0, 1, (1, 10, 2)) + np.cumsum(0.01 * random.standard_normal((210, 10, 2)), 0)).reshape(-1, 2)
    at, there = np.full(40, 100.5), random.uniform(0.2, 0.8, (40, 2))
    with torch.no_grad():
        seen = [torch.as_tensor(part) for part in (t, y)]
        noisy = field(*seen, *seen) + 1e-2 * torch.eye(len(t))
        factor = torch.linalg.cholesky(noisy)
        u = factor @ torch.as_tensor(random.standard_normal(len(t)))
        across = field(torch.as_tensor(at), torch.as_tensor(there), *seen)
        expected = across @ torch.cholesky_solve(u[:, None], factor)[:, 0]
    mean, _ = krige(Sites(t, y, field), u, at, there)
    assert float((mean - expected).square().mean() / expected.var()) < 1e-4


def test_values_between_frames_of_many_places_are_told_by_frames_on_both_sides():
    smooth = Covariance.of(Form((2.5,), 1.5, (0, 1), (True, True)), [1e-3, 1.0], [4.0, 4.0], 1e-3, [[0.3, 0.3]])
    axis, steps = np.linspace(0, 1, 13), np.array([0.0, 1, 2, 5, 6, 7])  # two frames are missing
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    t, y = np.repeat(steps, 169), np.tile(grid, (6, 1))
    tt, yy = torch.as_tensor(t), torch.as_tensor(y)
    matrix = smooth(tt, yy, tt, yy).numpy() + float(smooth.nugget) * np.eye(len(t))
    u = np.linalg.cholesky(matrix) @ np.random.default_rng(6).standard_normal(len(t))
    at = np.repeat([3.0, 4.0], 169)
    sites = Sites(t, y, smooth)
    assert not sites.windowed
    near = sites.near(at, np.tile(grid, (2, 1)), 32)
    assert all(len(set(row)) == 32 and set(t[row]) == {1, 2, 5, 6} for row in near)
    mean, variance = krige(sites, torch.as_tensor(u), at, np.tile(grid, (2, 1)))
    across = smooth(torch.as_tensor(at), torch.as_tensor(np.tile(grid, (2, 1))), tt, yy).numpy()
    exactly = across @ np.linalg.solve(matrix, u)
    left = 1 + 1e-3 - np.einsum("qr,rq->q", across, np.linalg.solve(matrix, across.T))
    assert np.mean((mean.numpy() - exactly) ** 2) < 0.05 * left.mean()
    np.testing.assert_allclose(variance.numpy(), left, rtol=0.25)
    assert set(t[sites.near(np.array([2.0]), grid[:1], 32)[0]]) != {1, 2, 5, 6}  # observed itself


def test_values_between_two_times_are_smooth_in_space():
    t, y, u = network()
    sites = Sites(t, y, COVARIANCE)
    line = np.stack([np.linspace(0, 1, 2001), np.full(2001, 0.4)], 1)
    along = krige(sites, torch.as_tensor(u), np.full(2001, 5.1), line)[0].numpy()
    assert np.abs(np.diff(along)).max() < 20 / 2000 * np.ptp(along)


def test_left_out_values_are_those_predicted_from_the_others():
    t, y, u = observations(15)
    sites, rows = Sites(t, y, COVARIANCE), np.array([4, 11])
    error, variance = left_out(sites, torch.as_tensor(u), rows)
    for k, row in enumerate(rows):
        others = np.arange(15) != row
        mean, covariance = exact(t[others], y[others], u[others], t[[row]], y[[row]])
        assert float(error[k]) == pytest.approx(u[row] - mean[0], abs=1e-6)
        assert float(variance[k]) == pytest.approx(covariance[0, 0] + float(COVARIANCE.nugget), abs=1e-6)


def test_one_wild_value_moves_no_other_and_clean_values_keep_their_weight():
    t, y, u = network()
    clean = Sites(t, y, COVARIANCE)
    assert not outlier_noise(clean, torch.as_tensor(u)).any()
    wild = u.copy()
    wild[407] += 50.0
    noise = outlier_noise(clean, torch.as_tensor(wild))
    assert np.flatnonzero(noise).tolist() == [407]
    there = np.random.default_rng(6).uniform(0, 1, (200, 2))
    both = [krige(Sites(t, y, COVARIANCE, extra), torch.as_tensor(values), np.full(200, t[407]), there)[0]
            for values, extra in ((u, None), (wild, noise))]
    assert float((both[0] - both[1]).abs().max()) < 0.1


def test_wild_values_of_scattered_observations_are_found():
    t, y, u = observations(600)
    u = 0.1 * u
    u[[7, 8, 300]] = 30.0
    assert np.flatnonzero(outlier_noise(Sites(t, y, COVARIANCE), torch.as_tensor(u))).tolist() == [7, 8, 300]


def test_fewer_neighbours_come_close_to_it():
    t, y, _ = observations(450)
    as_tensors = torch.as_tensor(t), torch.as_tensor(y)
    matrix = COVARIANCE(*as_tensors, *as_tensors).numpy() + float(COVARIANCE.nugget) * np.eye(450)
    u = np.linalg.cholesky(matrix) @ np.random.default_rng(2).standard_normal(450)
    at, there, t, y, u = t[400:], y[400:], t[:400], y[:400], u[:400]
    mean, variance = krige(Sites(t, y, COVARIANCE), torch.as_tensor(u), at, there, 48)
    expected, covariance = exact(t, y, u, at, there)
    assert np.abs(mean.numpy() - expected).mean() < 0.1 * np.abs(expected).mean()
    assert np.abs(variance.numpy() / np.diag(covariance) - 1).max() < 0.1


def test_a_single_value_is_conditioned_on_and_a_wild_one_is_not():
    t, y = np.zeros(1), np.zeros((1, 2))
    for value, moved in ((1.0, True), (1e3, False)):
        u = torch.tensor([value], dtype=torch.float64)
        noise = outlier_noise(Sites(t, y, COVARIANCE), u)
        mean = krige(Sites(t, y, COVARIANCE, noise), u, t, y)[0]
        assert (float(mean) > 0.9) == moved and abs(float(mean)) < 1


def test_far_later_it_is_the_mean_with_the_whole_variance():
    t, y, u = observations(10)
    mean, variance = krige(Sites(t, y, COVARIANCE), torch.as_tensor(u), np.array([1e6]), y[:1])
    assert abs(float(mean)) < 1e-9 and float(variance) == float(COVARIANCE.variance)


def test_the_joint_covariance_is_that_of_the_posterior():
    t, y, u = observations(30)
    at, there, _ = observations(6, seed=1)
    covariance = exact(t, y, u, at, there)[1]
    found = joint(Sites(t, y, COVARIANCE), at, there)
    np.testing.assert_allclose(found.numpy(), covariance, atol=1e-6)
