"""Box: a product of intervals, each of them periodic or walled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inrflow.domains.base import HELD, NATURAL, Domain, Harmonics, Quadrature, check_boundary
from inrflow.errors import UserError

PERIODIC, WALLED = "periodic", "walled"
AXES = (PERIODIC, WALLED)
_SAME = 1e-9  # of the extent of points: coordinates closer than this are the same
_ROUNDING = 1e-6
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
        """Products of sines and cosines; whole eigenspaces, at most `count` where the first one allows it.

        boundary: natural or held; else a condition for each channel, with commas between them, of a condition for each
        axis, with slashes between them: natural, held, natural-held or held-natural (at the lower and the upper wall).
        The harmonics of all channels are joined then, and `allowed` says whose they are.
        """
        channels = conditions_of(boundary, self.dimensions)
        reach = 2 * math.ceil(count ** (1 / self.dimensions)) + 2
        pairs = [list(dict.fromkeys(channel[j] for channel in channels)) for j in range(self.dimensions)]
        limits = [most * len(pair) if most else None
                  for most, pair in zip(self.functions or (0,) * self.dimensions, pairs, strict=True)]
        while True:
            axes = [_functions(self.axes[j], self.lengths[j], pairs[j], reach, limits[j])
                    for j in range(self.dimensions)]
            tables = [axis.waves**2 for axis in axes]
            modes = np.array(list(itertools.product(*(range(len(table)) for table in tables))))
            allowed = np.array([np.all([axes[j].of(channel[j])[modes[:, j]] for j in range(self.dimensions)], 0)
                                for channel in channels])
            modes, allowed = modes[allowed.any(0)], allowed[:, allowed.any(0)]
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
        kept = order[:size]
        return BoxHarmonics(self, axes, modes[kept], sorted_values[:size],
                            allowed[:, kept] if len(channels) > 1 else None)

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


@dataclass(frozen=True)
class AxisFunctions:
    """1, sqrt(2) cos and sqrt(2) sin of one coordinate: wave numbers (m,), which are sines (m,), and the conditions at
    both walls that each obeys ("" on periodic axes)."""

    waves: np.ndarray
    sines: np.ndarray
    pairs: tuple[str, ...]

    def of(self, pair: str) -> np.ndarray:
        """Which (m,) obey conditions."""
        return np.array([own in ("", pair) for own in self.pairs])


class BoxHarmonics(Harmonics):
    """Products over the axes of 1, sqrt(2) cos and sqrt(2) sin; modes (K, d) count through the functions of an axis."""

    def __init__(self, box: Box, axes: Sequence[AxisFunctions], modes: np.ndarray, eigenvalues: np.ndarray,
                 allowed: np.ndarray | None = None):
        self.box, self.axes, self.modes, self.eigenvalues, self.allowed = box, list(axes), modes, eigenvalues, allowed
        self.count = len(self.eigenvalues)

    def waves(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Wave numbers (K,) along axis j, and which are sines (K,)."""
        return self.axes[j].waves[self.modes[:, j]], self.axes[j].sines[self.modes[:, j]]

    def _axis(self, j: int, x: np.ndarray, derivative: bool) -> np.ndarray:
        """Functions of axis j, or their derivatives, at coordinates (N,): (N, K)."""
        wave, sine = self.waves(j)
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
            every = BoxHarmonics(self.box, [self.axes[j]] * len(axes),
                                 np.repeat(np.arange(highest + 1)[:, None], len(axes), 1), np.zeros(highest + 1))
            tables.append((every._axis(j, axis, False), every._axis(j, axis, True)))
        return tables

    def axis_tables(self, degree: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Points (Q, d) of the midpoint rule for products of `degree` harmonics, a grid, and the functions of each
        axis and their derivatives (n_j, m_j) at its coordinates."""
        grids = []
        for j, axis in enumerate(self.box.axes):
            highest = float(self.waves(j)[0].max()) * self.box.lengths[j] / (2 * np.pi if axis == PERIODIC else np.pi)
            count = max(int((degree + 1) * highest / (1 if axis == PERIODIC else 2) + _ROUNDING) + 1, 2)
            grids.append(self.box.lower[j] + (np.arange(count) + 0.5) / count * self.box.lengths[j])
        return np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, len(grids)), self.tables_at(grids)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Midpoint rule on a grid, exact for products of degree + 1 harmonics."""
        points, _ = self.axis_tables(degree)
        return Quadrature(points, np.full(len(points), 1 / len(points)), self.values(points), self.gradients(points))

    def lowest(self, count: int) -> BoxHarmonics:
        """The lowest harmonics without flux through walls, of the same box."""
        return self.box.harmonics(count)


def _functions(axis: str, length: float, pairs: Sequence[str], reach: int, most: int | None) -> AxisFunctions:
    """The first functions of an axis, at most `most`, by increasing wave number, as many of each of some conditions at
    its walls."""
    if axis == PERIODIC:  # 1, cos, sin, cos, sin ...
        number = np.arange(2 * reach + 1)[:most]
        return AxisFunctions(2 * np.pi * ((number + 1) // 2) / length, (number % 2 == 0) & (number > 0),
                             ("",) * len(number))
    each = min(2 * reach, 2 * reach if most is None else most // len(pairs))
    held = np.repeat([[one == HELD for one in _ends(pair)] for pair in pairs], each, 0)
    number = np.tile(np.arange(each), len(pairs)) + held.sum(1) / 2
    order = np.argsort(number, kind="stable")
    return AxisFunctions(np.pi * number[order] / length, held[order, 0], tuple(pairs[i // each] for i in order))


def _ends(pair: str) -> tuple[str, str]:
    """Conditions at the lower and the upper wall."""
    lower, _, upper = pair.partition("-")
    return lower, upper or lower


def conditions_of(boundary: str, dimensions: int) -> list[tuple[str, ...]]:
    """For each channel, or once for all, conditions at the walls of each axis, of their names in `Box.harmonics`."""
    result = []
    for channel in boundary.split(", "):
        axes = channel.split("/")
        for end in itertools.chain.from_iterable(map(_ends, axes)):
            check_boundary(end)
        if len(axes) not in (1, dimensions):
            raise UserError(f"boundary {channel!r} has {len(axes)} axes; the box has {dimensions}")
        result.append(tuple(axes) if len(axes) == dimensions else tuple(axes * dimensions))
    return result


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
