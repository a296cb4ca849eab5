"""Extent of the training data in space and time: warnings for queries outside, the longest lead time, and errors for
numbers out of proportion."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.linalg import LinAlgError

from inrflow.data.description import Description
from inrflow.errors import UserError, first_line

if TYPE_CHECKING:
    from inrflow.domains import Domain

DIVERGED = 10.0  # ratio of the distance from the mean of the training data to the largest in training or observations
_GAP = 2.5  # distances to a nearest neighbour, the longest of 20, that gaps between random points may span
_PERIODS, _FARTHEST = 1.0, 1e30  # periods beyond the training data that suggest another unit; largest coordinate
_PLACES = 1000  # points that represent those of the training data
_MARGIN = 1e-6  # of the width: tolerance for rounded coordinates and times
_DIGITS = 5  # of stored places


def warn_diverged(time: float, trajectory: str = "the forecast") -> None:
    """Warn that a forecast has diverged from a time on; no warning if that is infinite."""
    if math.isfinite(time):
        warnings.warn(f"{trajectory} diverges: from t={time:.6g} on, values are not finite or {DIVERGED:g} times as "
                      "large as any observed one; do not use them", stacklevel=4)


@contextmanager
def arithmetic_as_user_error() -> Iterator[None]:
    """Raise UserError for matrices that cannot be factored and numbers that overflow, in queries: of models from
    damaged files with valid numbers, or with observations out of all proportion."""
    try:
        yield
    except (ArithmeticError, LinAlgError, np.linalg.LinAlgError) as error:
        raise UserError(f"a computation with the model and the observations failed ({first_line(error)}); check the "
                        "units of the observations; if these are right, the file of the model is damaged: restore it "
                        "or train again") from error


@dataclass(frozen=True)
class Seen:
    """Neighbourhood of the training data's points: all within `radius` of one of `places` (M, d)."""

    places: np.ndarray
    radius: float

    @classmethod
    def of(cls, points: np.ndarray) -> Seen:
        """The neighbourhood of points (N, d), with a radius that covers gaps between random points."""
        from scipy.spatial import cKDTree  # slow to import

        points = np.unique(points[np.isfinite(points).all(1)], axis=0)
        kept = points[np.random.default_rng(0).permutation(len(points))[:_PLACES]]
        near, _ = cKDTree(kept).query(points)
        spacing = cKDTree(points).query(points, 2)[0][:, 1] if len(points) > 1 else np.zeros(1)
        return cls(kept, float(near.max() + _GAP * np.quantile(spacing, 0.95)) + 10.0**-_DIGITS)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Seen:
        """The inverse of `state`."""
        return cls(np.asarray(state["places"], np.float64), float(state["radius"]))

    def state(self) -> dict[str, Any]:
        """State as plain values."""
        return {"places": np.round(self.places, _DIGITS).tolist(), "radius": self.radius}

    def away(self, x: np.ndarray) -> np.ndarray:
        """Which of the points (N, d) lie outside the neighbourhood."""
        return ~np.isfinite(self._tree.query(x, distance_upper_bound=self.radius)[0])

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.places)


