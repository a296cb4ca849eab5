"""Conversion of files by a package in a separate process, which damaged files may crash, to temporary files."""

from __future__ import annotations

import atexit
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from inrflow.errors import UserError
from inrflow.runtime.temporary import temporary_folder

_written: dict[tuple[object, ...], tuple[Path, str]] = {}
_folders = ExitStack()
atexit.register(_folders.close)


def converted_in_process(path: Path, code: Sequence[str], reader: str, advice: str) -> tuple[Path, str]:
    """Temporary folder in which Python ran with the arguments `code`, and its output; cached for each state of the
    file. Raises UserError, with the advice, if it fails or reports an error."""
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns, *code)
    if key not in _written:
        with ExitStack() as stack:
            folder = stack.enter_context(temporary_folder())
            ended = subprocess.run([sys.executable, "-W", "ignore", *code], cwd=folder, capture_output=True,
                                   text=True, errors="replace", check=False)
            lines = re.sub(r"\x1b\[\d*m", "", ended.stderr).strip().splitlines()  # VTK's are coloured
            told = [line.partition("ERR|")[2].partition("): ")[2] for line in lines if "ERR|" in line]
            if ended.returncode != 0 or told:
                why = [*told, *reversed(lines), "it ended"][0][:200].strip()
                raise UserError(f"{path} cannot be read by {reader} ({why}); {advice}")
            _written[key] = folder, ended.stdout
            _folders.push(stack.pop_all())
    return _written[key]
