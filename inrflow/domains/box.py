"""Box: a product of intervals, each of them periodic or walled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inrflow.domains.base import HELD, NATURAL, Domain, Harmonics, Quadrature, check_boundary
from inrflow.errors import UserError

PERIODIC, WALLED = "periodic", "walled"
AXES = (PERIODIC, WALLED)
_SAME = 1e-9  # of the extent of points: coordinates closer than this are the same
_TIE = 1e-9  # eigenvalues closer than this, relative, are one eigenspace


class Box(Domain):
    """Product of d intervals [lower, upper]; an axis is periodic or walled.

    functions (d): how many functions of each axis harmonics are made of; none given: however many.
    """

    kind = "box"

    def __init__(self, lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray, axes: Sequence[str],
                 functions: Sequence[int] = ()):
        self.functions = tuple(int(number) for number in functions)
        self.lower, self.upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
        self.axes, self.dimensions = tuple(axes), len(self.lower)
        if not len(self.lower) == len(self.upper) == len(self.axes) or not set(self.axes) <= set(AXES):
            raise UserError(f"a box of limits {self.lower.tolist()}, {self.upper.tolist()} has axes {list(self.axes)}; "
                            f"give one of {', '.join(AXES)} for each coordinate")
        if not (self.upper > self.lower).all():
            raise UserError(f"a box reaches from {self.lower.tolist()} to {self.upper.tolist()}; upper limits must be "
                            "above lower ones")

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the axes (d,)."""
        return self.upper - self.lower

    def told_apart(self, points: np.ndarray) -> Box | None:
        """The box with as many functions of each axis as a grid of points (N, d) tells apart; None where it is none."""
        grid = grid_of(points)
        if grid is None:
            return None
        functions = [len(levels) - 1 + len(levels) % 2 if axis == PERIODIC else len(levels)
                     for levels, axis in zip(grid[0], self.axes, strict=True)]
        return Box(self.lower, self.upper, self.axes, functions)

    def harmonics(self, count: int, boundary: str = NATURAL) -> BoxHarmonics:
        """Products of sines and cosines; whole eigenspaces, at most `count` where the first one allows it."""
        held = check_boundary(boundary) == HELD
        reach = 2 * math.ceil(count ** (1 / self.dimensions)) + 2
        limits = self.functions or (None,) * self.dimensions
        while True:
            tables = [_modes(axis, length, held, reach)[:most] for axis, length, most in
                      zip(self.axes, self.lengths, limits, strict=True)]
            modes = np.array(list(itertools.product(*(range(len(table)) for table in tables))))
            values = sum(table[modes[:, j]] for j, table in enumerate(tables))
            complete = min((table[-1] + sum(other[0] for i, other in enumerate(tables) if i != j)
                            for j, table in enumerate(tables) if len(table) != limits[j]), default=math.inf)
            # above `complete`, modes beyond the tables are missing
            if (values < complete).sum() > count or complete == math.inf or len(modes) > 64 * count + 4096:
                break
            reach *= 2
        order = np.argsort(values, kind="stable")
        sorted_values = values[order]
        gaps = np.flatnonzero(np.diff(sorted_values) > _TIE * sorted_values[-1]) + 1  # sizes of whole eigenspaces
        gaps = np.append(gaps, len(values)) if complete == math.inf else gaps
        size = gaps[gaps <= count][-1] if (gaps <= count).any() else gaps[0]
        return BoxHarmonics(self, modes[order[:size]], sorted_values[:size], held)

    @property
    def spacing(self) -> float:
        """A hundredth of the shortest axis: limits are inferred from points."""
        return 0.01 * float(self.lengths.min())

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances to the box, those along periodic axes not counted."""
        x = self._check(x)
        beyond = np.abs(x - np.clip(x, self.lower, self.upper))
        return np.linalg.norm(np.where(np.array(self.axes) == PERIODIC, 0.0, beyond), axis=1)

    def state(self) -> dict[str, Any]:
        """Limits and kinds of axes."""
        state = {"kind": self.kind, "lower": self.lower, "upper": self.upper, "axes": list(self.axes)}
        return state | ({"functions": list(self.functions)} if self.functions else {})


class BoxHarmonics(Harmonics):
    """Products over the axes of 1, sqrt(2) cos and sqrt(2) sin; modes (K, d) count through the functions of an axis."""

    def __init__(self, box: Box, modes: np.ndarray, eigenvalues: np.ndarray, held: bool):
        self.box, self.modes, self.eigenvalues, self.held = box, modes, eigenvalues, held

    def _axis(self, j: int, x: np.ndarray, derivative: bool) -> np.ndarray:
        """Functions of axis j, or their derivatives, at coordinates (N,): (N, K)."""
        mode, axis, length = self.modes[:, j], self.box.axes[j], self.box.lengths[j]
        if axis == PERIODIC:  # 1, cos, sin, cos, sin ...
            wave, sine = 2 * np.pi * ((mode + 1) // 2) / length, (mode % 2 == 0) & (mode > 0)
        else:
            wave, sine = np.pi * (mode + self.held) / length, np.full(mode.shape, self.held)
        phase = (x[:, None] - self.box.lower[j]) * wave
        size = np.where(wave > 0, math.sqrt(2), 1.0)
        if derivative:
            return size * wave * np.where(sine, np.cos(phase), -np.sin(phase))
        return size * np.where(sine, np.sin(phase), np.cos(phase))

    def values(self, x: np.ndarray) -> np.ndarray:
        """psi_k at points (N, d): (N, K)."""
        x = self.box._check(x)
        return np.prod([self._axis(j, x[:, j], False) for j in range(x.shape[1])], 0)

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients at points (N, d): (N, K, d)."""
        x = self.box._check(x)
        plain = [self._axis(j, x[:, j], False) for j in range(x.shape[1])]
        return np.stack([np.prod([self._axis(j, x[:, j], True) if i == j else plain[i] for i in range(x.shape[1])], 0)
                         for j in range(x.shape[1])], -1)

    def tables_at(self, axes: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The functions of each axis and their derivatives (n_j, m_j) at its coordinates (n_j,)."""
        tables = []
        for j, axis in enumerate(axes):
            highest = int(self.modes[:, j].max())
            every = BoxHarmonics(self.box, np.repeat(np.arange(highest + 1)[:, None], len(axes), 1),
                                 np.zeros(highest + 1), self.held)
            tables.append((every._axis(j, axis, False), every._axis(j, axis, True)))
        return tables

    def axis_tables(self, degree: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Points (Q, d) of the midpoint rule for products of `degree` harmonics, a grid, and the functions of each
        axis and their derivatives (n_j, m_j) at its coordinates."""
        grids = []
        for j, axis in enumerate(self.box.axes):
            highest = int(self.modes[:, j].max())
            count = ((degree + 1) * ((highest + 1) // 2) + 1 if axis == PERIODIC
                     else (degree + 1) * (highest + self.held) // 2 + 1)
            count = max(count, 2)
            grids.append(self.box.lower[j] + (np.arange(count) + 0.5) / count * self.box.lengths[j])
        return np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, len(grids)), self.tables_at(grids)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Midpoint rule on a grid, exact for products of degree + 1 harmonics."""
        points, _ = self.axis_tables(degree)
        return Quadrature(points, np.full(len(points), 1 / len(points)), self.values(points), self.gradients(points))

    def lowest(self, count: int) -> BoxHarmonics:
        """The lowest harmonics without flux through walls, of the same box."""
        return self.box.harmonics(count)


def _modes(axis: str, length: float, held: bool, reach: int) -> np.ndarray:
    """Eigenvalues of -d^2/dx^2 of the first functions of an axis, increasing."""
    if axis == PERIODIC:
        return (2 * np.pi * ((np.arange(2 * reach + 1) + 1) // 2) / length) ** 2
    return (np.pi * (np.arange(2 * reach) + held) / length) ** 2


def grid_of(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Coordinates of the axes of a grid that points (N, d) fill, and which point (N,) each of its points is, the last
    axis fastest; None where they fill none."""
    unit = _SAME * float(np.ptp(x, axis=0).max() or 1.0)
    rounded = np.round(x / unit)
    order = np.lexsort(rounded.T[::-1])
    axes = [np.unique(column) for column in rounded.T]
    if np.prod([len(axis) for axis in axes]) != len(x) or not np.array_equal(
            rounded[order], np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(x.shape)):
        return None
    first = [np.array([x[np.argmax(rounded[:, j] == level), j] for level in axis]) for j, axis in enumerate(axes)]
    return first, order
