"""Embedding of coordinates in which Euclidean distances are chordal: periodic ones on circles, spheres as they are.

Coordinates whose extents differ so much that they have no common unit (elevation beside degrees) are in units of their
own extents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NO_COMMON_UNIT = 10.0  # times the smallest extent that the largest is


@dataclass(frozen=True)
class Places:
    """Places of d coordinates as points of R^p.

    Attributes:
        period: (d,) of the coordinates, 0 where not periodic. sphere: whether coordinates are unit vectors.
        origin, unit: (d,) subtracted from the coordinates that are not periodic, and what these are divided by; empty:
            0 and 1.
    """

    period: tuple[float, ...]
    sphere: bool = False
    origin: tuple[float, ...] = ()
    unit: tuple[float, ...] = ()

    @classmethod
    def of(cls, period: tuple[float, ...], sphere: bool, box: np.ndarray) -> Places:
        """Those of data in a box (2, d)."""
        if sphere:
            return cls(period, True)
        extent = np.where(np.asarray(period) > 0, 0.0, np.ptp(np.asarray(box, np.float64), axis=0))
        some = extent[extent > 0]
        unit = np.ones(len(extent))
        if len(some) and some.max() > _NO_COMMON_UNIT * some.min():
            unit = np.where(extent > 0, extent, 1.0)
        return cls(period, False, tuple(np.asarray(box, np.float64).mean(0).tolist()), tuple(unit.tolist()))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Embedded places (..., p) of points x (..., d)."""
        x = np.asarray(x, np.float64)
        parts = []
        for axis, period in enumerate(self.period):
            if period:
                angle = 2 * np.pi * x[..., axis] / period
                parts += [period / (2 * np.pi) * np.cos(angle), period / (2 * np.pi) * np.sin(angle)]
            else:
                parts.append((x[..., axis] - self.origin[axis]) / self.unit[axis] if self.unit else x[..., axis])
        return np.stack(parts, -1)

    @property
    def groups(self) -> tuple[int, ...]:
        """Of every embedded coordinate, which length scale it has: one a coordinate, one for all on spheres."""
        if self.sphere:
            return (0,) * len(self.period)
        return tuple(axis for axis, period in enumerate(self.period) for _ in range(2 if period else 1))

    @property
    def moving(self) -> tuple[bool, ...]:
        """Of every embedded coordinate, whether a field may move along it."""
        return tuple(not period and not self.sphere for period in self.period for _ in range(2 if period else 1))
