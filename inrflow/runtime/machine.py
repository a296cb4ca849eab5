"""The machine: the device that is computed on, and the C library's allocator.

Decoders compute on their own device and answer on that of their input. Training batches are moved once, where the loss
of a step begins. Codes and priors stay in main memory: they are small, and float64.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from typing import TYPE_CHECKING

from inrflow.errors import UserError

if TYPE_CHECKING:  # wrong calls are answered before torch is imported
    import torch
    from torch import nn

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST_KEPT = 32 << 20  # the largest threshold that 64-bit systems allow


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" (a CUDA device where there is one), "cpu", "cuda" or "cuda:N". Raises UserError.

    "cuda:N" becomes the current device of torch, on which kernels are launched.
    """
    import torch

    indexed = re.fullmatch(r"cuda:([0-9]{1,3})", name)
    if name not in ("auto", "cpu", "cuda") and indexed is None:
        raise UserError(f"device={name}; choose auto, cpu, cuda or cuda:N")
    if name == "cpu" or not torch.cuda.is_available():
        if name not in ("auto", "cpu"):
            raise UserError(f"device={name}, but torch finds no CUDA device; give device=auto or device=cpu")
        return torch.device("cpu")
    if indexed is None:
        return torch.device("cuda")
    number, count = int(indexed[1]), torch.cuda.device_count()
    if number >= count:
        raise UserError(f"device={name}, but torch finds the CUDA devices 0 to {count - 1}; give one of them")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device


def keep_freed_memory() -> bool:
    """Let the C library keep up to 64 MB of freed memory; returns whether the thresholds were set.

    They are not without glibc, or where the environment sets malloc's thresholds itself. glibc returns large freed
    blocks, and the freed end of the heap, to the system at once: a step that allocates a few megabytes each time then
    spends as long on page faults as on arithmetic (measured: half of the system time of a run). glibc itself raises the
    thresholds to these values once a block of that size has been freed; peak memory does not change.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP, _LARGEST_KEPT)) and bool(library.mallopt(_TRIM, 2 * _LARGEST_KEPT))
