"""What stands above and below the rows of a table of text: a title, lines of units below the names, a footer."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from inrflow.data.formats.columns import all_numbers, is_missing

_VALUE = re.compile(r"[-+]?\.?\d")
_SLASHED = re.compile(r"\s*(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?:[T, ]+(.*?))?\s*")
SEPARATORS = ",;\t|"
FOOTER = 20  # lines below the rows, at most
_WORDS = 2  # lines between names and rows, at most: of units, and of how values were made


def split_at(separator: str, line: str) -> list[str]:
    """The cells of a line without quotes; several blanks separate as one does."""
    return line.split() if separator == " " else line.split(separator)


def cells_of_numbers(line: str, separator: str) -> int:
    """How many cells of a line there are, if all are numbers, else 0."""
    cells = split_at(separator, line)
    return len(cells) if line.strip() and all_numbers(np.array([cell.strip() for cell in cells], object)) else 0


def is_title(line: str, ahead: Sequence[str], mark: str) -> bool:
    """Whether a line is a title: it has no sign that separates, and those after it, names and a row of values, are
    separated by `mark`."""
    if mark == " " or any(sign in line for sign in SEPARATORS):
        return False
    names, row = (next(csv.reader([text], delimiter=mark), []) for text in ahead)
    return len(names) == len(row) > 1 and not any(map(_VALUE.match, names)) and any(map(_VALUE.match, row))


def is_footer(rows: Sequence[Sequence[str]], columns: int) -> bool:
    """Whether the last rows of a table of so many columns are a footer: words, in at most half of the columns."""
    filled = [[cell for cell in row if cell.strip()] for row in rows]
    return all(2 * len(cells) <= columns and not (cells and (len(row) == columns or _VALUE.match(cells[0].strip())))
               for cells, row in zip(filled, rows, strict=True))


def unit_lines(ahead: Sequence[str], cells: Callable[[str], list[str]]) -> list[list[str]]:
    """Cells of the lines before the first one with a value, if most of these are words, some of them above values."""
    if any(line.count('"') % 2 for line in ahead):
        return []  # a cell continues in the next line
    rows = [[cell.strip() for cell in cells(line)] for line in ahead]
    first = next((index for index, row in enumerate(rows) if any(_VALUE.match(cell) for cell in row if cell != "1")), 0)
    above = rows[:first]
    words = [[bool(cell) and cell != "1" and not is_missing(cell) for cell in row] for row in above]
    named = any(word and _VALUE.match(value) for row in words for word, value in zip(row, rows[first], strict=False))
    most = all(sum(row) > len([cell for cell in cells if cell]) / 2 for row, cells in zip(words, above, strict=True))
    return above if len(above) <= _WORDS and named and most else []


def bare_unit(cell: str) -> str:
    """Unit without surrounding brackets."""
    return re.sub(r"^\s*[(\[]\s*(.*?)\s*[)\]]\s*$", r"\1", cell).strip()


def slashed(cells: Sequence[str]) -> bool:
    """Whether all non-empty cells are dates such as 12/31/2024, with the day or the month first."""
    filled = [cell for cell in cells if cell.strip()]
    return bool(filled) and all(_SLASHED.fullmatch(cell) for cell in (filled[0], filled[-1])) and all(
        map(_SLASHED.fullmatch, filled))


def month_first(blocks: Iterator[Sequence[str]]) -> bool | None:
    """Whether months come first in dates such as 12/31/2024; None where no day is greater than 12, and where a year of
    two digits may as well be the first number."""
    for cells in blocks:
        for cell in dict.fromkeys(cells):
            found = _SLASHED.fullmatch(cell)
            if found is not None and max(int(found[1]), int(found[2])) > 12:
                return int(found[2]) > 12 or (None if len(found[3]) == 2 else False)
    return None


def with_years_first(cells: Sequence[str], month: bool) -> list[str]:
    """Dates such as 12/31/2024 rewritten as 2024/12/31; `month`: whether the month comes first."""
    done: dict[str, str] = {}
    for cell in dict.fromkeys(cells):
        found = _SLASHED.fullmatch(cell)
        day = "" if found is None else "/".join((f"20{found[3]}"[-4:], *found.group(*((1, 2) if month else (2, 1)))))
        done[cell] = cell if found is None else f"{day} {found[4] or ''}".strip()
    return [done[cell] for cell in cells]
