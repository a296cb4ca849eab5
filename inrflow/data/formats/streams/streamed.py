"""Files of regular arrays as trajectories: times, points and a function that reads frames, written in blocks."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats.layouts import blocks
from inrflow.data.formats.registry import Content, ReadOptions
from inrflow.data.formats.writing import TrajectoryWriter
from inrflow.runtime.atomic_files import damage_as_user_error

_NUMBER = re.compile(r"(?<![A-Za-z\d.])[tT]?\d+\.\d+(?:[eE][-+]?\d+)?(?![\d.])|\d+")  # 0.25, t0.25, 7.5e-01; 12


def number_in_name(path: Path) -> float | None:
    """Last number in the name of a file without its suffixes; None if there is none."""
    stem = re.sub(r"(\.[A-Za-z]\w*)+$", "", path.name)
    found = _NUMBER.findall(stem)
    return float(found[-1].lstrip("tT")) if found else None


@dataclass(frozen=True)
class Part:
    """Trajectory: t (T,), x (N, d), `values(first, last)` reads frames (last - first, N, C), parameters (P,)."""

    t: np.ndarray
    x: np.ndarray
    values: Callable[[int, int], np.ndarray]
    parameters: np.ndarray | None = None


class StreamedContent(Content):
    """Content whose trajectories are read one block of frames at a time.

    A format implements `parts`, which at the latest fills `extra`, datasets beyond the schema (cells of a mesh).
    """

    extra: dict[str, np.ndarray]

    def __init__(self, path: Path) -> None:
        self.path, self.extra = path, {}

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """Trajectories in order."""

    def write(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        with damage_as_user_error(self.path):
            parts = list(self.parts())  # values are read later
            with TrajectoryWriter(target, self.description, overwrite, self.extra, self.path) as writer:
                self._write(writer, parts)

    def _write(self, writer: TrajectoryWriter, parts: list[Part]) -> None:
        for part in parts:
            for cut, *_ in blocks((len(part.t), len(part.x), len(self.description.channels))):
                u = part.values(cut.start, cut.stop)
                if cut.start == 0:
                    writer.append(part.t[cut], part.x, u, part.parameters)
                else:
                    writer.extend(part.t[cut], part.x, u)


class OpenedContent(StreamedContent):
    """Content of a file that stays open while its values are read, and is closed if its structure is invalid.

    A format implements `_understand`, which determines the roles of the parts of `file`.
    """

    def __init__(self, path: Path, file: Any, options: ReadOptions) -> None:
        super().__init__(path)
        self._file = file
        try:
            with damage_as_user_error(path):
                self._understand(options)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _understand(self, options: ReadOptions) -> None:
        """Set `description` and what `parts` needs. Raises UserError if roles cannot be determined."""

    def close(self) -> None:
        self._file.close()


def lattice(axes: list[np.ndarray]) -> np.ndarray:
    """Points (N, d) of a grid with these axes, in C order."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], -1).astype(np.float64)


def periodic_axis(axis: np.ndarray) -> float:
    """Period of a uniform axis of cell centres, or of nodes without the last: its length plus one step."""
    return float(axis[-1] - axis[0] + (axis[-1] - axis[0]) / (len(axis) - 1)) if len(axis) > 1 else 0.0
