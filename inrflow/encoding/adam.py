"""Encoding by descent: the code moved by Adam until the decoder fits the frame (DINo, Yin et al., ICLR 2023).

Kept as the published baseline. Early stopping is its only regularisation, so the number of steps is chosen on
validation: longer fits leave the region of codes seen in training.

Where the decoder is affine in its code, as that of DINo is, the error of a frame is a quadratic form of the code, and
the same steps are taken on that form, without evaluations of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder


def frame_errors(decoder: Decoder, x: Tensor, u: Tensor, z: Tensor) -> Tensor:
    """Mean squared error (F,) over the observed values of each frame; 0 where nothing is observed.

    Args:
        x: points (N, d) or (F, N, d). u: values (F, N, C), NaN where not observed. z: codes (F, Z).
    """
    observed = torch.isfinite(u)
    error = torch.where(observed, decoder(x, z) - torch.nan_to_num(u), 0.0)
    return error.square().flatten(1).sum(1) / observed.flatten(1).sum(1).clamp(min=1)


def adam_encode(
    decoder: Decoder, x: Tensor, u: Tensor, steps: int = 300, rate: float = 1e-2, start: Tensor | None = None
) -> Tensor:
    """Codes (F, Z) of frames u (F, N, C) at points x (N, d) or (F, N, d), in the decoder's precision.

    Each frame descends from `start` (F, Z), zero by default, and keeps the best of the codes it passed. Parameters of
    the decoder and their gradients are not touched.
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
    """Results of `adam_encode` after each of several increasing numbers of steps, from one descent.

    `closed`: use the quadratic form of an affine decoder; None: where the decoder is affine. Without it the decoder is
    evaluated at every step, as published; both pass the same codes up to rounding.
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
    results = []
    for step in range(steps[-1] + 1):
        with torch.enable_grad():
            error = errors(codes)
            if step < steps[-1]:
                (codes.grad,) = torch.autograd.grad(error.sum(), codes)
        better = error.detach() < lowest
        lowest = torch.where(better, error.detach(), lowest)
        best = torch.where(better[:, None], codes.detach(), best)
        if step in steps:
            results.append(best.to(dtype))
        if step < steps[-1]:
            optimiser.step()
    return results


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
