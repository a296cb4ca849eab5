"""CSV: text with a header, a row for each point; numbers are written with as many digits as their type holds.

Separators are commas, semicolons or tabs; with semicolons or tabs, numbers may have decimal commas. A file may be
compressed by gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import Columns, Grid, all_numbers
from inrflow.data.formats.registry import TableWriter, readable
from inrflow.data.formats.table_format import TableFormat
from inrflow.errors import UserError

_OTHER_TEXT = "<{[#%/"  # what XML (VTU, PVD), JSON, VTK, OpenFOAM and scripts begin with


_GZIP = b"\x1f\x8b"
_LONGEST_HEADER = 1 << 22  # characters


def _unpacked(start: bytes) -> bytes:
    """The beginning of the text in the beginning of a gzip file; none where it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(start, 4096)
    except zlib.error:
        return b""


class CsvFormat(TableFormat):
    """Text in UTF-8 that does not begin like a known other kind of text."""

    name = "CSV"
    about = "CSV"
    suffixes = (".csv", ".txt", ".tsv", ".csv.gz", ".tsv.gz")
    text = True
    dates = "text"

    def sniff(self, path: Path, start: bytes) -> bool:
        if start.startswith(_GZIP):
            start = _unpacked(start)
        begin = start.decode("utf-8-sig", "replace").lstrip()
        return b"\0" not in start and bool(begin) and begin[0] not in _OTHER_TEXT

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return CsvColumns(path)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return CsvWriter(path, description, overwrite)


class CsvColumns(Columns):
    """A CSV file with a header; separator comma, semicolon or tab, whichever the header holds most of. All is text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        self._file: io.TextIOBase = gzip.open(path, "rt", newline="", encoding="utf-8-sig") if packed else \
            path.open(newline="", encoding="utf-8-sig")  # type: ignore[assignment]
        try:
            header = self._file.readline(_LONGEST_HEADER)
            if len(header) == _LONGEST_HEADER:
                raise UserError(f"{path} has no end of line in its first {_LONGEST_HEADER} characters; give a header")
            separator = max(",;\t", key=header.count)
            self._decimal_commas = separator != ","
            self._file.seek(0)
            self._rows = csv.reader(self._file, delimiter=separator, skipinitialspace=True)
            self.names = tuple(name.strip() for name in next(self._rows, []))
        except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            self._file.close()
            raise UserError(f"{path} is not text in UTF-8; save it as UTF-8, or give another "
                            f"of: {readable()}") from error
        if not any(self.names) or len(set(self.names)) < len(self.names):
            self._file.close()
            raise UserError(f"{path} has the header {', '.join(map(repr, self.names))}; expected different names in "
                            "the first line")

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        try:
            while block := list(itertools.islice(self._rows, rows)):
                block = [row for row in block if row]
                for row in block:
                    if len(row) != len(self.names):
                        raise UserError(f"{self.path} has {len(row)} cells in a row ({', '.join(row)[:60]}) but "
                                        f"{len(self.names)} columns, at line {self._rows.line_num} or before; mend it")
                if block:
                    columns = zip(self.names, zip(*block, strict=True), strict=True)
                    yield {name: self._cells(column) for name, column in columns}
        except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{self.path} cannot be read after line {self._rows.line_num} ({error}); mend or remove "
                            "it") from error

    def _cells(self, column: Sequence[str]) -> np.ndarray:
        """A column of text, decimal commas as points where all of it reads as numbers then."""
        if self._decimal_commas and any("," in cell for cell in column) and not any("." in cell for cell in column):
            changed = [cell.replace(",", ".", 1) for cell in column]
            if all_numbers(np.array(changed, object)):
                column = changed
        return np.array(column, object)

    def close(self) -> None:
        self._file.close()


class CsvWriter(TableWriter):
    """Numbers with as many digits as their type holds, missing ones as empty cells; separators, and whether it is
    compressed, by the suffix."""

    verbatim = True

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        name = self.path.name.lower()
        opened: Any = gzip.open if name.endswith(".gz") else open
        self._file = opened(self._target.partial, "wt", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, delimiter="\t" if ".tsv" in name else ",")
        self._writer.writerow(columns)

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        self._writer.writerows(zip(*(self._cells(values) for values in columns.values()), strict=True))

    @staticmethod
    def _cells(values: np.ndarray) -> list[object]:
        if values.dtype.kind != "f":
            return values.tolist()
        if values.dtype.itemsize < 8:
            return [f"{value:.9g}" if value == value else "" for value in values.tolist()]
        return [value if value == value else "" for value in values.tolist()]
