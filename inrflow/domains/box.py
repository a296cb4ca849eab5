"""Box: a product of intervals, each of them periodic or walled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inrflow.domains.base import HELD, LEAKY, NATURAL, STEADY, Domain, Harmonics, Quadrature, check_boundary
from inrflow.errors import UserError

PERIODIC, WALLED = "periodic", "walled"
AXES = (PERIODIC, WALLED)
_SAME = 1e-9  # of the extent of points: coordinates closer than this are the same
_ROUNDING = 1e-6
_OPPOSITE = {NATURAL: HELD, HELD: NATURAL, f"{HELD}-{NATURAL}": f"{NATURAL}-{HELD}",
             f"{NATURAL}-{HELD}": f"{HELD}-{NATURAL}"}  # conditions of a derivative across walls
_TIE = 1e-9  # eigenvalues closer than this, relative, are one eigenspace
_GAUSS, _FEWEST_GAUSS = 1.6, 8  # points between walls, times those of the midpoint rule, and more
_HALVINGS = 60  # of intervals that wave numbers between leaky walls lie in


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

    @property
    def bounded(self) -> bool:
        return set(self.axes) != {PERIODIC}

    def told_apart(self, points: np.ndarray, boundary: str = NATURAL) -> Box | None:
        """The box with as many functions of each axis as a grid of points (N, d) tells apart, of which those at walls
        tell nothing about functions that vanish there; None where it is none."""
        grid = grid_of(points)
        if grid is None:
            return None
        functions = []
        for j, (levels, axis) in enumerate(zip(grid[0], self.axes, strict=True)):
            reach = np.abs(levels[[0, -1]] - (self.lower[j], self.upper[j])) < _ROUNDING * self.lengths[j]
            held = max(sum(end in (HELD, STEADY) and at for end, at in zip(ends_of(channel[j]), reach, strict=True))
                       for channel in conditions_of(boundary, self.dimensions))
            functions.append(len(levels) - (len(levels) % 2 == 0 if axis == PERIODIC else held))
        return self.with_functions(np.minimum(functions, self.functions) if self.functions else functions)

    def with_functions(self, functions: Sequence[int] | np.ndarray) -> Box:
        """The box with so many functions of each axis, cosines with their sines."""
        cut = [axis == PERIODIC and number % 2 == 0 for number, axis in zip(functions, self.axes, strict=True)]
        return Box(self.lower, self.upper, self.axes, np.add(functions, cut).tolist())

    def harmonics(self, count: int, boundary: str = NATURAL) -> BoxHarmonics:
        """Products of sines and cosines; whole eigenspaces, at most `count` where the first one allows it.

        boundary: natural or held; else a condition for each channel, with commas between them, of a condition for each
        axis, with slashes between them: natural, held, steady, leaky with h of du/dn = -h u, or two with a dash (at the
        lower and the upper wall). The harmonics of all channels are joined then, and `allowed` says whose they are.
        Steady stands for held at values that stay: affine functions, the last harmonics, whose codes are steady, carry
        these.
        """
        given = conditions_of(boundary, self.dimensions)
        channels = [tuple(pair.replace(STEADY, HELD) for pair in channel) for channel in given]
        affine = [_affine(channel) for channel in given]
        lifts = sorted(set(itertools.chain.from_iterable(affine)))
        vectors = _vectors(channels, self.axes)
        families = list(dict.fromkeys([*channels, *(vectors or {}).values()]))
        count = max(count - len(lifts), 1)
        reach = 2 * math.ceil(count ** (1 / self.dimensions)) + 2
        pairs = [list(dict.fromkeys(family[j] for family in families)) for j in range(self.dimensions)]
        limits = [most * len(pair) if most else None
                  for most, pair in zip(self.functions or (0,) * self.dimensions, pairs, strict=True)]
        while True:
            axes = [_functions(self.axes[j], self.lengths[j], pairs[j], reach, limits[j])
                    for j in range(self.dimensions)]
            tables = [axis.waves**2 for axis in axes]
            modes = np.array(list(itertools.product(*(range(len(table)) for table in tables))))
            obeyed = {family: np.all([axes[j].of(family[j])[modes[:, j]] for j in range(self.dimensions)], 0)
                      for family in families}
            any_of = np.any(list(obeyed.values()), 0)
            modes, allowed = modes[any_of], np.array([obeyed[channel][any_of] for channel in channels])
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
        carried = np.array([[one in own for one in lifts] for own in affine], dtype=bool).reshape(len(channels), -1)
        harmonics = BoxHarmonics(self, axes, modes[kept], sorted_values[:size],
                                 np.hstack([allowed[:, kept], carried]) if len(channels) > 1 else None, lifts)
        harmonics.vectors = vectors
        return harmonics

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
    both walls that each obeys ("" on periodic axes). Between walls of which one leaks, sizes (m,) times cosines whose
    angle is less by leaks (m,), which are NaN elsewhere."""

    waves: np.ndarray
    sines: np.ndarray
    pairs: tuple[str, ...]
    leaks: np.ndarray
    sizes: np.ndarray

    def of(self, pair: str) -> np.ndarray:
        """Which (m,) obey conditions."""
        return np.array([own in ("", pair) for own in self.pairs])

    def with_affine(self, size: int) -> AxisFunctions:
        """The first ones, so many, a constant and the affine function."""
        return AxisFunctions(np.append(self.waves[:size], [0.0, 0.0]), np.append(self.sines[:size], [False, True]),
                             (*self.pairs[:size], STEADY, STEADY), np.append(self.leaks[:size], [np.nan] * 2),
                             np.append(self.sizes[:size], [1.0, 1.0]))

    def partners(self, size: int) -> np.ndarray:
        """The function that the derivative of each one of the first (size,) is a multiple of; -1: not among these."""
        waves, sines, steady = self.waves[:size], self.sines[:size], np.array(self.pairs[:size]) == STEADY
        same = (waves[:, None] == waves) & (sines[:, None] != sines) & (steady[:, None] == steady)
        same &= ((waves > 0) | sines)[:, None]  # not of constants
        same &= (plain := np.isnan(self.leaks[:size])) & plain[:, None]
        return np.where(same.any(1), same.argmax(1), -1)


