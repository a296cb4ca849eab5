"""Columns of a table in blocks of rows, whatever the file: CSV, flat HDF5 or NetCDF (flat or gridded)."""

from __future__ import annotations

import csv
import itertools
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.formats.schema import is_trajectories, open_hdf5
from inrflow.errors import UserError

FORMATS = "CSV, HDF5, NetCDF"


def file_format(path: Path) -> str:
    """What a file holds, by its content: "trajectories" (the project's schema), "hdf5", "netcdf", "npz" or "csv".

    Raises UserError where it is missing or none of these.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a {FORMATS} file")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied; change its permissions") from error
    if not start:
        raise UserError(f"{path} is empty; give a {FORMATS} file")
    if start[:3] == b"CDF" and start[3] in (1, 2, 5):
        return "netcdf"
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            if is_trajectories(file):
                return "trajectories"
            scales = any(isinstance(item, h5py.Dataset) and "CLASS" in item.attrs for item in file.values())
            return "netcdf" if "_NCProperties" in file.attrs or scales else "hdf5"
    if zipfile.is_zipfile(path):
        return "npz"
    if b"\0" in start:
        raise UserError(f"{path} is a binary file of an unknown format; give {FORMATS}")
    return "csv"


@dataclass(frozen=True)
class Grid:
    """The structure of a gridded file: its dimensions, and the variables that live on some of them only."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    axes: dict[str, tuple[tuple[str, ...], np.ndarray]]


class Columns(ABC):
    """Named columns of equal length, read in blocks of rows."""

    names: tuple[str, ...]
    grid: Grid | None = None

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Consecutive blocks of at most `rows` rows; text columns as arrays of str objects."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Columns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_columns(path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
    """The columns of a CSV, flat HDF5 or NetCDF file.

    `wanted`: groups of alternative names of the columns that span the rows of a NetCDF file; its other variables are
    columns where they live on the same dimensions.
    """
    kind = file_format(path)
    if kind == "csv":
        return CsvColumns(path)
    if kind == "hdf5":
        return Hdf5Columns(path)
    if kind == "netcdf":
        return NetcdfColumns(path, wanted)
    raise UserError(f"{path} is {'a npz archive' if kind == 'npz' else 'a trajectory file'}, not a table; give "
                    f"{FORMATS}")


class CsvColumns(Columns):
    """A CSV file with a header; separator comma, semicolon or tab, whichever the header holds most of. All is text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open(newline="", encoding="utf-8-sig")
        try:
            header = self._file.readline()
            separator = max(",;\t", key=header.count)
            self._file.seek(0)
            self._rows = csv.reader(self._file, delimiter=separator, skipinitialspace=True)
            self.names = tuple(name.strip() for name in next(self._rows, []))
        except (UnicodeDecodeError, csv.Error) as error:
            self._file.close()
            raise UserError(f"{path} is neither text in UTF-8 nor another known format; give {FORMATS}") from error
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
                    yield {name: np.array(column, object) for name, column in columns}
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path} cannot be read after line {self._rows.line_num} ({error}); mend or remove "
                            "it") from error

    def close(self) -> None:
        self._file.close()


class Hdf5Columns(Columns):
    """1-D datasets of equal length in the root of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._file = open_hdf5(path)
        flat = {name: item for name, item in self._file.items() if isinstance(item, h5py.Dataset) and item.ndim == 1}
        lengths = {len(item) for item in flat.values()}
        if len(lengths) != 1:
            found = ", ".join(f"{name} {item.shape if isinstance(item, h5py.Dataset) else '(group)'}"
                              for name, item in self._file.items()) or "nothing"
            self._file.close()
            raise UserError(f"{path} holds {found}; expected the project's schema, or 1-D datasets of equal "
                            "length named as the columns of a table")
        self.names, self._rows = tuple(flat), lengths.pop()

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self._rows, rows):
            block = {}
            for name in self.names:
                dataset = self._file[name]
                text = h5py.check_string_dtype(dataset.dtype) is not None
                block[name] = (dataset.asstr() if text else dataset)[start:start + rows]
            yield block

    def close(self) -> None:
        self._file.close()


