"""Summary of a data file as labelled rows, and of its interpretation by `inrflow convert`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.builtin.trajectories import TrajectoryFormat
from inrflow.data.formats.builtin.trajectory_summary import channel_statistics, trajectory_rows
from inrflow.data.formats.registry import FORMATS, Content, Format, ReadOptions, expanded, format_of
from inrflow.data.formats.streams.joining import read_files
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.runtime.safe_names import printable
from inrflow.runtime.temporary import temporary_folder

_OPTIONS = ("channels", "coordinates", "time", "trajectory", "select", "stations")
_KEYS = re.compile(rf"\b({'|'.join(_OPTIONS)})[=.]\S")  # settings that a message suggests
_CONCRETE = re.compile(r"(?:select\.\w+=\d+ ?)+|channels=\[[\w,]+\]")  # of these, those that are commands
_READ = 2e7  # largest size in bytes of files that are read completely, which takes seconds
_ONE_TIME = "it holds one time, and training needs 2: give all files of a series, as by a pattern (*)"
_CONSTANT = "all values of each channel are the same, from which nothing can be learned"
UNREAD = "it is not read as it is: "  # beginning of the note on a file that needs options, or is damaged
_OF_FILES = ("name", "layout", "symmetries")  # shown only for files in the schema


def is_store(path: Path) -> bool:
    """Whether a folder is a data file of a registered format."""
    return any(known.folder and known.sniff(path, b"") for known in FORMATS)


def describe(source: str | os.PathLike[str], read: Mapping[str, Any] | None = None, said: Sequence[str] = ()
             ) -> list[tuple[str, str]]:
    """(label, text) rows, printable on a terminal, that describe a data file of any registered format, or all files of
    a pattern. read: options of `convert` with which it is read; said: the same as typed by the user.

    Raises UserError if a file cannot be read.
    """
    facts = dict(read or {})
    options = ReadOptions(**{key: facts.pop(key) for key in _OPTIONS if key in facts}, description=facts)
    paths = expanded(Path(source))
    kind = format_of(paths[0])
    files = [item for path in paths for item in (path.rglob("*") if path.is_dir() else [path]) if item.is_file()]
    size = sum(item.stat().st_size for item in files)
    last = paths[-1].name if paths[-1].parent == paths[0].parent else paths[-1]
    several = f"{len(paths)} files, {paths[0]} to {last}" if len(paths) > 1 else f"{paths[0]}"
    rows = [("files" if len(paths) > 1 else "file", f"{several} ({size / 1e6:.3g} MB)")]
    if not isinstance(kind, TrajectoryFormat):
        rows.append(("format", kind.name))
    rows += kind.summary(paths[0]) if len(paths) == 1 else []
    if len(paths) > 1 or not isinstance(kind, TrajectoryFormat):
        rows += _conversion(kind, str(source), paths, size <= _READ, options, said)
    return [(printable(label), printable(text)) for label, text in rows]


def _conversion(kind: Format, given: str, paths: list[Path], whole: bool, options: ReadOptions, told: Sequence[str]
                ) -> list[tuple[str, str]]:
    """Rows on the interpretation of files by `inrflow convert` and, for small files (`whole`), on the result; or the
    reason why it needs further options."""
    try:
        with read_files(paths, options) as content:
            rows, refused = _converted(content) if whole else (
                [], _ONE_TIME if len(paths) == 1 and content.timeless else "")
            wanted = [f"data.train={given}", *(f"data.read.{one}" for one in told)]
            said = refused or (f"`inrflow train {shlex.join(wanted)}` reads it "
                               f"{'with these settings' if told else 'as it is'}")
            return [("read as", content.description.layout), *rows,
                    ("note", f"{said}; `inrflow convert {shlex.join([given, 'TARGET', *told])}` writes it in the "
                             "project's schema")]
    except UserError as error:
        hint = " (here KEY=..., in `inrflow train` data.read.KEY=...)" if _KEYS.search(str(error)) else ""
        return [("note", f"{UNREAD}{error}{hint}"), *_next(str(error), given, paths, options, told)]


def _next(message: str, given: str, paths: list[Path], options: ReadOptions, told: Sequence[str]
          ) -> list[tuple[str, str]]:
    """Row of the first command that a message suggests, if with its settings the files are read."""
    found = _CONCRETE.search(message)
    if found is None:
        return []
    more = found[0].split()
    named = dict(item.split("=", 1) for item in more)
    channels = named["channels"].strip("[]").split(",") if "channels" in named else options.channels
    select = {key.removeprefix("select."): int(value) for key, value in named.items() if key != "channels"}
    try:
        with read_files(paths, replace(options, channels=channels, select={**options.select, **select})):
            return [("next", f"`inrflow inspect {shlex.join([given, *told, *more])}`")]
    except UserError:
        return []


def _converted(content: Content) -> tuple[list[tuple[str, str]], str]:
    """Rows on times, places and channels of the content of a file, and why training would refuse it, else empty."""
    with temporary_folder() as folder:
        target = folder / "content.h5"
        content.write(target)
        with TrajectoryFile(target) as file:
            least, greatest = channel_statistics(file)[-2:]
            refused = _ONE_TIME if file.frames == 1 else _CONSTANT if np.array_equal(least, greatest) else ""
            return [row for row in trajectory_rows(file) if row[0] not in _OF_FILES], refused
