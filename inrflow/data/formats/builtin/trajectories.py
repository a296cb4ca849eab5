"""Format of the project's own schema: copied with compression, read as points and observations, and written as
predictions at such points."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.builtin.trajectory_summary import trajectory_rows
from inrflow.data.formats.columns import Grid, PointTable
from inrflow.data.formats.layouts import VALUES_PER_BLOCK, blocks, hyperslabs
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.schema import in_schema, open_hdf5, resolves
from inrflow.data.formats.streams.gridded import GatheredWriter, by_quantity, single
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import TrajectoryWriter, write_scattered
from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error, written_hdf5

_CHUNK = 16384  # points in a chunk of predictions


class TrajectoryFormat(Format):
    """HDF5 that declares the project's schema."""

    name = "trajectories"
    about = "the project's schema"
    answers = (".h5", ".hdf5")
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return in_schema(path)

    def read(self, path: Path, options: ReadOptions) -> Content:
        if options != ReadOptions():
            raise UserError(f"{path} is in the project's schema already and is copied as it is; leave out the options")
        return TrajectoryContent(path)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with TrajectoryFile(path) as file:
            return trajectory_rows(file)

    def open_answer(self, path: Path, description: Description | None, overwrite: bool, asked: Path) -> TableWriter:
        return PredictionWriter(path, description, overwrite, asked)

    def points(self, path: Path, description: Description, rows: int) -> Iterator[PointTable]:
        with _open_matching(path, description, check=False) as file:
            order = [file.description.coordinates.index(name) for name in description.coordinates]
            held = _held_channels(file, description)
            rows_of_file = Grid(("row",), (-1,), {})  # all rows in their order
            if file.layout == "scattered":
                for start in range(0, file.rows, rows):
                    number, t, x, u = file.read_rows(start, start + rows)
                    yield replace(_point_table(number, t, x[:, order], description, u, held), grid=rows_of_file)
                return
            times = file.times()
            for index in range(file.trajectories):
                valid = int(np.isfinite(times[index]).sum())
                for chosen in _cuts(valid, max(1, rows // file.points)):
                    for points in _cuts(file.points, rows):
                        frames = file.read(index, chosen, points)
                        x = np.broadcast_to(frames.x, (len(chosen), len(points), len(order)))[..., order]
                        t = np.repeat(frames.t, len(points))
                        table = _point_table(np.full(len(t), index), t, x.reshape(len(t), -1), description,
                                             frames.u.reshape(len(t), -1), held)
                        yield replace(table, grid=rows_of_file)

    def observations(self, path: Path, description: Description) -> dict[int, Observations]:
        observations: dict[int, Observations] = {}
        with _open_matching(path, description, check=True) as file:
            axes = [file.description.coordinates.index(name) for name in description.coordinates]
            channels = [file.description.channels.index(name) for name in description.channels]
            for index, number in enumerate(file.ids.tolist()):
                frames = file.read(index)
                try:
                    observations[number] = Observations(frames.t, frames.x[..., axes], frames.u[..., channels])
                except UserError as error:
                    raise UserError(f"{path}, trajectory {number}: {error}") from error
        return observations


class TrajectoryContent(Content):
    """File of the schema, whose values are checked, and which is copied with large datasets in compressed blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with TrajectoryFile(path) as file:
            self.description = file.description

    def write(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        with TrajectoryFile(self.path, check=False) as file:
            for _ in file.value_blocks():  # each is checked as it is read
                pass
        with damage_as_user_error(self.path), open_hdf5(self.path) as old, written_hdf5(
                target, overwrite, lambda partial: TrajectoryFile(partial, name=self.path).close()) as new:
            for name, value in old.attrs.items():
                new.attrs[name] = value
            for name in old:
                if not resolves(old, name):
                    continue
                item = old[name]
                if not isinstance(item, h5py.Dataset) or item.size * item.dtype.itemsize < 1 << 16:
                    old.copy(name, new)
                    continue
                packed = new.create_dataset(name, item.shape, item.dtype, chunks=item.chunks or True,
                                            compression="gzip", compression_opts=4, shuffle=True)
                for key, value in item.attrs.items():
                    packed.attrs[key] = value
                for part in blocks(item.shape, VALUES_PER_BLOCK):
                    packed[part] = item[part]


class PredictionWriter(GatheredWriter):
    """Writer of predictions as a file of the schema: values or medians as u, standard deviations and quantiles of all
    channels as `u_std`, `u_q05` and so on, other columns by name. Trajectories keep the parameters, environments and
    further datasets of the file of query points. If rows are exactly those of that file, they are streamed."""

    def __init__(self, path: Path, description: Description | None, overwrite: bool, source: Path) -> None:
        super().__init__(path, description, overwrite, source)
        self._overwrite, self._shape, self._next = overwrite, tuple[int, ...](), Counter[tuple[int, ...]]()

    def _complete(self) -> None:
        if self._shape:
            super()._complete()
        else:
            self._finish()  # by a writer that also renames the file

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._require_numbers(columns)
        self._parts: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
        with TrajectoryFile(self._source, check=False) as file:
            if grid is None or self._about() != file.description:
                return
        self._file = h5py.File(self._target.open_for_hdf5(), "w")
        with damage_as_user_error(self._source), open_hdf5(self._source) as old:
            self._shape = old["u"].shape[:-1]
            self._file.attrs.update(old.attrs)
            for name in [name for name in old if name != "u" and resolves(old, name)]:
                old.copy(name, self._file)

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        if not self._shape:
            super()._add(columns)
            return
        about, number = self._about(), columns["trajectory"]
        named = {name: values for name, values in columns.items()
                 if name not in ("trajectory", "t", *about.coordinates)}
        fields = {name: single(values) for name, values in self._stacked(named, about).items()}
        if not self._rows:
            for name, values in fields.items():
                self._file.pop(name, None)  # earlier predictions
                shape = (*self._shape, *values.shape[1:])
                missing = np.nan if values.dtype.kind == "f" else 0
                chunk = (*(1,) * (len(self._shape) - 1), min(self._shape[-1], _CHUNK), *values.shape[1:])
                self._file.create_dataset(name, shape, values.dtype, fillvalue=missing, chunks=chunk, shuffle=True,
                                          compression="gzip", compression_opts=4)
        rows = np.arange(len(number))
        for own in [rows] if len(self._shape) == 1 else np.split(rows, np.flatnonzero(np.diff(number)) + 1):
            of = () if len(self._shape) == 1 else (int(number[own[0]]),)
            start = self._next[of]
            for slab, first, last in hyperslabs(self._shape[len(of):], start, start + len(own)):
                shape = tuple(part.stop - part.start for part in slab)
                for name, values in fields.items():
                    self._file[name][(*of, *slab)] = values[own[first:last]].reshape(*shape, *values.shape[1:])
            self._next[of] += len(own)

    def _place(self, number: int, t: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        about = self._about()
        x = np.stack([columns.pop(name) for name in about.coordinates], -1)
        self._parts.append((t, x, {name: single(values) for name, values in self._stacked(columns, about).items()}))

    def _about(self) -> Description:
        """Description of the file of query points if it has the predicted channels, else that of the predictions."""
        with TrajectoryFile(self._source, check=False) as file:
            known = self.description
            return file.description if known is None or known.same_system(file.description) else known

    def _stacked(self, columns: dict[str, np.ndarray], about: Description) -> dict[str, np.ndarray]:
        """Columns (R,) as datasets: u (R, C), `u_std` and so on, stacked over channels; others unchanged."""
        found: dict[str, np.ndarray] = {}
        for what, own in by_quantity(list(self._named(columns)), about.channels).items():
            if set(own) == set(about.channels):
                found[f"u{what}"] = np.stack([self._named(columns)[own[name]] for name in about.channels], -1)
            else:
                found |= {name: self._named(columns)[name] for name in own.values()}
        return found

    def _last(self) -> None:
        about, frames = self._about(), [_frames(t, x) for t, x, _ in self._parts]
        with TrajectoryFile(self._source, check=False) as file:
            places = [int(np.flatnonzero(file.ids == number)[0]) for number in self._written]
            held = {"parameters": file.parameters, "environment": file.environment}
            known = {name: None if values is None else values[places] for name, values in held.items()}
            scattered, count = file.layout == "scattered", (len(places), file.points)
            extra = {name: file.read_extra(name) for name in file.extra} if file.trajectories == len(places) else {}
        names = [name for name in self._parts[0][2] if name != "u"]
        if scattered and any(x.ndim == 3 for _, x, _ in frames):
            t, x = (np.concatenate([part[index] for part in self._parts]) for index in (0, 1))
            number = np.repeat(self._written, [len(part[0]) for part in self._parts])
            order = np.lexsort((t, number))  # as rows are stored
            columns = {name: np.concatenate([part[2][name] for part in self._parts]) for name in ("u", *names)}
            write_scattered(self.path, number, t, x, columns.pop("u"), about, known["parameters"], known["environment"],
                            extra | {name: values[order] for name, values in columns.items()}, self._overwrite)
            return
        longest, widest = (max(cells.shape[axis] for *_, cells in frames) for axis in (0, 1))
        beside: dict[str, list[np.ndarray]] = {name: [] for name in names}
        with TrajectoryWriter(self.path, about, self._overwrite) as writer:
            for index, ((t, x, cells), (_, _, columns)) in enumerate(zip(frames, self._parts, strict=True)):
                given = {name: None if values is None else values[index] for name, values in known.items()}
                writer.append(t, x, _at(cells, columns["u"]), **given)
                room = np.pad(cells, ((0, longest - cells.shape[0]), (0, widest - cells.shape[1])), constant_values=-1)
                for name in names:
                    beside[name].append(_at(room, columns[name]))
            kept = extra if count == (len(places), widest) else {}
            writer.beside(kept | {name: np.stack(values) for name, values in beside.items()})


def _frames(t: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (T,) of rows, points (N, d), or (T, N, d) if they differ between frames, and row indices (T, N), -1 if
    there is no row."""
    times, frame = np.unique(t, return_inverse=True)
    order = np.argsort(frame, kind="stable")
    counts = np.bincount(frame)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    cells = np.full((len(times), counts.max()), -1)
    cells[frame[order], np.arange(len(t)) - start] = order
    first = cells[0]
    if (cells >= 0).all() and (x[cells] == x[first]).all():
        return times, x[first], cells
    points, which = np.unique(x, axis=0, return_inverse=True)
    if len(points) == counts.max():  # each place once in every frame at most, in any order or with gaps
        at = np.full(len(points), len(t))
        np.minimum.at(at, which.ravel(), np.arange(len(t)))
        rank = np.argsort(np.argsort(at))  # in the order of their first rows
        cells = np.full((len(times), len(points)), -1)
        cells[frame, rank[which.ravel()]] = np.arange(len(t))
        return times, points[np.argsort(at)], cells
    return times, x[np.where(cells < 0, cells[:, :1], cells)], cells


def _at(cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at row indices `cells`; missing ones are NaN, or 0 for integers."""
    missing = np.array(np.nan if values.dtype.kind == "f" else 0, values.dtype)
    shape = cells.shape + (1,) * (values.ndim - 1)
    return np.where((cells < 0).reshape(shape), missing, values[cells])


def _open_matching(path: Path, description: Description, check: bool) -> TrajectoryFile:
    file = TrajectoryFile(path, check=check)
    stored, wanted = file.description, description
    problem = None
    if set(stored.coordinates) != set(wanted.coordinates):
        problem = f"coordinates {', '.join(stored.coordinates)}, expected {', '.join(wanted.coordinates)}"
    elif check and not set(wanted.channels) <= set(stored.channels):
        problem = f"channels {', '.join(stored.channels)}, expected {', '.join(wanted.channels)}"
        problem += " (medians of a forecast are no observations)" * (f"{wanted.channels[0]}_q50" in stored.channels)
    elif stored.time_units and wanted.time_units and stored.time_units != wanted.time_units:
        problem = f"times in {stored.time_units}, expected {wanted.time_units}"
    if problem:
        file.close()
        raise UserError(f"{path} has {problem}; give a file of the same system as the model's")
    return file


def _held_channels(file: TrajectoryFile, description: Description) -> dict[str, int]:
    """Indices of channels in a file; empty if it has no values, but only query points."""
    stored = file.description.channels
    if not any(np.isfinite(block).any() for block in file.value_blocks()):
        return {}
    return {name: stored.index(name) for name in description.channels if name in stored}


def _point_table(trajectory: np.ndarray, t: np.ndarray, x: np.ndarray, description: Description, u: np.ndarray,
                 held: dict[str, int]) -> PointTable:
    """Table of points x (R, d) with the values u (R, C) of the channels in `held`."""
    places = {} if description.placeless else dict(zip(description.coordinates, x.T, strict=True))
    columns = {"trajectory": trajectory, "t": t, **places}
    return PointTable(trajectory, t, x, columns | {name: u[:, place] for name, place in held.items()})


def _cuts(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
