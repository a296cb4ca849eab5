"""Encoding by descent: the code moved by Adam until the decoder fits the frame (DINo, Yin et al., ICLR 2023).

The published way of encoding, kept as the baseline. Its result depends on the number of steps, which regularises it:
longer fits drift away from the codes seen in training, so choose the steps on validation.

Where the decoder is affine in its code, as DINo's is, the error of a frame is a quadratic form of the code. The same
steps are then taken on that form, which costs next to nothing beside evaluating the decoder at each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    return adam_path(decoder, x, u, (steps,), rate, start)[0]


def adam_path(
    decoder: Decoder,
    x: Tensor,
    u: Tensor,
    steps: Sequence[int],
    rate: float = 1e-2,
    start: Tensor | None = None,
    closed: bool | None = None,
) -> list[Tensor]:
    """What `adam_encode` gives after each of several numbers of steps, in increasing order, from one descent.

    `closed`: whether the descent goes by the quadratic form of an affine decoder (None: where there is one) or
    evaluates the decoder at every step, as published. Both pass the same codes, up to rounding.
    """
    dtype = next(decoder.parameters()).dtype
    x, u = x.to(dtype), u.to(dtype)
    closed = decoder.affine if closed is None else closed
    errors = _quadratic_errors(decoder, x, u) if closed else lambda z: frame_errors(decoder, x, u, z)
    codes = u.new_zeros(len(u), decoder.code_size) if start is None else start.detach().to(u).clone()
    codes = codes.double() if closed else codes
    codes.requires_grad_(True)
    optimiser = torch.optim.Adam([codes], lr=rate)
    best, lowest = codes.detach().clone(), codes.new_full((len(u),), float("inf"))
    found = []
    for step in range(steps[-1] + 1):
        with torch.enable_grad():
            error = errors(codes)
            if step < steps[-1]:
                (codes.grad,) = torch.autograd.grad(error.sum(), codes)
        better = error.detach() < lowest
        lowest = torch.where(better, error.detach(), lowest)
        best = torch.where(better[:, None], codes.detach(), best)
        if step in steps:
            found.append(best.to(dtype))
        if step < steps[-1]:
            optimiser.step()
    return found


@torch.no_grad()
def _quadratic_errors(decoder: Decoder, x: Tensor, u: Tensor) -> Callable[[Tensor], Tensor]:
    """`frame_errors` of an affine decoder as a function of the codes alone; float64."""
    offset, basis = (part.double().flatten(-3 + k, -2 + k) for k, part in zip((1, 0), decoder.basis(x), strict=True))
    target = u.double().flatten(1) - offset
    observed = torch.isfinite(target)
    count = observed.sum(1).clamp(min=1)
    target = torch.where(observed, target, 0.0)
    if basis.dim() == 2 and bool(observed.all()):
        gram = (basis.T @ basis / len(basis)).expand(len(u), -1, -1)
    else:
        gram = u.new_zeros(len(u), decoder.code_size, decoder.code_size, dtype=torch.float64)
        for frame, seen in enumerate(observed):
            design = (basis if basis.dim() == 2 else basis[frame])[seen]
            gram[frame] = design.T @ design / count[frame]
    right = (target @ basis if basis.dim() == 2 else torch.einsum("fp,fpz->fz", target, basis)) / count[:, None]
    constant = target.square().sum(1) / count

    def errors(z: Tensor) -> Tensor:
        return constant + ((gram @ z[..., None])[..., 0] * z - 2 * right * z).sum(1)

    return errors
