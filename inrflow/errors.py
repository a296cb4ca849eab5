"""Errors of the user, which the command line reports without a traceback."""

from __future__ import annotations

import errno
import os
import re

INTERRUPTED = 130  # exit code of what was stopped by Ctrl-C, as shells have it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile(r"No space left|os error (28|27|122)\b|File too large|Disk quota")  # of libraries in Rust


class UserError(Exception):
    """A mistake in what the user gave: one sentence saying what was found, what was expected and what to do.

    The command line prints the sentence on stderr without a traceback and exits with code 2.
    """


def missing(path: str | os.PathLike[str]) -> str:
    """What is said of a file that does not exist: the one of its folder that it may be."""
    from difflib import get_close_matches

    folder, name = os.path.split(path)
    try:
        near = get_close_matches(name, os.listdir(folder or "."), 1, 0.7)
    except OSError:
        return f"{path} does not exist; there is no folder {folder}"
    hint = f"did you mean {os.path.join(folder, near[0])}?" if near else "check the name and the folder"
    return f"{path} does not exist; {hint}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if that is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system or a library means that the disk, or the user's quota, is full."""
    return getattr(error, "errno", None) in _FULL or _FULL_TEXT.search(str(error)) is not None
