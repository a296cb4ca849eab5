"""Which trajectories train and which validate."""

from __future__ import annotations

import numpy as np

from inrflow.data.sampling import split_trajectories


def choose_split(
    trajectories: int, fraction: float, seed: int, environment: np.ndarray | None = None, in_time: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, validation). A single trajectory has none to spare: it is validated in time.

    So are, where `in_time`, fewer than make one of the held-out `fraction`: what two or three trajectories span,
    another one does not lie in, whatever was learned of the dynamics.

    With the number `environment` (S,) of each trajectory's system, every system with several trajectories gives its
    share to validation and keeps one at least.
    """
    if trajectories == 1 or (in_time and fraction * trajectories < 1):
        return np.arange(trajectories), np.array([], dtype=int)
    if environment is None or len(np.unique(environment)) == trajectories:
        return split_trajectories(trajectories, fraction, seed)
    training, validation = [], []
    for number in np.unique(environment):
        members = np.flatnonzero(environment == number)
        if len(members) == 1:
            training.append(members)
            continue
        kept, held = split_trajectories(len(members), fraction, seed + int(number))
        training.append(members[kept])
        validation.append(members[held])
    if not validation:
        return split_trajectories(trajectories, fraction, seed)
    return np.sort(np.concatenate(training)), np.sort(np.concatenate(validation))
