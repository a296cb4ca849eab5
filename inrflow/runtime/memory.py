"""Thresholds of the C library's allocator, so that freed memory is kept for the next allocation.

glibc returns large freed blocks, and the freed end of the heap, to the system at once. A training step or a solve that
allocates a few megabytes each time then spends as long on page faults as on arithmetic (measured: half of the system
time of a run, a third of the time of encoding). glibc itself raises the thresholds to these values once a block of
that size has been freed; peak memory does not change.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST_KEPT = 32 << 20  # the largest threshold that 64-bit systems allow


def keep_freed_memory() -> bool:
    """Let the C library keep up to 64 MB of freed memory; returns whether the thresholds were set.

    They are not without glibc, or where the environment sets malloc's thresholds itself.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP, _LARGEST_KEPT)) and bool(library.mallopt(_TRIM, 2 * _LARGEST_KEPT))
