"""Seeded choices of observed points and held-out trajectories, shared by training and evaluation."""

from __future__ import annotations

import numpy as np

from inrflow.errors import UserError


def observed_points(seed: int, trajectory: int, points: int, fraction: float, same: bool = False) -> np.ndarray:
    """Sorted indices of the observed subset of `points` points of one trajectory, at least one.

    A function of seed, trajectory index and fraction alone (`same`: of seed and fraction, one subset for all
    trajectories), so that training and evaluation on the same file observe the same points.
    Raises UserError where `fraction` is outside (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"the fraction of observed points is {fraction:g}; give a number above 0 and at most 1")
    _require_seed(seed)
    if points < 1:
        raise UserError(f"there are {points} points to observe; at least one is needed")
    count = min(points, max(1, round(fraction * points)))
    if count == points:
        return np.arange(points)
    random = np.random.default_rng([seed, 0 if same else trajectory])
    return np.sort(random.permutation(points)[:count])


def split_trajectories(count: int, fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (training, validation) of `count` trajectories.

    One contiguous stretch of the file (taken as a ring), at a random place, is held out: trajectories that were cut
    from one run, or share a setting, lie side by side, and would leak into a validation set drawn one by one. Both
    hold at least one trajectory where count > 1 and fraction > 0; a single trajectory is for training.
    Raises UserError where `fraction` is outside [0, 1) or `count` is below 1.
    """
    if count < 1:
        raise UserError(f"there are {count} trajectories to train on; at least one is needed")
    if not 0.0 <= fraction < 1.0:
        raise UserError(f"the validation fraction is {fraction:g}; give a number from 0 to below 1")
    _require_seed(seed)
    held_out = min(count - 1, max(1, round(fraction * count))) if fraction > 0 else 0
    ring = np.roll(np.arange(count), -int(np.random.default_rng([seed, count]).integers(count)))
    return np.sort(ring[held_out:]), np.sort(ring[:held_out])


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"the seed is {seed}; give 0 or a positive whole number")
