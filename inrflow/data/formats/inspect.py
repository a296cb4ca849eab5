"""What is in a data file, in a screenful of labelled rows, and what `inrflow convert` makes of it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory

from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.builtin.trajectories import TrajectoryFormat
from inrflow.data.formats.builtin.trajectory_summary import trajectory_rows
from inrflow.data.formats.registry import FORMATS, Content, Format, ReadOptions, format_of
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.runtime.safe_names import printable

_READ = 2e7  # bytes of files that are read as a whole, which takes seconds
_OF_FILES = ("name", "layout", "symmetries")  # told of files in the schema alone


def is_store(path: Path) -> bool:
    """Whether a folder is a data file of a registered format."""
    return any(known.folder and known.sniff(path, b"") for known in FORMATS)


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """(label, text) rows that describe a data file of any registered format, fit to print on a terminal.

    Raises UserError where the file cannot be read.
    """
    path = Path(path)
    kind = format_of(path)
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    size = sum(item.stat().st_size for item in files)
    rows = [("file", f"{path} ({size / 1e6:.3g} MB)")]
    if not isinstance(kind, TrajectoryFormat):
        rows.append(("format", kind.name))
    rows += kind.summary(path)
    if not isinstance(kind, TrajectoryFormat):
        rows += _conversion(kind, path, size <= _READ)
    return [(printable(label), printable(text)) for label, text in rows]


def _conversion(kind: Format, path: Path, whole: bool) -> list[tuple[str, str]]:
    """How `inrflow convert` understands a file, of a `whole` one also what it makes of it, or why it cannot without
    being told more."""
    try:
        with kind.read(path, ReadOptions()) as content:
            return [("read as", content.description.layout), *(_converted(content) if whole else []),
                    ("note", f"`inrflow train {shlex.quote(f'data.train={path}')}` reads it as it is; `inrflow convert "
                     f"{shlex.quote(str(path))} TARGET` writes it in the project's schema")]
    except UserError as error:
        hint = " (`inrflow train` takes data.read.KEY=...)" if kind.about else ""
        return [("note", f"it is not read as it is: {error}{hint}")]


def _converted(content: Content) -> list[tuple[str, str]]:
    """Rows on times, places and channels of what is read from a file."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "content.h5"
        content.write(target)
        with TrajectoryFile(target) as file:
            return [row for row in trajectory_rows(file) if row[0] not in _OF_FILES]
