"""Tables of text as instruments and services write them: loggers of Campbell, DaVis, gauges of the USGS."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

from inrflow.data.formats.builtin.csv_table import CsvColumns, CsvFormat

_WIDTHS = re.compile(r"(\d+[sdn]\t)+\d+[sdn]\s*$")


class Toa5Columns(CsvColumns):
    """A table whose names stand in the second line."""

    def line_of_names(self, line: str) -> str:
        return self._header(self.path)


class Toa5Format(CsvFormat):
    """A line on the logger, then names, units, and how values were made."""

    name = "TOA5"
    about = "TOA5 of Campbell's loggers"
    signature = re.compile(rb'\s*"?TOA5"?,')
    suffixes = ()
    columns = Toa5Columns


class RdbColumns(CsvColumns):
    """A table with a line of widths and types, which are no values, below the names."""

    def _take_units(self) -> None:
        first = next(self._lines, "")
        self._line += 1
        if _WIDTHS.match(first) is None:
            self._lines, self._line = itertools.chain([first], self._lines), self._line - 1


class RdbFormat(CsvFormat):
    """Comments, names, and a line of widths and types below them, as of water data of the USGS."""

    name = "RDB"
    about = "RDB of the USGS"
    signature = re.compile(rb"#[^\0]*?(U\.S\. Geological Survey|\n(\d+[sdn]\t)+\d+[sdn]\s*\n)")
    suffixes = ()
    columns = RdbColumns


class DavisColumns(CsvColumns):
    """Places x, y (of six columns also z), and components u, v (of more than four also w), empty where all are zero,
    as DaVis writes what it does not know."""

    _vectors: tuple[str, ...] = ()

    def names_in(self, comment: str, separator: str, count: int) -> str:
        if not 4 <= count <= 6:
            return comment
        self._vectors = tuple("uvw")[: 2 + (count > 4)]
        self.units = dict.fromkeys(self._vectors, comment.rsplit('"', 2)[1])  # the last word in quotes
        return separator.join([*"xyz"[: 2 + (count == 6)], *self._vectors])

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for block in super().blocks(rows):
            none = np.all([block[name].astype(float) == 0 for name in self._vectors], 0)
            yield block | {name: np.where(none, "", block[name]) for name in self._vectors}


class DavisFormat(CsvFormat):
    """A comment with sizes and units, then rows of places and vectors."""

    name = "DaVis"
    about = "DaVis' vectors"
    signature = re.compile(rb'#?\s*DaVis\b[^\n]*?("[^"\n]*"\s*)+(\n|$)')
    suffixes = ()
    columns = DavisColumns
