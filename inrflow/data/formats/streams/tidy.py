"""Pivoting of tidy tables (columns `variable` and `value`) to tables with a column for each variable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.columns import TIMES, Columns, all_numbers, column_numbers, find_column, labels
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES
from inrflow.errors import UserError

#: Names of columns that hold names of variables.
VARIABLES = {"variable", "parameter", "quantity", "observed_property", "measurand", "pollutant", "metric", "measure",
             "indicator", "analyte", "characteristic", "property", "observable", "variable_name", "parameter_name",
             "sensor_type", "measurement_type"}
_VALUES = ("value", "values", "measurement", "result", "reading")
_PLACES = (("x", "X"), LONGITUDES, LATITUDES)
_UNITS = ("unit", "units", "uom")
_ROWS, _LOOKED_AT, _SHOWN = 1 << 16, 64, 8
_NAN = float("nan")  # a single object, so that dictionaries find it


def tidied(opened: Callable[[], Columns], path: Path) -> Columns:
    """Table with a column for each variable if the given one, which has a column named in VARIABLES, is tidy.

    It is not tidy without a column of values, or if variables are numbers, which may be values of a parameter.
    """
    with opened() as columns:
        named = [find_column(columns.names, wanted) for wanted in (sorted(VARIABLES), _VALUES)]
        block = next(columns.blocks(_LOOKED_AT), {})
    if named[1] is None or named[0] not in block or all_numbers(block[named[0]]):
        return opened()
    return TidyColumns(opened(), path, named[0], named[1])


class TidyColumns(Columns):
    """Pivoted table: a column for each variable instead of the columns of variables and values.

    Rows that agree in all other columns become one row, in the order of their first occurrence. Columns that belong to
    single values are dropped: those determined by the variable (its unit), and text or sensor numbers that only
    distinguish variables of one place. Repeated values of a variable stay in separate rows. Raises UserError for a row
    without a variable, or a variable with the name of a column.
    """

    def __init__(self, columns: Columns, path: Path, variables: str, value: str) -> None:
        self.meant, self.dates, self.zoned = columns.meant, columns.dates, columns.zoned
        held: dict[str, _Coded] = {name: _Coded() for name in columns.names if name != value}
        parts: list[np.ndarray] = []
        with columns:
            for block in columns.blocks(_ROWS):
                first = sum(map(len, parts))
                for name, coded in held.items():
                    coded.add(block[name])
                parts.append(column_numbers(block[value], value, path, first))
        values = np.concatenate(parts) if parts else np.zeros(0)
        different, which = held.pop(variables).result()
        channels = [str(name).strip() for name in different.tolist()]
        if "" in channels:
            raise UserError(f"{path}: {variables} is empty in row {int(np.argmax(which == channels.index(''))) + 1}; "
                            "every row names what it holds")
        if twice := sorted(set(channels) & set(held)):
            raise UserError(f"{path}: {variables} names {', '.join(twice[:_SHOWN])}, which is a column as well; rename "
                            "one of them")
        others = {name: coded.result() for name, coded in held.items()}
        told = {name for name, (_, codes) in others.items() if _determined(which, codes)}
        told |= _of_values({name: one for name, one in others.items() if name not in told}, which)
        keys = [codes for name, (_, codes) in others.items() if name not in told]
        rows = _groups([*keys, _repetitions([*keys, which])], len(values))
        start = np.full(rows.max(initial=-1) + 1, len(values))
        np.minimum.at(start, rows, np.arange(len(values)))
        order = np.argsort(start)
        place = np.argsort(order)[rows]
        table = np.full((len(start), len(channels)), np.nan)
        table[place, which] = values
        self._columns = {name: (found, codes[start[order]]) for name, (found, codes) in others.items()
                         if name not in told}
        self._values = dict(zip(channels, table.T, strict=True))
        self.names = (*self._columns, *channels)
        unit = find_column(told, _UNITS)
        if unit is not None:
            found, codes = others[unit]
            self.units = {channels[v]: str(found[c]) for v, c in zip(which.tolist(), codes.tolist(), strict=True)}

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(next(iter(self._values.values()), ())), rows):
            own = slice(start, start + rows)
            yield {name: found[codes[own]] for name, (found, codes) in self._columns.items()} | {
                name: values[own] for name, values in self._values.items()}

    def close(self) -> None:
        pass


class _Coded:
    """Dictionary encoding of a column that is read in blocks: distinct values and the index of each row."""

    def __init__(self) -> None:
        self._index: dict[Any, int] = {}
        self._codes: list[np.ndarray] = []
        self._kind: np.dtype = np.dtype(object)

    def add(self, values: np.ndarray) -> None:
        self._kind = values.dtype
        cells = [_NAN if cell != cell else cell for cell in values.tolist()]
        for cell in dict.fromkeys(cells):
            self._index.setdefault(cell, len(self._index))
        self._codes.append(np.array(list(map(self._index.__getitem__, cells)), np.int32))

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct values (K,) in the type of the file, and indices (R,) into them."""
        return np.array(list(self._index), self._kind), np.concatenate(self._codes or [np.zeros(0, np.int32)])


def _determined(which: np.ndarray, codes: np.ndarray) -> bool:
    """Whether a non-constant column of codes (R,) is a function of another column `which` (R,)."""
    pairs = len(np.unique(which.astype(np.int64) * (codes.max(initial=0) + 1) + codes))
    return pairs == len(np.unique(which)) and len(np.unique(codes)) > 1


def _of_values(columns: dict[str, tuple[np.ndarray, np.ndarray]], which: np.ndarray) -> set[str]:
    """Labels that split rows with places, but are not needed to distinguish the values of a variable `which` (R,)."""
    if not any(find_column(columns, group) for group in _PLACES):
        return set()
    labelled = [name for name in labels({name: found[:_LOOKED_AT] for name, (found, _) in columns.items()})
                if not find_column([name], TIMES)]
    keys = [codes for name, (_, codes) in columns.items() if name not in labelled]
    needed = set()
    for name in labelled:
        codes = columns[name][1]
        if _count([*keys, codes, which]) > _count([*keys, which]):
            keys.append(codes)
            needed.add(name)
    return {name for name in labelled if name not in needed and _count([*keys, columns[name][1]]) > _count(keys)}


def _count(keys: list[np.ndarray]) -> int:
    """Number of distinct rows of keys (R,)."""
    return int(_groups(keys, len(keys[0])).max(initial=-1)) + 1 if keys else 1


def _groups(keys: list[np.ndarray], rows: int) -> np.ndarray:
    """Group number of each row, by equality in all keys (R,), which are added one by one to avoid overflow."""
    group = np.zeros(rows, np.int64)
    for codes in keys:
        group = np.unique(group * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1].ravel()
    return group


def _repetitions(keys: list[np.ndarray]) -> np.ndarray:
    """Number of previous rows with equal keys, for each row."""
    group = _groups(keys, len(keys[-1]))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    count = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    result = np.empty(len(group), np.int64)
    result[order] = count
    return result
