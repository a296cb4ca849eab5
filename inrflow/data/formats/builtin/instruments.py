"""Tables of text as instruments write them: loggers of Campbell (TOA5), vectors of DaVis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inrflow.data.formats.builtin.csv_table import CsvColumns, CsvFormat

_TOA5 = re.compile(r'\s*"?TOA5"?,')
_DAVIS = re.compile(r'#?\s*DaVis\b.*?((?:"[^"]*"\s*)+)$', re.MULTILINE)


class Toa5Format(CsvFormat):
    """A line on the logger, then names, units, and how values were made."""

    name = "TOA5"
    about = "TOA5 of Campbell's loggers"
    suffixes = ()

    @property
    def columns(self) -> type[CsvColumns]:
        return Toa5Columns

    def sniff(self, path: Path, start: bytes) -> bool:
        return _TOA5.match(self.text_in(start)) is not None


class Toa5Columns(CsvColumns):
    """A table whose names stand in the second line."""

    def line_of_names(self, line: str) -> str:
        return self._header(self.path)


class DavisFormat(CsvFormat):
    """A comment with sizes and units, then rows of places and vectors."""

    name = "DaVis"
    about = "DaVis' vectors"
    suffixes = ()

    @property
    def columns(self) -> type[CsvColumns]:
        return DavisColumns

    def sniff(self, path: Path, start: bytes) -> bool:
        return _DAVIS.match(self.text_in(start)) is not None


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
