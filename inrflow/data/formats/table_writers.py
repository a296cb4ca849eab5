"""Base of the writers of tables, which append blocks of columns to a file that is renamed when complete."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import Grid
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import AtomicFile

CHUNK_ROWS = 16384


class TableWriter(ABC):
    """Appends blocks of equal columns to a new file, which gets its name when it is complete.

    A format implements `_start` (create `_file`, at `_target`) and `_add` (a block).
    """

    _file: Any = None

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        self._target = AtomicFile(path, overwrite)
        self.path, self.description = path, description
        self._rows = 0

    def append(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        """Add rows; names and grid are those of the first call."""
        try:
            with self._target.guard():
                if self._rows == 0:
                    self._start({name: self._encoded(values) for name, values in columns.items()}, grid)
                self._add({name: self._encoded(values) for name, values in columns.items()})
            self._rows += len(next(iter(columns.values())))
        except BaseException:
            self.abandon()
            raise

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            if self._rows == 0:
                raise UserError(f"there are no rows to write to {self.path}; give at least one point")
            with self._target.guard():
                self._finish()
            self._target.complete()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        try:
            self._finish()
        except OSError:
            pass  # text that a full disk did not take is removed anyway
        self._target.discard()

    def _encoded(self, values: np.ndarray) -> np.ndarray:
        """Text and dates as arrays of str objects, numbers as they are."""
        values = np.asarray(values)
        if values.dtype.kind == "M":
            return np.datetime_as_string(values, unit="s").astype(object)
        return values.astype(object) if values.dtype.kind in "US" else values

    @abstractmethod
    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None: ...

    @abstractmethod
    def _add(self, columns: Mapping[str, np.ndarray]) -> None: ...

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()


def units_of_columns(description: Description | None) -> dict[str, str]:
    """Units by column name, of those that are known: channels, their standard deviations, and t."""
    if description is None:
        return {}
    units = dict(zip(description.channels, description.units or (), strict=False))
    units |= {f"{name}_std": unit for name, unit in units.items()}
    return units | ({"t": description.time_units} if description.time_units else {})
