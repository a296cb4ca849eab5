"""Fourier features of time: cosines and sines of the harmonics of given periods."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def periodic_phases(t: Tensor, period: float, harmonics: int) -> Tensor:
    """cos and sin (..., 2 K) of the first K harmonics at times t (...,), float64, accurate far from the origin."""
    multiples = torch.arange(1, harmonics + 1, dtype=torch.float64, device=t.device)
    angle = 2 * math.pi * torch.remainder(t.double() / period, 1.0)[..., None] * multiples
    return torch.cat([angle.cos(), angle.sin()], -1)


def phases_of(t: Tensor, periods: Sequence[float], harmonics: Sequence[int]) -> Tensor:
    """cos and sin (..., k) of the first harmonics of each period at times t (...,), float64."""
    parts = [periodic_phases(t, period, count) for period, count in zip(periods, harmonics, strict=True)]
    return torch.cat([t.new_zeros(*t.shape, 0).double(), *parts], -1)


def rotation(periods: Sequence[float], harmonics: Sequence[int]) -> Tensor:
    """Matrix R (k, k), float64, of the rates R f of the features f = `phases_of(t, ...)`: harmonic oscillators."""
    blocks = [torch.zeros(0, 0, dtype=torch.float64)]
    for period, count in zip(periods, harmonics, strict=True):
        speed = torch.diag(2 * math.pi / period * torch.arange(1, count + 1, dtype=torch.float64))
        blocks.append(torch.kron(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64), speed))
    return torch.block_diag(*blocks)
