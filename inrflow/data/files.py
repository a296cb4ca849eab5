"""Writing files so that nothing is lost: aside first, renamed when complete, a full disk told as what it is."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inrflow.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that the disk (or the user's quota) is full; HDF5 hides the number in its message."""
    text = str(error)
    return getattr(error, "errno", None) in _FULL or any(
        f"errno = {number}," in text or os.strerror(number) in text for number in _FULL
    )


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path` as a Path that may be written: its folder exists, and it is no file yet unless `overwrite`.

    Raises UserError otherwise.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist; create it or choose another")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already and is not written over; choose another name or remove it first")
    return path


def partial_name(path: Path) -> Path:
    """A fresh temporary name in the folder of `path`, so that the final rename stays on one disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn failures of the disk while `path` is written (full, read-only, not permitted) into UserErrors."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if is_disk_full(error):
            raise UserError(f"no space left on the disk while writing {path}; free some or choose another place "
                            "(nothing was left behind)") from error
        if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
            raise UserError(f"cannot write {path}: permission denied; choose a folder that you may write to") from error
        raise


@contextmanager
def written_aside(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; it takes the place of `path` on success and is removed on any failure.

    Raises UserError where `path` exists (unless `overwrite`), cannot be written, or the disk is full.
    """
    path = check_target(path, overwrite)
    partial = partial_name(path)
    try:
        with writing(path):
            yield partial
            check_target(path, overwrite)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
