"""Frames at fixed places from rows (observations with a time and place each) or from moving points: values of splines
in time of the rows, or of harmonics fitted to each frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.data.description import Description
from inrflow.data.source import TrajectorySource
from inrflow.domains import Domain, Region, domains_of
from inrflow.encoding.residual.field import rows_of as observations_of
from inrflow.encoding.residual.places import REGION
from inrflow.encoding.row_splines import Rows, RowSplines, candidates
from inrflow.errors import UserError, first_line

_TRIED, _FRAMES = 12, 48  # trajectories in the comparison (four may all be smooth); their frames where points move
_POINTS = 3000  # most points that outline a domain
_ENOUGH = 0.75  # least rows of a frame for each harmonic
_SMOOTH = 0.05  # largest residual variance share of splines in time for moving points, as they smooth rough fields


def frames_at_places(source: TrajectorySource, train: Sequence[int] | np.ndarray, about: Description, seed: int,
                     part: AbstractContextManager[object], seconds: float, poor: float, say: Callable[[str], None]
                     ) -> tuple[CompletedSource, np.ndarray, Domain] | None:
    """Source of frames at fixed places, by splines of its rows or harmonics of its frames, with mean squared errors
    (C,) of held-out rows, and the domain that the rows outline. None where the errors exceed a `poor` share of the
    variance, and for rows in general regions, where a trunk network fitted to all rows interpolates better than such
    frames.

    part: budget within which the search may be cut short; seconds: of effort, for all of it.
    """
    bins, times = source.time_bins, source.times
    if about.geometry == "sphere" and np.ptp(source.file.box, axis=0).max() <= REGION:
        say("moving points: no frames at fixed places, since harmonics of a region of a sphere are unknown")
        return None
    some = [rows_of(source, int(i)) for i in train[:: max(1, len(train) // _TRIED)][:_TRIED]]
    margin = 0.0 if bins is None else bins.width / 2
    span = float(np.nanmin(times)) - margin, float(np.nanmax(times)) + margin
    tried = [] if bins is not None else [(_single(some), (0.0, 0.0), 0)]
    splines = None
    try:
        with part:
            domains = domains_of(_outlining(np.concatenate([x for _, x, _ in some])), about.period, about.geometry)
            smooth = [place for place in domains if not isinstance(place, Region)]  # whose harmonics are resolved well
            for rows, between, solved in [*tried, (some, span, len(source))]:
                for one in candidates(smooth if solved else domains, rows, between, seed, seconds, solved):
                    if bins is not None or one.count == 1 or one.relative_error < _SMOOTH:
                        splines = one if splines is None or one.relative_error < splines.relative_error else splines
    except (UserError, ValueError, np.linalg.LinAlgError) as reason:
        if splines is None:
            say(f"moving points: no frames at fixed places ({first_line(reason)})")
            return None
    if splines is None:
        say("moving points: no frames at fixed places (in a general region, too few points, or no time)")
        return None
    how = "rows" if bins is not None else "moving points"
    how += ": each frame" if splines.count == 1 else f": {splines.count} splines in time"
    say(f"{how} on {splines.harmonics.count} harmonics, error {splines.relative_error:.2e} of "
        f"the variance of held-out rows{'' if splines.relative_error < poor else ': not used'}")
    if not splines.relative_error < poor:
        return None
    t, x, normal = None if bins is None else splines.times, splines.places, source.normalisation
    every = (rows_of(source, i) for i in range(len(source)))
    table = splines.harmonics.values(x)
    fields = (splines.fields(rows, t, table) if t is not None else _by_frames(splines, rows, times[i].numpy(), table)
              for i, rows in enumerate(every))
    whole = CompletedSource(source, x, [normal.invert(torch.as_tensor(one)).numpy() for one in fields], t)
    return whole, splines.error, splines.domain


def _single(some: Sequence[Rows]) -> list[Rows]:
    """Single frames of some trajectories, at most about `_FRAMES`."""
    every = [frame for rows in some for frame in _frames_of(rows)]
    return every[:: max(1, len(every) // _FRAMES)]


def _frames_of(rows: Rows) -> Iterator[Rows]:
    """Groups of rows of the same time, of rows sorted by time."""
    cuts = np.flatnonzero(np.diff(rows[0])) + 1
    yield from zip(*(np.split(part, cuts) for part in rows), strict=True)  # type: ignore[misc]


def _by_frames(splines: RowSplines, rows: Rows, times: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Fields (T, N, C) at times (T,) and at points where harmonics have values (N, K): by splines of all rows, or by
    harmonics fitted to the rows of each time, NaN where these are too few."""
    result = np.full((len(times), len(table), rows[2].shape[1]), np.nan)
    if splines.count > 1:
        known = np.isin(times, rows[0])
        result[known] = splines.fields(rows, times[known], table)
        return result
    for frame in _frames_of(rows):
        few = np.isfinite(frame[2]).sum(0) < _ENOUGH * splines.harmonics.count
        result[times == frame[0][0]] = np.where(few, np.nan, splines.fields(frame, frame[0][:1], table))
    return result


def _outlining(points: np.ndarray) -> np.ndarray:
    """At most `_POINTS` of points (R, d), including the outermost along each axis."""
    if len(points) <= _POINTS:
        return points
    ends = np.concatenate([points.argmin(0), points.argmax(0)])
    return points[np.union1d(np.random.default_rng(0).choice(len(points), _POINTS, replace=False), ends)]


def rows_of(source: TrajectorySource, trajectory: int) -> Rows:
    """Rows (t, x, u) of a trajectory, with normalised values."""
    batch = source.batch([trajectory])
    (rows,) = observations_of(batch.t, batch.x, batch.u, batch.delay)
    return rows.t, rows.x, rows.u
