"""EnSight Gold cases, ASCII or C binary, as meshes; only parts of the highest dimension are kept, not boundaries.

VTK, which also reads them, crashed on one in ten damaged files, and read others as wrong numbers.
Layout: EnSight User Manual, chapter 9.1, "EnSight Gold Casefile Format".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inrflow.data.formats.meshes.mesh_series import MeshFormat, MeshSeries
from inrflow.data.formats.meshes.vtk_files import Mesh
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_SIZES = {  # number of nodes of an element, and its dimension
    "point": (1, 0), "bar2": (2, 1), "bar3": (3, 1), "tria3": (3, 2), "tria6": (6, 2), "quad4": (4, 2),
    "quad8": (8, 2), "tetra4": (4, 3), "tetra10": (10, 3), "pyramid5": (5, 3), "pyramid13": (13, 3),
    "penta6": (6, 3), "penta15": (15, 3), "hexa8": (8, 3), "hexa20": (20, 3), "nsided": (0, 2), "nfaced": (0, 3)}
_KINDS = {"tria3": "triangle", "quad4": "quad", "tetra4": "tetra", "hexa8": "hexahedron", "penta6": "wedge",
          "pyramid5": "pyramid"}
_COMPONENTS = {"scalar": 1, "vector": 3, "tensor symm": 6, "tensor asym": 9}
_VARIABLE = re.compile(r"(scalar|vector|tensor symm|tensor asym) per (node|element):\s*((?:\d+\s+){0,2})(\S+)\s+(\S+)$")
_MODEL = re.compile(r"model:\s*((?:\d+\s+){0,2})(\S+)")
_STATED = re.compile(r"([a-z][a-z ]*):\s*(.*)")
_KEPT = 4  # geometries that are cached
_ADVICE = "open the case in ParaView and save the data as a PVD collection (.pvd), all time steps"


class EnsightFormat(MeshFormat):
    """Text file of a case, which names its files of geometry and values."""

    name = "EnSight"
    about = "a case of EnSight Gold"
    suffixes = ()
    signature = re.compile(rb"(\s*#[^\n]*\n)*\s*format\s+(\S+\s+){0,4}\S*ensight", re.IGNORECASE)

    def series(self, path: Path) -> MeshSeries:
        return EnsightSeries(path)


@dataclass
class _Part:
    """Part of a geometry: nodes (N, 3), and by element type the count, nodes (E, size) and centres (E, 3)."""

    nodes: np.ndarray
    counts: dict[str, int]
    elements: dict[str, np.ndarray]
    centres: dict[str, np.ndarray]


class EnsightSeries(MeshSeries):
    """Concatenated parts of highest dimension with the variables at nodes, else at elements, NaN for parts without
    values. Raises UserError for damaged cases, and for files outside of the case's folder."""

    def _open(self, path: Path) -> list[tuple[int, float]]:
        self._geometry = lru_cache(_KEPT)(self._read_geometry)
        sections, unread = _sections(path), []
        kind = " ".join(sections.get("FORMAT", []))
        if "gold" not in kind.lower():
            raise UserError(f"{path} is of EnSight 5 or 6, but only Gold is read; {_ADVICE}")
        if "FILE" in sections:
            raise UserError(f"{path} has all times in one file, which is not read; write a file for each time")
        model = next((match for line in sections.get("GEOMETRY", []) if (match := _MODEL.match(line))), None)
        if model is None:
            raise UserError(f"{path} names no geometry (model:); write the case again")
        sets = _time_sets(path, sections.get("TIME", []))
        self._model = (_set_of(path, model[1], sets), model[2])
        self._variables: dict[str, tuple[int, str, Any, str]] = {}
        for line in sections.get("VARIABLE", []):
            match = _VARIABLE.match(line)
            if match is None:
                unread.append(line.split(":")[0])
            else:
                self._variables[match[4]] = (_COMPONENTS[match[1]], match[2], _set_of(path, match[3], sets), match[5])
        if unread:
            warnings.warn(f"{path}: variables {', '.join(sorted(set(unread)))} are not read", stacklevel=2)
        given = [one for _, _, one, _ in self._variables.values()] or [self._model[0]]
        longest = max(given, key=lambda one: 0 if one is None else len(one))
        times = [0.0] if longest is None else sorted(longest)
        self._steps = times
        return [(0, time) for time in times]

    def _file(self, times: dict[float, int] | None, name: str, time: float) -> Path | None:
        """File for a name with wildcards at a time; None if there is none."""
        if times is not None and time not in times and "*" in name:
            return None
        stars = re.search(r"\*+", name)
        if stars is not None:
            number = f"{0 if times is None else times[time]:0{len(stars[0])}d}"
            name = name[: stars.start()] + number + name[stars.end():]
        return self._inside(self.path, name.strip('"'))

    def _mesh(self, step: int) -> Mesh:
        with self._reading():
            time = self._steps[step]
            times, name = self._model
            path = self._file(times, name, max((t for t in times if t <= time), default=min(times)) if times else time)
            parts, binary = self._geometry(path)
            kept = _of_highest_dimension(parts)
            starts = np.cumsum([0, *(len(parts[number].nodes) for number in kept)])
            cells: dict[str, list[np.ndarray]] = {}
            for number, start in zip(kept, starts, strict=False):
                for kind, elements in parts[number].elements.items():
                    cells.setdefault(_KINDS.get(kind, kind), []).append(elements + start)
            mesh = Mesh(np.concatenate([parts[number].nodes for number in kept]),
                        {kind: np.concatenate(blocks) for kind, blocks in cells.items()},
                        np.concatenate([one for number in kept for one in parts[number].centres.values()]))
            for label, (size, where, moments, pattern) in self._variables.items():
                found = self._file(moments, pattern, time)
                if found is None:
                    continue
                values = _values(_File(found, binary), parts, kept, size, where)
                if where == "node":
                    mesh.point_data[label] = values
                else:
                    mesh.cell_data[label] = [values]
            return mesh

    def _reading(self) -> AbstractContextManager[Any]:
        return damage_as_user_error(self.path)

    def _read_geometry(self, path: Path) -> tuple[dict[int, _Part], bool]:
        file = _File(path)
        file.line(), file.line()
        ids = [file.line().split()[-1] in ("given", "ignore") for _ in ("node", "element")]
        parts: dict[int, _Part] = {}
        word = file.word()
        if word == "extents":
            file.numbers(6, np.float32)
            word = file.word()
        while word.startswith("part"):
            number = file.one()
            file.line()
            word = file.word()
            if word.startswith("block"):
                raise UserError(f"{path} holds structured blocks, which are not read; {_ADVICE}")
            if word != "coordinates":
                raise UserError(f"{path} does not say `coordinates` in part {number}; write it again")
            count = file.one()
            if ids[0]:
                file.numbers(count, np.int32)
            nodes = file.numbers(3 * count, np.float32).reshape(3, count).T.astype(np.float64)
            part = parts[number] = _Part(nodes, {}, {}, {})
            word = file.word()
            while word and not word.startswith("part"):
                _add_elements(file, word, part, ids[1])
                word = file.word()
        if word or not parts:
            raise UserError(f"{path} holds {word!r} where a part was expected; write it again")
        return parts, file.binary


