"""Data files that a command names: of the project's schema as they are, others converted into the output."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from inrflow.config.resolve import given_settings
from inrflow.config.train_schema import ReadConfig
from inrflow.data.formats.convert import convert
from inrflow.data.formats.registry import format_of
from inrflow.data.formats.schema import in_schema
from inrflow.data.formats.streams.joining import expanded
from inrflow.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from inrflow.config.schema import AdaptDataConfig

_OPTION = re.compile(r"(?<![\w.])(?=(channels|coordinates|time|trajectory|stations|select\.\w+|period)=)")  # of convert
FOLDER = "data"  # of converted files, in the output


def as_trajectories(given: str, role: str, output: Path, console: Console, read: ReadConfig | None = None,
                    kept: bool = False) -> str:
    """The path of a trajectory file with what is in a file, folder or pattern of any readable format.

    given: what the user named. role: the setting that names it (data.train), for messages, and the name of the
    converted file, OUTPUT/data/ROLE.h5. kept: a converted file that is newer than its sources is used again.
    Raises UserError where it cannot be read or understood.
    """
    if not given or (not Path(given).exists() and not set(given) & set("*?[")):
        return given  # refused, with what is expected, where it is opened
    paths = [Path(given)] if Path(given).exists() else expanded(given)
    if len(paths) == 1 and in_schema(paths[0]):
        return str(paths[0])
    kind = format_of(paths[0])
    target = output / FOLDER / f"{role.replace('.', '_')}.h5"
    if kept and target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in paths):
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    options = given_settings(read or ReadConfig())
    if "name" not in options and len(paths) > 1:
        options["name"] = Path(given).parent.name or "data"
    try:
        with console.status(f"reading {given}"):
            convert(paths, target, overwrite=True, **options)
    except UserError as error:
        for folder in (target.parent, output):
            with suppress(OSError):  # others keep something there
                folder.rmdir()
        raise UserError(f"{role}: {_OPTION.sub('data.read.', str(error))}") from error
    files = f"{len(paths)} files of {kind.name}" if len(paths) > 1 else kind.name
    console.print(f"{role}={given} is {files}; its trajectories are in {target}", highlight=False, soft_wrap=True)
    return str(target)


def own_files(data: AdaptDataConfig, output: Path, console: Console, read: ReadConfig) -> None:
    """Put trajectory files in the place of the training and test files that a configuration names."""
    for key in ("train", "test"):
        given = getattr(data, key)
        if given:
            setattr(data, key, as_trajectories(str(given), f"data.{key}", output, console, read))
