"""Warnings as sentences on stderr: none twice, and of a run's files none that was told when it was trained."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from inrflow.runtime.safe_names import printable

TOLD_FILE = "warnings.json"
_told = set[str]()  # by this command, without the names of files


def _about(text: str) -> str:
    """A warning without the name of the file that it is about, without shares and ranges of its values."""
    return re.sub(r"\d+ of \d+|between \S+ and \S+", "", text.partition(": ")[2] or text)


def teller(run: str | None = None) -> Callable[..., None]:
    """What shows warnings in place of `warnings.showwarning`. run: the folder of a run whose commands these are."""
    told, known = set[str](), set[str]()
    _told.clear()
    if run is not None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            known = set(json.loads((Path(run) / TOLD_FILE).read_text(encoding="utf-8"))["warnings"])

    def show(message: Any, category: type[Warning], filename: Any, lineno: int, file: Any = None, line: Any = None
             ) -> None:
        text = printable(message)
        if issubclass(category, UserWarning) and "matplotlib" not in str(filename) and text not in told:
            told.add(text)
            _told.add(_about(text))
            if _about(text) not in known:
                print(f"inrflow: warning: {text}", file=sys.stderr)

    return show


def keep_told(folder: Path) -> None:
    """Write what was told until now beside a run, whose later commands do not tell it again."""
    from inrflow.runtime.atomic_files import write_json  # not for wrong calls, which are told at once

    if _told:
        write_json(folder / TOLD_FILE, {"warnings": sorted(_told)})