def _add_elements(file: _File, word: str, part: _Part, ids: bool) -> None:
    """Read the elements of one type into a part, without ghost elements, which belong to other files."""
    kind = word.removeprefix("g_")
    if kind not in _SIZES:
        raise UserError(f"{file.path} holds elements {word!r}, which are unknown; write it again")
    count, size = file.one(), _SIZES[kind][0]
    if ids:
        file.numbers(count, np.int32)
    if size:
        corners = file.numbers(count * size, np.int32)
        counts = np.full(count, size)
    else:
        counts = file.numbers(count, np.int32)
        if kind == "nfaced":
            each = file.numbers(file.size(counts), np.int32)
            counts = np.add.reduceat(each, np.cumsum([0, *counts[:-1]])) if count else counts
            file.size(each)
        corners = file.numbers(file.size(counts), np.int32)
    if len(corners) and not (1 <= corners.min() and corners.max() <= len(part.nodes) and counts.min() > 0):
        raise UserError(f"{file.path} has elements with nodes outside of 1 to {len(part.nodes)}; write it again")
    if word != kind:
        return
    if kind in part.counts:
        raise UserError(f"{file.path} has elements {kind} twice in a part; write it again")
    part.counts[kind] = count
    label, points = np.repeat(np.arange(count), counts), part.nodes[corners - 1]
    sums = [np.bincount(label, points[:, axis], count) for axis in range(3)]
    part.centres[kind] = np.stack(sums, -1) / counts[:, None]
    if size:
        part.elements[kind] = corners.reshape(count, size).astype(np.int64) - 1
    else:
        part.elements[kind] = np.zeros((count, 0), np.int64)


