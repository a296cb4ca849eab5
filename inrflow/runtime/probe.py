"""A first try in another process, of what may never end or end this process: C libraries on damaged files."""

from __future__ import annotations

import gc
import os
import select
import warnings
from collections.abc import Callable
from typing import Any

SECONDS = 8.0


def survives(work: Callable[[], Any], seconds: float = SECONDS) -> bool:
    """Whether a forked copy of this process does the work, or fails in it in an orderly way, within some seconds.

    Always true where processes cannot be forked. What the copy changes is lost with it.
    """
    if not hasattr(os, "fork"):
        return True
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the copy uses none
        child = os.fork()
    if child == 0:
        gc.disable()  # nothing of the original is to be closed here
        try:
            work()
        except Exception:  # for the original to meet and tell
            pass
        finally:
            os.write(writing, b"!")
            os._exit(0)
    os.close(writing)
    try:
        ended = bool(select.select([reading], [], [], seconds)[0])
        return ended and os.read(reading, 1) == b"!"
    finally:
        os.close(reading)
        if hasattr(os, "kill"):
            os.kill(child, 9)
        os.waitpid(child, 0)
