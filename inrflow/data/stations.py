"""Stations: rows at recurring places, arranged as frames of all places, with NaN if a place has no report.

Reports that jitter around a common time step are interpolated linearly in time to their step; rows of equal time and
place are merged into their mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inrflow.data.calendar import number_to_date, numbers_to_moments, parse_units
from inrflow.data.observations import Frames, Observations, too_sparse

_ROUND = (1, 5, 6, 10, 15, 20, 30, 60, 300, 360, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)
_NEAR, _AS_ROUND = 0.3, 0.01  # largest distance, in steps, of a report from its step, and of a step from a round one
_REPORTS, _TOGETHER = 8, 0.98  # least mean number of reports of a place; least share of reports near a step
_SAME = 1e-6  # largest distance, in steps, of times that are exactly at steps
_APART = 1.5  # ratio of numbers of different times and of steps from which on reports jitter
_LONGEST_GAP = 50  # longest gap, in steps, used to estimate the step
_FAR = 2.6  # longest interval, in steps, between two reports that are interpolated
_LATE, _LONGER = 0.05, 5.0  # share of rows that are few; gap to the others, in spans of these


@dataclass(frozen=True)
class Stations:
    """Frames of P places: t (T,), x (P, d), u (T, P, C), NaN without a report.

    Attributes:
        step, offset: time step around which reports jitter (None: they do not), and their median distance from it.
        merged: number of rows that repeat the time and place of another.
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    step: float | None
    offset: float
    merged: int


def stations_of(t: np.ndarray, x: np.ndarray, u: np.ndarray, seconds: float | None = None) -> Stations | None:
    """Stations of rows t (R,), x (R, d), u (R, C) of one trajectory; None if places do not recur, or hardly ever report
    together. seconds: length of a unit of t, if known."""
    used = ~np.isnan(u).all(-1) & np.isfinite(t)
    t, x, u = t[used].astype(np.float64), x[used], u[used]
    if not len(t):
        return None
    places, place = np.unique(x, axis=0, return_inverse=True)
    place = place.reshape(-1)
    if len(t) < _REPORTS * len(places):
        return None
    order = np.lexsort((t, place))
    t, u, place = t[order], u[order], place[order]
    merged = int(((np.diff(t) == 0) & (np.diff(place) == 0)).sum())
    step, origin = _step(t, place, seconds)
    jitters = False
    if step is not None:
        number = np.round((t - origin) / step).astype(np.int64)
        off = np.abs(t - origin - step * number) / step
        jitters = bool(off.max() > _SAME and (off <= _NEAR).mean() >= _TOGETHER
                       and len(np.unique(t)) >= _APART * len(np.unique(number)))
    if not jitters:
        times, frame = np.unique(t, return_inverse=True)
        if too_sparse(len(times), len(places), len(t)):
            return None
        values = cell_means(frame.reshape(-1) * len(places) + place, u, len(times) * len(places))
        values = values.reshape(len(times), len(places), -1).astype(np.float32)
        return Stations(times, places, values, None, 0.0, merged)
    assert step is not None
    numbers = np.unique(number[off <= _NEAR])
    times = origin + step * numbers
    if too_sparse(len(times), len(places), len(t)):
        return None
    values = np.full((len(times), len(places), u.shape[1]), np.nan)
    for index in range(len(places)):
        mine = place == index
        for channel in range(u.shape[1]):
            values[:, index, channel] = _at(times, t[mine], u[mine, channel], step)
    kept = ~np.isnan(values).all((1, 2))
    return Stations(times[kept], places, values[kept].astype(np.float32), step, float(np.median(off) * step), merged)


def reported(path: Path, t: np.ndarray, x: np.ndarray, u: np.ndarray, units: str | None) -> Observations:
    """Observations in rows t (R,), x (R, d), u (R, C) of one trajectory, as frames of stations where places recur.

    Warns about reports that are interpolated to steps; units: of times, if known; path: source, for messages.
    """
    calendar = parse_units(units) if units else None
    own = stations_of(t, x, u, calendar and calendar[0])
    if own is None:
        return Observations(t, x, u)
    observations = Observations(own.t, own.x, own.u)
    if own.step is not None:
        unit = (units or "units of time").split(" since ")[0]
        warnings.warn(f"{path}: reports lie around steps of {own.step:g} {unit}, half of them within {own.offset:.3g}; "
                      "they are interpolated to these steps", stacklevel=3)
    return observations


def at_steps_of(known: Frames, steps: tuple[float, np.ndarray] | None, later: Observations) -> Observations:
    """Later observations, which jitter around the regular steps of known frames (see `regular_frames`), interpolated to
    these steps together with the known values; unchanged if they do not jitter, or if there are no such steps."""
    t, x, u = later.frames().rows()
    if known.moving or steps is None or not len(t):
        return later
    step, numbers = steps
    number = np.round((t - known.t[0]) / step).astype(np.int64)
    off = np.abs(t - known.t[0] - step * number) / step
    if off.max() <= _SAME or (off <= _NEAR).mean() < _TOGETHER:
        return later
    wanted = np.unique(number[off <= _NEAR])
    exact = dict(zip(numbers.tolist(), known.t, strict=True))
    times = np.array([exact.get(one, known.t[0] + step * one) for one in wanted.tolist()])
    places, place = np.unique(x, axis=0, return_inverse=True)
    values = np.full((len(times), len(places), u.shape[1]), np.nan, np.float32)
    for index, where in enumerate(places):
        mine, same = place.reshape(-1) == index, (known.x == where).all(-1)
        before = known.u[:, same].mean(1) if same.any() else np.full((len(known.t), u.shape[1]), np.nan)
        for channel in range(u.shape[1]):
            values[:, index, channel] = _at(times, np.concatenate([known.t, t[mine]]),
                                            np.concatenate([before[:, channel], u[mine, channel]]), step)
    return Observations(times, places, values)


