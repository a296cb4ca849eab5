"""OpenFOAM cases, ASCII or binary, whole or decomposed: fields of cells at their centres, a frame for each time; and
OpenFOAM probes, as tables."""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from inrflow.data.formats.columns import Columns
from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.streams.streamed import Part, StreamedContent
from inrflow.data.formats.table_format import TableFormat
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_CONSTANT, _MESH = "constant", "polyMesh"
_COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_LIST = re.compile(r"\b(\d+)\s*\(")
_FIELD = re.compile(r"\binternalField\s+(?:uniform\s+([^;]*);|"
                    r"nonuniform\s+(?:List<\w+>\s*)?(\d+)\s*(?:\{([^}]*)\}|(?=\()))")
_CLASSES = {"volScalarField": 1, "volVectorField": 3, "volSymmTensorField": 6, "volTensorField": 9}
_DIMENSIONS = re.compile(r"\bdimensions\s*\[([-+.\de\s]+)\]")
_SI = "kg", "m", "s", "K", "mol", "A", "cd"
_FLAT = 1e-9  # relative extent that counts as flat
_PROBE = re.compile(r"# Probe \d+ \(([^)]*)\)")
_OUTSIDE = 1e250  # exceeded by values of probes outside of the mesh


class OpenFoamFormat(Format):
    """Folder with constant/polyMesh, or with folders processor0, ... that contain it; of a case of several regions the
    folder constant/REGION. Raises UserError for the case itself, which has a mesh for each region."""

    name = "OpenFOAM"
    about = "a case of OpenFOAM"
    folder = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return _has_mesh(path) or bool(_regions(path))

    def read(self, path: Path, options: ReadOptions) -> Content:
        with damage_as_user_error(path):
            _require_one_mesh(path)
            return OpenFoamContent(path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with damage_as_user_error(path):
            _require_one_mesh(path)
            parts, times = _parts(path)
            shown = f"{len(times)}, {times[0][0]:g} to {times[-1][0]:g}" if times else "none"
            return [("times", shown + (f", in {len(parts)} parts" if len(parts) > 1 else "")),
                    ("fields", ", ".join(_fields(parts[0] / times[-1][1]) if times else {}) or "none")]


class OpenFoamContent(StreamedContent):
    """Trajectory whose channels are the scalar and vector fields (by component) present at every time, or those of
    `options` from the first time that has them.

    Points are cell centres (means of the centres of faces), concatenated over the parts of a decomposed case; cases
    with one layer of cells have two coordinates. Warns of fields that are left out. Raises UserError if there are no
    fields, or the mesh moves.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path)
        self._parts, times = _parts(path)
        if not times:
            raise UserError(f"{path} has no folders of times with fields that are read; run the solver first, or, of a "
                            "case that is decomposed into one folder for all processors, reconstructPar")
        known = [_fields(*(part / folder for part in self._parts)) for _, folder in times]
        sizes = {name: size for fields in known for name, size in fields.items()}
        centres = [_centres(part / _CONSTANT / _region(path) / _MESH) for part in self._parts]
        whole = np.concatenate(centres)
        extent = np.ptp(whole, axis=0)
        kept = [axis for axis in range(3) if extent[axis] > _FLAT * max(float(extent.max()), 1e-300)]
        self._x, self._cells = whole[:, kept], [len(part) for part in centres]
        names = [(name, axis) for name, size in sorted(sizes.items()) if size <= 3
                 for axis in (kept if size == 3 else [-1])]
        labels = [name if axis < 0 else f"{name}_{'xyz'[axis]}" for name, axis in names]
        lacking = {name: next((folder for fields, (_, folder) in zip(known, times, strict=True) if name not in fields),
                              None) for name in sizes}
        chosen = list(options.channels or
                      [label for label, (name, _) in zip(labels, names, strict=True) if lacking[name] is None])
        absent = [name for name in chosen if name not in labels]
        if absent or not chosen:
            raise UserError(f"{path} has no field {', '.join(absent) or 'that every time has'}; there are "
                            f"{', '.join(labels) or 'none'}")
        self._names = [names[labels.index(name)] for name in chosen]
        taken = dict(self._names)
        if options.channels is None and (tensors := [name for name, size in sizes.items() if size > 3]):
            warnings.warn(f"{path}: tensors are left out: {', '.join(tensors)}", stacklevel=2)
        lost = [f"{name} (not at time {folder})" for name, folder in lacking.items() if folder and sizes[name] <= 3]
        if options.channels is None and lost:
            warnings.warn(f"{path}: fields that some times lack are left out: {', '.join(lost)}; channels=[...] takes "
                          "them from the first time that has them; remove a time that was not written to its end",
                          stacklevel=2)
        begin = next((k for k, fields in enumerate(known) if taken.keys() <= fields.keys()), len(times) - 1)
        for fields, (_, folder) in zip(known[begin:], times[begin:], strict=True):
            if missed := taken.keys() - fields.keys():
                raise UserError(f"{path} has no field {', '.join(sorted(missed))} at time {folder}; remove the folder "
                                "of that time, or choose others by channels=[...]")
        self._times = times[begin:]
        moved = [mesh for _, folder in self._times for part in self._parts
                 for mesh in (part / folder / "polyMesh").glob("points*")]
        if moved:
            raise UserError(f"{path}: the mesh moves ({moved[0]}), and its fields are read at fixed places only; map "
                            "them to one mesh with mapFields")
        self._sizes = sizes
        units = [_unit(self._parts[0] / self._times[-1][1], name) for name, _ in self._names]
        self.description = options.describe(path, chosen, options.coordinates or ["xyz"[axis] for axis in kept],
                                            units=tuple(map(str, units)) if all(units) else None)

    def parts(self) -> Iterator[Part]:
        yield Part(np.array([time for time, _ in self._times]), self._x, partial(self._values))

    def _values(self, first: int, last: int) -> np.ndarray:
        frames = []
        for _, folder in self._times[first:last]:
            read = {name: np.concatenate([_field(part / folder, name, cells, self._sizes[name])
                                          for part, cells in zip(self._parts, self._cells, strict=True)])
                    for name in dict(self._names)}
            frames.append(np.stack([read[name][:, max(axis, 0)] for name, axis in self._names], -1))
        return np.stack(frames)


@dataclass
class _File:
    """OpenFOAM file: `text` (without comments if ASCII), and, if binary, the `sizes` (dtypes) of labels and numbers."""

    path: Path
    text: str
    sizes: tuple[str, str] | None

    @classmethod
    def read(cls, path: Path) -> _File:
        """File at a path, possibly compressed. Raises UserError for links out of the case."""
        found = path if path.exists() else path.with_name(f"{path.name}.gz")
        case = path.parents[1] if path.parent.name != "polyMesh" else path.parents[2]
        if not found.resolve().is_relative_to(case.resolve()):
            raise UserError(f"{found} is a link to another folder, which is not followed; copy the file")
        data = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        head, text = data[:4096].decode("latin-1"), data.decode("latin-1")
        if not re.search(r"\bformat\s+binary\s*;", head):
            return cls(found, _COMMENTS.sub("", text), None)
        label, scalar = (re.search(rf"\b{name}=(\d+)", head) for name in ("label", "scalar"))
        order = ">" if "MSB" in head else "<"
        return cls(found, text, (f"{order}i{int(label[1]) // 8 if label else 4}",
                                 f"{order}f{int(scalar[1]) // 8 if scalar else 8}"))

    def numbers(self, start: int, count: int | None, size: int, labels: bool = False) -> tuple[np.ndarray, int]:
        """Values (count, size) of the list that begins after `start` with its length and a bracket, and its end.

        count: length, if it is given before `start`. Raises UserError if the file is truncated.
        """
        found = _LIST.search(self.text, start) if count is None else re.compile(r"\(").search(self.text, start)
        if found is None:
            raise UserError(f"{self.path} holds no list; write it again")
        length = int(found[1]) if count is None else count
        kind = np.int64 if labels else np.float64
        if self.sizes is None:
            end = re.compile(r"\)\s*(;|$|\d)").search(self.text, found.end())
            values = _numbers(self.text[found.end() : end.start() if end else None])
        else:
            stored = np.dtype(self.sizes[0 if labels else 1])
            end_at = found.end() + length * size * stored.itemsize
            held = self.text[found.end() : end_at].encode("latin-1")
            values = np.frombuffer(held[: len(held) // stored.itemsize * stored.itemsize], stored)
        last = found.end() if self.sizes is None else end_at
        if len(values) != length * size or (self.sizes is not None and length and self.text[last : last + 1] != ")"):
            raise UserError(f"{self.path} does not hold the {length * size} numbers that it announces; write it again")
        return values.astype(kind).reshape(length, size), last


def _region(path: Path) -> str:
    """Name of the region whose folder in `constant` the path is; "": the path is a case."""
    return path.name if path.parent.name == _CONSTANT and not (path / _CONSTANT).exists() else ""


def _has_mesh(path: Path) -> bool:
    case, region = (path.parents[1], path.name) if _region(path) else (path, "")
    return any((part / _CONSTANT / region / _MESH / name).exists() for part in (case, case / "processor0")
               for name in ("points", "points.gz"))


def _regions(case: Path) -> list[str]:
    """Names of the regions that have a mesh each."""
    return sorted({mesh.parent.name for part in (case, case / "processor0")
                   for mesh in (part / _CONSTANT).glob(f"*/{_MESH}")})


def _require_one_mesh(path: Path) -> None:
    if not _has_mesh(path) and (regions := _regions(path)):
        raise UserError(f"{path} is a case of OpenFOAM with a mesh for each of its regions {', '.join(regions)}; give "
                        f"the folder of one, as {path / _CONSTANT / regions[0]}")


def _parts(path: Path) -> tuple[list[Path], list[tuple[float, str]]]:
    """The case, or its parts if these have more times, and their common times with names of folders of fields."""
    region = _region(path)
    case = path.parents[1] if region else path
    found = sorted(case.glob("processor[0-9]*"), key=lambda part: (len(part.name), part.name))
    parts = [part for part in found if (part / _CONSTANT / region / _MESH).is_dir()]
    whole, each = _times(case, region), [_times(part, region) for part in parts]
    shared = [time for time in each[0] if all(time in times for times in each)] if each else []
    return ([case], whole) if len(whole) >= len(shared) else (parts, shared)


def _times(case: Path, region: str) -> list[tuple[float, str]]:
    """Sorted times that have fields in the region, with the names of their folders."""
    found = []
    for folder in case.iterdir():
        try:
            time = float(folder.name)
        except ValueError:
            continue
        if np.isfinite(time) and (folder / region).is_dir() and _fields(folder / region):
            found.append((time, str(Path(folder.name) / region)))
    return sorted(found)


def _start(path: Path) -> str:
    """The first letters of a file, possibly compressed."""
    with (gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        return file.read(2048).decode("latin-1")


def _fields(*folders: Path) -> dict[str, int]:
    """Number of components by name of the cell fields that are in all folders (the parts of a time)."""
    found = []
    for folder in folders:
        kinds = {path.name.removesuffix(".gz"): re.search(r"\bclass\s+(\w+)\s*;", _start(path))
                 for path in sorted(folder.iterdir()) if path.is_file()}
        found.append({name: _CLASSES[kind[1]] for name, kind in kinds.items() if kind and kind[1] in _CLASSES})
    return {name: size for name, size in found[0].items() if all(name in fields for fields in found)}


def _unit(folder: Path, name: str) -> str | None:
    """Unit of a field, as m s-1, from its dimensions; None: not given as powers of the base units."""
    path = folder / name
    given = _DIMENSIONS.search(_start(path if path.exists() else path.with_name(f"{name}.gz")))
    powers = zip(_SI, map(float, given[1].split()), strict=False) if given else ()
    return " ".join(unit if power == 1 else f"{unit}{power:g}" for unit, power in powers if power) or given and "1"


def _field(folder: Path, name: str, cells: int, size: int) -> np.ndarray:
    """Values (cells, size) of a field."""
    file = _File.read(folder / name)
    match = _FIELD.search(file.text)
    same = match and (match[1] or match[3])
    if match is None or "$" in (same or ""):
        raise UserError(f"{folder / name} has an internalField that OpenFOAM computes, not numbers; remove the folder "
                        "of this time from a copy of the case")
    if same is not None:
        return np.broadcast_to(_numbers(same).reshape(1, size), (cells, size))
    values, _ = file.numbers(match.end(), int(match[2]), size)
    if len(values) != cells:
        raise UserError(f"{folder / name} has {len(values)} values for {cells} cells; meshes that change are not read")
    return values


def _numbers(text: str) -> np.ndarray:
    return np.array(text.replace("(", " ").replace(")", " ").split(), np.float64)


def _centres(mesh: Path) -> np.ndarray:
    """Centres (N, 3) of the cells of a folder polyMesh."""
    points, faces, *cells = (_File.read(mesh / name) for name in ("points", "faces", "owner", "neighbour"))
    x, _ = points.numbers(points.text.find("}"), None, 3)
    owner, neighbour = (file.numbers(file.text.find("}"), None, 1, labels=True)[0][:, 0] for file in cells)
    if faces.sizes is None:
        text = faces.text[faces.text.find("}") :]
        each = [np.array(face.split(), np.int64) for face in re.findall(r"\d+\s*\(([0-9\s]*)\)", text)]
        corners, counts = np.concatenate(each), np.array([len(face) for face in each])
    else:  # index of the first corner of each face, then all corners
        starts, end = faces.numbers(faces.text.find("}"), None, 1, labels=True)
        corners, counts = faces.numbers(end, None, 1, labels=True)[0][:, 0], np.diff(starts[:, 0])
    if (len(owner) != len(counts) or len(neighbour) > len(counts) or corners.min() < 0 or corners.max() >= len(x)
            or counts.min() < 1 or counts.sum() != len(corners)):
        raise UserError(f"{mesh} has {len(counts)} faces, {len(owner)} owners and {len(x)} points, which do not "
                        "fit; write the mesh again")
    label = np.repeat(np.arange(len(counts)), counts)
    centre = np.stack([np.bincount(label, x[corners, axis]) for axis in range(3)], -1) / counts[:, None]
    cell = np.concatenate([owner, neighbour])
    sums = np.concatenate([centre, centre[: len(neighbour)]])
    count = np.bincount(cell)
    return np.stack([np.bincount(cell, sums[:, axis]) for axis in range(3)], -1) / np.maximum(count, 1)[:, None]


# ---- probes ----

class ProbesFormat(TableFormat):
    """Text files of the function object `probes`, one per field, named after it."""

    name = "OpenFOAM probes"
    about = "probes of OpenFOAM"
    signature = re.compile(rb"# Probe \d+ \(")

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        with damage_as_user_error(path):
            return ProbesColumns(path)


class ProbesColumns(Columns):
    """Table with a row for each time and probe: t, x, y, z (if not constant), and the components of the field.

    Values outside of the mesh (1e300) are missing.
    """

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [match[1] for line in lines if (match := _PROBE.match(line))]
        points = np.array([[float(number) for number in place.split()] for place in found]).reshape(len(found), -1)
        rows = [line.replace("(", " ").replace(")", " ").split() for line in lines if line.strip() and line[0] != "#"]
        width = {len(row) for row in rows}
        if points.shape[1] != 3 or len(width) != 1 or (width.copy().pop() - 1) % len(points):
            raise UserError(f"{path} has {len(points)} probes and rows of {', '.join(map(str, sorted(width))) or 'no'} "
                            "numbers; expected a time and as many values for each probe in every row")
        table = np.array(rows, np.float64)
        values = table[:, 1:].reshape(len(table), len(points), -1)
        values[np.abs(values) > _OUTSIDE] = np.nan
        size = values.shape[-1]
        parts = [f"_{axis}" for axis in "xyz"] if size == 3 else [f"_{index}" for index in range(size)]
        axes = "xy" if np.ptp(points[:, 2]) == 0 else "xyz"
        self._columns = {"t": np.repeat(table[:, 0], len(points))}
        self._columns |= {axis: np.tile(points[:, index], len(table)) for index, axis in enumerate(axes)}
        self._columns |= {path.name + (parts[index] if size > 1 else ""): values[..., index].ravel()
                          for index in range(size)}
        self.names = tuple(self._columns)

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(self._columns["t"]), rows):
            yield {name: values[start:start + rows] for name, values in self._columns.items()}

    def close(self) -> None:
        pass
