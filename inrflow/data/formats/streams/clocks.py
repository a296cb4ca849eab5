"""Detection of times in tables without a column named so: dates under any name, or columns of year, month and day."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from inrflow.data.calendar import compact_dates, dates_to_numbers, since_1970
from inrflow.data.formats.columns import all_numbers, column_numbers
from inrflow.data.formats.streams.headers import slashed

_UNITS = "seconds since 1970-01-01"
HOURS, _HOUR = ("hour", "hr", "hh"), re.compile(r"\s*([01]?\d|2[0-4])\s*")
_CLOCK = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*([ap]\.?m\.?)?\s*", re.IGNORECASE)
_PARTS = (("year", "yyyy", "yr"), ("month", "mon"), ("day", "dd"), HOURS, ("minute", "min"),
          ("second", "sec"))
_DAY_OF_YEAR = ("doy", "dayofyear", "day_of_year")
_CALLED = re.compile(r"date|dat(um)?$|time|zeit|uhr|stamp|fecha|aaaa|yyyy|jjjj|mess_datum|epoch|unix|^ts$",
                     re.IGNORECASE)
_UNIVERSAL = re.compile(r"(^|[ _.(-])(utc|gmt)", re.IGNORECASE)
_SERIAL = re.compile(r"\s*\d{5}(\.0*)?\s*")
_LONG = 10  # digits of dates with an hour, unlikely for other numbers


def dates_and_clocks(cells: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Names of the columns of dates, and of clock times, in the first rows of a table; where there are several of both,
    as in local and in universal time, those in universal time, if one of each is called so."""
    clocks = [name for name, own in cells.items() if all(map(_CLOCK.fullmatch, own)) or (
        name.lower() in HOURS and all(map(_HOUR.fullmatch, own)))]
    dates = [name for name, own in cells.items() if _are_dates(name, [cell.strip() for cell in own])]
    universal = [[name for name in names if _UNIVERSAL.search(name)] for names in (dates, clocks)]
    if min(len(dates), len(clocks)) > 1 and [len(names) for names in universal] == [1, 1]:
        return universal[0], universal[1]
    return dates, clocks


def _are_dates(name: str, cells: Sequence[str]) -> bool:
    values = np.array(cells, object)
    if not all(cells):
        return False
    if all_numbers(values):
        numbers, called = column_numbers(values, name, Path(), 0), _CALLED.search(name) is not None
        long = called or all(len(cell) >= _LONG for cell in cells)
        return (long and compact_dates(numbers, name) is not None) or (called and since_1970(numbers) is not None)
    try:
        return slashed(cells) or bool(np.isfinite(dates_to_numbers(cells, _UNITS)).all())
    except ValueError:
        return False


def with_clocks(name: str, days: np.ndarray, clocks: np.ndarray) -> np.ndarray:
    """Dates with the times of clocks, as text, from two columns (R,) of text; serial numbers of days of spreadsheets,
    in a column with the `name` of dates, become dates."""
    numbers = column_numbers(days, name, Path(), 0) if all(map(_SERIAL.fullmatch, days.tolist())) else None
    if numbers is not None and (found := compact_dates(numbers, name)) is not None:
        days = np.array([moment[:10] for moment in np.datetime_as_string(found[0]).tolist()], object)
    return days + " " + clocks + (":00" if _HOUR.fullmatch(clocks[0]) else "")


def parts_of_dates(names: Sequence[str]) -> list[str]:
    """Columns of year, month, day and so on, or of year and day of the year; empty if one of these is missing."""
    called = {name.lower().strip(): name for name in reversed(names)}
    found = [next((called[word] for word in words if word in called), None) for words in _PARTS]
    day = next((called[word] for word in _DAY_OF_YEAR if word in called), None)
    known = [name for name in found if name is not None]
    if found[0] is not None and day is not None:
        return [found[0], day, *(name for name in found[3:] if name is not None)]
    return known if None not in found[:3] and known == found[:len(known)] else []


def dates_of_parts(block: Mapping[str, np.ndarray], parts: Sequence[str], path: Path) -> np.ndarray:
    """Dates (R,) from columns of their parts, of which the last may have fractions; NaT if a part is missing."""
    numbers = [column_numbers(block[name], name, path, 0) for name in parts]
    by_day = parts[1].lower().strip() in _DAY_OF_YEAR
    if by_day:
        numbers.insert(1, np.ones_like(numbers[0]))
    known = np.isfinite(numbers).all(0)
    year, month, day, *clock = (np.where(known, one, 1.0) for one in numbers)
    months = (year - 1970).astype(np.int64) * 12 + month.astype(np.int64) - 1
    seconds = (day - 1) * 86400.0 + sum(
        (value * size for value, size in zip(clock, (3600.0, 60.0, 1.0), strict=False)), np.zeros(len(day)))
    spans = np.round(seconds * 1e6).astype("timedelta64[us]")
    moments = months.astype("datetime64[M]").astype("datetime64[us]") + spans
    return np.where(known, moments, np.datetime64("NaT"))
