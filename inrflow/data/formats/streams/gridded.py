"""Writers of predictions as arrays: rows gathered to fields (T, X, ...) of a trajectory, in the layout of the file of
points, or as named arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import TIMES, Grid, find_column
from inrflow.data.formats.registry import TableWriter
from inrflow.errors import UserError

_MEDIAN = "_q50"
_OFF = 1e-6  # tolerance of places on an axis, relative to its length


class GatheredWriter(TableWriter):
    """Writer that gathers the rows of each trajectory before writing them. A format implements `_place`.

    Raises UserError for columns of text, and if the rows of a trajectory are not consecutive.
    """

    def __init__(self, path: Path, description: Description | None, overwrite: bool, source: Path) -> None:
        super().__init__(path, description, overwrite)
        self._source = source
        self._blocks: list[Mapping[str, np.ndarray]] = []
        self._written: list[int] = []

    @abstractmethod
    def _place(self, number: int, t: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Process the rows of a trajectory at times t (R,)."""

    def _last(self) -> None:  # noqa: B027  not needed by most formats
        """Write data that need all trajectories."""

    def abandon(self) -> None:
        self._blocks = []
        self._written = []
        super().abandon()

    def _require_numbers(self, columns: Mapping[str, np.ndarray]) -> None:
        text = [name for name, values in columns.items() if values.dtype.kind not in "fiu"]
        if text:
            raise UserError(f"{self.path}: {', '.join(text)} holds text, for which files of this layout have no place; "
                            "write .csv or .nc instead")

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        number = columns.get("trajectory", np.zeros(len(next(iter(columns.values()))), np.int64))
        for rows in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
            block = {"trajectory": number[rows]} | {name: values[rows] for name, values in columns.items()}
            if self._blocks and self._blocks[0]["trajectory"][0] != number[rows[0]]:
                self._gather()
            self._blocks.append(block)

    def _gather(self) -> None:
        columns = {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}
        self._blocks = []
        number = int(columns.pop("trajectory")[0])
        if number in self._written:
            raise UserError(f"{self.path}: the rows of trajectory {number} are not together; sort them")
        self._written.append(number)
        self._place(number, columns.pop(str(find_column(columns, TIMES))), columns)

    def _named(self, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fields with medians renamed to their channels, as expected by programs that read this layout."""
        channels = () if self.description is None else self.description.channels
        medians = {f"{name}{_MEDIAN}": name for name in channels if name not in fields}
        return {medians.get(name, name): values for name, values in fields.items()}

    def _finish(self) -> None:
        if self._blocks:
            self._gather()
        if self._written:
            self._last()
            self._written = []
        super()._finish()


class GridWriter(GatheredWriter):
    """Writer that gathers rows to fields on the grid of the file of query points.

    Cells without a row are NaN. A format implements `_axes` and `_put`, which appends a trajectory to `_file`. Raises
    UserError for places off the grid.
    """

    _t = np.empty(0)

    @abstractmethod
    def _axes(self) -> list[tuple[str, np.ndarray]]:
        """Names and points of the axes."""

    @abstractmethod
    def _put(self, number: int, t: np.ndarray, fields: dict[str, np.ndarray]) -> None:
        """Append fields (T, X, ...) of a trajectory at its times."""

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._file = h5py.File(self._target.open_for_hdf5(), "w")
        self._require_numbers(columns)
        self._grid = self._axes()

    def _place(self, number: int, t: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        t, frame = np.unique(t, return_inverse=True)
        cells, sizes = self._cells(columns)
        shape, fields = (len(t), *sizes), {}
        for name, values in columns.items():
            whole = len(values) == np.prod(shape)
            fields[name] = np.empty(shape, values.dtype) if whole else np.full(shape, np.nan)
            fields[name][(frame.ravel(), *cells)] = values
        self._put(number, t, self._named(fields))

    def _cells(self, columns: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
        """Indices of rows along each axis, and sizes of axes; removes the coordinates from the columns."""
        named = {name for name, _ in self._grid} <= set(columns)
        names = [name for name, _ in self._grid] if named or self.description is None else self.description.coordinates
        return [self._on_axis(axis, columns.pop(name)) for name, (_, axis) in zip(names, self._grid, strict=True)], [
            len(axis) for _, axis in self._grid]

    def _on_axis(self, axis: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Indices of places among the points of an axis. Raises UserError for places off the axis."""
        order = np.argsort(axis)
        ends = (axis[order][1:] + axis[order][:-1]) / 2
        nearest = order[np.searchsorted(ends, places)]
        if (np.abs(axis[nearest] - places) > _OFF * max(np.ptp(axis), np.finfo(float).tiny)).any():
            raise UserError(f"{self.path}: the points are not those of the grid of {self._source}; write .csv, or .h5 "
                            "beside points=FILE")
        return nearest

    def _require_same(self, t: np.ndarray) -> None:
        """Check that a trajectory has the times of the first. Raises UserError."""
        self._t = t if len(self._written) == 1 else self._t
        if not np.array_equal(self._t, t):
            raise UserError(f"{self.path}: trajectories have different times, and files of this layout one row of "
                            "them; write .csv or .nc instead")

    def _stack(self, where: h5py.Group, name: str, values: np.ndarray, attributes: Mapping[str, Any]) -> None:
        """Append values (T, ...) to a dataset (S, T, ...)."""
        if name not in where:
            where.create_dataset(name, (0, *values.shape), values.dtype, maxshape=(None, *values.shape),
                                 chunks=(1, *values.shape), compression="gzip", compression_opts=4, shuffle=True)
            where[name].attrs.update(attributes)
        where[name].resize((len(where[name]) + 1, *values.shape))
        where[name][-1] = values


class ArrayWriter(GridWriter):
    """Writer of named arrays: times t, axes of a grid or else points x (N, d), and fields (S, T, ...), or (T, ...) for
    one trajectory. save: function that writes them to an open file.
    """

    def __init__(self, path: Path, description: Description | None, overwrite: bool,
                 save: Callable[[Any, dict[str, np.ndarray]], None]) -> None:
        super().__init__(path, description, overwrite, path)
        self._save, self._places = save, dict[str, np.ndarray]()
        self._parts: dict[str, list[np.ndarray]] = {}

    def _axes(self) -> list[tuple[str, np.ndarray]]:
        return []

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._require_numbers(columns)

    def _cells(self, columns: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
        names = self.description.coordinates if self.description is not None else tuple("xyz")
        if self.description is not None and self.description.placeless:
            return [], []
        x = np.stack([columns.pop(name) for name in names], -1)
        axes, cells = zip(*(np.unique(line, return_inverse=True) for line in x.T), strict=True)
        points, place = np.unique(x, axis=0, return_inverse=True)
        if len(points) < np.prod([len(axis) for axis in axes]):
            axes, cells, own = (points,), (place.ravel(),), {"x": points}
        else:
            own = dict(zip(names, axes, strict=True))
        if self._places and not (set(own) == set(self._places) and all(
                np.array_equal(own[name], held) for name, held in self._places.items())):
            raise UserError(f"{self.path}: trajectories have different points, and named arrays one set of them; write "
                            ".csv or .nc instead")
        self._places = own
        return list(cells), [len(axis) for axis in axes]

    def _put(self, number: int, t: np.ndarray, fields: dict[str, np.ndarray]) -> None:
        self._require_same(t)
        for name, values in fields.items():
            self._parts.setdefault(name, []).append(values)

    def _named(self, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return fields

    def _last(self) -> None:
        arrays = {"t": self._t, **self._places}
        arrays |= {name: parts[0] if len(parts) == 1 else np.stack(parts) for name, parts in self._parts.items()}
        with self._target.partial.open("wb") as file:
            self._save(file, arrays)


def by_quantity(names: Sequence[str], channels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Names of fields by quantity ("" for values, "_std", "_q05", ...) and channel; fields of no channel under ", "."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        own = max((one for one in channels if name == one or name.startswith(f"{one}_")), key=len, default=None)
        found.setdefault(", " if own is None else name[len(own):], {})[name if own is None else own] = name
    return found


def single(values: np.ndarray) -> np.ndarray:
    """Floating-point values in single precision, as in published data sets; others unchanged."""
    return values.astype(np.float32) if values.dtype.kind == "f" else values
