"""Penalised regression splines in time of codes on a domain's harmonics, for rows with a time and place each.

u(t, x) = sum_km w_km phi_k(x) B_m(t) with quintic B-splines B_m, solved for each trajectory by least squares with a
penalty on second differences in time (Eilers & Marx 1996) and on high harmonics. Numbers of harmonics and splines and
the penalty are chosen by the error of held-out rows. For rows of one time a single B_1 = 1 gives independent frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from inrflow.domains import Domain, Harmonics
from inrflow.numerics.effort import effort, seconds_of

_ORDER = 5
_HARMONICS = (5, 9, 15, 25, 41, 64, 100, 160, 250, 400)  # numbers of the search
_SPLINES = (6, 8, 11, 16, 23, 32, 45)
_PENALTIES = 10.0 ** -np.arange(2, 21, 2)  # on squared weights, per row and spline
_FIRST = 3  # index of the first penalty tried; then its neighbours, while the error decreases
_STEADY = 1e-2  # penalty of the weights themselves, relative to that of second differences
_WEIGHTS_A_ROW, _SOLVED = 1.5, 60  # most weights for each training row; solves of one choice
_FEWEST, _MOST = 300, 3000  # bounds on the number of weights of a channel
_HELD_OUT, _LOOKED_AT = 0.12, 6000  # share of held-out rows of a trajectory; most rows of it in the choice
_GAIN, _PATIENCE = 0.9, 2  # ratio of errors that counts as a gain; failures that end a search
_FRAMES, _MARGIN = 2, 0.02  # times, over the number of splines; share of the time span at both ends
_PLACES, _FEWEST_PLACES = 4, 32  # most points over harmonics; harmonics that points determine at least
_BLOCK = 4096  # rows

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # times (R,), points (R, d), centred values (R, C), NaN where unknown


@dataclass(frozen=True)
class RowSplines:
    """Spline weights of fields on harmonics.

    Attributes:
        count: number M of splines between `span`, the first and the last time.
        error: (C,) mean squared errors of held-out rows.
    """

    domain: Domain
    harmonics: Harmonics
    count: int
    span: tuple[float, ...]
    penalty: float = 0.0
    error: np.ndarray = field(default_factory=lambda: np.array([np.inf]))

    @property
    def relative_error(self) -> float:
        """Mean squared error of held-out rows, as a share of the variance."""
        return float(self.error.mean())

    def at(self, t: np.ndarray) -> np.ndarray:
        """Splines (T, M) at times (T,), constant outside the span."""
        first, last = self.span
        if self.count == 1:
            return np.ones((len(t), 1))
        return BSpline.design_matrix(np.clip(t, first, last), self._knots, _ORDER).toarray()

    @property
    def _knots(self) -> np.ndarray:
        first, last = self.span
        return np.concatenate([[first] * _ORDER, np.linspace(first, last, self.count - _ORDER + 1), [last] * _ORDER])

    def design(self, t: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Design matrix (R, M K) of rows."""
        return (self.at(t)[:, :, None] * self.harmonics.values(x)[:, None, :]).reshape(len(t), -1)

    def normal_equations(self, t: np.ndarray, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gram matrix (M K, M K) and right-hand sides (M K, C) of rows, divided by their number."""
        count, size, width = self.count, self.harmonics.count, min(_ORDER + 1, self.count)
        gram, sides = np.zeros((count, size, count, size)), np.zeros((count, size, u.shape[1]))
        interval = np.zeros(len(t), dtype=int)  # knot interval of a row, in which `width` splines are not zero
        if count > 1:
            interval = np.clip(np.searchsorted(self._knots, t, side="right") - _ORDER - 1, 0, count - width)
        for first in np.unique(interval):
            own = np.flatnonzero(interval == first)
            for rows in (own[start : start + _BLOCK] for start in range(0, len(own), _BLOCK)):
                splines, values = self.at(t[rows])[:, first : first + width], self.harmonics.values(x[rows])
                table = (splines[:, :, None] * values[:, None, :]).reshape(len(rows), -1)
                effort.add(products=table.size * table.shape[1], calls=10)
                at = slice(first, first + width)
                gram[at, :, at] += (table.T @ table).reshape(width, size, width, size) / len(t)
                sides[at] += (table.T @ u[rows]).reshape(width, size, -1) / len(t)
        return gram.reshape(count * size, -1), sides.reshape(count * size, -1)

    def solve(self, gram: np.ndarray, sides: np.ndarray, penalty: float) -> np.ndarray:
        """Penalised least squares weights (M K, C) of normal equations."""
        eigenvalues = self.harmonics.eigenvalues
        rough = 1 + eigenvalues / eigenvalues[eigenvalues > 1e-9 * eigenvalues[-1]].min(initial=np.inf)
        bends = np.diff(np.eye(self.count), 2, axis=0)
        each = np.kron(bends.T @ bends, np.diag(rough**2)) + _STEADY * np.diag(np.tile(rough**4, self.count))
        effort.add(products=len(gram) ** 3 / 3, calls=10)
        matrix = gram + penalty / self.count * each
        try:
            return cho_solve(cho_factor(matrix, check_finite=False), sides, check_finite=False)
        except LinAlgError:  # not definite, by rounding
            return np.linalg.lstsq(matrix, sides, rcond=None)[0]

    def fields(self, rows: Rows, t: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Fields (T, N, C) of a trajectory at times (T,) and points at which harmonics have values (N, K); NaN of
        channels without rows."""
        result = np.full((len(t), len(table), rows[2].shape[1]), np.nan)
        for channels, own in parted(rows):
            weights = self.solve(*self.normal_equations(*own), self.penalty)
            weights = weights.reshape(self.count, self.harmonics.count, -1)
            result[..., channels] = np.einsum("nk,mkc,tm->tnc", table, weights, self.at(t), optimize=True)
        return result

    @property
    def places(self) -> np.ndarray:
        """Points (N, d) that determine the harmonics and their products."""
        count = max(self.harmonics.count, _FEWEST_PLACES)
        points = self.domain.harmonics(count).quadrature().points
        return points[:: max(1, round(len(points) / (_PLACES * count)))]

    @property
    def times(self) -> np.ndarray:
        """Equidistant times (T,) that resolve the splines, except near the ends, where rows are few."""
        first, last = self.span
        margin = _MARGIN * (last - first)
        return np.linspace(first + margin, last - margin, _FRAMES * self.count)


def candidates(
    domains: Sequence[Domain], trajectories: Sequence[Rows], span: tuple[float, ...], seed: int,
    seconds: float = 10.0, solved: int = 1,
) -> Iterator[RowSplines]:
    """Splines over a time span, each with the penalty of least held-out error over trajectories; where both ends of the
    span are equal, `trajectories` are single frames. The number of weights is bounded by the `seconds` of effort of the
    choice and of `solved` solves thereafter."""
    random = np.random.default_rng([seed, 5])
    halves = []
    for rows in trajectories:
        order = random.permutation(len(rows[0]))[:_LOOKED_AT]
        cut = max(1, int(_HELD_OUT * len(order)))
        t, x, u = (part[order] for part in rows)
        halves.append(((t[cut:], x[cut:], u[cut:]), (t[:cut], x[:cut], u[:cut])))
    cubed = seconds / (_SOLVED + solved) / seconds_of(1 / 3)
    most = min(np.clip(cubed ** (1 / 3), _FEWEST, _MOST), _WEIGHTS_A_ROW * max(len(kept[0]) for kept, _ in halves))
    times = max(len(np.unique(kept[0])) for kept, _ in halves)
    for domain in domains:
        yield from _tried(domain, halves, span, most, times + 1)


def _tried(
    domain: Domain, halves: Sequence[tuple[Rows, Rows]], span: tuple[float, ...], most: float, splines: int
) -> Iterator[RowSplines]:
    """Splines of at most `most` weights on harmonics of a domain: harmonics and splines are added in turn, as long as
    the held-out error decreases."""
    numbers = _HARMONICS, [count for count in _SPLINES if count <= splines] or _SPLINES[:1]
    numbers = numbers if span[0] < span[-1] else (_HARMONICS, [1])
    at, found, first = [0, 0], dict[tuple[int, ...], float](), _FIRST
    ended = 0
    while ended < 2:
        for axis in (0, 1):
            least, trial, failed = found.get(tuple(at), np.inf), list(at), 0
            while failed < _PATIENCE and trial[axis] < len(numbers[axis]):
                harmonics, count = (values[i] for values, i in zip(numbers, trial, strict=True))
                if harmonics * count > most:
                    break
                if tuple(trial) not in found:
                    one, first = _penalised(RowSplines(domain, domain.harmonics(harmonics), count, span), halves, first)
                    found[tuple(trial)] = one.relative_error
                    yield one
                failed = 0 if found[tuple(trial)] < _GAIN * least else failed + 1
                if found[tuple(trial)] < least:
                    least, at = found[tuple(trial)], list(trial)
                    ended = 0
                trial[axis] += 1
            ended += 1


def _penalised(splines: RowSplines, halves: Sequence[tuple[Rows, Rows]], first: int) -> tuple[RowSplines, int]:
    """The splines with the penalty of least held-out error, and its index; the search begins at index `first`."""
    channels, parts = halves[0][0][2].shape[1], []
    count, known = np.zeros(channels), dict[int, np.ndarray]()
    for kept, (t, x, u) in halves:
        table = splines.design(t, x)
        for c, own in parted(kept):
            parts.append((c, splines.normal_equations(*own), table, u[:, c]))
            count[c] += np.isfinite(u[:, c]).sum(0)

    def error(i: int) -> float:
        if i not in known:
            known[i] = np.zeros(channels)
            for c, equations, table, u in parts:
                known[i][c] += np.nansum((table @ splines.solve(*equations, _PENALTIES[i]) - u) ** 2, 0)
            known[i] /= np.maximum(count, 1)
        return float(known[i].sum())

    best, before = first, -1
    while best != before:
        near = {max(best - 1, 0), best, min(best + 1, len(_PENALTIES) - 1)}
        best, before = min(near, key=lambda i: (error(i), i)), best
    return replace(splines, penalty=float(_PENALTIES[best]), error=known[best]), best


def parted(rows: Rows) -> Iterator[tuple[np.ndarray, Rows]]:
    """Groups of channels that are known in the same rows, and these rows with their values alone."""
    t, x, u = rows
    seen = np.isfinite(u)
    if len(u) and seen.all():
        yield np.arange(u.shape[1]), rows
        return
    _, label = np.unique(seen, axis=1, return_inverse=True)
    for value in np.unique(label):
        channels = np.flatnonzero(label.ravel() == value)
        if len(own := np.flatnonzero(seen[:, channels[0]])):
            yield channels, (t[own], x[own], u[own[:, None], channels])
