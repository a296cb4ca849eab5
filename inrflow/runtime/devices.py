"""Devices: the choice of one, and methods of modules that accept tensors of any device.

Decoders compute on their own device and answer on that of their input. Training batches are moved once, where the loss
of a step begins. Codes and priors stay in main memory: they are small, and float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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


def on_own_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a module's method: tensors are moved to the module's device, the result to the first tensor's."""

    @functools.wraps(method)
    def moving(module: nn.Module, *tensors: Tensor) -> Any:
        away, home = tensors[0].device, device_of(module)
        if all(tensor.device == home for tensor in tensors):
            return method(module, *tensors)
        result = method(module, *(tensor.to(home) for tensor in tensors))
        return result.to(away) if isinstance(result, Tensor) else tuple(part.to(away) for part in result)

    return moving