@dataclass(frozen=True)
class Extent:
    """The training data's extent in space and time.

    Attributes:
        description: of the data.
        box: lowest and highest coordinates (2, d).
        horizon: time from the first to the last frame.
        reach: the longest lead time of queries, in the data's units.
        domain: of the field, where it is known.
        seen: neighbourhood of the data on a sphere, where it is known.
        series: whether the training data are one trajectory, rather than several from their starts.
    """

    description: Description
    box: np.ndarray
    horizon: float
    reach: float = math.inf
    domain: Domain | None = None
    seen: Seen | None = None
    series: bool = False

    def outside(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Which of the points (..., d) lie outside the domain, away from the data on a sphere, or outside the box along
        coordinates that are not periodic."""
        points = np.asarray(x)
        if self.domain is not None or self.description.geometry == "sphere":
            flat = points.reshape(-1, points.shape[-1]).astype(np.float64)
            known = np.isfinite(flat).all(1)
            beyond = np.zeros(len(flat), bool)
            if self.domain is not None:
                beyond[known] = ~self.domain.inside(flat[known])
            if self.seen is not None:
                beyond[known] |= self.seen.away(flat[known])
            return beyond.reshape(points.shape[:-1])
        margin = _MARGIN * (self.box[1] - self.box[0] + 1e-300)
        beyond = (points < self.box[0] - margin) | (points > self.box[1] + margin)
        if self.description.period is not None:
            beyond &= np.asarray(self.description.period) == 0
        return beyond.any(-1)

    def check_places(self, x: np.ndarray | Tensor) -> None:
        """Raise UserError for points (..., d) too far away for any computation; warn where some lie more than a period
        beyond the box, as points in another unit do."""
        points = np.asarray(x).reshape(-1, len(self.description.coordinates))
        low, high = np.nanmin(points, 0, initial=np.inf), np.nanmax(points, 0, initial=-np.inf)
        farthest = float(np.maximum(-low, high).max())
        if farthest > _FARTHEST:
            raise UserError(f"coordinates reach {farthest:.4g}; give points with coordinates up to {_FARTHEST:g}")
        for axis, period in enumerate(self.description.period or ()):
            least, most = self.box[:, axis]
            if period and (low[axis] < least - _PERIODS * period or high[axis] > most + _PERIODS * period):
                warnings.warn(f"{self.description.coordinates[axis]} reaches from {low[axis]:.6g} to {high[axis]:.6g}, "
                              f"more than a period ({period:.6g}) beyond the training data ({least:.6g} to "
                              f"{most:.6g}), and is taken modulo the period: check its unit", stacklevel=3)

    def width(self, axis: int) -> float:
        """Width of the box along a coordinate."""
        return float(self.box[1, axis] - self.box[0, axis]) or 1.0

    def beyond(self, t: np.ndarray, first: float, last: float) -> np.ndarray:
        """Which of the times t lie before the first observation or, after it, beyond the time span of training; for a
        single series, after the last observation."""
        margin = _MARGIN * self.horizon
        return (t < first - margin) | (t > (last if self.series else first) + self.horizon + margin)

    def extrapolated(self, t: np.ndarray, x: np.ndarray | Tensor, first: float, last: float) -> np.ndarray:
        """Which of the points x (R, d) at times t (R,) are `outside` or `beyond`, as 0 or 1."""
        return (self.outside(x) | self.beyond(t, first, last)).astype(np.int8)

    def require_reach(self, t: np.ndarray, first: float, last: float) -> None:
        """Raise UserError where times t lie farther than `reach` from all observations, from `first` to `last`."""
        lead = np.maximum(t - last, first - t)
        far = lead > self.reach
        if not far.any():
            return
        worst, units = int(lead.argmax()), f" {self.description.duration_units}".rstrip()
        seen = f"t={first:.6g}" + (f" to {last:.6g}" if last > first else "")
        raise UserError(
            f"{int(far.sum())} of {t.size} times lie too far from the observations ({seen}), the "
            f"farthest, t={float(t[worst]):.6g}, by {lead[worst] / self.horizon:.3g} horizons; the time span of "
            f"training, the horizon, is {self.horizon:.4g}{units}, and a forecast reaches {self.reach:.4g}{units} "
            f"({self.reach / self.horizon:.4g} horizons): ask for earlier times, or check their unit"
        )

    def require_gaps(self, t: np.ndarray) -> None:
        """Raise UserError where two observations at successive times t have more than `reach` between them."""
        gaps = np.diff(t)
        if not (gaps > self.reach).any():
            return
        widest = int(gaps.argmax())
        raise UserError(
            f"the observations at t={t[widest]:.6g} and t={t[widest + 1]:.6g} lie {gaps[widest] / self.horizon:.3g} "
            f"horizons apart; the time span of training, the horizon, is {self.horizon:.4g}, and forecasts reach "
            f"{self.reach / self.horizon:.4g} horizons: assimilate them separately, or check the unit of their times"
        )

    def warn_outside(self, outside: int, points: int) -> None:
        """Warn, once, where any of the queried points lie `outside`."""
        if self.seen is not None:
            where = "away from all points of the training data on the sphere: values there are extrapolated"
        elif self.domain is not None:
            where = (f"outside the {self.domain.kind} of the model (off its mesh, in a hole or behind a wall): values "
                     "there are those of the nearest place, or meaningless")
        else:
            ends = zip(self.description.coordinates, *self.box, strict=True)
            box = ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, low, high in ends)
            where = f"outside the box of the training data ({box}): values there are extrapolated"
        if outside:
            warnings.warn(f"{100 * outside / points:.3g} % of the points lie {where}", stacklevel=3)

    def warn_beyond(self, beyond: int, points: int) -> None:
        """Warn, once, where any of the queried points lie `beyond` the time span of training."""
        if not beyond:
            return
        units = f" {self.description.duration_units}".rstrip()
        warnings.warn(
            f"{100 * beyond / points:.3g} % of the points lie before the first observation or more than "
            f"{self.horizon:.4g}{units} ahead, the time span of training: values there are extrapolated",
            stacklevel=3,
        )


def warn_far(channels: Sequence[str], whose: str = "", stacklevel: int = 5) -> None:
    """Warn of channels whose values, observed or of a file ("FILE: "), are far beyond all of the training data."""
    if channels:
        warnings.warn(f"{whose}half of the values or more lie at least twice as far from the mean of the training data "
                      f"as any of these ({', '.join(channels)}): check their unit", stacklevel=stacklevel)
