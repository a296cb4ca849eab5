"""Rows that each have a time and place of their own, as fields: splines in time of codes on a domain's harmonics.

u(t, x) = sum_km w_km phi_k(x) B_m(t) with cubic B-splines B_m, solved for each trajectory by least squares with a
penalty on second differences in time (Eilers & Marx 1996) and on high harmonics. Numbers of harmonics and splines and
the penalty are those that miss held-out rows least. Rows of one time have a single B_1 = 1: frames by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.interpolate import BSpline

from inrflow.domains import Domain, Harmonics
from inrflow.numerics.effort import effort

_HARMONICS, _SPLINES = (5, 9, 15, 25, 41, 64, 100, 160, 250, 400), (6, 10, 16, 26, 40)  # that are tried
_PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2)  # of squared weights, per row and spline
_PENALTIES_OF_FRAMES = (1e-18, 1e-14, 1e-12, 1e-10, *_PENALTIES)
_STEADY = 1e-2  # of the penalty of second differences: that of the weights themselves
_MOST, _ROWS_A_WEIGHT = 900, 1.2  # weights of a channel; rows for each of them, at least
_HELD_OUT, _LOOKED_AT = 0.12, 6000  # share of the rows of a trajectory, and rows of it that choose
_WORSE = 1.5  # times the least error: larger numbers are not tried
_FRAMES, _MARGIN = 2, 0.02  # times the splines; share of the time at both ends
_PLACES, _FEWEST_PLACES = 4, 32  # times the harmonics, at most; harmonics that they determine at least
_BLOCK = 4096  # rows

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # times (R,), points (R, d), values (R, C) around 0


@dataclass(frozen=True)
class RowSplines:
    """Spline weights of fields on harmonics.

    Attributes:
        count: M splines between `span`, the first and the last time.
        error: (C,) mean squares that they leave of held-out rows.
    """

    domain: Domain
    harmonics: Harmonics
    count: int
    span: tuple[float, ...]
    penalty: float = 0.0
    error: np.ndarray = field(default_factory=lambda: np.array([np.inf]))

    @property
    def missed(self) -> float:
        """Share of the variance that they leave of held-out rows."""
        return float(self.error.mean())

    def at(self, t: np.ndarray) -> np.ndarray:
        """Splines (T, M) at times (T,), constant outside the span."""
        first, last = self.span
        if self.count == 1:
            return np.ones((len(t), 1))
        knots = np.concatenate([[first] * 3, np.linspace(first, last, self.count - 2), [last] * 3])
        return BSpline.design_matrix(np.clip(t, first, last), knots, 3).toarray()

    def design(self, t: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values (R, K M) of the basis at rows."""
        return (self.harmonics.values(x)[:, :, None] * self.at(t)[:, None, :]).reshape(len(t), -1)

    def normal_equations(self, t: np.ndarray, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gram matrix (K M, K M) and right-hand sides (K M, C) of rows, divided by their number."""
        size = self.harmonics.count * self.count
        gram, sides = np.zeros((size, size)), np.zeros((size, u.shape[1]))
        for rows in (slice(start, start + _BLOCK) for start in range(0, len(t), _BLOCK)):
            table = self.design(t[rows], x[rows])
            effort.add(products=table.size * size, calls=10)
            gram += table.T @ table / len(t)
            sides += table.T @ u[rows] / len(t)
        return gram, sides

    def solve(self, gram: np.ndarray, sides: np.ndarray, penalty: float) -> np.ndarray:
        """Weights (K M, C)."""
        eigenvalues = self.harmonics.eigenvalues
        rough = 1 + eigenvalues / eigenvalues[eigenvalues > 1e-9 * eigenvalues[-1]].min(initial=np.inf)
        bends = np.diff(np.eye(self.count), 2, axis=0)
        each = np.kron(np.diag(rough), bends.T @ bends) + _STEADY * np.diag(np.repeat(rough**2, self.count))
        effort.add(products=len(gram) ** 3 / 3, calls=10)
        return np.linalg.solve(gram + penalty / self.count * each, sides)

    def fields(self, rows: Rows, t: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Fields (T, N, C) of a trajectory at times (T,) and points (N, d)."""
        weights = self.solve(*self.normal_equations(*rows), self.penalty)
        weights = weights.reshape(self.harmonics.count, self.count, -1)
        return np.einsum("nk,kmc,tm->tnc", self.harmonics.values(x), weights, self.at(t), optimize=True)

    @property
    def places(self) -> np.ndarray:
        """Points (N, d) that determine the harmonics and their products."""
        count = max(self.harmonics.count, _FEWEST_PLACES)
        points = self.domain.harmonics(count).quadrature().points
        return points[:: max(1, round(len(points) / (_PLACES * count)))]

    @property
    def times(self) -> np.ndarray:
        """Equal times (T,), close enough for what splines say between them; not at the ends, which few rows tell."""
        first, last = self.span
        margin = _MARGIN * (last - first)
        return np.linspace(first + margin, last - margin, _FRAMES * self.count)


def candidates(
    domains: Sequence[Domain], trajectories: Sequence[Rows], span: tuple[float, ...], seed: int
) -> Iterator[RowSplines]:
    """Splines between two times, with the penalty by which they miss held-out rows of trajectories least; where both
    times are the same, of single frames in place of trajectories."""
    random = np.random.default_rng([seed, 5])
    halves = []
    for rows in trajectories:
        order = random.permutation(len(rows[0]))[:_LOOKED_AT]
        cut = max(1, int(_HELD_OUT * len(order)))
        t, x, u = (part[order] for part in rows)
        halves.append(((t[cut:], x[cut:], u[cut:]), (t[:cut], x[:cut], u[:cut])))
    most = min(_MOST, min(len(kept[0]) for kept, _ in halves) / _ROWS_A_WEIGHT)
    for domain in domains:
        yield from _tried(domain, halves, span, most)


def _tried(
    domain: Domain, halves: Sequence[tuple[Rows, Rows]], span: tuple[float, ...], most: float
) -> Iterator[RowSplines]:
    """Splines of so many weights at most on harmonics of a domain, as long as more of them do not miss more."""
    least, counts = np.inf, _SPLINES if span[0] < span[-1] else (1,)
    for harmonics in _HARMONICS:
        lowest = np.inf
        for count in (count for count in counts if harmonics * count <= most):
            one = _penalised(RowSplines(domain, domain.harmonics(harmonics), count, span), halves)
            yield one
            if one.missed > _WORSE * lowest:
                break
            lowest = min(lowest, one.missed)
        if not lowest < _WORSE * least:
            return
        least = min(least, lowest)


def _penalised(splines: RowSplines, halves: Sequence[tuple[Rows, Rows]]) -> RowSplines:
    """The splines with the penalty by which they miss held-out rows least."""
    penalties = _PENALTIES if splines.count > 1 else _PENALTIES_OF_FRAMES
    errors, count = np.zeros((len(penalties), halves[0][0][2].shape[1])), 0
    for kept, (t, x, u) in halves:
        equations, table, count = splines.normal_equations(*kept), splines.design(t, x), count + len(t)
        for i, penalty in enumerate(penalties):
            errors[i] += ((table @ splines.solve(*equations, penalty) - u) ** 2).sum(0)
    best = int(errors.sum(1).argmin())
    return replace(splines, penalty=penalties[best], error=errors[best] / count)
