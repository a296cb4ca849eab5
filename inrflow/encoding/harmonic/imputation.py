"""Imputation of values that frames miss, where patterns of them are many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from inrflow.numerics.effort import effort

_SLIGHTLY = 1e-15  # relative shift of a matrix that is solved


def filled(left: np.ndarray, patterns: Sequence[tuple[np.ndarray, np.ndarray]], u: np.ndarray, s: np.ndarray,
           noise: float) -> np.ndarray:
    """Values (B, N), u diag(s) N(0, 1) and noise, with those that each pattern (frames, observed points) misses imputed
    by the posterior mean."""
    left = np.nan_to_num(left)
    gain = s**2 / (s**2 + noise)
    for rows, seen in patterns:
        missing = np.ones(left.shape[1], bool)
        missing[seen] = False
        few = 2 * missing.sum() <= len(missing)  # the smaller system: of the missing values, or of the seen ones
        own, scale = (u[missing], np.sqrt(gain)) if few else (u[seen], s)
        effort.add(products=len(own) * own.size + len(own) ** 3 / 3 + 4 * len(rows) * u.size)
        scaled = own * scale
        matrix = scaled @ scaled.T
        if few:
            matrix *= -1
            np.einsum("ii->i", matrix)[...] += 1 + _SLIGHTLY
            given = (left[rows] @ u * gain) @ own.T
        else:
            np.einsum("ii->i", matrix)[...] += noise + _SLIGHTLY * s[0] ** 2
            given = left[np.ix_(rows, seen)]
        found = _solved(matrix, given.T).T
        left[rows[:, None], missing] = found if few else (found @ scaled * s) @ u[missing].T
    return left


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a positive definite system, which rounding may have left indefinite."""
    try:
        return np.asarray(cho_solve(cho_factor(matrix, check_finite=False), right, check_finite=False))
    except np.linalg.LinAlgError:
        return np.linalg.solve(matrix, right)
