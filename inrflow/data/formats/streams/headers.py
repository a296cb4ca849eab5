"""Header lines of text tables below the names (units), and dates such as 12/31/2024 in their cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from inrflow.data.formats.columns import is_missing

_VALUE = re.compile(r"[-+]?\.?\d")
_SLASHED = re.compile(r"\s*(\d{1,2})/(\d{1,2})/(\d{4})(?:[T, ]+(.*?))?\s*")
_WORDS = 2  # largest number of lines between names and rows: units, and kinds of processing


def lines_of_units(ahead: Sequence[str], cells: Callable[[str], list[str]]) -> list[list[str]]:
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
    """Whether months come first in dates such as 12/31/2024; None if no day is greater than 12."""
    for cells in blocks:
        for cell in dict.fromkeys(cells):
            found = _SLASHED.fullmatch(cell)
            if found is not None and max(int(found[1]), int(found[2])) > 12:
                return int(found[2]) > 12
    return None


def with_years_first(cells: Sequence[str], month: bool) -> list[str]:
    """Dates such as 12/31/2024 rewritten as 2024/12/31; `month`: whether the month comes first."""
    done: dict[str, str] = {}
    for cell in dict.fromkeys(cells):
        found = _SLASHED.fullmatch(cell)
        day = "" if found is None else "/".join((found[3], *found.group(*((1, 2) if month else (2, 1)))))
        done[cell] = cell if found is None else f"{day} {found[4] or ''}".strip()
    return [done[cell] for cell in cells]
