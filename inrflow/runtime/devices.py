"""Devices: the choice of one.

Decoders compute on their own device and answer on that of their input. Training batches are moved once, where the loss
of a step begins. Codes and priors stay in main memory: they are small, and float64.
"""

from __future__ import annotations

import torch
from torch import nn

from inrflow.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" (a CUDA device where there is one), "cpu" or "cuda". Raises UserError."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={name}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no CUDA device; give device=auto or device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device