def _of_highest_dimension(parts: dict[int, _Part]) -> list[int]:
    reach = {number: max((_SIZES[kind][1] for kind, count in part.counts.items() if count), default=-1)
             for number, part in parts.items()}
    return [number for number in parts if reach[number] == max(reach.values())]


def _values(file: _File, parts: dict[int, _Part], kept: list[int], size: int, where: str) -> np.ndarray:
    """Values (N, size) of a variable at the nodes or elements of parts; NaN if missing."""
    path = file.path
    file.line()
    held = {number: {"coordinates": np.full((len(part.nodes), size), np.nan, np.float32)} if where == "node" else
            {kind: np.full((count, size), np.nan, np.float32) for kind, count in part.counts.items()}
            for number, part in parts.items()}
    word = file.word()
    while word.startswith("part"):
        number = file.one()
        if number not in held:
            raise UserError(f"{path} has values of part {number}, which the geometry has not; write it again")
        word = file.word()
        while word and not word.startswith("part"):
            kind, *marks = word.split()
            if kind not in held[number]:
                raise UserError(f"{path} has values of {word!r}, which part {number} of the geometry has not; write it "
                                "again")
            array, missing, rows = held[number][kind], None, None
            if marks == ["undef"]:
                missing = file.numbers(1, np.float32)[0]
            elif marks == ["partial"]:
                rows = file.numbers(file.one(), np.int32) - 1
                if len(rows) and not 0 <= rows.min() <= rows.max() < len(array):
                    raise UserError(f"{path} has values of unknown nodes or elements; write it again")
            elif marks:
                raise UserError(f"{path} has values {word!r}, which are not read; write them for all nodes or elements")
            count = len(array) if rows is None else len(rows)
            values = file.numbers(count * size, np.float32).reshape(size, count).T
            array[slice(None) if rows is None else rows] = np.where(values == missing, np.nan, values)
            word = file.word()
    if word:
        raise UserError(f"{path} holds {word!r} where a part was expected; write it again")
    return np.concatenate([array for number in kept for array in held[number].values()])


