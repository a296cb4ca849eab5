"""Conversion between calendar times in units such as `hours since 1970-01-01`, dates and numbers. Dates are in UTC."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import numpy as np

from inrflow.errors import UserError

STANDARD_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
OF_30_DAYS = ("360_day", "360")  # the second is written by the IRI Data Library
FIXED_YEARS = {"noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366}
DEFAULT_CALENDAR = "hours since 1970-01-01"  # default units of times given as dates
_SECONDS = {"second": 1.0, "sec": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "hr": 3600.0, "h": 3600.0,
            "day": 86400.0, "d": 86400.0, "week": 604800.0, "millisecond": 1e-3, "msec": 1e-3, "ms": 1e-3,
            "microsecond": 1e-6, "us": 1e-6, "nanosecond": 1e-9, "ns": 1e-9}
_FULL = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
         "december")
_MONTHS = tuple(name[:3] for name in _FULL)
_CLOCK = r"(?:[T ]+(?P<clock>\d.*))?"
_NAMED = r"(?P<month>(?i:" + "|".join(_MONTHS) + r")[a-z]*)"
_WRITTEN = (r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})" + _CLOCK,
            r"(?P<day>\d{1,2})[- ]" + _NAMED + r"[- ](?P<year>\d{4})" + _CLOCK,
            r"(?P<year>\d{4})/(?P<month>\d{1,2})/(?P<day>\d{1,2})" + _CLOCK,
            r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d) +(?P<clock>\d+:.*)",
            _NAMED + r"\.? (?P<day>\d{1,2}),? (?P<year>\d{4})(?:,? +(?P<clock>\d.*))?")
_OF_MONTHS = (_NAMED + r"[-.,/ ]+(?P<year>\d{4})", r"(?P<year>\d{4})[-/M](?P<month>\d{1,2})",
              r"(?P<month>\d{1,2})/(?P<year>\d{4})")  # of which the first day is meant
_ZONE = re.compile(r"(?i)(\d\d:?\d\d(:\d\d(\.\d+)?)?([+-]\d\d(:?\d\d)?|\s*Z)|UTC|GMT)\s*$")
_ISO = re.compile(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2})(?::(\d{2}))?(?::(\d{2}(?:\.\d*)?))?)?")
_HALVES = re.compile(r"\b(1[0-2]|0?[1-9])((?::\d{2}){1,2}(?:\.\d+)?)\s*([AaPp])\.?[Mm]\.?$")  # 12-hour clock
_ABBREVIATED = {"utc": 0, "gmt": 0, "wet": 0, "cet": 1, "mez": 1, "cest": 2, "mesz": 2, "eet": 2, "eest": 3, "jst": 9,
                "aest": 10, "nzst": 12}  # zones of one meaning
_IN_NAME = re.compile(r"(?:[ _.(\[/-]|^)(UTC|GMT|CES?T|MES?Z|WET|EES?T|JST|AEST|NZST|utc|gmt|ces?t|mes?z|(?<=[(\[]))"
                      r"(?:([+-])(\d\d?)(?::?(\d\d))?)?[)\]]?$")
_LOCAL = re.compile(r"[(\[](local( time)?|LST|LT|[A-Z]?[ECMPAIB][SD]T)[)\]]$|_local$")
_YEARS = (1850, 2150)  # plausible years of dates written as one number
_SERIALS = 32874, 73050  # 1990 and 2100 in days since 1899-12-30
_CALLED_DATES = re.compile(r"date|dat(um)?$|fecha", re.IGNORECASE)
_DIGITS = {6: "yyyymm", 8: "yyyymmdd", 10: "yyyymmddhh", 12: "yyyymmddhhmm", 14: "yyyymmddhhmmss"}


def parse_units(units: str | None) -> tuple[float, np.datetime64] | None:
    """(seconds per unit, epoch) of units such as `hours since 1970-01-01`; None if they are no calendar units."""
    match, seconds = re.fullmatch(r"\s*\w+\s+since\s+(.+?)\s*", units or ""), seconds_of_unit(units)
    if match is None or seconds is None:
        return None
    try:
        return seconds, _parse_date(match[1].removesuffix("UTC").strip())
    except ValueError:
        return None


def seconds_of_unit(units: str | None) -> float | None:
    """Seconds per unit of `hours`, or of `hours since 1970-01-01`; None if these are no units of time."""
    match = re.fullmatch(r"\s*(\w+)(\s+since\s.*)?\s*", units or "")
    unit = match[1].lower() if match else ""
    return _SECONDS.get(unit, _SECONDS.get(unit.removesuffix("s")))


def _as_24_hour_clock(clock: re.Match[str]) -> str:
    """24-hour form of a 12-hour clock: 13:30 for 1:30 PM."""
    return f"{int(clock[1]) % 12 + 12 * (clock[3] in 'pP'):02d}{clock[2]}"


@lru_cache(1 << 16)
def _parse_date(text: str) -> np.datetime64:
    text = _HALVES.sub(_as_24_hour_clock, re.sub(r"\s*(UTC|GMT)$", "Z", text.strip()))
    written = next((match for form in _WRITTEN + _OF_MONTHS if (match := re.fullmatch(form, text))), None)
    if written is not None:  # forms of loggers and spreadsheets, day first
        month, found = written["month"], written.groupdict()
        number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
        text = f"{found['year']}-{number:02d}-{int(found.get('day', 1)):02d} {found.get('clock') or '00:00'}"
    match = re.fullmatch(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]+(.*))?", text)
    if match is not None:  # CF allows 1970-1-1 0:0:0
        clock = re.sub(r"^(\d):", r"0\1:", match[4] or "00:00:00")
        clock = re.sub(r":(\d)(?=[:.]|$)", r":0\1", clock)
        text = f"{int(match[1]):04d}-{int(match[2]):02d}-{int(match[3]):02d}T{clock}"
    ended = re.sub(r"(?<=[T ])24(?=(:?00){1,2}(\.0*)?(Z|[-+]|$))", "00", text)  # the end of a day
    try:
        moment = datetime.fromisoformat(ended.replace("Z", "+00:00")) + timedelta(days=ended != text)
    except ValueError as error:
        why = "" if "isoformat" in str(error) else f" ({error})"
        raise ValueError(f"{text!r}, which is not an ISO date{why}") from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return np.datetime64(moment, "us")


def dates_to_numbers(dates: Iterable[str], units: str) -> np.ndarray:
    """float64 numbers in `units`, and their calendar, of ISO dates; NaN for empty text. Warns if only some dates have a
    time zone.

    Raises ValueError for text that is no ISO date, or no date of the calendar.
    """
    given = list(dates)
    different = list(dict.fromkeys(given))  # stations share times
    numbers = _numbers_of_dates(different, units)
    place = {text: row for row, text in enumerate(different)}
    return numbers[[place[text] for text in given]]


def _numbers_of_dates(dates: list[str], units: str) -> np.ndarray:
    dates = ["" if text == "NaT" else text for text in dates]  # missing dates of pandas
    if (own := other_calendar(units)) is not None:
        return _model_dates(dates, *own)
    zoned = [text for text in dates if _ZONE.search(text)]
    if zoned and (others := [text for text in dates if text.strip() and not _ZONE.search(text)]):
        warnings.warn(f"some dates have a zone ({zoned[0]}) and others none ({others[0]}), which are taken as UTC",
                      stacklevel=2)
    moments = [_parse_date(text) if text.strip() else np.datetime64("NaT", "us") for text in dates]
    return moments_to_numbers(np.array(moments, "datetime64[us]"), units)


def numbers_of_dates(values: np.ndarray, units: str) -> np.ndarray | None:
    """Numbers in `units` of dates of any kind (text, datetime, date, datetime64, pandas), NaN if missing; None if some
    value is no date, or all are missing. Raises UserError for text that is no date."""
    if values.dtype.kind == "M" and parse_units(units) is not None:
        return moments_to_numbers(values, units)
    texts = texts_of_dates(values)
    try:
        return None if texts is None else dates_to_numbers(texts, units).reshape(values.shape)
    except ValueError as error:
        raise UserError(f"times hold {error}; write dates like 2020-01-31T12:00") from error


def texts_of_dates(values: np.ndarray) -> list[str] | None:
    """Text of dates of any kind (text, which is unchanged, or datetime, date, datetime64, pandas, as ISO dates), "" if
    missing; None if some value is no date, or all are missing."""
    if values.dtype.kind == "M":
        return [str(text) for text in np.where(np.isnat(values), "", np.datetime_as_string(values)).ravel()]
    texts = [_text_of_date(value) for value in values.ravel().tolist()]
    return None if None in texts or not any(texts) else [text or "" for text in texts]


def _text_of_date(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    value = value.to_timestamp() if hasattr(value, "to_timestamp") else value  # a pandas Period
    if value is None or (hasattr(value, "isoformat") and value != value):
        return ""
    if hasattr(value, "to_datetime64"):  # a pandas Timestamp (nanoseconds)
        zone = "" if value.tzinfo is None else "Z"
        return f"{np.datetime_as_string(value.to_datetime64().astype('M8[us]'))}{zone}"
    return str(value.isoformat()) if isinstance(value, date) else None


def is_cftime(value: object) -> bool:
    """Whether a value is a date of cftime."""
    return type(value).__module__.split(".")[0] == "cftime"


def compact_dates(values: np.ndarray, name: str = "") -> tuple[np.ndarray, str] | None:
    """datetime64 values of dates written as one number, such as 20240131 (possibly with a fraction of the day) or
    2024013118, and their form; None if some are no such dates. In a column whose `name` is that of dates also the
    serial numbers of spreadsheets, to the second."""
    known = np.isfinite(values)
    different, index = np.unique(values[known].astype(np.float64), return_inverse=True)
    digits = {len(f"{value:.0f}") for value in np.floor(different)} if len(different) else set()
    form = _DIGITS.get(digits.pop(), "") if len(digits) == 1 else ""
    rest = different - np.floor(different)
    if len(different) and _CALLED_DATES.search(name) and _SERIALS[0] <= different[0] and different[-1] < _SERIALS[1]:
        seconds = np.where(known, np.round(values.astype(np.float64) * 86400), np.nan).astype("timedelta64[s]")
        return np.datetime64("1899-12-30", "us") + seconds, "a spreadsheet's serial numbers, days since 1899-12-30"
    if not form or (rest.any() and form != "yyyymmdd"):
        return None
    moments = []
    for value, part in zip(np.floor(different), rest, strict=True):
        try:
            moment = datetime.strptime(f"{value:.0f}{'01' * (form == 'yyyymm')}".ljust(14, "0"), "%Y%m%d%H%M%S")
        except ValueError:
            return None
        if not _YEARS[0] <= moment.year < _YEARS[1]:
            return None
        moments.append(np.datetime64(moment, "us") + np.timedelta64(round(part * 86400e6), "us"))
    result = np.full(values.shape, np.datetime64("NaT", "us"), "datetime64[us]")
    result[known] = np.array(moments)[index.ravel()]
    return result, form


def since_1970(values: np.ndarray) -> str | None:
    """Units of whole numbers that count from 1970 (Unix times of loggers and databases); None for other numbers.

    They must lie between 1990 and 2100 and span much less than their distance from 0, unlike times of simulations.
    """
    known = values[np.isfinite(values)]
    if not len(known) or (known != np.floor(known)).any() or np.ptp(known) > known.min() / 2:
        return None
    for unit, size in (("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)):
        if 631152000 * size <= known.min() and known.max() < 4102444800 * size:
            return f"{unit} since 1970-01-01"
    return None


def moments_to_numbers(moments: np.ndarray, units: str | None) -> np.ndarray:
    """float64 numbers in `units` of datetime64 values. Raises UserError if these are no calendar units."""
    parsed = parse_units(units)
    if parsed is None:
        raise UserError(f"times are dates but time_units is {units!r}; it must read like 'hours since 1970-01-01'")
    seconds, epoch = parsed
    elapsed = (moments.astype("datetime64[us]") - epoch).astype("timedelta64[us]")
    return np.where(np.isnat(elapsed), np.nan, elapsed.astype(np.int64) / 1e6 / seconds)


def numbers_to_moments(t: np.ndarray, units: str | None) -> np.ndarray:
    """datetime64 values, to the microsecond, of numbers in `units`. Raises UserError if these are no calendar units."""
    parsed = parse_units(units)
    if parsed is None:
        raise UserError(f"times are wanted as dates but time_units is {units!r}; it must read like 'hours since "
                        "1970-01-01'")
    return parsed[1] + np.round(t * parsed[0] * 1e6).astype(np.int64).astype("timedelta64[us]")


def moments_to_texts(moments: np.ndarray, coarsest: str = "s", slack: float = 0.0) -> np.ndarray:
    """ISO dates (str objects; empty for NaT) of datetime64 values, in the coarsest unit from `coarsest` on whose
    rounding errors are at most `slack` microseconds."""
    exact, units = moments.astype("datetime64[us]"), ("m", "s", "ms", "us")
    for unit in units[units.index(coarsest):]:
        half = np.timedelta64({"m": 30_000_000, "s": 500_000, "ms": 500, "us": 0}[unit], "us")
        rounded = (exact + half).astype(f"datetime64[{unit}]")
        if (np.abs((rounded - exact).astype(np.int64))[~np.isnat(exact)] <= slack).all():
            break
    texts = np.datetime_as_string(rounded).astype(object)
    return np.where(np.isnat(exact), "", texts)


def numbers_to_texts(t: np.ndarray, units: str | None, example: str = "") -> np.ndarray:
    """Dates of numbers in `units`, to the minute or as finely as float64 resolves, in the format of `example`, by
    default ISO. Raises UserError as `numbers_to_moments`."""
    moments, (seconds, _) = numbers_to_moments(t, units), parse_units(units) or (0.0, None)
    coarsest = "s" if re.search(r"\d:\d\d:\d\d", example) else "m"
    texts = moments_to_texts(moments, coarsest, 4e6 * seconds * float(np.spacing(np.abs(t).max(initial=1.0))))
    return np.array([_written_as(example.strip(), text) for text in texts.tolist()], object) if example else texts


def zone_in(name: str) -> float | None:
    """Hours from UTC of the zone in which the name of a column ends, as `time (UTC+2)`, `Zeit [MEZ]`; None without."""
    found = _IN_NAME.search(name)
    if found is None or not found[0].strip("()[] "):
        return None
    zone, sign, hours, minutes = found.groups(default="0")
    return _ABBREVIATED.get(zone.lower(), 0) + (int(hours) + int(minutes) / 60) * (-1 if sign == "-" else 1)


def zone_offset(name: str, units: str | None) -> float:
    """Time in `units` from UTC of the zone that the name of a column ends in, else 0; 0 for other units."""
    seconds = parse_units(units)
    return 0.0 if seconds is None else 3600.0 * (zone_in(name) or 0.0) / seconds[0]


def zone_remark(name: str, path: object) -> None:
    """Warn which zone the dates of a column called so are taken in, if its name ends in one other than UTC."""
    if hours := zone_in(name):
        minutes = f":{round(60 * abs(hours)) % 60:02d}".replace(":00", "")
        warnings.warn(f"{path}: dates in {name} are taken in the zone UTC{int(hours):+d}{minutes}", stacklevel=4)
    elif hours is None and _LOCAL.search(name):
        warnings.warn(f"{path}: dates in {name} are taken as UTC, since its zone has several meanings; name the column "
                      "as in time (UTC-5)", stacklevel=4)


def is_zoned(example: str) -> bool:
    """Whether a date as text names its time zone."""
    return _ZONE.search(example) is not None


def _written_as(example: str, iso: str) -> str:
    """ISO date in UTC rewritten in the format of `example`: its order of day, month and year, its separator, no clock
    at midnight if it has none, and a time zone if it has one."""
    day_of, clock = iso.split("T")
    year, month, day = day_of.split("-")
    form = next((number for number, form in enumerate(_WRITTEN) if re.fullmatch(form, example)), None)
    name = re.search(r"[A-Za-z]+", example)
    if form in (1, 4) and name is not None:
        between = example[name.end()]
        month = (_FULL if name[0].lower() in _FULL else _MONTHS)[int(month) - 1]
        month = month.upper() if name[0].isupper() else month.title() if name[0][0].isupper() else month
        day_of = between.join((day, month, year)) if form == 1 else f"{month} {day}{',' * (',' in example)} {year}"
    elif form is not None:
        day_of = (f"{day}.{month}.{year}", "", f"{year}/{month}/{day}", f"{year}{month}{day}")[form]
    if not re.search(r"\d:\d|T\d\d", example) and not clock.strip("0:."):
        return day_of
    ending = "" if not is_zoned(example) else "Z" if example[-1] in "Zz" else "+00:00"
    return f"{day_of}{'T' if re.search(r'[0-9]T[0-9]', example) else ' '}{clock}{ending}"


def other_calendar(units: str | None) -> tuple[str, str] | None:
    """(units, calendar) of units in a model calendar, such as `days since 1970-01-01 (360_day)`; None for others."""
    match = re.fullmatch(r"(\w+ since .+?) \((\w+)\)", units or "")
    return None if match is None else (match[1], match[2])


def units_of(attributes: Mapping[str, Any]) -> str:
    """Units from the attributes of a variable; for times in a model calendar followed by its name."""
    units, calendar = str(attributes["units"]), attributes.get("calendar", "standard")
    return units if calendar in STANDARD_CALENDARS or " since " not in units else f"{units} ({calendar})"


def _model_dates(dates: list[str], units: str, calendar: str) -> np.ndarray:
    """Numbers of ISO dates in a model calendar, which may have a 30 February; NaN for empty text."""
    try:
        import cftime
    except ImportError as error:
        raise UserError(f"dates of the calendar {calendar} need the package cftime; install it with `pip install "
                        "cftime`, or give times as numbers") from error
    numbers = np.full(len(dates), np.nan)
    for row, text in enumerate(dates):
        if not text.strip():
            continue
        found = _ISO.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not an ISO date")
        *parts, seconds = found.groups(default="0")
        whole, fraction = divmod(float(seconds), 1)
        moment = cftime.datetime(*map(int, parts), int(whole), int(1e6 * fraction), calendar=calendar)
        numbers[row] = cftime.date2num(moment, units, calendar)
    return numbers


def cftimes_to_numbers(moments: np.ndarray, units: str | None) -> np.ndarray:
    """float64 numbers in `units` of dates of cftime. Raises UserError if the calendars differ."""
    own = other_calendar(units) or (units or "none", "standard")
    calendar = moments.ravel()[0].calendar
    if "since" not in own[0] or (calendar != own[1] and not {calendar, own[1]} <= set(STANDARD_CALENDARS)):
        raise UserError(f"times are dates of the calendar {calendar}, those of the data set {units or 'numbers'}; give "
                        "times of its own")
    import cftime

    return np.asarray(cftime.date2num(moments, own[0], calendar), np.float64)


def numbers_to_cftimes(t: np.ndarray, units: str) -> np.ndarray | None:
    """Dates of cftime for numbers in units of a model calendar; None if cftime is not installed, or not for these."""
    own = other_calendar(units)
    assert own is not None
    try:
        import cftime

        return np.asarray(cftime.num2date(t, *own))
    except (ImportError, ValueError, OverflowError):
        return None


def retimed(t: np.ndarray, units: str, others: str) -> np.ndarray:
    """Times in `units` converted to other units of the same calendar. Raises UserError if the calendars differ, or if
    there is none."""
    if units == others:
        return t
    ours, theirs, models = parse_units(units), parse_units(others), (other_calendar(units), other_calendar(others))
    if ours is not None and theirs is not None:
        return (t * ours[0] + (ours[1] - theirs[1]) / np.timedelta64(1, "us") / 1e6) / theirs[0]
    if models[0] is None or models[1] is None or models[0][1] != models[1][1]:
        raise UserError(f"times are in {units}, those of the data in {others}; convert them to one unit and calendar")
    try:
        import cftime
    except ImportError as error:
        raise UserError(f"times in {units} become {others} by the package cftime; install it with `pip install cftime`"
                        ) from error
    known, result = np.isfinite(t), np.full(np.shape(t), np.nan)
    result[known] = cftime.date2num(cftime.num2date(t[known], *models[0]), *models[1])
    return result


def number_to_date(t: float, units: str | None) -> str | None:
    """ISO date, to the minute, of time `t` in `units`; None if these are no calendar units, or if their calendar needs
    cftime, which is not installed."""
    if units is not None and other_calendar(units) is not None:
        dates = numbers_to_cftimes(np.asarray(t, np.float64), units)
        return None if dates is None else dates.item().isoformat(timespec="minutes")
    if parse_units(units) is None:
        return None
    return str(numbers_to_moments(np.asarray(t, np.float64), units).astype("datetime64[m]"))
