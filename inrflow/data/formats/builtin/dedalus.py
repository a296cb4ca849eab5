"""Dedalus snapshots, versions 2 and 3: HDF5 with `tasks` on the grids and times of `scales`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.schema import is_hdf5_with, open_hdf5, text
from inrflow.data.formats.streams.streamed import OpenedContent, Part, lattice
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_CURVED = {"phi", "theta", "r"}  # coordinates of disks, spheres and balls


class DedalusFormat(Format):
    """HDF5 with groups of tasks and of scales."""

    name = "Dedalus"
    about = "Dedalus' snapshots"
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: {"tasks", "scales"} <= set(file) and isinstance(
            file["scales"], h5py.Group) and "sim_time" in file["scales"])

    def read(self, path: Path, options: ReadOptions) -> Content:
        return DedalusContent(path, open_hdf5(path), options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with open_hdf5(path) as file, damage_as_user_error(path):
            return [("tasks", ", ".join(f"{name} {item.shape}" for name, item in file["tasks"].items()) or "none")]


class DedalusContent(OpenedContent):
    """Tasks on one Cartesian grid, tensors by component; others are left out with a warning."""

    def _understand(self, options: ReadOptions) -> None:
        tasks = {str(name): item for name, item in self._file["tasks"].items()
                 if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu"}
        if absent := [name for name in options.channels or () if name not in tasks]:
            raise UserError(f"{self.path} has no task {', '.join(absent)}; there are {', '.join(tasks) or 'none'}")
        grids = {name: self._axes(item) for name, item in tasks.items()}
        chosen = {name: grids[name] for name in options.channels or grids if all(
            len(axis) > 1 for axis in grids[name].values()) and grids[name]}
        most = max(map(len, chosen.values()), default=0)
        axes = next((axes for axes in chosen.values() if len(axes) == most), {})
        if not axes or _CURVED & set(axes):
            raise UserError(f"{self.path} holds tasks over {', '.join(axes) or 'no axes of a grid'}; expected grid "
                            "values over Cartesian axes, write others as arrays t, x (points, coordinates), u")
        self._fields = [tasks[name] for name, own in chosen.items() if _same(own, axes)]
        left = [name for name in options.channels or tasks if name not in chosen or not _same(chosen[name], axes)]
        if left:
            warnings.warn(f"{self.path}: {', '.join(left)} {'lies' if len(left) == 1 else 'lie'} on another grid and "
                          f"{'is' if len(left) == 1 else 'are'} left out", stacklevel=2)
        self._t = np.asarray(self._file["scales"]["sim_time"][()], np.float64)
        self._x = lattice(list(axes.values()))
        names = list(axes)
        channels = [f"{name}{component}" for name, own in chosen.items() if _same(own, axes)
                    for component in _components(tasks[name].shape[1:-len(axes)], names)]
        self.description = options.describe(self.path, channels, options.coordinates or names)

    def _axes(self, task: Any) -> dict[str, np.ndarray]:
        """Axes of the grid of a task by name; empty for a task in coefficient space."""
        if not np.all(task.attrs.get("grid_space", True)):
            return {}
        labelled = {text(task.dims[axis].label): axis for axis in range(1, task.ndim) if len(task.dims[axis])}
        return {name: np.asarray(task.dims[axis][0][()], np.float64).ravel() for name, axis in labelled.items() if name}

    def parts(self) -> Iterator[Part]:
        yield Part(self._t, self._x, self._values)

    def _values(self, first: int, last: int) -> np.ndarray:
        points = len(self._x)
        return np.concatenate([np.moveaxis(field[first:last].reshape(last - first, -1, points), 1, -1)
                               for field in self._fields], -1)


def _same(own: dict[str, np.ndarray], axes: dict[str, np.ndarray]) -> bool:
    return list(own) == list(axes) and all(np.array_equal(own[name], axis) for name, axis in axes.items())


def _components(shape: tuple[int, ...], names: list[str]) -> list[str]:
    """Suffixes of the name of a task for the components of a tensor of this shape, in C order."""
    words = [""]
    for size in shape:
        words = [f"{word}_{names[index] if size == len(names) else index}" for word in words for index in range(size)]
    return words
