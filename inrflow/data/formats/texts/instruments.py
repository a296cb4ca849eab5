"""Text tables of instruments, services and solvers: Campbell loggers (TOA5), DaVis, USGS gauges (RDB), CFX."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

from inrflow.data.calendar import moments_to_texts
from inrflow.data.formats.columns import column_numbers
from inrflow.data.formats.texts.csv_table import CsvColumns, CsvFormat
from inrflow.errors import UserError

_WIDTHS = re.compile(r"(\d+[sdn]\t)+\d+[sdn]\s*$")
#: Offsets from UTC in hours of the time zones that the USGS writes.
_ZONES = {"UTC": 0, "GMT": 0, "AST": -4, "ADT": -3, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6,
          "PST": -8, "PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10, "HDT": -9, "SST": -11, "CHST": 10, "GST": 10}


class Toa5Columns(CsvColumns):
    """Columns of a table with names in the second line."""

    def line_of_names(self, line: str) -> str:
        return self._header(self.path)


class Toa5Format(CsvFormat):
    """TOA5: a line on the logger, then names, units, and kinds of processing."""

    name = "TOA5"
    about = "TOA5 of Campbell's loggers"
    signature = re.compile(rb'\s*"?TOA5"?,')
    suffixes = ()
    columns = Toa5Columns


class RdbColumns(CsvColumns):
    """Columns of a table with a line of widths and types below the names; local times with the zone in a column `tz_cd`
    are converted to UTC."""

    def _take_units(self) -> None:
        first = next(self._lines, "")
        self._line += 1
        if _WIDTHS.match(first) is None:
            self._lines, self._line = itertools.chain([first], self._lines), self._line - 1

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for block in super().blocks(rows):
            zones = block.get("tz_cd", np.zeros(0, object))
            if unknown := {zone for zone in zones.tolist() if zone and zone.upper() not in _ZONES}:
                raise UserError(f"{self.path}: tz_cd is {min(unknown)!r}, which is an unknown zone; ask the service "
                                "for times in UTC")
            for time in ("datetime", "sample_dt") if len(zones) else ():
                if time in block:
                    block |= {time: _in_utc(block[time], zones), "tz_cd": np.full(len(zones), "UTC", object)}
            yield block


def _in_utc(local: np.ndarray, zones: np.ndarray) -> np.ndarray:
    """Dates such as `2024-03-10 01:45` converted from local zones to UTC, in the same form."""
    hours = np.array([_ZONES.get(zone.upper(), 0) for zone in zones.tolist()])
    try:
        moments = np.array([cell.replace(" ", "T") or "NaT" for cell in local.tolist()], "datetime64[m]")
    except ValueError:  # days alone, or no dates: reported when read
        return local
    return np.array([text.replace("T", " ") for text in moments_to_texts(moments - hours * np.timedelta64(1, "h"), "m")
                     ], object)


class RdbFormat(CsvFormat):
    """RDB, as of USGS water data: comments, names, and a line of widths and types."""

    name = "RDB"
    about = "RDB of the USGS"
    signature = re.compile(rb"#[^\0]*?(U\.S\. Geological Survey|\n(\d+[sdn]\t)+\d+[sdn]\s*\n)")
    suffixes = ()
    columns = RdbColumns


class CfxColumns(CsvColumns):
    """Columns of the block [Data], with names and units such as `X [ m ]`; later blocks (faces, lines) are left out."""

    def line_of_names(self, line: str) -> str:
        while line and line.strip() != "[Data]":
            line = self._header(self.path)
        return self._header(self.path)

    def _take_units(self) -> None:
        self.units = {name: match[1] for name in self.names if (match := re.search(r"\[\s*(.*?)\s*\]$", name))}
        self._lines = itertools.chain(itertools.takewhile(lambda line: not line.startswith("["), self._lines))


class CfxFormat(CsvFormat):
    """Exports of CFX-Post: blocks with a title in brackets, the rows in [Data]."""

    name = "CFX"
    about = "CFX-Post's exports"
    signature = re.compile(rb"\s*(\[Name\][^\[\0]*)?\[Data\]\s*\n")
    suffixes = ()
    columns = CfxColumns


class DavisColumns(CsvColumns):
    """Columns of places x, y (with six columns also z) and components u, v (with more than four also w), empty if all
    components are zero, as DaVis writes missing vectors."""

    _vectors: tuple[str, ...] = ()

    def names_in(self, comment: str, separator: str, count: int) -> str:
        if not 4 <= count <= 6:
            return comment
        self._vectors = tuple("uvw")[: 2 + (count > 4)]
        self.units = dict.fromkeys(self._vectors, comment.rsplit('"', 2)[1])  # the last word in quotes
        return separator.join([*"xyz"[: 2 + (count == 6)], *self._vectors])

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for block in super().blocks(rows):
            none = np.all([column_numbers(block[name], name, self.path, 0) == 0 for name in self._vectors], 0)
            yield block | {name: np.where(none, "", block[name]) for name in self._vectors}


class DavisFormat(CsvFormat):
    """DaVis: a comment with sizes and units, then rows of places and vectors."""

    name = "DaVis"
    about = "DaVis' vectors"
    signature = re.compile(rb'#?\s*DaVis\b[^\n]*?("[^"\n]*"\s*)+(\n|$)')
    suffixes = ()
    columns = DavisColumns