def cell_means(cell: np.ndarray, u: np.ndarray, cells: int) -> np.ndarray:
    """Mean values (cells, C) of rows u (R, C) by cell index (R,), NaN in empty cells."""
    seen = np.isfinite(u)
    result = np.full((cells, u.shape[1]), np.nan)
    for channel in range(u.shape[1]):
        count = np.bincount(cell[seen[:, channel]], minlength=cells)
        total = np.bincount(cell[seen[:, channel]], u[seen[:, channel], channel], minlength=cells)
        result[count > 0, channel] = total[count > 0] / count[count > 0]
    return result


def _step(t: np.ndarray, place: np.ndarray, seconds: float | None) -> tuple[float | None, float]:
    """Time step (rounded to a calendar unit if near) around which times of all places jitter, and one of its times."""
    gaps = np.diff(t)[(place[1:] == place[:-1]) & (np.diff(t) > 0)]
    if len(gaps) < _REPORTS:
        return None, 0.0
    counts = np.round(gaps / np.median(gaps))
    near = (counts >= 1) & (counts <= _LONGEST_GAP)
    if near.mean() < 0.5:
        return None, 0.0
    step = float(gaps[near].sum() / counts[near].sum())
    if seconds is not None:
        whole = min(_ROUND, key=lambda one: abs(one / (step * seconds) - 1))
        step = whole / seconds if abs(whole / (step * seconds) - 1) < _AS_ROUND else step
    angle = 2 * np.pi * ((t - t[0]) / step % 1.0)
    phase = np.arctan2(np.sin(angle).mean(), np.cos(angle).mean()) / (2 * np.pi) * step
    origin = float(t[0] + phase)
    if seconds is not None:
        nearest = float(np.round(origin / step) * step)
        origin = nearest if abs(origin - nearest) < _NEAR / 2 * step else origin
    return step, origin


def _at(wanted: np.ndarray, t: np.ndarray, u: np.ndarray, step: float) -> np.ndarray:
    """Values of one place at increasing times: linear interpolation between close reports, else the nearest report, NaN
    if none is near."""
    seen = np.isfinite(u)
    result = np.full(len(wanted), np.nan)
    if not seen.any():
        return result
    t, first = np.unique(t[seen], return_inverse=True)
    u = np.bincount(first.reshape(-1), u[seen]) / np.bincount(first.reshape(-1))  # duplicates merged
    after = np.clip(np.searchsorted(t, wanted), 0, len(t) - 1)
    before = np.clip(after - 1, 0, len(t) - 1)
    nearest = np.where(np.abs(t[after] - wanted) < np.abs(t[before] - wanted), after, before)
    near = np.abs(t[nearest] - wanted) <= _NEAR * step
    inside = near & (t[before] <= wanted) & (wanted <= t[after]) & (t[after] - t[before] <= _FAR * step)
    result[near] = u[nearest[near]]
    result[inside] = np.interp(wanted[inside], t, u)
    return result


def far_times(t: np.ndarray, units: str | None) -> str:
    """Remark if few of the times (R,) of rows are far from all others, as in a mistaken year, else ""."""
    times = np.sort(t)
    cut = int(np.diff(times).argmax()) + 1 if len(times) > 1 else 0
    few, rest = sorted((times[:cut], times[cut:]), key=len)
    if not 0 < len(few) <= _LATE * len(t) or times[cut] - times[cut - 1] <= _LONGER * np.ptp(rest) or not np.ptp(rest):
        return ""
    return (f"{len(few)} of {len(t)} rows are far in time from all others, the first at "
            f"{number_to_date(few[0], units) or f'{few[0]:g}'}; mend or remove them if these are no times")


def daylight_saving_remark(t: np.ndarray, again: np.ndarray, units: str | None) -> str:
    """Remark if times (R,) appear to be local times with daylight saving, else "": the only missing hour, or the only
    repeated rows (`again`), lie in the night of a Sunday in March, April or September to November."""
    if parse_units(units) is None or not len(t):
        return ""
    times, twice = (np.unique(numbers_to_moments(values, units)) for values in (t, again))
    gaps, hour = np.diff(times), np.timedelta64(1, "h")
    step = np.median(gaps) if len(gaps) else hour
    skipped = gaps == step + hour
    longer = times[:-1][skipped] + step if 0 < skipped.sum() == np.sum(gaps > step) <= 2 else ()
    for which, words in ((longer, "has no row"), (twice, "comes twice")):
        nights = np.unique(np.asarray(which, "datetime64[h]"))
        sunday = (nights.astype("datetime64[D]").astype(np.int64) - 3) % 7 == 0
        month, clock = nights.astype("datetime64[M]").astype(np.int64) % 12 + 1, nights.astype(np.int64) % 24
        if step <= hour and len(nights) and (sunday & np.isin(month, (3, 4, 9, 10, 11)) & (clock <= 3)).all():
            return (f"{nights[0]}:00 {words}, as where clocks are turned: dates without a zone are taken as UTC; where "
                    "they are local, give UTC or their zone, as in 2024-03-31T03:00+02:00")
    return ""
