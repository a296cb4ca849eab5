"""Projections onto combinations of variables that are mostly signal, against a closed form."""

from __future__ import annotations

import numpy as np

from inrflow.numerics.moments import mostly_signal


def test_combinations_without_signal_are_left_out() -> None:
    """Variables a, a + b and c of independent errors, where b is little and c is no more than noise."""
    mixed = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # of a, b, c
    signal, errors = mixed.T @ np.diag([4.0, 0.01, 0.0]) @ mixed, 0.1 * np.eye(3)
    kept = mostly_signal(signal + errors, errors)
    np.testing.assert_allclose(kept @ kept, kept, atol=1e-9)
    np.testing.assert_allclose(np.linalg.eigvalsh(kept.T @ errors @ kept)[:2], 0.0, atol=1e-9)  # one is kept
    shares = np.linalg.eigvals(np.linalg.solve(signal + errors, errors)).real
    largest = np.linalg.eig(np.linalg.solve(signal + errors, errors))[1][:, shares.argmin()].real
    np.testing.assert_allclose(kept @ largest, largest, atol=1e-9)
    assert sorted(shares > 0.7) == [False, True, True]


def test_all_combinations_are_kept_where_noise_is_little() -> None:
    """Independent variables, and a collinear one, whose noise is collinear, too."""
    mixed = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    kept = mostly_signal(mixed.T @ mixed, 0.01 * mixed.T @ mixed)
    np.testing.assert_allclose(mixed @ kept, mixed, atol=1e-5)