def open_netcdf(path: Path) -> Any:
    """A NetCDF file as a lazy xarray.Dataset, times decoded; UserError where it cannot be read."""
    import xarray

    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    if classic:
        try:
            import scipy.io  # noqa: F401
        except ImportError as error:
            raise UserError(f"{path} is a NetCDF 3 file, which needs scipy; `pip install scipy`, or rewrite it with "
                            "`nccopy -k nc4`") from error
    try:
        return xarray.open_dataset(path, engine="scipy" if classic else "h5netcdf", cache=False, decode_timedelta=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as NetCDF ({str(error).splitlines()[0]}); check it with "
                        "ncdump") from error


def hyperslabs(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[tuple[slice, ...], int, int]]:
    """Cut the C-order range [start, stop) of an array of `shape` into rectangular parts: (slices, first, last), where
    [first, last) is the part's place in the range."""
    begin = start
    while start < stop:
        # The longest rectangle from here: grow over trailing axes while start is aligned and enough is left.
        axis, size = len(shape), 1
        while axis > 0 and start % (size * shape[axis - 1]) == 0 and stop - start >= size * shape[axis - 1]:
            axis -= 1
            size *= shape[axis]
        if axis == 0:
            count, extent = 1, size
        else:
            room = shape[axis - 1] - start // size % shape[axis - 1]
            count = min(room, (stop - start) // size)
            extent = count * size
        place = np.unravel_index(start, shape)
        yield (tuple(slice(int(p), int(p) + 1) for p in place[:max(axis - 1, 0)])
               + ((slice(int(place[axis - 1]), int(place[axis - 1]) + count),) if axis else ())
               + tuple(slice(0, n) for n in shape[axis:])), start - begin, start - begin + extent
        start += extent


class NetcdfColumns(Columns):
    """NetCDF variables as columns: the rows are the points of the dimensions that the wanted variables span."""

    def __init__(self, path: Path, wanted: Sequence[Sequence[str]]) -> None:
        self._data = open_netcdf(path)
        found = [next((name for name in names if name in self._data.variables), None) for names in wanted]
        spanning = [self._data[name] for name in found if name is not None]
        widest = max((variable.dims for variable in spanning), key=len, default=())
        dims = tuple(dict.fromkeys((*widest, *(dim for variable in spanning for dim in variable.dims))))
        sizes = tuple(self._data.sizes[dim] for dim in dims)
        self._on = {str(name): variable for name, variable in self._data.variables.items()
                    if set(variable.dims) <= set(dims) and (variable.dims or name in found)}
        self.names = tuple(self._on)
        if not self.names or 0 in sizes:
            available = ", ".join(f"{name} {variable.dims}" for name, variable in self._data.variables.items())
            self._data.close()
            raise UserError(f"{path} holds {available or 'nothing'}; expected variables "
                            + ", ".join(" or ".join(names) for names in wanted))
        self._dims, self._shape = dims, sizes
        if len(dims) > 1:
            axes = {name: (tuple(map(str, variable.dims)), np.asarray(variable.values))
                    for name, variable in self._on.items() if len(variable.dims) < len(dims)}
            self.grid = Grid(tuple(map(str, dims)), sizes, axes)

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        total = int(np.prod(self._shape, dtype=np.int64))
        small = {name: np.asarray(v.values) for name, v in self._on.items() if len(v.dims) < len(self._dims)}
        for start in range(0, total, rows):
            stop = min(total, start + rows)
            place = dict(zip(self._dims, np.unravel_index(np.arange(start, stop), self._shape), strict=True)) \
                if self._dims else {}
            block = {}
            for name, variable in self._on.items():
                if name in small:
                    values = small[name][tuple(place[dim] for dim in variable.dims)]
                    block[name] = np.broadcast_to(values, (stop - start,))
                else:
                    aligned = variable.transpose(*self._dims)
                    block[name] = np.concatenate([np.asarray(aligned[slab].values).ravel()
                                                  for slab, _, _ in hyperslabs(self._shape, start, stop)])
            yield block

    def close(self) -> None:
        self._data.close()
