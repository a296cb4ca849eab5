"""npz files: arrays t, x, u of numpy.savez, optionally with names, parameters and environments."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from inrflow.data.formats.builtin.arrays import ArrayFormat
from inrflow.data.formats.layouts import VALUES_PER_BLOCK
from inrflow.data.formats.registry import Content, ReadOptions
from inrflow.data.formats.writing import TrajectoryWriter, require_extra_names, require_fit, write_scattered
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_USED = {"t", "x", "u", "trajectory", "channels", "coordinates", "parameters", "environment"}


class NpzFormat(ArrayFormat):
    """Zip archive of .npy files only (unlike PyTorch files, which are zip archives, too)."""

    name = "npz"
    suffixes = (".npz",)
    about = "npz (arrays t, x, u)"

    def sniff(self, path: Path, start: bytes) -> bool:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        return bool(members) and all(member.endswith(".npy") for member in members)

    def read(self, path: Path, options: ReadOptions) -> Content:
        shapes = {name: shape for name, (shape, _) in _headers(path).items()}
        single = len(shapes) == 1 and all(len(shape) < 2 for shape in shapes.values())
        matrices = shapes.get("x") == shapes.get("y")  # of meshgrid
        if single or ("u" in shapes and len(shapes.get("x", ())) > 1 and not matrices and not _lacks_channels(shapes)):
            return NpzContent(path, options)
        return super().read(path, options)  # the axes of a grid, series, or fields by their names

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in _headers(path)}

    def save(self, file: Any, arrays: dict[str, np.ndarray]) -> None:
        save: Any = np.savez_compressed  # whose arrays are keyword arguments
        save(file, **arrays)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        shapes = _headers(path)
        return [("arrays", ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in shapes.items()))]


def _lacks_channels(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether u has axes of times t (T,) and points x (N, d), N other than T, or of trajectories before them, alone."""
    (T, *more), (N, *d), u = (shapes.get(name, (0,)) or (0,) for name in "txu")
    return not more and len(d) == 1 and T != N and (u in ((T, N), (N, T)) or (len(u) == 3 and u[1:] == (T, N) != u[:2]))


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array, from the headers alone; those of Python objects are left out with a warning.
    Raises UserError if one is damaged or declares more values than the archive holds, or all contain objects."""
    headers, objects = {}, []
    with damage_as_user_error(path), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, _, dtype = _header(file)
            size = math.prod(shape) * dtype.itemsize
            name = member.filename.removesuffix(".npy")
            if dtype.hasobject:
                objects.append(name)
                continue
            if size > member.file_size:
                raise UserError(f"{path}: {name} declares {size:.3g} bytes but the archive holds "
                                f"{member.file_size:.3g}; it is damaged, write it again")
            headers[name] = (shape, dtype)
    if objects:
        if not headers or set(objects) & {"t", "x", "u"}:
            raise UserError(f"{path}: {', '.join(objects)} holds Python objects; expected plain arrays")
        warnings.warn(f"{path}: {', '.join(objects)} holds Python objects, which are not read, and is left out",
                      stacklevel=3)
    return headers


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order flag and type of an array, from an open .npy file."""
    version = np.lib.format.read_magic(file)
    return (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)


