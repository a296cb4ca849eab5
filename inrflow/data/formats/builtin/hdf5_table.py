"""HDF5 without a known layout: 1-D datasets of equal length in the root, or the fields of a compound dataset, are
columns of a table; others are named arrays, possibly in groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.builtin.arrays import ArrayFormat
from inrflow.data.formats.columns import TIMES, Columns, Grid, find_column
from inrflow.data.formats.registry import CHUNK_ROWS, TableWriter, units_of_columns
from inrflow.data.formats.schema import FORMAT, VERSION, is_hdf5_with, open_hdf5, resolves, text
from inrflow.data.formats.table_format import TableFormat
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_LARGEST = 5e8  # largest size of arrays in bytes, which are read into memory
_DEEPEST = 2  # levels of nested groups that are searched


class Hdf5Format(TableFormat):
    """HDF5 tables; any HDF5 file that no other format recognises."""

    name = "HDF5, flat"
    about = "flat HDF5 (1-D datasets as columns)"
    suffixes = (".h5", ".hdf5")
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return h5py.is_hdf5(path)

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return Hdf5Columns(path)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return Hdf5Writer(path, description, overwrite)


class Hdf5ArrayFormat(ArrayFormat):
    """HDF5 file without a known layout that has arrays of several axes, and no table beside them."""

    name = "HDF5, arrays"
    about = "HDF5 (named arrays)"

    def sniff(self, path: Path, start: bytes) -> bool:
        def arrays(file: h5py.File) -> bool:
            items = _numbers(file)
            flat = {name: len(item) for name, item in items.items() if item.ndim == 1}
            table = len(flat) > 2 and len(set(flat.values())) == 1 and find_column(flat, TIMES) is not None
            return not table and not {"t", "x", "u"} <= set(file) and any(item.ndim > 1 for item in items.values())

        return is_hdf5_with(path, arrays)

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        with open_hdf5(path) as file:
            items = _numbers(file)
            if sum(item.size * item.dtype.itemsize for item in items.values()) > _LARGEST:
                raise UserError(f"{path} holds arrays of more than {_LARGEST / 1e9:g} GB that are not of the project's "
                                "schema; write them as such, with datasets t, x and u")
            return {name: item[()] for name, item in items.items()}


def _numbers(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Numeric datasets of a file by name, from all groups; only those of the root if names are not unique."""
    held = list(_items(file, _DEEPEST))
    numbers = [(name, item) for name, item in held if item.dtype.kind in "fiu" and item.ndim]
    own = [(name, item) for name, item in numbers if item.parent == file]
    return dict(numbers if len({name for name, _ in numbers}) == len(numbers) else own)


def _items(group: h5py.Group, depth: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """Names and datasets of a group and its subgroups."""
    for name in group:
        item = group[name] if resolves(group, name) else None
        if isinstance(item, h5py.Dataset):
            yield name, item
        elif isinstance(item, h5py.Group) and depth:
            yield from _items(item, depth - 1)


class Hdf5Columns(Columns):
    """Columns of 1-D datasets of equal length in the root of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, open_hdf5(path)
        with damage_as_user_error(path):
            items = {name: self._file[name] for name in self._file if resolves(self._file, name)}
            flat = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset) and item.ndim == 1}
            lengths = {len(item) for item in flat.values()}
        if {"t", "x", "u"} <= set(items) and getattr(items["u"], "ndim", 1) > 2:
            self._file.close()
            raise UserError(f"{path} holds t, x and u without the attributes of the schema; expected the project's "
                            f"schema: add format={FORMAT!r}, version={VERSION}, channels and coordinates")
        if text(self._file.attrs.get("Conventions", "")).startswith("ODIM_H5"):
            self._file.close()
            raise UserError(f"{path} holds sweeps of a radar in polar coordinates (ODIM), which is not read; "
                            "interpolate them to a grid of x and y, as wradlib or Py-ART do, and write NetCDF")
        if len(lengths) != 1:
            groups = len(items) > 1 and not flat and all(isinstance(item, h5py.Group) for item in items.values())
            advice = "; write one file for each group, or arrays t, x, u by numpy.savez" if groups else ""
            holds = ", ".join(f"{name} {item.shape if isinstance(item, h5py.Dataset) else '(group)'}"
                              for name, item in items.items()) or "nothing"
            self._file.close()
            raise UserError(f"{path} holds {holds}; expected the project's schema, or 1-D datasets of equal "
                            f"length named as the columns of a table{advice}")
        self._rows, self._record = lengths.pop(), None
        if len(flat) == 1 and (fields := next(iter(flat.values())).dtype.names):  # a structured array
            self._record, flat = next(iter(flat)), dict.fromkeys(fields, next(iter(flat.values())))
        self.names = tuple(flat)
        self.units = {name: str(item.attrs["units"]) for name, item in flat.items() if "units" in item.attrs}

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self._rows, rows):
            block = {}
            with damage_as_user_error(self._path):
                if self._record is not None:
                    part = self._file[self._record][start:start + rows]
                    block = {name: _decoded(part[name]) for name in self.names}
                for name in self.names if self._record is None else ():
                    dataset = self._file[name]
                    text = h5py.check_string_dtype(dataset.dtype) is not None
                    block[name] = (dataset.asstr() if text else dataset)[start:start + rows]
            yield block

    def close(self) -> None:
        self._file.close()


def _decoded(values: np.ndarray) -> np.ndarray:
    """Bytes as str objects; numbers unchanged. Raises UserError for arrays within records."""
    if values.ndim > 1:
        raise UserError(f"a record of the table holds arrays of {values.shape[1:]}; write a column for each number")
    if values.dtype.kind not in "SO":
        return values
    return np.array([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
                     for one in values.tolist()], object)


class Hdf5Writer(TableWriter):
    """Writer of a 1-D dataset for each column."""

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._file = h5py.File(self._target.open_for_hdf5(), "w", track_order=True)
        units = units_of_columns(self.description)
        for name, values in columns.items():
            kind = h5py.string_dtype() if values.dtype == object else values.dtype
            dataset = self._file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(CHUNK_ROWS,),
                                                compression="gzip", compression_opts=4, shuffle=values.dtype != object)
            if name in units:
                dataset.attrs["units"] = units[name]

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, values in columns.items():
            dataset = self._file[name]
            dataset.resize((self._rows + len(values),))
            dataset[self._rows:] = values
