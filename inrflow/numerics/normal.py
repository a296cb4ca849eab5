"""The normal distribution."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations


def half_width(share: float) -> float:
    """Half width, in standard deviations, of the central interval that holds a share of the values."""
    return NormalDist().inv_cdf((1 + share) / 2)


def square_root(covariance: np.ndarray) -> np.ndarray:
    """A factor (U, r) of a positive semidefinite matrix (U, U) = factor factor^T; what rounding makes negative is zero.
    """
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / size / size[:, None])
    return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))
