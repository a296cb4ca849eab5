"""Paths that Python code of this process opens for writing, makes, renames or removes, by an audit hook.

Files that libraries in C write by themselves, and those of other processes, are not seen.
"""

import os
import sys
from typing import Any

_PATHS = {"os.mkdir": slice(1), "os.rename": slice(2), "os.remove": slice(1), "os.rmdir": slice(1),
          "os.link": slice(1, 2), "os.symlink": slice(1, 2), "os.truncate": slice(1), "shutil.rmtree": slice(1)}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Absolute paths since the process began, or since they were cleared.
written: set[str] = set()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        changes = isinstance(arguments[2], int) and arguments[2] & _WRITES
        paths = arguments[:1] if changes else ()
    elif event in _PATHS and arguments[-1] in (-1, None) or event == "os.truncate":  # else relative to an open folder
        paths = arguments[_PATHS[event]]
    else:
        return
    for path in paths:
        try:
            written.add(os.path.abspath(os.fsdecode(path)))
        except (TypeError, OSError):  # a number, or a working folder that is gone
            pass


def watch() -> None:
    """Begin; audit hooks have no end."""
    sys.addaudithook(_note)
