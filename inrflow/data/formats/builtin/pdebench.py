"""PDEBench files (Takamoto et al., NeurIPS 2022, data sets D&B) in three HDF5 layouts, recognised by their datasets.

1. `tensor` (S, T, X, ...) with `x-coordinate`, `t-coordinate`: 1-D advection, Burgers, diffusion-reaction, Darcy flow.
2. `density`, `pressure`, `Vx`, ... (S, T, X, ...) with the same coordinates: compressible Navier-Stokes.
3. groups `0000`, `0001`, ... that hold `data` (T, X, ..., C) and `grid/x`, `grid/y`, `grid/t`: shallow water, 2-D
   diffusion-reaction, incompressible Navier-Stokes.

Predictions are written in the layout of the file of query points.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.schema import is_hdf5_with, open_hdf5
from inrflow.data.formats.streams.gridded import GridWriter, by_quantity, single
from inrflow.data.formats.streams.streamed import OpenedContent, Part, lattice
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_AXES = "xyz"


class PdeBenchFormat(Format):
    """HDF5 with `t-coordinate`, or with numbered groups of `data` and `grid`."""

    name = "PDEBench"
    about = "PDEBench's HDF5"
    answers = (".h5", ".hdf5")
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: "t-coordinate" in file or bool(_groups(file)))

    def read(self, path: Path, options: ReadOptions) -> Content:
        return PdeBenchContent(path, open_hdf5(path), options)

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        with open_hdf5(asked) as file:
            kind = GroupsWriter if _groups(file) else StackedWriter
        return kind(path, description, overwrite, asked)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with open_hdf5(path) as file, damage_as_user_error(path):
            groups = _groups(file)
            where = file[groups[0]] if groups else file
            shapes = ", ".join(f"{name} {item.shape}" for name, item in where.items() if isinstance(item, h5py.Dataset))
            rows = [("groups", f"{len(groups)}, the first is {groups[0]}")] if groups else []
            return [*rows, ("datasets", shapes)]


def _groups(file: h5py.File) -> list[str]:
    """Names of the numbered groups, one for each sample; empty in the other layouts."""
    names = sorted(name for name in file if str(name).isdigit())
    found = bool(names) and all(isinstance(file[name], h5py.Group) for name in names)
    return names if found and {"data", "grid"} <= set(file[names[0]]) else []


class PdeBenchContent(OpenedContent):
    """Trajectories of a PDEBench file, at the cell centres given in the file.

    The file does not declare periodic axes; give period=[...] if it is known.
    """

    def _understand(self, options: ReadOptions) -> None:
        file, path = self._file, self.path
        self._samples = _groups(file)
        if self._samples:
            first = file[self._samples[0]]
            shape = first["data"].shape
            channels = ["u"] if shape[-1] == 1 else [f"u{index}" for index in range(shape[-1])]
            axes = [first["grid"][name][()] for name in _AXES if name in first["grid"]]
            t = first["grid"]["t"][()]
            space = shape[1:-1]
        else:
            stored = [name for name, item in file.items() if isinstance(item, h5py.Dataset)
                      and not name.endswith("-coordinate")]
            wanted = list(options.channels or stored)
            absent = [name for name in wanted if name not in stored]
            shapes = {file[name].shape for name in wanted if name in stored}
            if absent or len(shapes) != 1:
                held = ", ".join(f"{name} {file[name].shape}" for name in stored) or "none"
                raise UserError(f"{path}: the fields {', '.join(wanted)} are not all there with one shape (there are: "
                                f"{held}); name some with channels=[...]")
            self._names = wanted
            shape = shapes.pop()
            channels = ["u" if name == "tensor" else name for name in wanted]
            axes = [file[f"{name}-coordinate"][()] for name in _AXES if f"{name}-coordinate" in file]
            t = np.asarray(file["t-coordinate"][()], np.float64)
            space = shape[2:]
            if len(shape) == len(axes) + 1:
                raise UserError(f"{path} holds fields {shape} without times (a steady problem); give fields at several "
                                "times, from which dynamics are learned")
        times = shape[0] if self._samples else shape[1]
        edges = len(t) == times + 1  # compressible flow has one more time than frames
        if len(space) != len(axes) or any(size != len(axis) for size, axis in zip(space, axes, strict=True)) \
                or not (edges or len(t) == times):
            raise UserError(f"{path}: fields of shape {shape} do not fit {len(t)} times and axes of "
                            f"{', '.join(str(len(axis)) for axis in axes) or 'no'} points; expected PDEBench's layout")
        self._t = np.asarray(t[:times], np.float64)
        self._x = lattice(axes)
        if options.channels and self._samples:
            if len(options.channels) != len(channels):
                raise UserError(f"{path} has {len(channels)} channels without names; channels=[...] names "
                                f"{len(options.channels)}, give one each")
            channels = list(options.channels)
        self.description = options.describe(path, channels, options.coordinates or list(_AXES[:len(axes)]))

    def parts(self) -> Iterator[Part]:
        if not self._samples:
            count = self._file[self._names[0]].shape[0]
            for index in range(count):
                yield Part(self._t, self._x, partial(self._stacked, index))
            return
        for name in self._samples:
            yield Part(self._t, self._x, partial(self._rows, self._file[name]["data"]))

    def _stacked(self, index: int, first: int, last: int) -> np.ndarray:
        return np.stack([self._file[name][index, first:last].reshape(last - first, -1) for name in self._names], -1)

    def _rows(self, data: Any, first: int, last: int) -> np.ndarray:
        return data[first:last].reshape(last - first, len(self._x), -1)


class StackedWriter(GridWriter):
    """Writer of the first two layouts: a dataset (S, T, X, ...) for each field, and the axes."""

    def _axes(self) -> list[tuple[str, np.ndarray]]:
        with open_hdf5(self._source) as old:
            return [(name, np.asarray(old[f"{name}-coordinate"][()], np.float64)) for name in _AXES
                    if f"{name}-coordinate" in old]

    def _put(self, number: int, t: np.ndarray, fields: dict[str, np.ndarray]) -> None:
        self._require_same(t)
        channels = () if self.description is None else self.description.channels
        with open_hdf5(self._source) as old:
            for what, own in by_quantity(list(fields), channels).items():
                for channel, name in own.items():
                    base = "tensor" if "tensor" in old and what != ", " else channel
                    stored = f"{base}{name.removeprefix(channel)}"
                    self._stack(self._file, stored, single(fields[name]), old[base].attrs if base in old else {})

    def _last(self) -> None:
        with open_hdf5(self._source) as old:
            times, frames = old["t-coordinate"], {
                item.shape[1] for item in old.values() if isinstance(item, h5py.Dataset) and item.ndim > 1}
            last = self._t[-1] + (times[-1] - times[-2])
            self._file["t-coordinate"] = self._t if len(times) in frames else np.append(self._t, last)
            self._file.attrs.update(old.attrs)
            for name in (f"{axis}-coordinate" for axis in _AXES):
                if name in old:
                    old.copy(name, self._file)


class GroupsWriter(GridWriter):
    """Writer of the third layout: a group of `data` (T, X, ..., C) and `grid` for each trajectory, with standard
    deviations and quantiles as `data_std` and so on."""

    def _axes(self) -> list[tuple[str, np.ndarray]]:
        with open_hdf5(self._source) as old:
            grid = old[_groups(old)[0]]["grid"]
            return [(name, np.asarray(grid[name][()], np.float64)) for name in _AXES if name in grid]

    def _put(self, number: int, t: np.ndarray, fields: dict[str, np.ndarray]) -> None:
        with open_hdf5(self._source) as old:
            name = _groups(old)[number]
            group = self._file.create_group(name)
            group.attrs.update(old[name].attrs)
            old.copy(old[name]["grid"], group)
            del group["grid"]["t"]
            group["grid"]["t"] = t
            self._file.attrs.update(old.attrs)
        channels = () if self.description is None else self.description.channels
        for what, own in by_quantity(list(fields), channels).items():
            whole = set(own) == set(channels)
            held = {f"data{what}": np.stack([fields[own[channel]] for channel in channels], -1)} if whole else {
                field: fields[field] for field in own.values()}
            for field, values in held.items():
                group.create_dataset(field, data=single(values), compression="gzip", compression_opts=4, shuffle=True)
