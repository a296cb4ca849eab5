"""Imputation of values that frames miss, where patterns of them are many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inrflow.numerics.effort import effort

_SLIGHTLY = 1e-15  # relative shift of a matrix that is solved


def filled(left: np.ndarray, patterns: Sequence[tuple[np.ndarray, np.ndarray]], u: np.ndarray, s: np.ndarray,
           noise: float) -> np.ndarray:
    """Values (B, N), u diag(s) N(0, 1) and noise, with those that each pattern (frames, observed points) misses imputed
    by the posterior mean."""
    left = np.nan_to_num(left)
    gain = s**2 / (s**2 + noise)
    for rows, seen in patterns:
        missing = np.setdiff1d(np.arange(left.shape[1]), seen)
        own = u[missing]
        effort.add(products=2 * len(own) * own.size + len(own) ** 3 + 4 * len(rows) * u.size)
        given = (left[rows] @ u * gain) @ own.T
        free = (1 + _SLIGHTLY) * np.eye(len(own)) - own @ own.T + own * (1 - gain) @ own.T
        left[rows[:, None], missing] = np.linalg.solve(free, given.T).T
    return left
