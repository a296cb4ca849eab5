"""Tecplot ASCII files by zone: structured zones are read here, finite-element zones by meshio."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.table_format import axes_among
from inrflow.errors import UserError

_SHARED = ("VARSHARELIST", "CONNECTIVITYSHAREZONE", "VARLOCATION")
_BEYOND = 3  # reads beyond the end before an error


@dataclass(frozen=True)
class Zone:
    """Zone of a file: the header above the first zone, and its own text."""

    path: Path
    head: str
    text: str

    @property
    def _keys(self) -> tuple[dict[str, str], int]:
        """Attributes of the zone by upper-case key, and the position of its numbers."""
        first = re.search(r"(?m)^\s*[-+.]?\d", self.text)
        start = len(self.text) if first is None else first.start()
        pairs = re.findall(r'(\w+)\s*=\s*("[^"]*"|\([^)]*\)|[^\s,]+)', self.text[:start])
        return {word.upper(): value.strip('"') for word, value in pairs}, start

    @property
    def time(self) -> float | None:
        """Declared time of the zone, or None."""
        time = self._keys[0].get("SOLUTIONTIME")
        return None if time is None else float(time)

    def mesh(self) -> Any:
        """Points, cells and fields as a meshio.Mesh. Raises UserError for zones that share data of others."""
        from meshio.tecplot import _tecplot

        keys, start = self._keys
        ordered = "I" in keys and keys.get("ZONETYPE", "ORDERED").upper() == "ORDERED"
        if left := [word for word in (_SHARED if ordered else _SHARED[:2]) if word in keys]:
            raise UserError(f"{self.path}: a zone has {left[0]}, which is not read; write zones whole, with values "
                            "at nodes")
        if not ordered:
            known = ", ".join(f"{word}={value}" for word, value in keys.items()
                              if word in _tecplot.zone_key_to_type and word != "T")
            return _tecplot.read_buffer(_Ending(f"{self.head}ZONE {known}\n{self.text[start:]}"))
        return self._structured(keys, np.array(self.text[start:].split(), np.float64))

    def _variables(self) -> list[str]:
        said = re.split(r"(?i)variables\s*=", self.head, maxsplit=1)[-1]
        return re.findall(r'"([^"]+)"', said) or re.findall(r"[^\s,]+", said)

    def _structured(self, keys: dict[str, str], numbers: np.ndarray) -> Any:
        """Mesh of a structured zone (I, J, K), with quadrilaterals if it is a surface."""
        import meshio

        names, sizes = self._variables(), [int(keys.get(axis, 1)) for axis in "IJK"]
        count, packing = int(np.prod(sizes)), keys.get("DATAPACKING", keys.get("F", "POINT")).upper()
        if len(numbers) != count * len(names):
            raise UserError(f"{self.path}: a zone of {count} points has {len(numbers)} numbers, expected {len(names)} "
                            "each; write it again")
        table = numbers.reshape(len(names), count) if packing == "BLOCK" else numbers.reshape(count, len(names)).T
        columns, axes = dict(zip(names, table, strict=True)), axes_among(names)
        points = np.stack([columns.pop(name) for name in axes], -1)
        points = np.pad(points, ((0, 0), (0, 3 - len(axes))))
        first = (np.arange(sizes[0] - 1) + sizes[0] * np.arange(sizes[1] - 1)[:, None]).ravel()
        cells = [("quad", np.stack([first, first + 1, first + 1 + sizes[0], first + sizes[0]], -1))]
        return meshio.Mesh(points, cells if sizes[2] == 1 and len(first) else [], columns)


class _Ending(io.StringIO):
    """Text stream that raises an error when read beyond its end, where meshio would wait forever."""

    _beyond = 0

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        line = super().readline(-1 if size is None else size)
        self._beyond = 0 if line else self._beyond + 1
        if self._beyond > _BEYOND:
            raise EOFError("it ends within a zone")
        return line


def zones(path: Path) -> list[Zone]:
    """Zones of a file."""
    head, *parts = re.split(r"(?im)^(?=[ \t]*zone\b)", path.read_text(encoding="latin-1"))
    return [Zone(path, head, part) for part in parts]
