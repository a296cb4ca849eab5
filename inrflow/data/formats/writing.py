"""Writers of the project's schema, by trajectory: files are compressed, validated by the reader and then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.schema import DATASETS, LARGEST, name_dimensions, trust, write_description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import AtomicFile, written_hdf5

_CHUNK_VALUES = 1 << 17  # half a megabyte of float32
_COMPRESSED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_LAYOUTS = ("shared", "per_trajectory", "moving")


class TrajectoryWriter:
    """Writer that appends trajectories to a new file in the frame layout; as context manager it completes the file or,
    after an exception, removes it.

    Points and times are stored once if all trajectories share them, else for each trajectory. Trajectories may differ
    in numbers of times and points (shorter ones are padded with NaN). The file is opened by the reader before it gets
    its name. source: for converted files, the path in messages; their values are also checked by the reader.
    Raises UserError if the file exists (unless `overwrite`), shapes disagree, values are infinite or all missing,
    or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str], description: Description, overwrite: bool = False,
                 extra: Mapping[str, np.ndarray] | None = None, source: str | os.PathLike[str] | None = None) -> None:
        self.path, self.description, self._source = Path(path), description, Path(source or path)
        self._extra = dict(extra or {})
        require_extra_names(self._extra)
        self._target = AtomicFile(path, overwrite, _reader_check(path, source))
        self._times: list[np.ndarray] = []
        self._parameters: list[np.ndarray] = []
        self._environment: list[int] = []
        self._sizes: list[int] = []
        self._layout = "shared"
        self._shared: np.ndarray | None = None
        try:
            with self._target.guard():
                self._file = h5py.File(self._target.open_for_hdf5(), "w")
                write_description(self._file, description)
        except BaseException:
            if hasattr(self, "_file"):
                self._file.close()  # otherwise HDF5 would write to it at exit, and crash
            self._target.discard()
            raise

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def append(self, t: Any, x: Any, u: Any, parameters: Any = None, environment: int | None = None) -> None:
        """Add a trajectory: t (T,), x (N, d) or (T, N, d), u (T, N, C), parameters (P,), environment number."""
        t, x, u = self._checked(t, x, u)
        if self._times and ((parameters is None) != (not self._parameters)
                            or (environment is None) != (not self._environment)):
            raise UserError(f"trajectories of {self._source} must all have parameters, or none; so for environment")
        self._write(len(self._times), 0, t, x, u)
        self._times.append(t)
        self._sizes.append(u.shape[1])
        if parameters is not None:
            self._parameters.append(np.atleast_1d(np.asarray(parameters, np.float64)))
        if environment is not None:
            self._environment.append(int(environment))

    def beside(self, extra: Mapping[str, np.ndarray]) -> None:
        """Add datasets beyond the schema, which are written on completion."""
        require_extra_names(extra)
        self._extra |= extra

    def extend(self, t: Any, x: Any, u: Any) -> None:
        """Add later frames to the last trajectory; arguments as in `append`. For trajectories larger than memory."""
        if not self._times:
            self.append(t, x, u)
            return
        t, x, u = self._checked(t, x, u)
        if t[0] <= self._times[-1][-1] or u.shape[1] != self._sizes[-1]:
            raise UserError(f"frames that extend trajectory {len(self._times) - 1} of {self._source} must come later "
                            f"and have as many points: {u.shape[1]} points from t = {t[0]:g} after {self._sizes[-1]} "
                            f"to t = {self._times[-1][-1]:g}")
        self._write(len(self._times) - 1, len(self._times[-1]), t, x, u)
        self._times[-1] = np.append(self._times[-1], t)

    def _checked(self, t: Any, x: Any, u: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        t, x, u = np.asarray(t, np.float64), np.asarray(x, np.float64), _single(u)
        d, channels = len(self.description.coordinates), len(self.description.channels)
        if t.ndim != 1 or u.ndim != 3 or u.shape[0] != len(t) or u.shape[2] != channels or \
                x.shape not in ((u.shape[1], d), (len(t), u.shape[1], d)) or 0 in u.shape:
            raise UserError(f"trajectory {len(self._times)} of {self._source} has t {t.shape}, x {x.shape}, "
                            f"u {u.shape}; expected (T,), (N, {d}) or (T, N, {d}), (T, N, {channels}), none of them "
                            "empty")
        if not np.isfinite(t).all() or (np.diff(t) <= 0).any():
            raise UserError(f"times of trajectory {len(self._times)} of {self._source} must be finite and increase; "
                            "sort its frames and keep one for each time")
        _check_places(x, u, f"trajectory {len(self._times)} of {self._source}")
        return t, x, u

    def _write(self, index: int, start: int, t: np.ndarray, x: np.ndarray, u: np.ndarray) -> None:
        try:
            with self._target.guard():
                self._write_frames(index, start, x, u)
        except BaseException:
            self.abandon()
            raise

    def _write_frames(self, index: int, start: int, x: np.ndarray, u: np.ndarray) -> None:
        """Write frames at [index, start:], in the layout of points needed by all trajectories so far."""
        T, N, C = u.shape
        stop = start + T
        if "u" not in self._file:
            points = min(N, max(1, 4096 // C))
            chunk = (1, min(T, max(1, _CHUNK_VALUES // (points * C))), points, C)
            self._file.create_dataset("u", (0, T, N, C), np.float32, maxshape=(None, None, None, C), chunks=chunk,
                                      fillvalue=np.nan, **_COMPRESSED)
            self._shared = x if x.ndim == 2 else None
            if x.ndim == 3:
                self._new_points("moving", T, N)
        elif x.ndim == 3:
            self._promote("moving")
        elif self._layout == "shared" and not np.array_equal(x, self._shared if self._shared is not None else 0):
            self._promote("per_trajectory")
        values = self._file["u"]
        values.resize((index + 1, max(stop, values.shape[1]), max(N, values.shape[2]), C))
        values[index, start:stop, :N] = u
        if self._layout == "per_trajectory":
            places = self._file["x"]
            places.resize((index + 1, max(N, places.shape[1]), x.shape[-1]))
            places[index, :N] = x
        elif self._layout == "moving":
            places = self._file["x"]
            places.resize((index + 1, max(stop, places.shape[1]), max(N, places.shape[2]), x.shape[-1]))
            places[index, start:stop, :N] = x

    def _new_points(self, layout: str, T: int, N: int) -> h5py.Dataset:
        d = len(self.description.coordinates)
        self._layout = layout
        shape = (0, N, d) if layout == "per_trajectory" else (0, T, N, d)
        chunk = (1, min(N, 8192), d) if layout == "per_trajectory" else (1, min(T, max(1, 16384 // N)), min(N, 8192), d)
        return self._file.create_dataset("x", shape, np.float64, maxshape=(*(None,) * (len(shape) - 1), d),
                                         chunks=chunk, fillvalue=np.nan, **_COMPRESSED)

    def _promote(self, layout: str) -> None:
        """Convert stored points to a more general layout, which is used from now on."""
        if _LAYOUTS.index(layout) <= _LAYOUTS.index(self._layout):
            return
        earlier = self._file.get("x")
        if earlier is not None:
            self._file.move("x", ".earlier")
        T, N = self._file["u"].shape[1:3]
        places = self._new_points(layout, T, N)
        places.resize((len(self._times), *places.shape[1:]))
        for index, size in enumerate(self._sizes):
            x = self._shared if earlier is None else earlier[index, :size]
            places[(index, slice(size)) if layout == "per_trajectory" else
                   (index, slice(len(self._times[index])), slice(size))] = x
        if earlier is not None:
            del self._file[".earlier"]

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            if not self._times:
                raise UserError(f"no trajectory was given for {self._source}; at least one is needed")
            with self._target.guard():
                self._complete()
                self._file.close()
            self._target.complete()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self._target.discard()

    def _complete(self) -> None:
        count, longest = len(self._times), max(len(t) for t in self._times)
        if all(np.array_equal(t, self._times[0]) for t in self._times):
            self._file["t"] = self._times[0]
        else:
            padded = np.full((count, longest), np.nan)
            for index, t in enumerate(self._times):
                padded[index, :len(t)] = t
            self._file["t"] = padded
        if self._layout == "shared":
            self._file["x"] = self._shared
        else:
            # Padding repeats the first point, so that all coordinates are finite.
            places, widest = self._file["x"], max(self._sizes)
            for index, size in enumerate(self._sizes):
                if size < widest and self._layout == "per_trajectory":
                    places[index, size:] = places[index, 0]
                elif self._layout == "moving":
                    T = len(self._times[index])
                    if size < widest:
                        places[index, :T, size:] = places[index, :T, :1]
                    if T < longest:
                        places[index, T:] = places[index, T - 1]
        if self._parameters:
            try:
                stacked = np.stack(self._parameters)
            except ValueError as error:
                raise UserError(f"trajectories of {self._source} have different numbers of parameters") from error
            names = self.description.parameter_names or tuple(f"parameter_{k}" for k in range(stacked.shape[1]))
            if len(names) != stacked.shape[1]:
                raise UserError(f"{stacked.shape[1]} parameters but {len(names)} names are given for {self._source}")
            self._file["parameters"] = stacked
            self._file["parameters"].attrs.create("names", np.array(names, object), dtype=h5py.string_dtype())
        if self._environment:
            self._file["environment"] = np.array(self._environment, np.int64)
        _write_extra(self._file, self._extra)
        name_dimensions(self._file)


def _single(u: Any) -> np.ndarray:
    """Values as float32; values beyond its range become infinite and are refused later."""
    with np.errstate(over="ignore"):
        return np.asarray(u, np.float32)


def _check_places(x: np.ndarray, u: np.ndarray, owner: str) -> None:
    if not (np.abs(x) <= LARGEST).all():
        raise UserError(f"{owner} has coordinates that are not finite or beyond {LARGEST:g}; every point needs its "
                        "place")
    if (np.abs(u) > LARGEST).any():
        raise UserError(f"{owner} has infinite values or values beyond {LARGEST:g}; mark missing values as NaN and "
                        "remove the rest")


def _reader_check(path: str | os.PathLike[str], source: str | os.PathLike[str] | None) -> Callable[[Path], None]:
    """Validation of a finished file by the reader; without a source, files of points without values are allowed."""
    def check(partial: Path) -> None:
        trust(partial)
        TrajectoryFile(partial, check=source is not None, name=source or path).close()

    return check


def require_extra_names(extra: Iterable[str]) -> None:
    """Check the names of datasets beyond the schema. Raises UserError."""
    for name in extra:
        if name in DATASETS or not name or "/" in name or name == ".":
            raise UserError(f"the further dataset {name!r} has a name that the schema uses or HDF5 cannot hold; "
                            "rename it")


def _write_extra(file: h5py.File, extra: Mapping[str, np.ndarray]) -> None:
    for name, value in extra.items():
        array = np.asarray(value)
        file.create_dataset(name, data=array.astype(object) if array.dtype.kind == "U" else array,
                            dtype=h5py.string_dtype() if array.dtype.kind == "U" else None)


def require_fit(t: tuple[int, ...], x: tuple[int, ...], u: tuple[int, ...], source: str | os.PathLike[str],
                parameters: Any = None, environment: Any = None) -> None:
    """Check that arrays of these shapes are trajectories in the frame layout. Raises UserError."""
    if len(u) != 4 or t not in ((u[1],), u[:2]) or len(x) not in (2, 3, 4):
        raise UserError(f"t {t}, x {x} and u {u} do not fit together for {source}; expected (T,) or (S, T), (N, d) or "
                        "(S, N, d) or (S, T, N, d), (S, T, N, C)")
    rows = {"x": x[0] if len(x) > 2 else u[0], **{name: len(value) for name, value in
            (("parameters", parameters), ("environment", environment)) if value is not None}}
    for name, count in rows.items():
        if count != u[0]:
            raise UserError(f"{name} has {count} rows for {u[0]} trajectories in u for {source}; give as many")


def write_trajectories(path: str | os.PathLike[str], t: Any, x: Any, u: Any, description: Description,
                       parameters: Any = None, environment: Any = None, extra: Mapping[str, np.ndarray] | None = None,
                       overwrite: bool = False, source: str | os.PathLike[str] | None = None) -> None:
    """Write S trajectories in the frame layout.

    t (T,) or (S, T) with NaN padding, x (N, d), (S, N, d) or (S, T, N, d), u (S, T, N, C), parameters (S, P),
    environment (S,). Raises UserError as TrajectoryWriter does.
    """
    t, x, u = np.asarray(t, np.float64), np.asarray(x, np.float64), np.asarray(u)
    require_fit(t.shape, x.shape, u.shape, source or path, parameters, environment)
    with TrajectoryWriter(path, description, overwrite, extra, source) as writer:
        for index in range(len(u)):
            times = t if t.ndim == 1 else t[index]
            count = len(times) if t.ndim == 1 else int((~np.isnan(times)).sum())
            place = x if x.ndim == 2 else x[index] if x.ndim == 3 else x[index, :count]
            writer.append(times[:count], place, u[index, :count], None if parameters is None else parameters[index],
                          None if environment is None else int(environment[index]))


def write_scattered(path: str | os.PathLike[str], trajectory: Any, t: Any, x: Any, u: Any, description: Description,
                    parameters: Any = None, environment: Any = None, extra: Mapping[str, np.ndarray] | None = None,
                    overwrite: bool = False, source: str | os.PathLike[str] | None = None) -> None:
    """Write R observations in the scattered layout: trajectory (R,), t (R,), x (R, d), u (R, C).

    Rows are sorted by trajectory and time, so that a trajectory is contiguous in the file; parameters (S, P) and
    environment (S,) follow the sorted trajectory numbers. Raises UserError as TrajectoryWriter does.
    """
    trajectory, t = np.asarray(trajectory), np.asarray(t, np.float64)
    x, u = np.asarray(x, np.float64), _single(u)
    d, channels, rows = len(description.coordinates), len(description.channels), len(t)
    if trajectory.shape != (rows,) or trajectory.dtype.kind not in "iu" or x.shape != (rows, d) \
            or u.shape != (rows, channels) or rows == 0:
        raise UserError(f"trajectory {trajectory.shape} {trajectory.dtype}, t {t.shape}, x {x.shape} and u {u.shape} "
                        f"for {source or path} do not fit together; expected integers (R,), (R,), (R, {d}), "
                        f"(R, {channels})")
    if not np.isfinite(t).all():
        raise UserError(f"{source or path} has times that are not finite; remove those rows")
    _check_places(x, u, str(source or path))
    require_extra_names(extra or {})
    order = np.lexsort((t, trajectory))
    with written_hdf5(path, overwrite, _reader_check(path, source)) as file:
        write_description(file, description)
        for name, value in (("trajectory", trajectory.astype(np.int64)), ("t", t), ("x", x), ("u", u)):
            file.create_dataset(name, data=value[order], **_COMPRESSED,
                                chunks=(min(rows, 16384), *value.shape[1:]))
        count = len(np.unique(trajectory))
        for name, value in (("parameters", parameters), ("environment", environment)):
            if value is not None:
                if len(value) != count:
                    raise UserError(f"{name} has {len(value)} rows for {count} trajectories for {source or path}; give "
                                    "one each")
                file[name] = np.asarray(value, np.float64 if name == "parameters" else np.int64)
        if parameters is not None and description.parameter_names:
            file["parameters"].attrs.create("names", np.array(description.parameter_names, object),
                                            dtype=h5py.string_dtype())
        _write_extra(file, extra or {})
        name_dimensions(file)
