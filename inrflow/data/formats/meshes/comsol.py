"""COMSOL data exports as text or CSV: coordinates, then a column for each expression, parameter and time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np

from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.streams.streamed import Part, StreamedContent
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_VALUES = r"[\w.]+=[^\s,]+(?:,\s*[\w.]+=[^\s,]+)*"
_COLUMN = re.compile(rf"(?P<name>[^\s,]+)(?:\s+\((?P<unit>[^)]*)\))?(?:\s+@\s+(?:\d+:\s*)?(?P<at>{_VALUES}))?")
_TIME = "t"


class ComsolFormat(Format):
    """Text that starts with comment lines (%) on the model."""

    name = "COMSOL"
    about = "COMSOL's export of data as text"
    signature = re.compile(rb"%\s*(Model|Version)\b")

    def read(self, path: Path, options: ReadOptions) -> Content:
        with damage_as_user_error(path):
            return ComsolContent(path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        about = _about(path)
        return [(label.lower(), about[label]) for label in ("Model", "Nodes", "Description") if label in about]


def _about(path: Path) -> dict[str, str]:
    """Entries of the comment lines above the values by label; the names of columns under ""."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = [line[1:].strip() for line in takewhile(lambda line: line.startswith("%"), file)]
    said = dict(re.split(r"\s*[:,]\s*", line, maxsplit=1) for line in lines[:-1] if re.match(r"[A-Z][\w ]*[:,]", line))
    return {label: text.strip('"') for label, text in said.items()} | {"": lines[-1] if lines else ""}


class ComsolContent(StreamedContent):
    """Expressions at the nodes of an export; each combination of parameters is a trajectory. Raises UserError if
    columns do not match their names, or have no time."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        super().__init__(path)
        about = _about(path)
        found = [match.groupdict() for match in _COLUMN.finditer(about[""].replace('"', ""))]
        table = np.loadtxt(path, comments="%", delimiter="," if "," in _first_row(path) else None, ndmin=2)
        axes = int(about.get("Dimension", 0)) or sum(one["unit"] is None for one in found)
        if len(found) != table.shape[1] or not 0 < axes < len(found):
            raise UserError(f"{path} has {table.shape[1]} columns and names {len(found)}; export it with a header")
        columns: dict[tuple[tuple[str, str], ...], dict[float, dict[str, int]]] = {}
        for index, one in enumerate(found[axes:], axes):
            values = dict(item.split("=") for item in re.split(r",\s*", one["at"])) if one["at"] else {}
            if _TIME not in values:
                raise UserError(f"{path}: {one['name']} is of no time; export all times of a study in one file")
            t = float(values.pop(_TIME))
            columns.setdefault(tuple(values.items()), {}).setdefault(t, {})[one["name"]] = index
        names = list(dict.fromkeys(one["name"] for one in found[axes:]))
        channels = list(options.channels or names)
        if absent := [name for name in channels if name not in names]:
            raise UserError(f"{path} has no expression {', '.join(absent)}; there are {', '.join(names)}")
        self._x, self._table, self._columns = table[:, :axes], table, columns
        known = list(next(iter(columns)))
        numbers = len(columns) > 1 and all(re.fullmatch(r"[-+.\deE]+", value) for key in columns for _, value in key)
        self._numbers = {key: np.array([float(value) for _, value in key]) if numbers else None for key in columns}
        units = {one["name"]: one["unit"] or "" for one in found}
        self.description = options.describe(
            path, channels, options.coordinates or [one["name"] for one in found[:axes]],
            units=[units[name] for name in channels] if any(units.values()) else None,
            parameter_names=[name for name, _ in known] if numbers else None)

    def parts(self) -> Iterator[Part]:
        for key, times in self._columns.items():
            yield Part(np.array(sorted(times)), self._x, partial(self._values, key), self._numbers[key])

    def _values(self, key: tuple[tuple[str, str], ...], first: int, last: int) -> np.ndarray:
        times = self._columns[key]
        return np.stack([self._table[:, [times[t][name] for name in self.description.channels]]
                         for t in sorted(times)[first:last]])


def _first_row(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line for line in file if not line.startswith("%")), "")
