"""The Well (Ohana et al., NeurIPS 2024, data sets D&B): HDF5 with `t0_fields`, `t1_fields`, `dimensions`, `scalars`.

Scalar and vector fields that vary in time become channels, vectors by component; scalars that differ between
trajectories (or all, if none does, since they may differ between files) become known parameters; boundary conditions of
type PERIODIC become periods. Predictions are written in the same layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.schema import is_hdf5_with, open_hdf5, text, texts
from inrflow.data.formats.streams.gridded import GridWriter, by_quantity, single
from inrflow.data.formats.streams.streamed import OpenedContent, Part, lattice, periodic_axis
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_ORDERS = ("t0_fields", "t1_fields")  # scalars, vectors; tensors (t2_fields) are left out


class TheWellFormat(Format):
    """HDF5 with groups of fields by their tensor order, and of dimensions."""

    name = "The Well"
    about = "The Well's HDF5"
    answers = (".h5", ".hdf5")
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, {"t0_fields", "dimensions"}.issubset)

    def read(self, path: Path, options: ReadOptions) -> Content:
        return TheWellContent(path, open_hdf5(path), options)

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        return TheWellWriter(path, description, overwrite, asked)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with open_hdf5(path) as file, damage_as_user_error(path):
            fields = ", ".join(f"{name} {item.shape}" for order in _ORDERS if order in file
                               for name, item in file[order].items())
            scalars = ", ".join(file["scalars"]) if "scalars" in file else ""
            return [("fields", fields or "none")] + [("scalars", scalars)] * bool(scalars)


class TheWellContent(OpenedContent):
    """Trajectories of fields (S, T, X, ...[, component]) on a Cartesian grid."""

    def _understand(self, options: ReadOptions) -> None:
        file, path = self._file, self.path
        kind = text(file.attrs.get("grid_type", "cartesian"))
        if kind != "cartesian":
            raise UserError(f"{path} has a {kind} grid; Cartesian grids are read, write others with points x (N, d)")
        dimensions = file["dimensions"]
        names = texts(dimensions.attrs["spatial_dims"])
        axes = [np.asarray(dimensions[name][()], np.float64) for name in names]
        if any(axis.ndim != 1 for axis in axes):
            raise UserError(f"{path}: the dimensions {', '.join(names)} are not axes of one grid; expected one each")
        self._t = np.asarray(dimensions["time"][()], np.float64)
        self._x = lattice(axes)
        count = int(file.attrs.get("n_trajectories", 0)) or None
        self._fields: list[tuple[Any, int | None]] = []
        channels = []
        for order in _ORDERS:
            for name, item in (file[order].items() if order in file else ()):
                if not all(bool(item.attrs.get(key, True)) for key in ("time_varying", "sample_varying")):
                    continue
                components = item.shape[-1] if order == "t1_fields" else 1
                expected = (self._t.shape[-1], *map(len, axes)) + ((components,) if order == "t1_fields" else ())
                if item.shape[1:] != expected or (count is not None and item.shape[0] != count):
                    raise UserError(f"{path}: {order}/{name} has shape {item.shape}; expected trajectories, then "
                                    f"{expected}")
                count = item.shape[0]
                vector = order == "t1_fields"
                self._fields += [(item, component if vector else None) for component in range(components)]
                channels += _components(str(name), names, components) if vector else [str(name)]
        if options.channels:
            absent = [name for name in options.channels if name not in channels]
            if absent:
                raise UserError(f"{path} has no field {', '.join(absent)}; there are {', '.join(channels) or 'none'}")
            self._fields = [self._fields[channels.index(name)] for name in options.channels]
            channels = list(options.channels)
        if not channels or count is None:
            raise UserError(f"{path} holds no scalar or vector field that varies in time; give a file with one")
        if tensors := list(file.get("t2_fields", ())):
            warnings.warn(f"{path}: {', '.join(tensors)} {'is a tensor' if len(tensors) == 1 else 'are tensors'} and "
                          "left out; scalars and vectors are channels", stacklevel=2)
        self._count = count
        self._parameters, parameter_names = self._scalars(count)
        period = [periodic_axis(axis) if name in self._periodic() else 0.0
                  for name, axis in zip(names, axes, strict=True)]
        source = f"The Well, {text(file.attrs['dataset_name'])}" if "dataset_name" in file.attrs else None
        self.description = options.describe(path, channels, options.coordinates or list(names), source=source,
                                            period=period if any(period) else None,
                                            parameter_names=parameter_names or None)

    def _scalars(self, count: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """Scalars (S, P) that differ between trajectories, or all if none does, and their names."""
        held = {str(name): np.asarray(item[()], np.float64) for name, item in self._file.get("scalars", {}).items()}
        same = {name: np.broadcast_to(values, count) for name, values in held.items()
                if values.shape in ((), (1,), (count,))}
        columns = {name: values for name, values in same.items() if np.ptp(values) > 0} or same
        return (np.stack(list(columns.values()), -1) if columns else None), tuple(columns)

    def _periodic(self) -> set[str]:
        """Names of the dimensions with a periodic boundary condition."""
        conditions = self._file.get("boundary_conditions")
        found: set[str] = set()
        for item in conditions.values() if isinstance(conditions, h5py.Group) else ():
            if text(item.attrs.get("bc_type", "")).upper() == "PERIODIC":
                found |= set(texts(item.attrs.get("associated_dims", ())))
        return found

    def parts(self) -> Iterator[Part]:
        for index in range(self._count):
            yield Part(self._t if self._t.ndim == 1 else self._t[index], self._x, partial(self._values, index),
                       None if self._parameters is None else self._parameters[index])

    def _values(self, index: int, first: int, last: int) -> np.ndarray:
        columns = [item[index, first:last] if component is None else item[index, first:last, ..., component]
                   for item, component in self._fields]
        return np.stack([column.reshape(last - first, -1) for column in columns], -1)


def _components(name: str, axes: Sequence[str], count: int) -> list[str]:
    """Names of the components of a vector field."""
    return [f"{name}_{axes[index] if index < len(axes) else index}" for index in range(count)]


class TheWellWriter(GridWriter):
    """Writer of fields by tensor order, with all time-independent data of the file of query points."""

    def _axes(self) -> list[tuple[str, np.ndarray]]:
        with open_hdf5(self._source) as old:
            self._names = texts(old["dimensions"].attrs["spatial_dims"])
            vectors = old.get("t1_fields", {})
            self._vectors = {str(name): _components(str(name), self._names, item.shape[-1])
                             for name, item in vectors.items()}
            self._about = {str(name): dict(item.attrs) for order in _ORDERS
                           for name, item in old.get(order, {}).items()}
            return [(name, np.asarray(old["dimensions"][name][()], np.float64)) for name in self._names]

    def _put(self, number: int, t: np.ndarray, fields: dict[str, np.ndarray]) -> None:
        self._require_same(t)
        for vector, parts in self._vectors.items():
            for what, own in by_quantity(list(fields), parts).items():
                if set(own) == set(parts):
                    self._field("t1_fields", vector, what, np.stack([fields.pop(own[part]) for part in parts], -1))
        for own in by_quantity(list(fields), list(self._about)).values():
            for base, name in own.items():
                self._field("t0_fields", base, name.removeprefix(base), fields[name])

    def _field(self, order: str, base: str, what: str, values: np.ndarray) -> None:
        varying = {"time_varying": True, "sample_varying": True, "dim_varying": np.ones(len(self._names), bool)}
        self._stack(self._file.require_group(order), f"{base}{what}", single(values), self._about.get(base, varying))

    def _last(self) -> None:
        new, count = self._file, len(self._written)
        new.create_group("dimensions")
        with open_hdf5(self._source) as old:
            for name in (name for name in old if name not in new):
                old.copy(name, new) if name not in (*_ORDERS, "t2_fields") else new.create_group(name)
            for name, item in old["dimensions"].items():
                if name != "time":
                    old.copy(item, new["dimensions"], name)
            new["dimensions"].attrs.update(old["dimensions"].attrs)
            new["dimensions/time"] = self._t
            new["dimensions/time"].attrs.update(old["dimensions/time"].attrs)
            new.attrs.update({**old.attrs, "n_trajectories": count})
            for order in _ORDERS:
                for name, item in old.get(order, {}).items():
                    if not item.attrs.get("time_varying", True) and not item.attrs.get("sample_varying", True):
                        old.copy(item, new[order], name)
            for name, item in old.get("scalars", {}).items():
                if item.ndim and item.attrs.get("sample_varying", True):
                    del new["scalars"][name]
                    new["scalars"][name] = item[()][self._written]
                    new["scalars"][name].attrs.update(item.attrs)
        for order in (*_ORDERS, "t2_fields"):
            if order in new:
                names = np.array(list(new[order]), object)
                new[order].attrs.create("field_names", names, dtype=h5py.string_dtype())
