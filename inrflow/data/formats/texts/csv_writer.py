"""Tables as CSV: numbers with as many digits as their type holds."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from typing import Any

import numpy as np

from inrflow.data.formats.columns import IN_TABLES, Grid, all_numbers
from inrflow.data.formats.registry import TableWriter


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
