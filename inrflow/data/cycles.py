"""Cycles that data may follow: the declared period, and by the calendar the year and the day, and the regular step of
times."""

from __future__ import annotations

import math

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.calendar import parse_units

_YEAR, _DAY = 365.2425 * 86400.0, 86400.0  # seconds
_TURNS = 1.5  # of a cycle that the data must span
_EACH = 4.0  # frames of a turn at least
_MOST = 3  # harmonics
_OFF = 0.1  # of a step: months of a calendar are regular


def cycles_of(description: Description, times: np.ndarray) -> list[tuple[float, int]]:
    """Periods, in units of t, that times (T,) span and resolve, the longest first, each with the most harmonics that it
    may have."""
    times = np.unique(times[np.isfinite(times)])  # trajectories may share theirs
    if len(times) < 2:
        return []
    span, step = float(times.max() - times.min()), float(np.median(np.diff(times)))
    calendar = parse_units(description.time_units) if description.time_units else None
    periods = [] if calendar is None else [_YEAR / calendar[0], _DAY / calendar[0]]
    declared = description.time_period
    if declared is not None:
        periods = [declared, *(period for period in periods if abs(period / declared - 1) > 0.01)]
    return [(period, min(_MOST, math.floor(period / (2 * step) - 1e-6))) for period in sorted(periods, reverse=True)
            if span + step >= _TURNS * period and period >= _EACH * step]


def regular_frames(times: np.ndarray) -> tuple[float, np.ndarray] | None:
    """(step, numbers): the mean step of which all intervals of increasing times (T,) are about whole multiples, and the
    number of each time, from 0; None where there is none."""
    intervals = np.diff(times)
    if not len(intervals) or not (intervals > 0).all():
        return None
    typical = float(np.median(intervals))
    counts = np.round(intervals / typical)
    if (counts < 1).any() or (np.abs(intervals / typical - counts) > _OFF * np.maximum(counts, 1)).any():
        return None
    numbers = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    return float((times[-1] - times[0]) / numbers[-1]), numbers
