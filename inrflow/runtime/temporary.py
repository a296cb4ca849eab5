"""Temporary folders, which are removed by the next process that makes one where their own was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inrflow.runtime.atomic_files import folder_of, new_temporary, remove_leftovers


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Context manager of a new folder among the system's temporary ones. A file beside it is locked meanwhile."""
    target = Path(tempfile.gettempdir()) / "inrflow"
    with suppress(OSError):  # a folder that may not be listed
        remove_leftovers(target.parent, target)
    mark, lock = new_temporary(target)
    folder = folder_of(mark)
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        mark.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)
