"""Prior variances of waves that no trajectory has by chance: further trajectories may have them."""

from __future__ import annotations

import numpy as np

from inrflow.domains.transform import CONSTANT

_LARGE = 1e-6  # share of the variance of waves among which unseen ones are expected


def with_unseen_waves(variance: np.ndarray, excited: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
    """Variances (K,) of codes, with some for unseen waves up to a little above the highest of large variance: by as
    much as the maximum of so many draws is below the largest number, on average.

    excited (K,): numbers of trajectories that have each. The probability that a wave of a further trajectory is none of
    the known ones is the share of those that a single trajectory has (Good, Biometrika 1953): zero for symmetric
    fields, all of which have the same waves.
    """
    total, rank = variance.sum(), eigenvalues.argsort(kind="stable").argsort()
    large = variance > _LARGE * total
    reach = (rank[large].max() + 1) * (1 + 1 / np.count_nonzero(large))
    low = (rank < reach) & (eigenvalues > CONSTANT * eigenvalues.max())
    single, unseen = np.count_nonzero(low & (excited == 1)), low & (excited == 0)
    if not (single and unseen.any()):
        return variance
    return np.where(unseen, total * single / excited[low].sum() / unseen.sum(), variance)
