"""Devices: the choice of one.

Decoders compute on their own device and answer on that of their input. Training batches are moved once, where the loss
of a step begins. Codes and priors stay in main memory: they are small, and float64.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from inrflow.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" (a CUDA device where there is one), "cpu", "cuda" or "cuda:N". Raises UserError.

    "cuda:N" becomes the current device of torch, on which kernels are launched.
    """
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
