"""Conditioning on near observations: exact where all are near."""

from __future__ import annotations

import numpy as np
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.neighbours import Sites, joint, krige

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


def test_observations_that_are_too_few_and_too_late_are_left_out():
    t, y, u = observations(10)
    sites = Sites(t, y, COVARIANCE)
    near = sites.near(np.array([2.0]), y[:1], 20, np.array([2.0]))
    assert set(near[near >= 0]) == set(np.flatnonzero(t <= 2.0)) and near.shape == (1, 20)
    mean, variance = krige(sites, torch.as_tensor(u), np.array([1e6]), y[:1], 20)
    assert abs(float(mean)) < 1e-9 and float(variance) == float(COVARIANCE.variance)


def test_the_joint_covariance_is_that_of_the_posterior():
    t, y, u = observations(30)
    at, there, _ = observations(6, seed=1)
    covariance = exact(t, y, u, at, there)[1]
    found = joint(COVARIANCE, Sites(t, y, COVARIANCE), at, there, 30)
    np.testing.assert_allclose(found.numpy(), covariance, atol=1e-6)
    torch.testing.assert_close(joint(COVARIANCE, None, at, there, 30).diagonal(), COVARIANCE.variance.expand(6))
