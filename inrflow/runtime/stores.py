"""Replacement of folders that are files of a format (stores), by renaming."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def put_folder(finished: Path, path: Path) -> None:
    """Rename a finished folder to `path`. A folder there is renamed first and removed last, so that `restore` has it
    back if the process ends in between."""
    if path.is_dir():
        os.rename(path, _replaced(path))
    os.rename(finished, path)
    shutil.rmtree(_replaced(path), ignore_errors=True)


def restore(path: Path) -> None:
    """Give a folder at `path` its name again, or remove it, after a process ended while it was replaced."""
    if os.path.lexists(path):
        shutil.rmtree(_replaced(path), ignore_errors=True)
    elif _replaced(path).is_dir():
        os.rename(_replaced(path), path)


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")
