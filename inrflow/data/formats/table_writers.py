"""Writers of tables, block by block, aside and renamed when complete: CSV, HDF5 (1-D datasets), NetCDF."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.calendar import moments_to_numbers, parse_units
from inrflow.data.formats.columns import Grid, hyperslabs
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import Aside

_CHUNK_ROWS = 16384
SUFFIXES = {".csv": "csv", ".txt": "csv", ".h5": "hdf5", ".hdf5": "hdf5", ".nc": "netcdf", ".nc4": "netcdf"}


class TableWriter(ABC):
    """Appends blocks of equal columns to a new file."""

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        self._aside = Aside(path, overwrite)
        self.path, self.description = path, description
        self._rows = 0

    def append(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        """Add rows; names and grid are those of the first call."""
        try:
            with self._aside.guard():
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
            with self._aside.guard():
                self._finish()
            self._aside.complete()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        try:
            self._finish()
        except OSError:
            pass  # text that a full disk did not take is removed anyway
        self._aside.discard()

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

    @abstractmethod
    def _finish(self) -> None: ...


def open_table_writer(path: Path, description: Description | None, overwrite: bool) -> TableWriter:
    """The writer for the suffix of `path`; UserError where the suffix is unknown."""
    kind = SUFFIXES.get(path.suffix.lower())
    writers: dict[str, type[TableWriter]] = {"csv": CsvWriter, "hdf5": Hdf5Writer, "netcdf": NetcdfWriter}
    if kind is None:
        raise UserError(f"cannot tell the format of {path} by its suffix {path.suffix!r}; use one of "
                        f"{', '.join(SUFFIXES)}")
    return writers[kind](path, description, overwrite)


class CsvWriter(TableWriter):
    """Numbers with as many digits as their type holds, missing ones as empty cells."""

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._file = self._aside.partial.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
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

    def _finish(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class Hdf5Writer(TableWriter):
    """One 1-D dataset for each column."""

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._file = h5py.File(self._aside.open_for_hdf5(), "w", track_order=True)
        units = _units(self.description)
        for name, values in columns.items():
            kind = h5py.string_dtype() if values.dtype == object else values.dtype
            dataset = self._file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(_CHUNK_ROWS,),
                                                compression="gzip", compression_opts=4, shuffle=values.dtype != object)
            if name in units:
                dataset.attrs["units"] = units[name]

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, values in columns.items():
            dataset = self._file[name]
            dataset.resize((self._rows + len(values),))
            dataset[self._rows:] = values

    def _finish(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class NetcdfWriter(TableWriter):
    """Variables over one dimension `row`, or over the grid that the points came from; dates as CF numbers."""

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        super().__init__(path, description, overwrite)
        units = description.time_units if description else None
        self._calendar = str(units) if parse_units(units) else "hours since 1970-01-01"
        self._dates: set[str] = set()

    def append(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._dates |= {name for name, values in columns.items() if np.asarray(values).dtype.kind == "M"}
        super().append(columns, grid)

    def _encoded(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        return moments_to_numbers(values, self._calendar) if values.dtype.kind == "M" else super()._encoded(values)

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        import h5netcdf

        self._grid = grid
        self._file = h5netcdf.File(self._aside.open_for_hdf5(), "w")
        dims: tuple[str, ...] = ("row",) if grid is None else grid.dims
        self._file.dimensions = {"row": None} if grid is None else dict(zip(dims, grid.shape, strict=True))
        units = _units(self.description)
        for name, values in columns.items():
            kept = grid is not None and name in grid.axes
            along, whole = grid.axes[name] if kept and grid is not None else (dims, values)
            is_date = whole.dtype.kind == "M" or name in self._dates
            whole = self._encoded(whole)
            kind = h5py.string_dtype() if whole.dtype == object else whole.dtype
            variable = self._file.create_variable(name, along, kind, chunks=(_CHUNK_ROWS,) if grid is None else None,
                                                  fillvalue=np.nan if whole.dtype.kind == "f" else None)
            if is_date:
                variable.attrs["units"] = self._calendar
            elif name in units and whole.dtype != object:
                variable.attrs["units"] = units[name]
            if kept:
                variable[...] = whole

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        count = len(next(iter(columns.values())))
        if self._grid is None:
            self._file.resize_dimension("row", self._rows + count)
            for name, values in columns.items():
                self._file.variables[name][self._rows:self._rows + count] = values
            return
        for name, values in columns.items():
            if name not in self._grid.axes:
                for slab, first, last in hyperslabs(self._grid.shape, self._rows, self._rows + count):
                    shape = tuple(part.stop - part.start for part in slab)
                    self._file.variables[name][slab] = values[first:last].reshape(shape)

    def _finish(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _units(description: Description | None) -> dict[str, str]:
    """Units by column, where they are known."""
    if description is None:
        return {}
    units = dict(zip(description.channels, description.units or (), strict=False))
    units |= {f"{name}_std": unit for name, unit in units.items()}
    return units | ({"t": description.time_units} if description.time_units else {})
