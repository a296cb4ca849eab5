"""Cases of OpenFOAM, folders of ASCII files: fields of cells at their centres, one frame for each time folder."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from inrflow.data.formats.registry import Content, Format, ReadOptions, register_format
from inrflow.data.formats.schema import damage_as_user_error
from inrflow.data.formats.streams.streamed import Part, StreamedContent
from inrflow.errors import UserError

_MESH = "constant/polyMesh"
_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_LIST = re.compile(r"\b(\d+)\s*\(")
_FIELD = re.compile(r"\binternalField\s+(?:uniform\s+([^;]*)|nonuniform\s+List<\w+>\s*(\d+)\s*\((.*?)\)\s*);",
                    re.DOTALL)
_CLASSES = {"volScalarField": 1, "volVectorField": 3}
_FLAT = 1e-9  # of the extent


@register_format
class OpenFoamFormat(Format):
    """A folder with constant/polyMesh."""

    name = "OpenFOAM"
    about = "a case of OpenFOAM (ASCII)"
    folder = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return any((path / _MESH / name).exists() for name in ("points", "points.gz"))

    def read(self, path: Path, options: ReadOptions) -> Content:
        with damage_as_user_error(path):
            return OpenFoamContent(path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with damage_as_user_error(path):
            times = _times(path)
            shown = f"{len(times)}, {times[0][0]:g} to {times[-1][0]:g}" if times else "none"
            return [("times", shown), ("fields", ", ".join(_fields(times[-1][1]) if times else {}) or "none")]


class OpenFoamContent(StreamedContent):
    """One trajectory: channels are the scalar and vector fields that every time has, vectors by their components.

    Points are the means of the centres of a cell's faces; in a case of one layer of cells, two coordinates. Raises
    UserError for binary and decomposed cases.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path)
        times = _times(path)
        if not times:
            parts = any(path.glob("processor*"))
            raise UserError(f"{path} has no folders of times with fields; " + (
                "the case is decomposed: run reconstructPar first" if parts else "run the solver first"))
        known = [_fields(folder) for _, folder in times]
        shared = [name for name in known[-1] if all(name in fields for fields in known)]
        self._x, kept = _centres(path)
        names = [(name, axis) for name in shared for axis in (kept if known[-1][name] == 3 else [-1])]
        labels = [name if axis < 0 else f"{name}_{'xyz'[axis]}" for name, axis in names]
        chosen = list(options.channels or labels)
        absent = [name for name in chosen if name not in labels]
        if absent or not chosen:
            raise UserError(f"{path} has no field {', '.join(absent) or 'that every time has'}; there are "
                            f"{', '.join(labels) or 'none'}")
        self._names = [names[labels.index(name)] for name in chosen]
        self._times, self._sizes = times, known[-1]
        self.description = options.describe(path, chosen, options.coordinates or ["xyz"[axis] for axis in kept])

    def parts(self) -> Iterator[Part]:
        yield Part(np.array([time for time, _ in self._times]), self._x, partial(self._values))

    def _values(self, first: int, last: int) -> np.ndarray:
        frames = []
        for _, folder in self._times[first:last]:
            read = {name: _field(folder, name, len(self._x), self._sizes[name]) for name in dict(self._names)}
            frames.append(np.stack([read[name][:, max(axis, 0)] for name, axis in self._names], -1))
        return np.stack(frames)


def _text(path: Path) -> str:
    """An ASCII file without comments. Raises UserError for binary ones and links out of the case."""
    found = path if path.exists() else path.with_name(f"{path.name}.gz")
    case = path.parents[1] if path.parent.name != "polyMesh" else path.parents[2]
    if not found.resolve().is_relative_to(case.resolve()):
        raise UserError(f"{found} is a link to another folder, which is not followed; copy the file")
    data = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
    if re.search(rb"\bformat\s+binary\s*;", data[:4096]):
        raise UserError(f"{found} is binary; set `writeFormat ascii;` in system/controlDict and run foamFormatConvert")
    return _COMMENTS.sub("", data.decode("latin-1"))


def _times(case: Path) -> list[tuple[float, Path]]:
    """Times and their folders that hold fields, in order."""
    found = []
    for folder in case.iterdir():
        try:
            time = float(folder.name)
        except ValueError:
            continue
        if np.isfinite(time) and folder.is_dir() and _fields(folder):
            found.append((time, folder))
    return sorted(found)


def _fields(folder: Path) -> dict[str, int]:
    """Names of the fields of cells in a time folder, and how many components they have."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with (gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
                start = file.read(2048).decode("latin-1")
            kind = re.search(r"\bclass\s+(\w+)\s*;", start)
            if kind is not None and kind[1] in _CLASSES:
                found[path.name.removesuffix(".gz")] = _CLASSES[kind[1]]
    return found


def _field(folder: Path, name: str, cells: int, size: int) -> np.ndarray:
    """Values (cells, size) of a field."""
    match = _FIELD.search(_text(folder / name))
    if match is None:
        raise UserError(f"{folder / name} has no internalField of numbers; write it again")
    if match[1] is not None:
        return np.broadcast_to(_numbers(match[1]).reshape(1, size), (cells, size))
    values = _numbers(match[3]).reshape(-1, size)
    if len(values) != cells:
        raise UserError(f"{folder / name} has {len(values)} values for {cells} cells; meshes that change are not read")
    return values


def _numbers(text: str) -> np.ndarray:
    return np.array(text.replace("(", " ").replace(")", " ").split(), np.float64)


def _list(path: Path) -> str:
    """What stands between the brackets of the list in a file of the mesh."""
    text = _text(path)
    start = _LIST.search(text, text.find("}"))
    if start is None:
        raise UserError(f"{path} holds no list; write the mesh again")
    return text[start.end() : text.rindex(")")]


def _centres(case: Path) -> tuple[np.ndarray, list[int]]:
    """Centres (N, d) of the cells, and the axes along which they differ."""
    mesh = case / _MESH
    points = _numbers(_list(mesh / "points")).reshape(-1, 3)
    faces = [np.array(face.split(), np.int64) for face in re.findall(r"\d+\s*\(([^)]*)\)", _list(mesh / "faces"))]
    owner, neighbour = (np.array(_list(mesh / name).split(), np.int64) for name in ("owner", "neighbour"))
    corners = np.concatenate(faces)
    if len(owner) != len(faces) or len(neighbour) > len(faces) or corners.min() < 0 or corners.max() >= len(points):
        raise UserError(f"{mesh} has {len(faces)} faces, {len(owner)} owners and {len(points)} points, which do not "
                        "fit; write the mesh again")
    label = np.repeat(np.arange(len(faces)), [len(face) for face in faces])
    totals = np.stack([np.bincount(label, points[corners, axis]) for axis in range(3)], -1)
    centre = totals / np.bincount(label)[:, None]
    cell = np.concatenate([owner, neighbour])
    sums = np.concatenate([centre, centre[: len(neighbour)]])
    count = np.bincount(cell)
    result = np.stack([np.bincount(cell, sums[:, axis]) for axis in range(3)], -1) / np.maximum(count, 1)[:, None]
    extent = np.ptp(result, axis=0)
    kept = [axis for axis in range(3) if extent[axis] > _FLAT * max(float(np.ptp(points, axis=0).max()), 1e-300)]
    return result[:, kept], kept