class NpzContent(Content):
    """Arrays t (T,) or (S, T), x (N, d), (S, N, d) or (S, T, N, d), u (S, T, N, C) or (T, N, C); or rows t (R,),
    x (R, d), u (R, C) and optionally trajectory (R,). Arrays channels, coordinates, parameters and environment are
    used, all others are kept as further datasets."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        headers = _headers(path)
        self._shapes = {name: shape for name, (shape, _) in headers.items()}
        if not {"t", "x", "u"} <= set(headers):
            raise UserError(f"{path} holds the arrays {', '.join(headers) or 'none'}; expected t, x and u")
        require_extra_names(set(headers) - _USED)
        kinds = {name: headers[name][1] for name in ("t", "x", "u")}
        if any(kind.kind not in "fiu" for kind in kinds.values()) or not headers["x"][0] or not headers["u"][0]:
            raise UserError(f"{path}: t, x and u have types {', '.join(map(str, kinds.values()))} and shapes "
                            f"{', '.join(str(headers[name][0]) for name in kinds)}; expected arrays of numbers")
        empty = [name for name in kinds if 0 in headers[name][0]]
        if empty:
            raise UserError(f"{path}: {empty[0]} has shape {headers[empty[0]][0]}, without entries; store some data")
        for name in ("parameters", "environment", "trajectory"):
            shape, dtype = headers.get(name, ((0,), np.dtype(int)))
            if dtype.kind not in ("fiu" if name == "parameters" else "iu") or not shape:
                raise UserError(f"{path}: {name} has type {dtype} and shape {shape}; expected one "
                                f"{'row of numbers' if name == 'parameters' else 'integer'} for each trajectory")
        d, C = headers["x"][0][-1], headers["u"][0][-1]
        default = ["u"] if C == 1 else [f"u{index}" for index in range(C)]
        channels = list(options.channels or self._names("channels", headers) or default)
        default = list("xyz")[:d] if d <= 3 else [f"x{index}" for index in range(d)]
        coordinates = list(options.coordinates or self._names("coordinates", headers) or default)
        self.description = options.describe(path, channels, coordinates)
        if (len(coordinates), len(channels)) != (d, C):
            raise UserError(f"{path}: x {headers['x'][0]} has {d} coordinates and u {headers['u'][0]} {C} channels, "
                            f"but the names are {', '.join(coordinates)} and {', '.join(channels)}; give one each")

    def _names(self, key: str, headers: dict[str, Any]) -> list[str]:
        if key not in headers:
            return []
        with damage_as_user_error(self.path), np.load(self.path, allow_pickle=False) as archive:
            return [str(name) for name in np.atleast_1d(archive[key]).ravel()]

    def write(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        with damage_as_user_error(self.path), np.load(self.path, allow_pickle=False) as archive:
            u, x = self._shapes["u"], self._shapes["x"]
            rows = len(u) == 2
            streamed = () if rows else ("u", "x") if len(x) == 4 else ("u",)
            others = [name for name in self._shapes if name not in ("channels", "coordinates", *streamed)]
            arrays = {name: archive[name] for name in others}
            t = np.asarray(arrays.pop("t"), np.float64)
            context = {name: arrays.pop(name, None) for name in ("parameters", "environment")}
            if rows or "trajectory" in arrays:
                number = arrays.pop("trajectory", np.zeros(u[0], np.int64))
                values = arrays.pop("u") if rows else archive["u"]
                write_scattered(target, number, t, arrays.pop("x"), values, self.description, **context, extra=arrays,
                                overwrite=overwrite, source=self.path)
                return
            u = (1, *u) if len(u) == 3 else u
            require_fit(t.shape, x, u, self.path, **context)
            places = None if "x" in streamed else np.asarray(arrays.pop("x"), np.float64)
            with TrajectoryWriter(target, self.description, overwrite, arrays, self.path) as writer:
                self._stream(writer, t, places, u, context)

    def _stream(self, writer: TrajectoryWriter, t: np.ndarray, x: np.ndarray | None, shape: tuple[int, ...],
                context: dict[str, Any]) -> None:
        """Write values u of shape (S, T, N, C) and, if x is None, points (S, T, N, d), in blocks."""
        S, T, N, C = shape
        step = max(1, VALUES_PER_BLOCK // (N * C))
        with zipfile.ZipFile(self.path) as archive:
            values, places = _Frames(archive, "u"), _Frames(archive, "x") if x is None else None
            shared = np.empty(0) if x is None else x
            for index in range(S):
                times = t if t.ndim == 1 else t[index]
                count = T if t.ndim == 1 else int((~np.isnan(times)).sum())
                about = {"parameters": context["parameters"], "environment": context["environment"]}
                about = {name: None if value is None else value[index] for name, value in about.items()}
                for start in range(0, T, step):
                    stop = min(start + step, T)
                    u = values.take(stop - start)
                    moving = None if places is None else places.take(stop - start)
                    kept = slice(0, max(min(stop, count) - start, 0))
                    place = moving[kept] if moving is not None else shared if shared.ndim == 2 else shared[index]
                    if start == 0:
                        writer.append(times[: kept.stop], place, u[kept], **about)
                    elif kept.stop:
                        writer.extend(times[start : start + kept.stop], place, u[kept])


class _Frames:
    """Sequential reader of the frames (N, C) of an array (..., N, C) in an open npz file."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._file = archive.open(f"{name}.npy")
        shape, fortran, self._dtype = _header(self._file)
        self._frame, self._next = shape[-2:], 0
        self._whole = None  # arrays in Fortran order cannot be read frame by frame
        if fortran:
            data = self._file.read(math.prod(shape) * self._dtype.itemsize)
            self._whole = np.frombuffer(data, self._dtype).reshape(shape[::-1]).T.reshape(-1, *self._frame)

    def take(self, count: int) -> np.ndarray:
        """Next frames (count, N, C)."""
        self._next += count
        if self._whole is not None:
            return self._whole[self._next - count : self._next]
        data = self._file.read(count * math.prod(self._frame) * self._dtype.itemsize)
        return np.frombuffer(data, self._dtype).reshape(count, *self._frame)
