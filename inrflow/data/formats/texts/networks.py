"""Text tables of observation networks: NDBC buoys, GHCN-daily stations, ODV spreadsheets, InfluxDB exports.

Each file is read completely, as a table with a row for each time and station, and a column for each quantity.
"""

from __future__ import annotations

import csv
import gzip
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from inrflow.data.formats.columns import HEIGHTS, IN_FILES, TIMES, Columns
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES
from inrflow.data.formats.table_format import ColumnsInMemory
from inrflow.data.formats.texts.csv_table import CsvFormat
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_MOST = 4_000_000  # largest number of values of a file, which are kept in memory
Record = tuple[tuple[str, ...], str, str]  # labels of a row, quantity, value


def _held(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], units: Mapping[str, str],
          meant: Mapping[tuple[str, ...], str]) -> ColumnsInMemory:
    """Table of text without empty columns, which are left out with a warning."""
    if not rows or len(set(names)) < len(names):
        raise UserError(f"{path} has the columns {', '.join(names)} and {len(rows)} rows; expected different names and "
                        "a row for each observation")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    table = {name.replace(*IN_FILES): np.array(cells, object) for name, cells in columns}
    if empty := [name for name, cells in table.items() if not any(cells)]:
        warnings.warn(f"{path}: {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} no values and "
                      f"{'is' if len(empty) == 1 else 'are'} left out", stacklevel=2)
    return ColumnsInMemory({name: cells for name, cells in table.items() if name not in empty}, units, meant)


class NetworkFormat(CsvFormat):
    """Text format recognised by its `signature`, possibly compressed by gzip; needs `columns_in`."""

    suffixes = answers = ()

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        with damage_as_user_error(path):
            opened = gzip.open if path.open("rb").read(2) == b"\x1f\x8b" else open
            with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
                return self.columns_in(path, file)

    @abstractmethod
    def columns_in(self, path: Path, lines: Iterable[str]) -> ColumnsInMemory:
        """Table in the lines of a file."""


