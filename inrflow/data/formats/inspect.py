"""What is in a data file, in a screenful of labelled rows, and what `inrflow convert` makes of it."""

from __future__ import annotations

import os
from pathlib import Path

from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.builtin.trajectories import TrajectoryFormat
from inrflow.data.formats.registry import FORMATS, Format, ReadOptions, format_of
from inrflow.errors import UserError
from inrflow.runtime.safe_names import printable


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
        rows += _conversion(kind, path)
    return [(printable(label), printable(text)) for label, text in rows]


def _conversion(kind: Format, path: Path) -> list[tuple[str, str]]:
    """How `inrflow convert` understands a file, or why it cannot without being told more."""
    try:
        with kind.read(path, ReadOptions()) as content:
            about = content.description
            return [("read as", about.layout),
                    ("note", f"`inrflow train data.train={path}` reads it as it is; `inrflow convert {path} TARGET` "
                     "writes it in the project's schema")]
    except UserError as error:
        hint = " (`inrflow train` takes data.read.KEY=...)" if kind.about else ""
        return [("note", f"it is not read as it is: {error}{hint}")]
