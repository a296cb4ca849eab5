"""Which trajectories train and which validate."""

from __future__ import annotations

import numpy as np

from inrflow.data.sampling import split_trajectories


def choose_split(trajectories: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, validation). A single trajectory has none to spare: it is validated in time."""
    if trajectories == 1:
        return np.array([0]), np.array([], dtype=int)
    return split_trajectories(trajectories, fraction, seed)
