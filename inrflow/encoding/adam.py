"""Encoding by descent: the code moved by Adam until the decoder fits the frame (DINo, Yin et al., ICLR 2023).

The published way of encoding, kept as the baseline. Its result depends on the number of steps, which regularises it:
longer fits drift away from the codes seen in training, so choose the steps on validation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder


def frame_errors(decoder: Decoder, x: Tensor, u: Tensor, z: Tensor) -> Tensor:
    """Mean squared error (F,) over the observed values of each frame; 0 where nothing is observed.

    x (N, d) or (F, N, d), u (F, N, C) with NaN = not observed, z (F, Z).
    """
    observed = torch.isfinite(u)
    error = torch.where(observed, decoder(x, z) - torch.nan_to_num(u), 0.0)
    return error.square().flatten(1).sum(1) / observed.flatten(1).sum(1).clamp(min=1)


def adam_encode(
    decoder: Decoder, x: Tensor, u: Tensor, steps: int = 300, rate: float = 1e-2, start: Tensor | None = None
) -> Tensor:
    """Codes (F, Z) of frames u (F, N, C) at points x (N, d) or (F, N, d), in the decoder's precision.

    Every frame is moved by itself from `start` (F, Z), zero if not given, and keeps the best code that it passed, the
    last included. The decoder's parameters and their gradients are left alone.
    """
    dtype = next(decoder.parameters()).dtype
    x, u = x.to(dtype), u.to(dtype)
    codes = u.new_zeros(len(u), decoder.code_size) if start is None else start.detach().to(u).clone()
    codes.requires_grad_(True)
    optimiser = torch.optim.Adam([codes], lr=rate)
    best, lowest = codes.detach().clone(), u.new_full((len(u),), float("inf"))
    for step in range(steps + 1):
        with torch.enable_grad():
            errors = frame_errors(decoder, x, u, codes)
            if step < steps:
                (codes.grad,) = torch.autograd.grad(errors.sum(), codes)
        better = errors.detach() < lowest
        lowest = torch.where(better, errors.detach(), lowest)
        best = torch.where(better[:, None], codes.detach(), best)
        if step < steps:
            optimiser.step()
    return best
