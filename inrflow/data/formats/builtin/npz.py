"""npz: arrays t, x, u of numpy.savez, with names, parameters and environments where they are given."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.registry import Content, Format, ReadOptions, register_format
from inrflow.data.formats.schema import damage_as_user_error
from inrflow.data.formats.writing import require_extra_names, write_scattered, write_trajectories
from inrflow.errors import UserError

_USED = {"t", "x", "u", "trajectory", "channels", "coordinates", "parameters", "environment"}


@register_format
class NpzFormat(Format):
    """A zip archive of .npy files alone (a PyTorch file, also a zip archive, is none)."""

    name = "npz"
    about = "npz (arrays t, x, u)"
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        return bool(members) and all(member.endswith(".npy") for member in members)

    def read(self, path: Path, options: ReadOptions) -> Content:
        return NpzContent(path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        shapes = _headers(path)
        return [("arrays", ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in shapes.items()))]


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array, from the headers alone. Raises UserError where one is damaged, holds Python
    objects, or declares more values than the archive has."""
    headers = {}
    with damage_as_user_error(path), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                        else np.lib.format.read_array_header_2_0)
                shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            name = member.filename.removesuffix(".npy")
            if dtype.hasobject:
                raise UserError(f"{path}: {name} holds Python objects; expected plain arrays")
            if size > member.file_size:
                raise UserError(f"{path}: {name} declares {size:.3g} bytes but the archive holds "
                                f"{member.file_size:.3g}; it is damaged, write it again")
            headers[name] = (shape, dtype)
    return headers


class NpzContent(Content):
    """t (T,) or (S, T), x (N, d), (S, N, d) or (S, T, N, d), u (S, T, N, C) or (T, N, C); or rows t (R,), x (R, d),
    u (R, C) and optionally trajectory (R,). Arrays channels, coordinates, parameters and environment are used, all
    others are kept."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        headers = _headers(path)
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
            arrays = {name: archive[name] for name in archive.files if name not in ("channels", "coordinates")}
        t, x, u = (arrays.pop(name) for name in ("t", "x", "u"))
        context = {name: arrays.pop(name, None) for name in ("parameters", "environment")}
        number = arrays.pop("trajectory", np.zeros(len(u), np.int64) if u.ndim == 2 else None)
        if number is not None:
            write_scattered(target, number, t, x, u, self.description, **context, extra=arrays, overwrite=overwrite,
                            source=self.path)
        else:
            write_trajectories(target, t, x, u[None] if u.ndim == 3 else u, self.description, **context, extra=arrays,
                               overwrite=overwrite, source=self.path)
