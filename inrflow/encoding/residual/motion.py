"""Velocity of a field that moves as a whole, by block matching of successive frames.

Likelihoods have many maxima in a velocity, most of them where nothing overlaps, so that the shift that makes two frames
most similar is found by exhaustive search. Changes of the velocity in time are estimated for each pair of frames from
it and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.spatial import cKDTree

_PAIRS, _VALUES, _FEWEST = 12, 300, 100  # of frames that are matched; values in a frame, at most and at least
_REACH, _PARTS, _HALVINGS = 0.2, 40, 4  # largest shift in a step, over the extent; search steps; refinements
_LONGEST = 3.5  # most time steps between two frames
_NEIGHBOURS, _INSIDE, _OVERLAP = 4, 1.5, 0.25  # points of interpolation, spacings to the nearest, share of values
_ALIKE = 0.85  # largest ratio of mismatch to that without a shift, or with the opposite one


@dataclass(frozen=True)
class _Pair:
    """Two frames: a tree of the places of one, its values, places and values of the other, and the time between."""

    tree: cKDTree
    before: np.ndarray
    places: np.ndarray
    after: np.ndarray
    step: float

    @property
    def spacing(self) -> float:
        """Median distance between neighbouring places."""
        return float(np.median(self.tree.query(self.tree.data, 2)[0][:, 1]))


def common_velocity(t: np.ndarray, y: np.ndarray, value: np.ndarray, moving: tuple[bool, ...]) -> np.ndarray | None:
    """Velocity (m,) along the moving coordinates, of values (R,) at times (R,) and places (R, p); None where a shift
    does not clearly reduce the mismatch of frames, frames hold few values, or there are not one or two such
    coordinates."""
    axes, times = np.flatnonzero(moving), np.unique(t)
    if len(axes) not in (1, 2) or len(times) < 3:
        return None
    usual = float(np.median(np.diff(times)))
    pairs = _pairs(t, y, value, np.unique(np.linspace(0, len(times) - 2, _PAIRS).astype(int)))
    if not pairs:
        return None
    extent, still = float(np.ptp(y[:, axes], axis=0).max()), np.zeros(len(axes))
    spacing = next(iter(pairs.values())).spacing
    unit = max(spacing, extent / _PARTS ** (2 / len(axes)))
    missed = _Mismatch(list(pairs.values()), axes, spacing)
    best = _refined(missed, _searched(missed, still, unit / usual, int(np.ceil(_REACH * extent / unit))), unit / usual)
    opposite = missed(-best)  # interpolation smooths noise where places do not coincide
    return best if missed(best) < _ALIKE * min(missed(still), opposite) else None


def displacement_path(
    velocity: np.ndarray, t: np.ndarray, y: np.ndarray, value: np.ndarray, moving: tuple[bool, ...]
) -> np.ndarray:
    """Times and displacements (K, 1 + p) of a field in addition to those by a common velocity (p,), as winds veer and
    freshen: by matching each pair of frames with its neighbours; empty where frames hold few values."""
    axes, times = np.flatnonzero(moving), np.unique(t)
    pairs = _pairs(t, y, value, np.arange(len(times) - 1)) if len(times) > 2 else {}
    if not pairs or len(axes) not in (1, 2):
        return np.empty((0, 1 + len(velocity)))
    spacing = next(iter(pairs.values())).spacing
    unit = spacing / float(np.median(np.diff(times)))
    speeds, last = np.tile(velocity[axes], (len(times) - 1, 1)), velocity[axes]
    for k in range(len(times) - 1):
        near = [pairs[n] for n in (k - 1, k, k + 1) if n in pairs]
        if k in pairs:
            missed = _Mismatch(near, axes, spacing)
            speeds[k] = last = _refined(missed, min((last, velocity[axes]), key=missed), unit)
    beside = np.zeros((len(times), len(velocity)))
    beside[1:, axes] = np.cumsum((speeds - velocity[axes]) * np.diff(times)[:, None], 0)
    return np.concatenate([times[:, None], beside], 1)


def _pairs(t: np.ndarray, y: np.ndarray, value: np.ndarray, numbers: np.ndarray) -> dict[int, _Pair]:
    """Pairs of frames k and k + 1 for each k of `numbers`, where both hold many values and are close in time."""
    times = np.unique(t)
    usual, order = float(np.median(np.diff(times))), np.argsort(t, kind="stable")
    frames, pairs = np.split(order, np.searchsorted(t[order], times[1:])), {}
    for k in numbers.tolist():
        first, second, step = frames[k], frames[k + 1], float(times[k + 1] - times[k])
        if min(len(first), len(second)) >= _FEWEST and step <= _LONGEST * usual:
            second = second[:: -(-len(second) // _VALUES)]
            pairs[k] = _Pair(cKDTree(y[first]), value[first], y[second], value[second], step)
    return pairs


class _Mismatch:
    """Mean squared difference of pairs of frames that a velocity (m,) along `axes` shifts onto each other."""

    def __init__(self, pairs: list[_Pair], axes: np.ndarray, spacing: float) -> None:
        self.pairs, self.axes, self.spacing, self.known = pairs, axes, spacing, dict[bytes, float]()

    def __call__(self, velocity: np.ndarray) -> float:
        key = velocity.tobytes()
        if key not in self.known:
            self.known[key] = self._missed(velocity)
        return self.known[key]

    def _missed(self, velocity: np.ndarray) -> float:
        total, known, every = 0.0, 0, sum(len(pair.after) for pair in self.pairs)
        for pair in self.pairs:
            before = pair.places.copy()
            before[:, self.axes] -= velocity * pair.step
            away, near = pair.tree.query(before, _NEIGHBOURS)
            weight = 1 / (away**2 + (1e-3 * self.spacing) ** 2)
            errors = (pair.before[near] * weight).sum(1) / weight.sum(1) - pair.after
            inside = away[:, 0] <= _INSIDE * self.spacing
            total, known = total + float((errors[inside] ** 2).sum()), known + int(inside.sum())
        return total / known if known > _OVERLAP * every else np.inf


def _searched(missed: _Mismatch, middle: np.ndarray, unit: float, reach: int) -> np.ndarray:
    """The best of velocities up to `reach` units from `middle` along each axis."""
    steps = product(range(-reach, reach + 1), repeat=len(middle))
    return min((middle, *(middle + np.array(one) * unit for one in steps)), key=missed)


def _refined(missed: _Mismatch, velocity: np.ndarray, unit: float) -> np.ndarray:
    """Pattern search from a velocity: moves by a unit while the mismatch decreases, then by halved units."""
    for halving in range(_HALVINGS + 1):
        while (better := _searched(missed, velocity, unit / 2**halving, 1)) is not velocity:
            velocity = better
    return velocity
