"""The velocity that a field moves with as a whole, from the values of frames that follow each other (block matching).

Likelihoods have many maxima in a velocity, most of them where nothing overlaps; which shift makes two frames alike is
told by a search of all of them.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.spatial import cKDTree

_PAIRS, _VALUES, _FEWEST = 12, 300, 100  # of frames that are matched, values of each, and the fewest
_REACH, _PARTS, _HALVINGS = 0.2, 40, 4  # share of the extent that a field moves in a step at most, steps, refinements
_LONGEST = 3.5  # usual steps between two frames
_NEIGHBOURS, _INSIDE, _OVERLAP = 4, 1.5, 0.25  # of an interpolation, spacings to the nearest, share of values
_ALIKE = 0.85  # times the difference of frames that do not move, or move the other way


def common_velocity(t: np.ndarray, y: np.ndarray, value: np.ndarray, moving: tuple[bool, ...]) -> np.ndarray | None:
    """Velocity (m,) along the moving coordinates, of values (R,) at times (R,) and places (R, p); None where frames are
    not clearly more alike when they are shifted, hold few values, or there are neither one nor two such coordinates."""
    axes, times = np.flatnonzero(moving), np.unique(t)
    if len(axes) not in (1, 2) or len(times) < 3:
        return None
    order = np.argsort(t, kind="stable")
    frames = np.split(order, np.searchsorted(t[order], times[1:]))
    usual, pairs = float(np.median(np.diff(times))), []
    for k in np.unique(np.linspace(0, len(times) - 2, _PAIRS).astype(int)):
        first, second, step = frames[k], frames[k + 1], times[k + 1] - times[k]
        if min(len(first), len(second)) >= _FEWEST and step <= _LONGEST * usual:
            second = second[:: -(-len(second) // _VALUES)]
            pairs.append((cKDTree(y[first]), value[first], y[second], value[second], step))
    if not pairs:
        return None
    every = sum(len(truth) for _, _, _, truth, _ in pairs)
    spacing = float(np.median(pairs[0][0].query(pairs[0][0].data, 2)[0][:, 1]))

    def missed(velocity: np.ndarray) -> float:
        total, known = 0.0, 0
        for tree, values, places, truth, step in pairs:
            before = places.copy()
            before[:, axes] -= velocity * step
            away, near = tree.query(before, _NEIGHBOURS)
            weight = 1 / (away**2 + (1e-3 * spacing) ** 2)
            errors = (values[near] * weight).sum(1) / weight.sum(1) - truth
            inside = away[:, 0] <= _INSIDE * spacing
            total, known = total + float((errors[inside] ** 2).sum()), known + int(inside.sum())
        return total / known if known > _OVERLAP * every else np.inf

    extent, best = float(np.ptp(y[:, axes], axis=0).max()), np.zeros(len(axes))
    unit = max(spacing, extent / _PARTS ** (2 / len(axes)))
    still = least = missed(best)
    for halving in range(_HALVINGS + 1):
        reach, middle = (1 if halving else int(np.ceil(_REACH * extent / unit))), best
        for steps in product(range(-reach, reach + 1), repeat=len(axes)):
            tried = middle + np.array(steps) * unit / usual / 2**halving
            if (error := missed(tried)) < least:
                best, least = tried, error
    opposite = missed(-best)  # interpolation smooths noise wherever places do not coincide
    return best if least < _ALIKE * min(still, opposite) else None
