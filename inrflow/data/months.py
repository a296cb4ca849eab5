"""Times by calendar months, whose lengths differ: months since a date as days, and series of months continued."""

from __future__ import annotations

import re

import numpy as np

from inrflow.data.calendar import (
    FIXED_YEARS,
    OF_30_DAYS,
    STANDARD_CALENDARS,
    other_calendar,
    parse_units,
)

_SAME = 1e-3  # tolerance in days of the same moment in several months


def months_after(t: np.ndarray, until: float, units: str | None) -> np.ndarray | None:
    """Later times (M,), up to `until`, of a series at times t (T,) with one frame in every month, quarter or year: as
    far from the beginnings or the ends of their months, or at the same share of these. None for other series, and for
    fewer than three times.
    """
    base, calendar = other_calendar(units) or (units, "standard")
    calendar, parsed = "360_day" if calendar in OF_30_DAYS else calendar, parse_units(base)
    if parsed is None or len(t) < 3 or calendar not in (*STANDARD_CALENDARS, "360_day", *FIXED_YEARS):
        return None
    month, scale = parsed[1].astype("datetime64[M]"), parsed[0] / 86400.0
    origin = _days_before(month.astype(np.int64), calendar) + (parsed[1] - month) / np.timedelta64(1, "D")
    days = origin + scale * np.append(t, until)
    least, greatest = days.min(), days.max()
    months = np.arange(int(min(least / 30, least / 31)) - 3, int(max(greatest / 30, greatest / 31)) + 15)
    edges = _days_before(months, calendar)
    which = np.searchsorted(edges, days + _SAME, "right") - 1
    begin, length = edges[which], np.diff(edges)[which]
    days, step = days[:-1], np.diff(which[:-1])
    if step.min() < 1 or step.min() < step.max():
        return None
    later = np.arange(which[-2] + step[0], which[-1] + 1, step[0])
    begin_later, length_later = edges[later], np.diff(edges)[later]
    since = days - begin[:-1]
    for offset, size, found in ((since, 1.0, begin_later), (since - length[:-1], 1.0, begin_later + length_later),
                                (since / length[:-1], length_later, begin_later)):
        if np.ptp(offset) < _SAME / 31:
            times = (found + offset.mean() * size - origin) / scale
            return times[times <= until + 1e-6 * abs(until - t[-1])]
    return None


def months_to_days(t: np.ndarray, units: str, calendar: str) -> tuple[np.ndarray, str, str] | None:
    """Times (T,) in days, units and calendar for times in `months since` or `years since` a date; None for other units
    and calendars. Fractions are shares of the month."""
    match = re.fullmatch(r"\s*(month|year)s?\s+since\s+(.+?)\s*", units, re.IGNORECASE)
    days = "" if match is None else f"days since {match[2]}"
    parsed, calendar = parse_units(days), "360_day" if calendar in OF_30_DAYS else calendar
    if match is None or parsed is None or calendar not in (*STANDARD_CALENDARS, "360_day", *FIXED_YEARS):
        return None
    t = np.round(12 * t, 9) if match[1].lower() == "year" else t
    first, whole = parsed[1].astype("datetime64[M]").astype(np.int64), np.floor(np.nan_to_num(t)).astype(np.int64)
    begin, end = (_days_before(first + whole + more, calendar) for more in (0, 1))
    return begin - _days_before(first, calendar) + (t - whole) * (end - begin), days, calendar


def _days_before(month: np.ndarray, calendar: str) -> np.ndarray:
    """Days from January 1970 to the beginnings of months (counted from it) in a calendar."""
    if calendar == "360_day":
        return 30 * month
    if calendar in STANDARD_CALENDARS:
        return month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    year = np.datetime64("1972" if FIXED_YEARS[calendar] == 366 else "1970", "M")
    within = (year + month % 12).astype("datetime64[D]") - year.astype("datetime64[D]")
    return FIXED_YEARS[calendar] * (month // 12) + within.astype(np.int64)
