"""Imputation of values that frames miss."""

import numpy as np
import pytest

from inrflow.encoding.harmonic.imputation import filled


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("noise", [1e-2, 1e-8])
def test_missing_values_are_the_means_of_the_gaussian_process_given_the_others(share, noise):
    generator = np.random.default_rng(0)
    u, s = np.linalg.qr(generator.standard_normal((60, 25)))[0], np.geomspace(3, 0.1, 25)
    values = (generator.standard_normal((4, 25)) * s) @ u.T
    seen = generator.random(values.shape) >= share
    patterns = [(np.array([row]), np.flatnonzero(own)) for row, own in enumerate(seen)]
    found = filled(np.where(seen, values, np.nan), patterns, u, s, noise)
    covariance = (u * s**2) @ u.T
    for row, own in enumerate(seen):
        given = np.linalg.solve(covariance[np.ix_(own, own)] + noise * np.eye(own.sum()), values[row, own])
        np.testing.assert_allclose(found[row, ~own], covariance[np.ix_(~own, own)] @ given, atol=1e-6)
        np.testing.assert_array_equal(found[row, own], values[row, own])
