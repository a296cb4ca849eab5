"""Detection of undeclared properties of a domain from points and values: unit spheres, and periods of grids.

The cubic polynomial through two neighbours on either side predicts a value with some error. On a periodic axis this
error is no larger across the seam, from the last points to the first, than inside; on others it is larger by orders of
magnitude, or the field is zero at both ends except for noise, from which nothing can be concluded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

_FEWEST = 8  # points along an axis, and frames, at least
_AS_INSIDE = 5.0  # largest ratio of squared errors at the seam and inside: periodic axes 0.02 to 4, others 8 or more
_SMOOTH = 0.02  # largest squared error inside, relative to differences of points half an axis apart
_ACTIVE = 0.05  # least squared difference across the seam, relative to that of neighbours inside
_TOLD = 0.5  # largest ratio of squared error and difference across the seam: 0.97 for noise alone, 1.6 for fixed ends
_UNEVEN = 1e-3  # relative difference of the steps of a regular axis
_SAME = 1e-6  # relative difference of equal values
_ON_SPHERE, _DEEP = 1e-3, 0.1  # largest distance of points from a unit sphere; least singular value (not a circle)


def on_unit_sphere(x: np.ndarray) -> bool:
    """Whether points (N, d) lie on a unit sphere in space, and not on one circle."""
    if x.shape[1] != 3 or np.abs(np.linalg.norm(x, axis=1) - 1).max() > _ON_SPHERE or len(x) < _FEWEST:
        return False
    return bool(np.linalg.svd(x - x.mean(0), compute_uv=False)[-1] > _DEEP * _ON_SPHERE * len(x) ** 0.5)


def apparent_period(x: np.ndarray, frames: Iterable[np.ndarray]) -> tuple[float, ...] | None:
    """Periods (d,) of fields at points x (N, d), 0 along axes without one; None if no axis has one.

    Only for full regular grids with smooth values. The last points may repeat the first. frames: values (F, N, C), in
    parts.
    """
    axes = _axes(np.asarray(x, np.float64))
    if axes is None:
        return None
    levels, order = axes
    u = np.concatenate([part[:, order] for part in frames])
    if len(u) < _FEWEST:
        return None
    fields = u.reshape(len(u), *(len(level) for level in levels), -1).astype(np.float64)
    with warnings.catch_warnings():  # for places without values
        warnings.simplefilter("ignore", RuntimeWarning)
        period = tuple(_period(level, np.moveaxis(fields, 1 + j, 1)) for j, level in enumerate(levels))
    return period if any(period) else None


def _axes(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Distinct coordinates per axis of a full grid (N, d), and the order of its points with the last coordinate
    fastest; None for other points."""
    levels, index = [], np.zeros(len(x), dtype=np.int64)
    for coordinate in x.T:
        values = np.unique(coordinate)
        near = _UNEVEN * np.ptp(values) / len(values)
        level = values[np.append(True, np.diff(values) > near)]
        index = index * len(level) + np.abs(np.searchsorted(level, coordinate + near) - 1)
        levels.append(level)
    whole = np.prod([len(level) for level in levels]) == len(x) and len(np.unique(index)) == len(x)
    return (levels, np.argsort(index)) if whole else None


def _period(level: np.ndarray, fields: np.ndarray) -> float:
    """Period of fields (F, n, ..., C) along an axis with coordinates (n,); 0 if there is none."""
    steps = np.diff(level)
    if len(level) <= _FEWEST or np.ptp(steps) > _UNEVEN * steps.mean():
        return 0.0
    fields = fields.reshape(len(fields), len(level), -1, fields.shape[-1])
    size = np.nanmax(np.abs(fields), initial=0.0)
    if np.nanmax(np.abs(fields[:, 0] - fields[:, -1]), initial=0.0) <= _SAME * size:
        level, fields = level[:-1], fields[:, :-1]
    n = len(level)
    change = np.stack([_mean(fields[:, k] - fields[:, k - 1]) for k in range(n)])  # (n, C)
    missed = np.stack([_mean(fields[:, k] - (4 * (fields[:, k - 1] + fields[:, (k + 1) % n])
                                             - fields[:, k - 2] - fields[:, (k + 2) % n]) / 6) for k in range(n)])
    seam, inside, neighbours = missed[[0, -1]].mean(0), missed[2:-2].mean(0), change[1:].mean(0)
    smooth = (inside < _SMOOTH * _mean(fields - np.roll(fields, n // 2, 1))) & (neighbours > (_SAME * size) ** 2)
    whole = seam < _AS_INSIDE * inside
    active = (change[0] > _ACTIVE * neighbours) & (seam < _TOLD * change[0])
    shown = (smooth & whole & active).any() and not (smooth & ~whole).any()
    return float(steps.mean() * n) if shown else 0.0


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean squares (C,) of values (..., C)."""
    return np.asarray(np.nanmean(np.square(values), axis=tuple(range(values.ndim - 1))))
