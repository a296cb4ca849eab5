"""CSV: text with a header and a row for each point; numbers are written with all digits of their type.

Separators are commas, semicolons, tabs, bars or, if there are none of these, spaces; numbers may have decimal commas,
in quotes if commas are separators. Lines before the header that begin with # are skipped; if no other header follows,
the last of them is the header. Lines of units below it are recognised. Encodings are those of `characters`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from operator import methodcaller
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import (
    BLOCK_ROWS,
    IN_FILES,
    IN_TABLES,
    TIMES,
    Columns,
    Grid,
    all_numbers,
    find_column,
    is_missing,
)
from inrflow.data.formats.registry import TableWriter
from inrflow.data.formats.streams.clocks import HOURS, dates_and_clocks, dates_of_parts, parts_of_dates, with_clocks
from inrflow.data.formats.streams.headers import (
    FOOTER,
    SEPARATORS,
    bare_unit,
    cells_of_numbers,
    is_footer,
    is_title,
    month_first,
    slashed,
    split_at,
    unit_lines,
    with_years_first,
)
from inrflow.data.formats.streams.tidy import VARIABLES, tidied
from inrflow.data.formats.table_format import TableFormat
from inrflow.data.formats.texts.characters import GZIP, THOUSANDS, UNUSUAL, Numerals, encoding_of, unpacked
from inrflow.errors import UserError

_OTHER_TEXT = ("<", "{", "[", "#", "%", "/")  # beginnings of XML (VTU, PVD), JSON, OpenFOAM and scripts
_COMMENTS = re.compile(r"\A(\s*#(?!!)[^\n]*\n)+")  # before the header
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_LOOKED_AT = 3  # lines searched for units
_LONGEST_HEADER = 1 << 22  # characters


class CsvColumns(Columns):
    """Columns of a CSV file as text, with the separator inferred from its header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            start = file.read(4096)
        opened: Any = gzip.open if start.startswith(GZIP) else open
        _, name = _beginning(start)
        errors = _bytes_of_windows(path) if name == "utf-8-sig" else None
        self._file: io.TextIOBase = opened(path, "rt", newline="", encoding=name, errors=errors)
        self._line = 0  # number of the last line that was read
        try:
            comment, header = "", self._header(path)
            while header and (header.lstrip().startswith("#") or not header.strip()):
                comment, header = header.lstrip("# \t") or comment, self._header(path)
            told = _SEPARATOR.fullmatch(header)  # written by spreadsheets
            header = self.line_of_names(self._header(path) if told else header)
            separator, ahead = told[1] if told else separator_of(header), list[str]()
            if header.count(separator) > 1 and len([cell for cell in header.split(separator) if cell.strip(' "\r\n')
                                                    ]) == 1 and separator != " ":  # a title above the names
                header = self._header(path)
            elif separator not in SEPARATORS and is_title(
                    header, ahead := [self._header(path) for _ in range(2)], separator_of(ahead[0])):
                header, *ahead = ahead
                self._line, separator = self._line - 1, separator_of(header)
            else:
                self._line -= len(ahead)
            lines = itertools.chain([header, *ahead], self._file)
            count = cells_of_numbers(header, separator) if re.match(r"\s*[-+.]?\d", header) else 0
            comment = self.names_in(comment, separator, count)
            if comment and count == len(split_at(separator, comment)):
                lines = itertools.chain([comment], lines)
                self._line -= 1
            elif count:
                raise UserError(f"{path} begins with numbers ({header.strip()[:60]}); give the names of its columns in "
                                "a line above them")
            self._months = dict[str, bool]()  # whether months come first in columns of dates with slashes
            self._numerals = dict[str, Numerals]()  # of columns with unusual signs
            self.separator, self._line = separator, self._line - 1
            self._footers = False
            self.commas = False  # whether a number with a decimal comma was read
            self._lines = (" ".join(line.split()) + "\n" for line in lines) if separator == " " else iter(lines)
            self.names = tuple(name.strip().replace(*IN_FILES) for name in next(self._parsed(self._lines), []))
            self._own = self.names  # without an added column of times
            self._parts: list[str] = []
            self._clock: tuple[str, str, str] | None = None  # columns of times, made of days and clock times
        except UserError:
            self._file.close()
            raise
        except (UnicodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            self._file.close()
            raise UserError(f"{path} is text in neither UTF-8 nor Windows-1252 (Latin-1); save it as UTF-8, as by "
                            "`iconv -f ENCODING -t utf-8 SOURCE > TARGET`") from error
        if not any(self.names) or len(set(self.names)) < len(self.names):
            self._file.close()
            raise UserError(f"{path} has the header {', '.join(map(repr, self.names))}; expected different names in "
                            "the first line; of two lines of names, as of pandas' columns of several levels, make "
                            "one (table.columns.map('_'.join)), or a row for each time and station (table.stack())")

    def line_of_names(self, line: str) -> str:
        """Line of names, given the first line that is no comment."""
        return line

    def names_in(self, comment: str, separator: str, count: int) -> str:
        """Line of names, given the last comment above rows of `count` numbers."""
        return comment

    @classmethod
    def with_units(cls, path: Path) -> CsvColumns:
        """A table whose lines between names and rows, if there are any, say units (the first) and more, and below whose
        rows may be a footer."""
        columns = cls(path)
        columns._footers = True
        try:
            columns._take_units()
            columns._find_dates()
        except (UnicodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            columns.close()
            raise UserError(f"{path} cannot be read ({error}); mend or remove it") from error
        return columns

    def _take_units(self) -> None:
        ahead = list(itertools.islice(self._lines, _LOOKED_AT))
        mark = re.escape(self.separator)  # a value other than 1, which is the unit of numbers, begins with a digit
        values = ahead and re.search(rf'(^|{mark})\s*"?[-+.]?(?!1("|{mark}|\s*$))\d', ahead[0])
        above = [] if values else unit_lines(
            ahead, lambda line: next(csv.reader([line], delimiter=self.separator), []))
        if above:
            self.units = {name: unit for name, cell in zip(self.names, above[0], strict=False)
                          if (unit := bare_unit(cell)) and not is_missing(unit)}
        self._line += len(above)
        self._lines = itertools.chain(ahead[len(above):], self._lines)

    def _find_dates(self) -> None:
        """Find columns of dates if none is named as times (T may be a temperature), or make one of years, months."""
        called = {name.lower() for name in self.names if name != "T"}
        known = not called.isdisjoint(TIMES) or find_column(self.names, TIMES) not in (None, "T")
        if not known and (parts := parts_of_dates(self.names)):
            self._parts, self.dates, self.meant = parts, tuple(parts), {TIMES: "time"}
            self.names = (*self.names, "time")
            return
        ahead = list(itertools.islice(self._lines, _LOOKED_AT))
        self._lines = itertools.chain(ahead, self._lines)
        if known and called.isdisjoint(HOURS) and not any(":" in line for line in ahead):
            return
        rows = list(csv.reader(ahead, delimiter=self.separator, skipinitialspace=self.separator != " "))
        cells = dict(zip(self.names, zip(*(row for row in rows if len(row) == len(self.names)), strict=True),
                         strict=False))
        dates, clocks = dates_and_clocks(cells)
        if known and not clocks:
            return
        days = find_column(self.names, TIMES)
        if not known and dates:
            self.dates, self.meant, days = tuple(dates), {TIMES: dates[0]}, dates[0]
        day = days if days in dates else dates[0] if days in clocks and dates else None
        if day is not None and len(clocks) == 1 and not any(":" in cell or "T" in cell for cell in cells[day]):
            self._clock = str(days), day, clocks[0]
            self.dates = (*self.dates, *({day, clocks[0]} - {days, *self.dates}))

    def _header(self, path: Path) -> str:
        line = self._file.readline(_LONGEST_HEADER)
        self._line += 1
        if len(line) == _LONGEST_HEADER:
            raise UserError(f"{path} has no end of line in its first {_LONGEST_HEADER} characters; give a header")
        return line

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        try:
            while lines := list(itertools.islice(self._lines, rows)):
                columns = self._split(lines) or self._quoted(lines)
                if columns:
                    named = zip(self._own, columns, strict=True)
                    block = self._with_dates({name: self._cells(name, column) for name, column in named})
                    yield block | {"time": dates_of_parts(block, self._parts, self.path)} if self._parts else block
        except (UnicodeError, csv.Error, EOFError, OSError, zlib.error) as error:
            raise UserError(f"{self.path} cannot be read after line {self._line} ({error}); mend or remove "
                            "it") from error

    def _parsed(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Cells of each row, which may be quoted."""
        reader = csv.reader(lines, delimiter=self.separator, skipinitialspace=self.separator != " ")
        first = self._line
        for row in reader:
            self._line = first + reader.line_num
            yield row

    def _split(self, lines: list[str]) -> list[list[str]] | None:
        """Columns of lines without quotes that all have the expected number of cells, several times faster than
        `_parsed`; None for other lines."""
        count, text = len(self._own), "".join(lines).removesuffix("\n").replace("\r\n", "\n").removesuffix("\r")
        regular = count > 1 and set(map(methodcaller("count", self.separator), lines)) == {count - 1}
        blanks = self.separator != " " and " " in text and re.search(rf"(^|\n|{re.escape(self.separator)}) ", text)
        if not regular or '"' in text or "\r" in text or blanks:
            return None
        self._line += len(lines)
        cells = text.replace("\n", self.separator).split(self.separator)
        return [cells[column::count] for column in range(count)]

    def _quoted(self, lines: list[str]) -> list[Sequence[str]]:
        """Columns of lines, including further lines that continue the last row; empty if all rows are."""
        last, block = self._line + len(lines), []
        source = itertools.chain(lines, self._lines)
        for row in self._parsed(source):
            blank = not row or (row == [""] and len(self._own) > 1) or (
                len(row) != len(self._own) and row[0].startswith("#"))  # a remark
            if len(row) != len(self._own) and not blank:
                at, below = self._line, [row, *self._parsed(itertools.islice(source, FOOTER))]
                cut = len(below) == 1 and len(row) < len(self._own) and not lines[-1].endswith(("\n", "\r"))
                if not self._footers or next(source, None) is not None or not (cut or is_footer(below, len(self._own))):
                    raise UserError(f"{self.path} has {len(row)} cells in a row ({', '.join(row)[:60]}) but "
                                    f"{len(self._own)} columns ({', '.join(self._own)[:60]}), at line {at}; mend "
                                    "it, and remove what stands above the names or between rows")
                warnings.warn(f"{self.path}: what stands below the rows, from line {at} on ({', '.join(row)[:60]}), is "
                              "left out", stacklevel=2)
                break
            block += [row] * (not blank)
            if self._line >= last:
                break
        return list(zip(*block, strict=True))

    def _with_dates(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns with dates and clock times of separate columns (such as `date` and `time`) combined."""
        if self._clock is not None:
            time, day, clock = self._clock
            columns[time] = with_clocks(day, columns[day], columns[clock])
        return columns

    def _cells(self, name: str, column: Sequence[str]) -> np.ndarray:
        """Column of text, with decimal commas replaced by points and thousands separators removed if all cells are then
        numbers, and dates such as 12/31/2024 with years first."""
        if len(column) and "/" in column[0] + column[-1] and slashed(column):
            column = with_years_first(column, self._month_first(name))
        text = "".join(column)
        if name in self._numerals or any(sign in text for sign in UNUSUAL):
            numerals = self._numerals.setdefault(name, Numerals(self.separator != ","))
            column = numerals.rewritten(column)
            self.commas |= numerals.commas
        if self.commas and "." in text and all(map(THOUSANDS.fullmatch, column)):
            raise UserError(f"{self.path}: {name} holds {column[0]}, whose point may be one between thousands, as "
                            "other columns have decimal commas; write all numbers alike")
        return np.array(column, object)

    def _month_first(self, name: str) -> bool:
        """Whether months come first in a column of dates such as 12/31/2024, as a day above 12 shows."""
        if name not in self._months:
            with closing(type(self)(self.path)) as again:
                rows = again._parsed(again._lines)
                found = month_first([row[self._own.index(name)]] for row in rows if len(row) == len(self._own))
            if found is None:
                raise UserError(f"{self.path}: {name} holds dates that do not show whether days or months come "
                                "first; write dates as 2024-01-31T18:00")
            self._months[name] = found
        return self._months[name]

    def close(self) -> None:
        self._file.close()


class CsvWriter(TableWriter):
    """Writer of numbers with all digits of their type, and empty cells for missing ones; separator and compression
    follow from the suffix, or from another file by `written_as`."""

    verbatim = True
    _separator, _commas = ",", False

    def written_as(self, separator: str, commas: bool) -> None:
        """Set the separator (unless it is a blank), and whether numbers have decimal commas."""
        self._separator, self._commas = separator.replace(" ", ","), commas

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        name = self.path.name.lower()
        opened: Any = gzip.open if name.endswith(".gz") else open
        self._file = opened(self._target.partial, "wt", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, delimiter="\t" if ".tsv" in name else self._separator)
        self._writer.writerow([name.replace(*IN_TABLES) for name in columns])

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        cells = {name: self._cells(values) for name, values in columns.items()}
        if self._commas:
            cells |= {name: [str(cell).replace(".", ",") for cell in column] for name, column in cells.items()
                      if columns[name].dtype.kind == "f" or all_numbers(columns[name])}
        self._writer.writerows(zip(*cells.values(), strict=True))

    @staticmethod
    def _cells(values: np.ndarray) -> list[object]:
        if values.dtype.kind != "f":
            return values.tolist()
        if values.dtype.itemsize < 8:
            return [f"{value:.9g}" if value == value else "" for value in values.tolist()]
        return [value if value == value else "" for value in values.tolist()]


class CsvFormat(TableFormat):
    """Text that does not begin like another known kind of text. Subclasses for tables of other programs have `columns`
    that read their headers."""

    name = "CSV"
    about = "CSV"
    columns: ClassVar[type[CsvColumns]] = CsvColumns
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".txt", ".tsv", ".csv.gz", ".tsv.gz")
    answers: ClassVar[tuple[str, ...]] = suffixes
    text = True
    dates = "text"

    @staticmethod
    def text_in(start: bytes) -> str:
        """Text in the first bytes of a file, "" if they are binary."""
        start, encoding = _beginning(start)
        text = start.decode(encoding, "replace")
        return "" if "\0" in text else text

    def sniff(self, path: Path, start: bytes) -> bool:
        text = self.text_in(start)
        if self.signature is not None:
            return self.signature.match(text.encode()) is not None
        begin = _COMMENTS.sub("", text).lstrip()
        return bool(begin) and not begin.startswith(_OTHER_TEXT)

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        columns = self.columns.with_units(path)
        if VARIABLES.isdisjoint(map(str.lower, columns.names)):
            return columns
        columns.close()
        return tidied(lambda: self.columns.with_units(path), path)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return CsvWriter(path, description, overwrite)

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        writer = CsvWriter(path, description, overwrite)
        with closing(self.columns.with_units(asked)) as columns:
            next(columns.blocks(BLOCK_ROWS), {})
            writer.written_as(columns.separator, columns.commas)
        return writer


def separator_of(header: str) -> str:
    """What separates the names in a line: the sign of SEPARATORS that is most in it, else blanks."""
    separator = max(SEPARATORS, key=header.count)
    return separator if separator in header or not header.split()[1:] else " "


def _beginning(start: bytes) -> tuple[bytes, str]:
    """First bytes of a file, decompressed if it is a gzip file, and the name of the encoding of text that has them."""
    start = unpacked(start) if start.startswith(GZIP) else start
    wide = b"\0" in start or start[:1] in (b"\xff", b"\xfe")  # UTF-16 or UTF-32
    return start, encoding_of(start) if wide else "utf-8-sig"


def _bytes_of_windows(path: Path) -> str:
    """Name of an error handler for decoding UTF-8 that reads other bytes of a file as Windows-1252, which includes all
    printable characters of Latin-1, with one warning."""
    told, name = list[str](), f"inrflow {hash(path)}"

    def decoded(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeDecodeError):
            raise error
        text = error.object[error.start:error.end].decode("cp1252")
        if not told:
            told.append(text)
            warnings.warn(f"{path} is no UTF-8: its letters beyond ASCII, the first of which is {text!r}, are taken as "
                          "those of Windows-1252 (Latin-1); if names look wrong, save it as UTF-8", stacklevel=2)
        return text, error.end

    codecs.register_error(name, decoded)
    return name
