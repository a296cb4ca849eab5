"""The project's own schema as a format: copied with compression, and read as points and observations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.builtin.trajectory_summary import trajectory_rows
from inrflow.data.formats.columns import PointTable
from inrflow.data.formats.layouts import VALUES_PER_BLOCK, blocks
from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.schema import in_schema, open_hdf5, resolves
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error, written_hdf5


class TrajectoryFormat(Format):
    """HDF5 that declares the project's schema."""

    name = "trajectories"
    about = "the project's schema"
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

    def points(self, path: Path, description: Description, rows: int) -> Iterator[PointTable]:
        with _open_matching(path, description, check=False) as file:
            order = [file.description.coordinates.index(name) for name in description.coordinates]
            held = _held_channels(file, description)
            if file.layout == "scattered":
                for start in range(0, file.rows, rows):
                    number, t, x, u = file.read_rows(start, start + rows)
                    yield _point_table(number, t, x[:, order], description, u, held)
                return
            times = file.times()
            for index in range(file.trajectories):
                valid = int(np.isfinite(times[index]).sum())
                for chosen in _cuts(valid, max(1, rows // file.points)):
                    for points in _cuts(file.points, rows):
                        frames = file.read(index, chosen, points)
                        x = np.broadcast_to(frames.x, (len(chosen), len(points), len(order)))[..., order]
                        t = np.repeat(frames.t, len(points))
                        yield _point_table(np.full(len(t), index), t, x.reshape(len(t), -1), description,
                                           frames.u.reshape(len(t), -1), held)

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
    """A file of the schema, all of whose values are checked, and copied with large datasets in compressed blocks."""

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


def _open_matching(path: Path, description: Description, check: bool) -> TrajectoryFile:
    file = TrajectoryFile(path, check=check)
    stored, wanted = file.description, description
    problem = None
    if set(stored.coordinates) != set(wanted.coordinates):
        problem = f"coordinates {', '.join(stored.coordinates)}, expected {', '.join(wanted.coordinates)}"
    elif check and not set(wanted.channels) <= set(stored.channels):
        problem = f"channels {', '.join(stored.channels)}, expected {', '.join(wanted.channels)}"
    elif stored.time_units and wanted.time_units and stored.time_units != wanted.time_units:
        problem = f"times in {stored.time_units}, expected {wanted.time_units}"
    if problem:
        file.close()
        raise UserError(f"{path} has {problem}; give a file of the same system as the model's")
    return file


def _held_channels(file: TrajectoryFile, description: Description) -> dict[str, int]:
    """Places of the channels in a file; none where it has no values, since it holds points that are asked."""
    stored = file.description.channels
    if not any(np.isfinite(block).any() for block in file.value_blocks()):
        return {}
    return {name: stored.index(name) for name in description.channels if name in stored}


def _point_table(trajectory: np.ndarray, t: np.ndarray, x: np.ndarray, description: Description, u: np.ndarray,
                 held: dict[str, int]) -> PointTable:
    """Rows of points x (R, d) with the values u (R, C) of the channels that are `held`."""
    columns = {"trajectory": trajectory, "t": t, **dict(zip(description.coordinates, x.T, strict=True))}
    return PointTable(trajectory, t, x, columns | {name: u[:, place] for name, place in held.items()})


def _cuts(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