class _File:
    """Sequential reader of lines and numbers in a file of a case, ASCII or binary. Raises UserError if truncated."""

    def __init__(self, path: Path, binary: bool | None = None) -> None:
        self.path, self._data, self._at = path, path.read_bytes(), 0
        self._order: Literal["", "<", ">"] = ""
        kind = self._data[:80].lower()
        if kind.startswith(b"fortran"):
            raise UserError(f"{path} is Fortran binary, which is not read; write the case as C binary or ASCII")
        self.binary = kind.startswith(b"c binary") if binary is None else binary
        if self.binary and binary is None:
            self._at = 80

    def line(self) -> str:
        """Next line without surrounding spaces; empty at the end."""
        if self.binary:
            found = self._data[self._at : self._at + 80]
            self._at += 80
            if found and len(found) < 80:
                raise self._cut()
        else:
            end = self._data.find(b"\n", self._at)
            end = len(self._data) if end < 0 else end
            found, self._at = self._data[self._at : end], end + 1
        return found.split(b"\0")[0].decode("latin-1").strip()

    def word(self) -> str:
        """Next non-empty line; empty at the end."""
        found = self.line()
        while not found and self._at < len(self._data):
            found = self.line()
        return found

    def one(self) -> int:
        """Next integer, the number of a part or a count."""
        if self.binary and not self._order:
            there = self._data[self._at : self._at + 4]
            self._order = "<" if int.from_bytes(there, "little") <= int.from_bytes(there, "big") else ">"
        number = int(self.numbers(1, np.int32)[0])
        if number < 0:
            raise UserError(f"{self.path} holds {number} where the number of a part, or a count, was expected; write "
                            "it again")
        return number

    def size(self, counts: np.ndarray) -> int:
        """Sum of counts. Raises UserError if any is below one."""
        if len(counts) and counts.min() < 1:
            raise UserError(f"{self.path} has an element without nodes or faces; write it again")
        return int(counts.sum(dtype=np.int64))

    def numbers(self, count: int, kind: type) -> np.ndarray:
        """Next `count` numbers, from the beginning of a line."""
        if self.binary:
            end = self._at + 4 * count
            if end > len(self._data):
                raise self._cut()
            values = np.frombuffer(self._data, np.dtype(kind).newbyteorder(self._order or "<"), count, self._at)
            self._at = end
            return values.astype(kind)
        texts: list[bytes] = []
        while len(texts) < count:
            if self._at >= len(self._data):
                raise self._cut()
            texts += self.line().encode().split()
        if len(texts) > count:
            raise UserError(f"{self.path} holds more than the {count} numbers that it announces; write it again")
        try:
            return np.array(texts).astype(np.float64).astype(kind)
        except ValueError as error:
            raise UserError(f"{self.path} holds other text where {count} numbers were expected; write it again"
                            ) from error

    def _cut(self) -> UserError:
        return UserError(f"{self.path} ends too early; it is incomplete or damaged, write it again")


def _sections(path: Path) -> dict[str, list[str]]:
    """Lines of a case by section, without comments."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text(encoding="latin-1").splitlines():
        text = " ".join(line.split("#")[0].split())
        if text.upper() in ("FORMAT", "GEOMETRY", "VARIABLE", "TIME", "FILE", "MATERIAL", "SCRIPTS"):
            name = text.upper()
        elif text:
            sections.setdefault(name, []).append(text)
    return sections


def _stated(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(key before the colon, text after it), including continuation lines."""
    key, text = "", ""
    for line in lines:
        match = _STATED.match(line)
        if match is None:
            text += f" {line}"
            continue
        if key:
            yield key, text
        key, text = match[1], match[2]
    if key:
        yield key, text


def _time_sets(path: Path, lines: list[str]) -> dict[int, dict[float, int]]:
    """Time sets by number, each as file numbers by time."""
    sets: dict[int, dict[str, str]] = {}
    for key, text in _stated(lines):
        if key == "time set":
            sets[int(text.split()[0])] = {}
        elif not sets:
            raise UserError(f"{path} has {key!r} before the first time set; write the case again")
        else:
            sets[list(sets)[-1]][key] = text
    found = {}
    for number, given in sets.items():
        if "time values" not in given:
            raise UserError(f"{path} does not give the times of time set {number} itself, which is needed; write the "
                            "case with `time values:`")
        times = [float(text) for text in given["time values"].split()]
        first, step = int(given.get("filename start number", 0)), int(given.get("filename increment", 1))
        numbers = [int(text) for text in given["filename numbers"].split()] if "filename numbers" in given else \
            [first + step * index for index in range(len(times))]
        if len(set(times)) < len(times):
            raise UserError(f"{path}: time set {number} holds a time twice; write the case again")
        if not times or len(numbers) != len(times) or int(given.get("number of steps", len(times))) != len(times):
            raise UserError(f"{path}: time set {number} has {len(times)} times, {len(numbers)} files and announces "
                            f"{given.get('number of steps', 'as many')} steps; write the case again")
        found[number] = dict(zip(times, numbers, strict=True))
    return found


def _set_of(path: Path, numbers: str, sets: dict[int, dict[float, int]]) -> dict[float, int] | None:
    """Time set that a line names first, or the only one if none is named."""
    named = numbers.split()
    if not named:
        return next(iter(sets.values())) if len(sets) == 1 else None
    if int(named[0]) not in sets:
        raise UserError(f"{path} names the time set {named[0]}, which it does not give; write the case again")
    return sets[int(named[0])]
