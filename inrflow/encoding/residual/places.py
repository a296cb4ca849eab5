"""Embedding of coordinates in which Euclidean distances are chordal: periodic ones on circles, spheres as they are, a
region of a sphere in the plane (stereographic, east and north), where lengths may differ and fields move.

Coordinates whose extents differ so much that they have no common unit (elevation beside degrees) are in units of their
own extents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

_ANTIPODE = 1e-6  # least 1 + cosine of the angle to the middle: predictions near the antipode have no meaning
REGION = 1.0  # largest extent of a region of a sphere, in radii
_NO_COMMON_UNIT = 10.0  # ratio of largest to smallest extent beyond which coordinates are scaled


@dataclass(frozen=True)
class Places:
    """Embedding of places with d coordinates in R^p.

    Attributes:
        period: (d,) of the coordinates, 0 where not periodic. sphere: whether coordinates are unit vectors.
        origin, unit: (d,) subtracted from the coordinates that are not periodic, and what these are divided by; empty:
            0 and 1. For a region of a sphere, origin is its middle.
        extent: (p,) of the places along embedded coordinates, around the origin; 0 or empty: not known, or periodic."""

    period: tuple[float, ...]
    sphere: bool = False
    origin: tuple[float, ...] = ()
    unit: tuple[float, ...] = ()
    extent: tuple[float, ...] = ()

    @classmethod
    def of(cls, period: tuple[float, ...], sphere: bool, box: np.ndarray) -> Places:
        """The embedding of data in a box (2, d)."""
        if sphere:
            middle = np.asarray(box, np.float64).mean(0)
            small = np.ptp(box, axis=0).max() <= REGION
            result = cls(period, True, tuple((middle / np.linalg.norm(middle)).tolist()) if small else ())
            corners = result(np.array(list(product(*np.asarray(box, np.float64).T))))
            return replace(result, extent=tuple((2 * np.abs(corners).max(0)).tolist())) if small else result
        extent = np.where(np.asarray(period) > 0, 0.0, np.ptp(np.asarray(box, np.float64), axis=0))
        some = extent[extent > 0]
        unit = np.ones(len(extent))
        if len(some) and some.max() > _NO_COMMON_UNIT * some.min():
            unit = np.where(extent > 0, extent, 1.0)
        along = np.repeat(extent / unit, np.where(np.asarray(period) > 0, 2, 1))
        middle = np.asarray(box, np.float64).mean(0)
        return cls(period, False, tuple(middle.tolist()), tuple(unit.tolist()), tuple(along.tolist()))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Embedded places (..., p) of points x (..., d)."""
        x = np.asarray(x, np.float64)
        if self.sphere and self.origin:
            middle = np.asarray(self.origin)
            east = np.array([-middle[1], middle[0], 0.0]) if np.hypot(*middle[:2]) > 0 else np.array([0.0, 1.0, 0.0])
            axes = np.stack([east, np.cross(middle, east)]) / np.linalg.norm(east)
            return np.asarray(2 * (x @ axes.T) / np.maximum(1 + x @ middle, _ANTIPODE)[..., None])
        parts = []
        for axis, period in enumerate(self.period):
            if period:
                angle = 2 * np.pi * x[..., axis] / period
                parts += [period / (2 * np.pi) * np.cos(angle), period / (2 * np.pi) * np.sin(angle)]
            else:
                parts.append((x[..., axis] - self.origin[axis]) / self.unit[axis] if self.unit else x[..., axis])
        return np.stack(parts, -1)

    def beyond(self, y: np.ndarray) -> np.ndarray:
        """Squared distances (...,) of embedded places (..., p) from the box of the data's places, relative to its
        extents."""
        extent = np.array(self.extent or (0.0,) * y.shape[-1])
        away = np.maximum(np.abs(y) - extent / 2, 0.0) / np.where(extent > 0, extent, np.inf)
        return np.asarray((away**2).sum(-1))

    @property
    def groups(self) -> tuple[int, ...]:
        """Index of the length scale of each embedded coordinate: one per coordinate, a single one on spheres."""
        if self.sphere:
            return (0, 1) if self.origin else (0,) * len(self.period)
        return tuple(axis for axis, period in enumerate(self.period) for _ in range(2 if period else 1))

    @property
    def moving(self) -> tuple[bool, ...]:
        """For each embedded coordinate, whether a field may move along it."""
        if self.sphere:
            return (True, True) if self.origin else (False,) * len(self.period)
        return tuple(not period for period in self.period for _ in range(2 if period else 1))


def recurring(x: np.ndarray) -> np.ndarray | None:
    """Identities (R,) of columns of three or more points (R, d) in space, which have all coordinates but one in common,
    as in profiles along depth, or of points that recur. None if few recur. On a lattice, whose points share columns
    along all axes, a point is a place of its own."""
    def places(axes: list[int]) -> np.ndarray:
        return np.unique(x[:, axes], axis=0, return_inverse=True)[1].reshape(-1)

    axes = list(range(x.shape[1]))
    whole = places(axes)
    columns = [places([axis for axis in axes if axis != out]) for out in axes] if len(axes) > 2 else []
    columns = [place for place in columns if 3 * place.max() <= whole.max()]
    if 0 < len(columns) < len(axes):
        return max(columns, key=np.max)
    return whole if 2 * whole.max() <= len(x) else None


def ranks_of_places(x: np.ndarray, known: np.ndarray, seed: int) -> np.ndarray:
    """Random ranks of the places of points x (..., N, d), where `known` (..., N): of columns or points that recur, or,
    if few do, (N,) by index."""
    place = recurring(x[known])
    if place is None:
        known, place = np.ones(known.shape[-1], dtype=bool), np.arange(known.shape[-1])
    ranks = np.zeros(known.shape, dtype=int)
    ranks[known] = np.random.default_rng([seed, 23]).permutation(place.max() + 1).argsort()[place]
    return ranks
