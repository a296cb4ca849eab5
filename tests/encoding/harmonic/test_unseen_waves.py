"""Prior variances of waves that no trajectory of the training data has."""

from __future__ import annotations

import numpy as np

from inrflow.domains import Box
from inrflow.encoding.harmonic.unseen_waves import with_unseen_waves
from inrflow.encoding.harmonic_codes import fit_codes

X = ((np.arange(24) + 0.5) / 24)[:, None]


def waves(numbers: list[list[int]], size: np.ndarray) -> np.ndarray:
    """Fields (S, 1, N, 1) of cosines of given numbers between walls."""
    fields = [sum(size[k] * np.cos(np.pi * k * X[:, 0]) for k in own) for own in numbers]
    return np.stack(fields)[:, None, :, None]


def test_waves_that_trajectories_miss_by_chance_are_encoded() -> None:
    """Each trajectory has two of ten waves; waves 4 and 7 are in none."""
    size = np.random.default_rng(0).uniform(0.5, 1.5, 11)
    u = waves([[1, 2], [3, 9], [2, 10], [5, 8], [6, 1]], size)
    codes = fit_codes(Box([0.0], [1.0], ["walled"]).harmonics(16), np.broadcast_to(X, (5, 24, 1)), u)
    new = waves([[4, 7]], size)
    np.testing.assert_allclose(codes.decode(codes.encode(X, new)[0], X), new, atol=1e-6)
    assert codes.variance[0, 14] < 1e-12 * codes.variance.sum()  # far beyond all of them


def test_waves_that_a_symmetry_forbids_stay_without_variance() -> None:
    """All trajectories have the same even waves."""
    u = waves([[2, 4, 6]] * 4, np.ones(11)) * np.random.default_rng(0).uniform(0.5, 1.5, (4, 1, 1, 1))
    codes = fit_codes(Box([0.0], [1.0], ["walled"]).harmonics(16), np.broadcast_to(X, (4, 24, 1)), u)
    assert codes.variance[0, [1, 3, 5]].max() < 1e-12 * codes.variance.sum()


def test_unseen_waves_have_the_share_of_those_seen_once() -> None:
    """Of six sightings of four waves two are of waves seen once; waves 3, 6 and 7 are unseen, wave 8 is too high:
    the highest of four of so many is on average the fifth."""
    variance, eigenvalues = np.array([0.0, 3.0, 2.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0]), np.arange(9.0)
    found = with_unseen_waves(variance, np.array([0, 2, 2, 0, 1, 1, 0, 0, 0]), eigenvalues)
    unseen = 8 * 2 / 6 / 3
    np.testing.assert_allclose(found, [0.0, 3.0, 2.0, unseen, 2.0, 1.0, unseen, unseen, 0.0])
