"""What a file does not declare of its domain, told by its points and values: unit spheres, and periods of grids.

Values of a periodic field continue across the seam of its grid as they do inside. The cubic polynomial through two
neighbours on either side misses a value by some error: where the axis is periodic, no more across the seam, from the
last points to the first, than inside; where it is not, by orders of magnitude more, or the field is at rest at both
ends, but for noise, which says nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

_FEWEST = 8  # points along an axis, and frames
_AS_INSIDE = 5.0  # times the mean squared error inside; periodic axes have .02 to 4, others 8 (rounded values) and more
_SMOOTH = 0.02  # mean squared error inside, as a share of that between points half of the axis apart, at most
_ACTIVE = 0.05  # mean squared difference across the seam, as a share of that of neighbours inside, at least
_TOLD = 0.5  # times that difference that the error across the seam is, at most; of noise alone .97, of fixed ends 1.6
_UNEVEN = 1e-3  # relative difference of the steps of a regular axis
_SAME = 1e-6  # relative difference of values at one place
_ON_SPHERE, _DEEP = 1e-3, 0.1  # what points of a unit sphere depart from it; singular value of the last direction


def on_unit_sphere(x: np.ndarray) -> bool:
    """Whether points (N, d) are those of a unit sphere in space, and not all of one circle."""
    if x.shape[1] != 3 or np.abs(np.linalg.norm(x, axis=1) - 1).max() > _ON_SPHERE or len(x) < _FEWEST:
        return False
    return bool(np.linalg.svd(x - x.mean(0), compute_uv=False)[-1] > _DEEP * _ON_SPHERE * len(x) ** 0.5)


def apparent_period(x: np.ndarray, frames: Iterable[np.ndarray]) -> tuple[float, ...] | None:
    """The periods (d,) of fields at points x (N, d), 0 along axes that show none; None where no axis shows one.

    Of full regular grids, on which values are smooth. The last points may be the first ones once more. frames: values
    (F, N, C), in parts.
    """
    axes = _axes(np.asarray(x, np.float64))
    if axes is None:
        return None
    levels, order = axes
    u = np.concatenate([part[:, order] for part in frames])
    if len(u) < _FEWEST:
        return None
    fields = u.reshape(len(u), *(len(level) for level in levels), -1).astype(np.float64)
    with warnings.catch_warnings():  # of places without a value
        warnings.simplefilter("ignore", RuntimeWarning)
        period = tuple(_period(level, np.moveaxis(fields, 1 + j, 1)) for j, level in enumerate(levels))
    return period if any(period) else None


def _axes(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Levels of the coordinates of a full grid (N, d), and the order in which its points follow each other, the last
    coordinate fastest; None for other points."""
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
    """The period along an axis with levels (n,), of fields (F, n, ..., C); 0 for none."""
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