def _gathered(path: Path, labels: Sequence[str], records: Iterable[Record],
              units: Mapping[str, str]) -> ColumnsInMemory:
    """Table with a row for each distinct `labels` of records, and a column for each quantity."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    names: dict[str, None] = {}
    for count, (key, name, value) in enumerate(records):
        rows.setdefault(key, {})[name] = value
        names[name] = None
        if count > _MOST:
            raise UserError(f"{path} holds more than {_MOST} values; give a part, as of some stations, or write it as "
                            "Parquet with a column for each quantity")
    table = [(*key, *(values.get(name, "") for name in names)) for key, values in rows.items()]
    return _held(path, [*labels, *names], table, {name: units[name] for name in names if name in units},
                 {TIMES: "time"})


class NdbcFormat(NetworkFormat):
    """NDBC buoy data: year, month, day and hour in separate columns; MM or nines for missing values."""

    name = "NDBC"
    about = "NDBC's meteorological text"
    signature = re.compile(rb"#?(YY|YYYY)\s+MM\s+DD\s+hh\s")
    _missing: ClassVar = {"999": ("WDIR", "WD", "MWD", "ATMP", "WTMP", "DEWP", "PTDY"), "9999": ("PRES", "BAR")}

    def columns_in(self, path: Path, lines: Iterable[str]) -> ColumnsInMemory:
        rows = [line.split() for line in lines if line.strip()]
        names, below = [name.lstrip("#") for name in rows[0]], rows[1:]
        units = below.pop(0) if below and below[0][0].startswith("#") else []
        clock = next(index for index, name in enumerate([*names, ""]) if name not in ("YY", "YYYY", "MM", "DD", "hh",
                                                                                       "mm"))
        nines = {name: nine for nine, known in self._missing.items() for name in known}
        table = []
        for number, row in enumerate(below, 2 + bool(units)):
            if len(row) != len(names):
                raise UserError(f"{path} has {len(row)} cells in line {number} and {len(names)} names; mend it")
            year, month, day, *time = row[:clock]
            year = f"19{year}" if len(year) == 2 else year  # files before 1999
            values = ["" if cell == "MM" or re.fullmatch(rf"{nines.get(name, '99')}(\.0*)?", cell) else cell
                      for name, cell in zip(names[clock:], row[clock:], strict=True)]
            table.append([f"{year}-{month:0>2}-{day:0>2} {':'.join([*time, '00'][:2])}", *values])
        return _held(path, ["time", *names[clock:]], table, dict(zip(names, units, strict=False)),
                     {TIMES: "time"})


class GhcnFormat(NetworkFormat):
    """GHCN daily station data: a fixed-width line for each month and element, or a row for each value; and the list of
    station places. Values that failed a quality check, and weather types, are left out."""

    name = "GHCN-daily"
    about = "GHCN-daily (.dly, or by year)"
    _id = rb"[A-Z]{2}[A-Z0-9_-]{9}"
    signature = re.compile(rb'%s(\d{6}[A-Z]{3}.[ -]*\d+[ -~]{3}|,\d{8},[A-Z0-9]{4},-?\d+,|( +-?\d+\.\d{4}){2} )|'
                           rb'"?ID"?,"?DATE"?,"?ELEMENT"?,"?DATA_VALUE"?' % _id)
    _units: ClassVar = {**dict.fromkeys(("TMAX", "TMIN", "TAVG", "TOBS"), "0.1 degC"), "PRCP": "0.1 mm",
                        "SNOW": "mm", "SNWD": "mm", "AWND": "0.1 m s-1"}

    def columns_in(self, path: Path, lines: Iterable[str]) -> ColumnsInMemory:
        ahead = iter(lines)
        first = next(ahead, "")
        if first[11] == " ":  # ghcnd-stations.txt
            places = [(line[:11], line[12:20].strip(), line[21:30].strip()) for line in [first, *ahead]]
            return _held(path, ["station", "lat", "lon"], places, {}, {})
        records = self._rows(path, first, ahead) if "," in first else self._months(path, first, ahead)
        kept = (one for one in records if not re.match("W[TV]", one[1]))
        return _gathered(path, ["station", "time"], kept, self._units)

    @staticmethod
    def _rows(path: Path, first: str, lines: Iterator[str]) -> Iterator[Record]:
        for row in csv.reader([first, *lines] if first[:4].strip('"') != "ID," and "DATE" not in first else lines):
            if len(row) < 6:
                raise UserError(f"{path} has {len(row)} cells in a row ({', '.join(row)[:60]}), expected 8: station, "
                                "date, element, value, three flags and a clock")
            station, day, element, value, _, failed = row[:6]
            if not failed.strip():
                yield (station, f"{day[:4]}-{day[4:6]}-{day[6:]}"), element, value

    @staticmethod
    def _months(path: Path, first: str, lines: Iterator[str]) -> Iterator[Record]:
        for number, line in enumerate([first, *lines], 1):
            station, month, element = line[:11], line[11:17], line[17:21]
            if not month.isdigit():
                raise UserError(f"{path} has no year and month in columns 12 to 17 of line {number}; mend it")
            for day in range(1, 32):
                cell = line[13 + 8 * day:21 + 8 * day]
                if cell[:5].strip() not in ("", "-9999") and not cell[6:7].strip():
                    yield (station, f"{month[:4]}-{month[4:]}-{day:02d}"), element, cell[:5].strip()


class OdvFormat(NetworkFormat):
    """ODV spreadsheets of cruise stations: station data are in the first row of each station only, flags follow each
    quantity. Values flagged as bad are left out."""

    name = "ODV"
    about = "ODV spreadsheets"
    signature = re.compile(rb"(//[^\n]*\n)*Cruise\s*[\t;,]\s*Station\s*[\t;,]")

    def columns_in(self, path: Path, lines: Iterable[str]) -> ColumnsInMemory:
        rows = [line.rstrip("\r\n") for line in lines if line.strip() and not line.startswith("//")]
        separator = max("\t;,", key=rows[0].count)
        named = [re.fullmatch(r"\s*(.*?)\s*(?:\[(.*)\])?\s*", name) for name in rows[0].split(separator)]
        names = [match[1] if match else "" for match in named]
        units = {match[1]: match[2] for match in named if match and match[2]}
        last = max((index for index, name in enumerate(names) if name.startswith(("Bot. Depth", "Latitude"))),
                   default=2)
        flags = [index for index, name in enumerate(names) if name.startswith(("QV", "QF"))]
        left_out = {*flags, *(index for index, name in enumerate(names) if name == "Bot. Depth")}
        table: list[list[str]] = []
        said, bad = [""] * (last + 1), 0
        for number, line in enumerate(rows[1:], 2):
            row = [cell.strip() for cell in line.split(separator)]
            row += [""] * (len(names) - len(row))
            if len(row) > len(names):
                raise UserError(f"{path} has {len(row)} cells in row {number} and {len(names)} names; mend it")
            said = row[:last + 1] if any(row[:3]) else said
            row[:last + 1] = said
            for index in flags:
                if row[index] in (("3", "4", "9") if "SEADATANET" in names[index] else ("4", "8")):
                    bad += bool(row[index - 1])
                    row[index - 1] = ""
            table.append([cell for index, cell in enumerate(row) if index not in left_out])
        if bad:
            warnings.warn(f"{path}: {bad} values that are flagged as bad are left out", stacklevel=2)
        kept = [name for index, name in enumerate(names) if index not in left_out]
        groups = ((TIMES, "yyyy-mm-dd"), (LONGITUDES, "Longitude"), (LATITUDES, "Latitude"))
        meant = {group: name for group, begin in groups for name in kept if name.startswith(begin)}
        if len(meant) < len(groups):
            wanted = ", ".join(name for _, name in groups)
            raise UserError(f"{path} has the columns {', '.join(names)}; expected {wanted} of each station among them")
        along = [name for name in names[last + 1:] if re.match("depth|pres", name, re.IGNORECASE)]
        return _held(path, kept, table, units, meant | (dict.fromkeys([HEIGHTS], along[0]) if along else {}))


class InfluxFormat(NetworkFormat):
    """InfluxDB CSV with or without annotations, and line protocol: tags are labels, fields are quantities."""

    name = "InfluxDB"
    about = "InfluxDB's CSV or line protocol"
    _word, _cell = rb'(?:\\.|[^\s,="\\])+', rb'(?:"(?:\\.|[^"\\])*"|[^\s,"]+)'
    signature = re.compile(rb"#(group|datatype|default)\b|,result,table,|(?!#)%b(,%b=%b)* %b=%b(,%b=%b)* \d{10,19}\s" %
                           (*[_word] * 4, _cell, _word, _cell))
    _own: ClassVar = ("", "result", "table", "_start", "_stop", "_time", "_field", "_value", "_measurement")

    def columns_in(self, path: Path, lines: Iterable[str]) -> ColumnsInMemory:
        ahead = iter(lines)
        first = next(ahead, "")
        found = self._rows if first.startswith(("#", ",")) else self._points
        tagged = list(found(path, [first, *ahead]))
        several = len({measurement for measurement, *_ in tagged}) > 1
        tags = list(dict.fromkeys(tag for _, _, tags, *_ in tagged for tag in tags))
        return _gathered(path, ["time", *tags], (
            ((time, *(own.get(tag, "") for tag in tags)), f"{measurement}_{field}" if several else field, value)
            for measurement, time, own, field, value in tagged), {})

    def _rows(self, path: Path, lines: Iterable[str]) -> Iterator[tuple[str, str, dict[str, str], str, str]]:
        names: list[str] = []
        for row in csv.reader(lines):
            if not any(row) or row[0].startswith("#"):
                continue
            if {"result", "table"} <= set(row) or not names:  # each table has its own names
                names = row
                if "_time" not in names:
                    raise UserError(f"{path} has the columns {', '.join(names)} and no _time; export it by `influx "
                                    "query --raw`")
            else:
                cells = dict(zip(names, row, strict=False))
                about = {name: cell for name, cell in cells.items() if name not in self._own}
                field = cells.get("_field", "")
                values = {field: cells.get("_value", "")} if field else {  # pivoted: a column for each field
                    name: about.pop(name) for name in list(about) if re.fullmatch(r"[-+\d.eE]*|NaN", about[name])}
                for name, value in values.items():
                    yield cells.get("_measurement", ""), cells["_time"], about, name, value

    @staticmethod
    def _points(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, str, dict[str, str], str, str]]:
        form = re.compile(r'((?:\\.|[^\s\\])+) ((?:"(?:\\.|[^"\\])*"|\\.|[^\s"\\])+)(?: (\d+))?\s*')
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = form.fullmatch(line)
            if match is None or not match[3]:
                raise UserError(f"{path} has no point with a time in line {number} ({line.strip()[:60]}); expected "
                                "measurement,tag=... field=... time")
            measurement, *tags = re.split(r"(?<!\\),", match[1])
            own = dict(re.split(r"(?<!\\)=", tag, maxsplit=1) for tag in tags)
            unit = {10: "s", 13: "ms", 16: "us"}.get(len(match[3]), "ns")
            time = str(np.array(int(match[3])).astype(f"M8[{unit}]").astype("M8[us]"))
            for name, value in re.findall(r'((?:\\.|[^,=\\])+)=("(?:\\.|[^"\\])*"|[^,]*)', match[2]):
                number_of = re.fullmatch(r"([-+\d.eE]+)[iu]?", value)
                yield measurement, time, own, name, number_of[1] if number_of else value.strip('"')
