"""Embedding of coordinates in which Euclidean distances are chordal: periodic ones on circles, spheres as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Places:
    """Places of d coordinates as points of R^p.

    Attributes:
        period: (d,) of the coordinates, 0 where not periodic. sphere: whether coordinates are unit vectors.
    """

    period: tuple[float, ...]
    sphere: bool = False

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Embedded places (..., p) of points x (..., d)."""
        x = np.asarray(x, np.float64)
        parts = []
        for axis, period in enumerate(self.period):
            if period:
                angle = 2 * np.pi * x[..., axis] / period
                parts += [period / (2 * np.pi) * np.cos(angle), period / (2 * np.pi) * np.sin(angle)]
            else:
                parts.append(x[..., axis])
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
