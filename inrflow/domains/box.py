"""Box: product of intervals, each either periodic or between two walls, with trigonometric harmonics."""

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
_SAME = 1e-9  # distance, relative to the extent of points, below which coordinates are equal
_ROUNDING = 1e-6
_OPPOSITE = {NATURAL: HELD, HELD: NATURAL, f"{HELD}-{NATURAL}": f"{NATURAL}-{HELD}",
             f"{NATURAL}-{HELD}": f"{HELD}-{NATURAL}"}  # boundary condition of a function -> of its normal derivative
_TIE = 1e-9  # relative difference below which eigenvalues belong to one eigenspace
_GAUSS, _FEWEST_GAUSS = 1.6, 8  # Gauss points between walls: a multiple of the midpoint rule's, plus a constant
_HALVINGS = 60  # bisection steps for wave numbers between leaky walls


class Box(Domain):
    """Product of d intervals [lower, upper], each periodic or walled.

    functions (d): maximum number of one-dimensional functions per axis in the products; unlimited if not given.
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

    def resolved_by_grid(self, points: np.ndarray, boundary: str = NATURAL) -> Box | None:
        """The box limited to the functions per axis that a grid of points (N, d) can resolve (grid points on Dirichlet
        walls do not count). None if the points are not a grid."""
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
        """The box limited to `functions` per axis; on periodic axes raised to odd numbers (cosines with sines)."""
        cut = [axis == PERIODIC and number % 2 == 0 for number, axis in zip(functions, self.axes, strict=True)]
        return Box(self.lower, self.upper, self.axes, np.add(functions, cut).tolist())

    def harmonics(self, count: int, boundary: str = NATURAL) -> BoxHarmonics:
        """Products of sines and cosines: whole eigenspaces, at most `count` functions unless the first exceeds it.

        boundary: "natural" or "held", or conditions per channel separated by ", ", each per axis separated by "/":
        natural, held, steady, "leaky h" (du/dn = -h u), or two joined by "-" (lower and upper wall). The harmonics are
        then the union over channels, with the mask `allowed`. "steady" is Dirichlet with values constant in time:
        these are represented by the last harmonics, affine functions with constant coefficients.
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
            # the list of modes is complete only up to the eigenvalue `complete`
            if (values < complete).sum() > count or complete == math.inf or len(modes) > 64 * count + 4096:
                break
            reach *= 2
        order = np.argsort(values, kind="stable")
        sorted_values = values[order]
        gaps = np.flatnonzero(np.diff(sorted_values) > _TIE * sorted_values[-1]) + 1  # ends of eigenspaces
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
        """A hundredth of the shortest axis, since limits are inferred from points."""
        return 0.01 * float(self.lengths.min())

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances to the box; periodic axes do not count."""
        x = self._check(x)
        beyond = np.abs(x - np.clip(x, self.lower, self.upper))
        return np.linalg.norm(np.where(np.array(self.axes) == PERIODIC, 0.0, beyond), axis=1)

    def state(self) -> dict[str, Any]:
        """Limits, kinds of axes and maximum numbers of functions."""
        state = {"kind": self.kind, "lower": self.lower, "upper": self.upper, "axes": list(self.axes)}
        return state | ({"functions": list(self.functions)} if self.functions else {})


@dataclass(frozen=True)
class AxisFunctions:
    """One-dimensional eigenfunctions of an axis: sizes (m,) times sine or cosine of waves (m,) times the coordinate.

    sines (m,): mask of sines; pairs: boundary conditions at both walls ("" on periodic axes); leaks (m,): phase that is
    subtracted from the angle if a wall has a Robin condition, else NaN."""

    waves: np.ndarray
    sines: np.ndarray
    pairs: tuple[str, ...]
    leaks: np.ndarray
    sizes: np.ndarray

    def of(self, pair: str) -> np.ndarray:
        """Mask (m,) of the functions that obey a pair of boundary conditions."""
        return np.array([own in ("", pair) for own in self.pairs])

    def with_affine(self, size: int) -> AxisFunctions:
        """The first `size` functions, followed by a constant and the affine function."""
        return AxisFunctions(np.append(self.waves[:size], [0.0, 0.0]), np.append(self.sines[:size], [False, True]),
                             (*self.pairs[:size], STEADY, STEADY), np.append(self.leaks[:size], [np.nan] * 2),
                             np.append(self.sizes[:size], [1.0, 1.0]))

    def partners(self, size: int) -> np.ndarray:
        """Index (size,) of the function proportional to the derivative of each; -1 if not among the first `size`."""
        waves, sines, steady = self.waves[:size], self.sines[:size], np.array(self.pairs[:size]) == STEADY
        same = (waves[:, None] == waves) & (sines[:, None] != sines) & (steady[:, None] == steady)
        same &= ((waves > 0) | sines)[:, None]  # constants have no derivative
        same &= (plain := np.isnan(self.leaks[:size])) & plain[:, None]
        return np.where(same.any(1), same.argmax(1), -1)


class BoxHarmonics(Harmonics):
    """Products over the axes of 1, sqrt(2) cos and sqrt(2) sin; modes (K, d) are indices of the functions per axis.

    affine: axes of additional affine functions with constant coefficients, -1 for the constant. In the table of an axis
    the affine function is the sine of wave number 0: sqrt(12) s with s from -1/2 to 1/2.
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
        """Wave numbers (K,) along axis j, and the mask of sines (K,)."""
        return self.axes[j].waves[self.modes[:, j]], self.axes[j].sines[self.modes[:, j]]

    def shapes(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Amplitudes (K,) of the cosines along axis j, and the phases (K,) subtracted from their angles."""
        leaks = self.axes[j].leaks[self.modes[:, j]]
        return self.axes[j].sizes[self.modes[:, j]], np.where(np.isnan(leaks), np.pi / 2 * self.waves(j)[1], leaks)

    def _axis(self, j: int, x: np.ndarray, derivative: bool) -> np.ndarray:
        """Functions (N, K) of axis j, or their derivatives, at coordinates (N,)."""
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
        """Values psi_k (N, K) at points (N, d)."""
        x = self.box._check(x)
        return np.prod([self._axis(j, x[:, j], False) for j in range(x.shape[1])], 0)

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients (N, K, d) at points (N, d)."""
        x = self.box._check(x)
        plain = [self._axis(j, x[:, j], False) for j in range(x.shape[1])]
        return np.stack([np.prod([self._axis(j, x[:, j], True) if i == j else plain[i] for i in range(x.shape[1])], 0)
                         for j in range(x.shape[1])], -1)

    def tables_at(self, axes: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Functions of each axis and their derivatives (n_j, m_j) at its coordinates (n_j,)."""
        tables = []
        for j, axis in enumerate(axes):
            highest = int(self.modes[:, j].max())
            every = BoxHarmonics(self.box, [self.axes[j]] * len(axes),
                                 np.repeat(np.arange(highest + 1)[:, None], len(axes), 1), np.zeros(highest + 1))
            tables.append((every._axis(j, axis, False), every._axis(j, axis, True)))
        return tables

    def rule(self, degree: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Coordinates and weights (n_j,) per axis of a tensor-product quadrature for products of degree + 1 harmonics.

        Midpoint rule (exact for sines and cosines); Gauss-Legendre between leaky walls or with affine functions.
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
        """Tensor-product quadrature of `rule`."""
        points, weights = (np.stack(np.meshgrid(*parts, indexing="ij"), -1).reshape(-1, self.box.dimensions)
                           for parts in self.rule(degree))
        return Quadrature(points, weights.prod(1), self.values(points), self.gradients(points))

    def spanned(self, some: np.ndarray) -> Box:
        """The box limited, per axis, to the functions used by the harmonics `some`, as solvers truncate spectra.

        The box itself if it has one axis, or conditions that differ between channels."""
        if self.box.dimensions == 1 or self.steady or self.allowed is not None:
            return self.box
        return self.box.with_functions(self.modes[some].max(0) + 1)

    def lowest(self, count: int) -> BoxHarmonics:
        """Harmonics of lowest eigenvalue with natural conditions on the same box."""
        return self.box.harmonics(count)


def _functions(axis: str, length: float, pairs: Sequence[str], reach: int, most: int | None) -> AxisFunctions:
    """Functions of an axis by increasing wave number, at most `most`, equally many for each pair of wall conditions."""
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
    """Wave numbers, mask of sines, phases and amplitudes of eigenfunctions number (m,) between two walls."""
    lower, upper = (np.inf if end == HELD else float(end.removeprefix(LEAKY)) * length if end.startswith(LEAKY) else 0.0
                    for end in ends)
    waves, sines = np.pi * (number + [lower, upper].count(np.inf) / 2), np.full(len(number), lower == np.inf)
    if {lower, upper} <= {0.0, np.inf}:
        return waves / length, sines, np.full(len(number), np.nan), np.where(waves > 0, math.sqrt(2), 1.0)
    low, high = np.pi * number, np.pi * (number + 1)
    for _ in range(_HALVINGS):  # bisection: wave - atan(h0 / wave) - atan(h1 / wave) = n pi
        waves = (low + high) / 2
        less = waves - np.arctan2(lower, waves) - np.arctan2(upper, waves) < np.pi * number
        low, high = np.where(less, waves, low), np.where(less, high, waves)
    leaks = np.arctan2(lower, waves)
    squares = 0.5 + (np.sin(2 * (waves - leaks)) + np.sin(2 * leaks)) / (4 * waves)
    return waves / length, np.zeros(len(number), dtype=bool), leaks, squares**-0.5


def ends_of(pair: str) -> tuple[str, str]:
    """Boundary conditions at the lower and the upper wall."""
    lower, _, upper = pair.partition("-")
    return lower, upper or lower


def _affine(channel: tuple[str, ...]) -> set[int]:
    """Affine functions for steady values of a channel: the constant (-1) and axes with two Dirichlet walls."""
    if not any(STEADY in pair for pair in channel):
        return set()
    return {-1, *(j for j, pair in enumerate(channel) if STEADY in pair and NATURAL not in ends_of(pair))}


def _vectors(channels: list[tuple[str, ...]], axes: Sequence[str]) -> dict[int, tuple[str, ...]] | None:
    """First channel of each vector whose divergence has consistent wall conditions -> these; None on periodic boxes."""
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
    """Boundary conditions per axis, for each channel or once for all, parsed from `boundary` of `Box.harmonics`."""
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
    """Distinct coordinates of points (N, d) along each axis, up to rounding, and the indices (N, d) into them."""
    lowest, extent = x.min(0), float(np.ptp(x, axis=0).max() or 1.0)
    found = [np.unique(np.round(column / (_SAME * extent)), return_index=True, return_inverse=True)
             for column in (x - lowest).T]
    return [x[first, axis] for axis, (_, first, _) in enumerate(found)], np.stack([which for *_, which in found], -1)


def grid_of(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Axes of the full grid formed by points (N, d), and the order (N,) of the points on it (last axis fastest).

    None if they do not form a grid."""
    axes, places = levels_of(x)
    shape = tuple(map(len, axes))
    if math.prod(shape) != len(x):
        return None
    number = np.ravel_multi_index(tuple(places.T), shape)
    order = np.argsort(number, kind="stable")
    return (axes, order) if np.array_equal(number[order], np.arange(len(x))) else None