class BoxHarmonics(Harmonics):
    """Products over the axes of 1, sqrt(2) cos and sqrt(2) sin; modes (K, d) count through the functions of an axis.

    affine: further, steady ones, functions of one coordinate, which is given, or of none, -1. In the tables of an axis
    these are the sine of wave number 0, s sqrt(12) with s from -1/2 to 1/2.
    """

    def __init__(self, box: Box, axes: Sequence[AxisFunctions], modes: np.ndarray, eigenvalues: np.ndarray,
                 allowed: np.ndarray | None = None, affine: Sequence[int] = ()):
        self.box, self.axes, self.modes, self.eigenvalues, self.allowed = box, list(axes), modes, eigenvalues, allowed
        self.steady = len(affine)
        if affine:
            sizes = modes.max(0) + 1
            self.axes = [axis.with_affine(size) for axis, size in zip(axes, sizes, strict=True)]
            added = [[len(axis.waves) - 1 - (j != one) for j, axis in enumerate(self.axes)] for one in affine]
            self.modes = np.concatenate([modes, added])
            self.eigenvalues = np.append(eigenvalues, np.zeros(len(affine)))
        self.count = len(self.eigenvalues)

    def waves(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Wave numbers (K,) along axis j, and which are sines (K,)."""
        return self.axes[j].waves[self.modes[:, j]], self.axes[j].sines[self.modes[:, j]]

    def shapes(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Sizes (K,) of the cosines along axis j, and what their angles are less by (K,)."""
        leaks = self.axes[j].leaks[self.modes[:, j]]
        return self.axes[j].sizes[self.modes[:, j]], np.where(np.isnan(leaks), np.pi / 2 * self.waves(j)[1], leaks)

    def _axis(self, j: int, x: np.ndarray, derivative: bool) -> np.ndarray:
        """Functions of axis j, or their derivatives, at coordinates (N,): (N, K)."""
        used, place = np.unique(self.modes[:, j], return_inverse=True)
        axis, from_start = self.axes[j], x - self.box.lower[j]
        wave, sine, leaks, size = (part[used, None] for part in (axis.waves, axis.sines, axis.leaks, axis.sizes))
        table = from_start * wave - np.where(np.isnan(leaks), 0.0, leaks)
        turned = (sine != derivative)[:, 0]
        for rows in np.flatnonzero(turned), np.flatnonzero(~turned):
            table[rows] = np.sin(table[rows]) if turned[rows].all() else np.cos(table[rows])
        table *= size * wave * np.where(sine, 1.0, -1.0) if derivative else size
        if (affine := (sine & (wave == 0))[:, 0]).any():
            unit = math.sqrt(12) / self.box.lengths[j]
            table[affine] = unit if derivative else unit * from_start - math.sqrt(3)
        return np.ascontiguousarray(table[place].T)

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

    def rule(self, degree: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Coordinates and weights (n_j,) along each axis of a rule on a grid for products of degree + 1 harmonics.

        Midpoints, exact but for affine functions and between walls that leak; where there are such, Gauss points.
        """
        grids, weights = [], []
        for j, axis in enumerate(self.box.axes):
            highest = float(self.waves(j)[0].max()) * self.box.lengths[j] / (2 * np.pi if axis == PERIODIC else np.pi)
            count = max(int((degree + 1) * highest / (1 if axis == PERIODIC else 2) + _ROUNDING) + 1, 2)
            nodes, sizes = (np.arange(count) + 0.5) / count, np.full(count, 1 / count)
            if axis != PERIODIC and (self.steady or not np.isnan(self.axes[j].leaks).all()):
                nodes, sizes = np.polynomial.legendre.leggauss(int(_GAUSS * count) + _FEWEST_GAUSS)
                nodes, sizes = (nodes + 1) / 2, sizes / 2
            grids.append(self.box.lower[j] + nodes * self.box.lengths[j])
            weights.append(sizes)
        return grids, weights

    def quadrature(self, degree: int = 2) -> Quadrature:
        """That of `rule`."""
        points, weights = (np.stack(np.meshgrid(*parts, indexing="ij"), -1).reshape(-1, self.box.dimensions)
                           for parts in self.rule(degree))
        return Quadrature(points, weights.prod(1), self.values(points), self.gradients(points))

    def spanned(self, some: np.ndarray) -> Box:
        """The box with as many functions of each axis as some of the harmonics have: solvers truncate spectra.

        The box itself where it has one axis, whose harmonics are few anyway, or different ones of each channel."""
        if self.box.dimensions == 1 or self.steady or self.allowed is not None:
            return self.box
        return self.box.with_functions(self.modes[some].max(0) + 1)

    def lowest(self, count: int) -> BoxHarmonics:
        """The lowest harmonics without flux through walls, of the same box."""
        return self.box.harmonics(count)


def _functions(axis: str, length: float, pairs: Sequence[str], reach: int, most: int | None) -> AxisFunctions:
    """The first functions of an axis, at most `most`, by increasing wave number, as many of each of some conditions at
    its walls."""
    if axis == PERIODIC:  # 1, cos, sin, cos, sin ...
        number = np.arange(2 * reach + 1)[:most]
        waves = 2 * np.pi * ((number + 1) // 2) / length
        return AxisFunctions(waves, (number % 2 == 0) & (number > 0), ("",) * len(number), np.full(len(number), np.nan),
                             np.where(number > 0, math.sqrt(2), 1.0))
    each = min(2 * reach, 2 * reach if most is None else most // len(pairs))
    parts = [between(length, np.arange(each), *ends_of(pair)) for pair in pairs]
    waves, sines, leaks, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(waves, kind="stable")
    return AxisFunctions(waves[order], sines[order], tuple(pairs[i // each] for i in order), leaks[order], sizes[order])


def between(length: float, number: np.ndarray, *ends: str) -> tuple[np.ndarray, ...]:
    """Wave numbers, which are sines, leaks and sizes of the functions of some numbers (m,) between two walls."""
    lower, upper = (np.inf if end == HELD else float(end.removeprefix(LEAKY)) * length if end.startswith(LEAKY) else 0.0
                    for end in ends)
    waves, sines = np.pi * (number + [lower, upper].count(np.inf) / 2), np.full(len(number), lower == np.inf)
    if {lower, upper} <= {0.0, np.inf}:
        return waves / length, sines, np.full(len(number), np.nan), np.where(waves > 0, math.sqrt(2), 1.0)
    low, high = np.pi * number, np.pi * (number + 1)
    for _ in range(_HALVINGS):  # of angles at the walls, atan(h / wave), that add up to a multiple of pi
        waves = (low + high) / 2
        less = waves - np.arctan2(lower, waves) - np.arctan2(upper, waves) < np.pi * number
        low, high = np.where(less, waves, low), np.where(less, high, waves)
    leaks = np.arctan2(lower, waves)
    squares = 0.5 + (np.sin(2 * (waves - leaks)) + np.sin(2 * leaks)) / (4 * waves)
    return waves / length, np.zeros(len(number), dtype=bool), leaks, squares**-0.5


def ends_of(pair: str) -> tuple[str, str]:
    """Conditions at the lower and the upper wall."""
    lower, _, upper = pair.partition("-")
    return lower, upper or lower


def _affine(channel: tuple[str, ...]) -> set[int]:
    """Affine functions that carry steady values of a channel: -1, the constant, and coordinates with two held walls."""
    if not any(STEADY in pair for pair in channel):
        return set()
    return {-1, *(j for j, pair in enumerate(channel) if STEADY in pair and NATURAL not in ends_of(pair))}


def _vectors(channels: list[tuple[str, ...]], axes: Sequence[str]) -> dict[int, tuple[str, ...]] | None:
    """First channels of vectors whose divergence obeys one set of conditions, and these; None on periodic boxes."""
    d, found = len(axes), dict[int, tuple[str, ...]]()
    if WALLED not in axes:
        return None
    for first in range(len(channels) - d + 1 if d > 1 else 0):
        derived = {tuple(_OPPOSITE.get(pair, pair) if i == j and axes[i] == WALLED else pair
                         for i, pair in enumerate(channels[first + j])) for j in range(d)}
        if len(derived) == 1 and not any(LEAKY in pair for channel in channels[first : first + d] for pair in channel):
            found[first] = derived.pop()
    return found


def conditions_of(boundary: str, dimensions: int) -> list[tuple[str, ...]]:
    """For each channel, or once for all, conditions at the walls of each axis, of their names in `Box.harmonics`."""
    result = []
    for channel in boundary.split(", "):
        axes = channel.split("/")
        for end in itertools.chain.from_iterable(map(ends_of, axes)):
            check_boundary(end if end != STEADY else HELD)
        if len(axes) not in (1, dimensions):
            raise UserError(f"boundary {channel!r} has {len(axes)} axes; the box has {dimensions}")
        result.append(tuple(axes) if len(axes) == dimensions else tuple(axes * dimensions))
    return result


def levels_of(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The different coordinates of points (N, d) along each axis, but for rounding, and which of them (N, d) those of
    each point are."""
    lowest, extent = x.min(0), float(np.ptp(x, axis=0).max() or 1.0)
    found = [np.unique(np.round(column / (_SAME * extent)), return_index=True, return_inverse=True)
             for column in (x - lowest).T]
    return [x[first, axis] for axis, (_, first, _) in enumerate(found)], np.stack([which for *_, which in found], -1)


def grid_of(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Coordinates of the axes of a grid that points (N, d) fill, and which point (N,) each of its points is, the last
    axis fastest; None where they fill none."""
    axes, places = levels_of(x)
    shape = tuple(map(len, axes))
    if math.prod(shape) != len(x):
        return None
    number = np.ravel_multi_index(tuple(places.T), shape)
    order = np.argsort(number, kind="stable")
    return (axes, order) if np.array_equal(number[order], np.arange(len(x))) else None
