"""Nonlinear manifold decoder: weak modes of an affine decoder as functions of its leading ones (a closure).

    u = phi0(x) + Phi(x) z + Psi(x) g(z)

Phi are the first d modes of an affine decoder, ordered by variance, Psi the others, and g a small network fitted to the
codes of training frames: in transported fields the weak modes are functions of the strong ones (Barnett, Farhat and
Maday, J. Comput. Phys. 2023). Decoding remains one evaluation of the basis and a product. It cannot be more
accurate than the affine decoder with all its modes, so it helps only where the size of the code is limited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder, on_own_device
from inrflow.decoders.registry import register_decoder

_HELD_OUT = 0.2
_BLOCKS = 10  # time blocks of each trajectory, of which some are held out where trajectories are few
_BATCH = 512
_RATE = 3e-3
_VALIDATIONS = 50


@dataclass(frozen=True)
class ClosureErrors:
    """Errors of held-out frames, relative L2 in code space (equal to that of the field for orthonormal modes).

    Attributes:
        with_closure: error with the other modes given by g(z).
        without_closure: error with the first d modes alone.
        residual: mean squared error with the closure, summed over code dimensions, normalised units.
    """

    with_closure: float
    without_closure: float
    residual: float

    @property
    def worthwhile(self) -> bool:
        """Whether the closure lowers the error enough to pay for a decoder that is no longer affine."""
        return self.with_closure < 0.65 * self.without_closure


@register_decoder("closure")
class ClosureDecoder(Decoder):
    """An affine decoder of which d code dimensions are free and the others are functions of these.

    Args:
        decoder: fitted affine decoder, its code dimensions ordered by variance and orthonormal in the data's metric.
            It is frozen here.
        code_size: d, from 1 to less than the decoder's own code size.
        width, depth: hidden width and number of hidden layers of g.
    Until `fit` has run g is zero. Raises ValueError for a decoder that is not affine or a code size out of range.
    """

    affine = False
    spread: Tensor

    def __init__(self, decoder: Decoder, code_size: int, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        if not decoder.affine:
            raise ValueError(f"a closure needs an affine decoder, found {type(decoder).__name__} that is not")
        if not 0 < code_size < decoder.code_size:
            raise ValueError(f"code_size is {code_size}; a closure on {decoder.code_size} modes needs 1 to fewer")
        self.decoder = decoder.requires_grad_(False)
        self.channels, self.code_size, self.width, self.depth = decoder.channels, code_size, width, depth
        sizes = [code_size, *[width] * depth, decoder.code_size - code_size]
        self.weights = nn.ParameterList(torch.empty(b, a) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.biases = nn.ParameterList(torch.empty(b) for b in sizes[1:])
        self._initialise(torch.Generator().manual_seed(0))
        # Standard deviations of the codes: inputs and outputs of g are of order one.
        self.register_buffer("spread", torch.ones(decoder.code_size))

    @torch.no_grad()
    def _initialise(self, random: torch.Generator) -> None:
        """Hidden layers U(-1/sqrt(n), 1/sqrt(n)), the last layer zero."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            drawn = torch.rand(*weight.shape, generator=random) * 2 - 1
            weight.copy_(drawn / weight.shape[1] ** 0.5)
            bias.zero_()
        self.weights[-1].zero_()

    def structure(self) -> dict[str, Any]:
        return {"decoder": self.decoder, "code_size": self.code_size, "width": self.width, "depth": self.depth}

    def closure(self, z: Tensor) -> Tensor:
        """g(z) (..., R): the remaining code dimensions at codes z (..., d)."""
        hidden = z / self.spread[: self.code_size]
        for layer in range(self.depth):
            hidden = torch.tanh(hidden @ self.weights[layer].T + self.biases[layer])
        return (hidden @ self.weights[-1].T + self.biases[-1]) * self.spread[self.code_size :]

    def _closure_slope(self, z: Tensor) -> Tensor:
        """Jacobian g'(z) (..., R, d), in forward mode."""
        hidden = z / self.spread[: self.code_size]
        slope = torch.diag(1 / self.spread[: self.code_size])
        for layer in range(self.depth):
            hidden = torch.tanh(hidden @ self.weights[layer].T + self.biases[layer])
            slope = (1 - hidden.square())[..., None] * (self.weights[layer] @ slope)
        return self.spread[self.code_size :, None] * (self.weights[-1] @ slope)

    def full_code(self, z: Tensor) -> Tensor:
        """Code (..., R + d) of the affine decoder: z followed by g(z)."""
        return torch.cat([z, self.closure(z)], -1)

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.decoder(x, self.full_code(z))

    @on_own_device
    def linearise(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Value (B, N, C) and Jacobian Phi + Psi g'(z) (B, N, C, d) at codes z (B, d), points (N, d) or (B, N, d)."""
        offset, basis = self.decoder.basis(x)
        phi, psi = basis[..., : self.code_size], basis[..., self.code_size :]
        subscripts = "ncr,br->bnc" if x.dim() == 2 else "bncr,br->bnc"
        u = offset + torch.einsum(subscripts, basis, self.full_code(z))
        slope = self._closure_slope(z).expand(len(z), -1, -1)
        return u, phi + psi.flatten(-3, -2).matmul(slope).unflatten(-2, psi.shape[-3:-1])

    def fit(self, codes: Tensor, steps: int = 2000, seed: int = 0) -> ClosureErrors:
        """Fit g to codes of the affine decoder, in place; the state with the least held-out error is kept.

        Args:
            codes: (S, T, R + d), or (F, R + d) of one trajectory in order of time; rows that are not finite are
                ignored. Whole trajectories are held out where there are five or more, else blocks of successive
                frames, as neighbours in time are too similar for validation.
            steps: of Adam.
            seed: of the split, the batches and the initial weights.
        Raises ValueError for too few codes to hold some out.
        """
        random = np.random.default_rng([seed, 5])
        kept, held = (part.to(self.spread) for part in _split(codes.detach().cpu(), random))
        size = self.code_size
        spread = kept.std(0)
        self.spread.copy_(spread.clamp(min=1e-6 * float(spread.max()) + 1e-30))
        total = held.square().sum(1).mean()
        plain = held[:, size:].square().sum(1).mean()
        scale = kept[:, size:].square().sum(1).mean().clamp(min=1e-30)

        def held_out_error() -> float:
            with torch.no_grad():
                return float((self.closure(held[:, :size]) - held[:, size:]).square().sum(1).mean())

        self._initialise(torch.Generator().manual_seed(seed))
        parameters = [*self.weights, *self.biases]
        optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps), eta_min=0.01 * _RATE)
        best, best_state = held_out_error(), [p.detach().clone() for p in parameters]
        for step in range(1, steps + 1):
            batch = kept
            if len(kept) > _BATCH:
                batch = kept[torch.as_tensor(random.integers(0, len(kept), _BATCH))]
            loss = (self.closure(batch[:, :size]) - batch[:, size:]).square().sum(1).mean() / scale
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % max(1, steps // _VALIDATIONS) == 0 or step == steps:
                error = held_out_error()
                if error < best:
                    best, best_state = error, [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for parameter, value in zip(parameters, best_state, strict=True):
                parameter.copy_(value)
        scale_of_field = float(total.clamp(min=1e-30))
        return ClosureErrors((best / scale_of_field) ** 0.5, (float(plain) / scale_of_field) ** 0.5, best)


def _split(codes: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Training and held-out codes (F, Z), from codes (S, T, Z) or (T, Z)."""
    codes = codes[None] if codes.dim() == 2 else codes
    trajectories, frames = codes.shape[:2]
    if trajectories >= 5:
        group = torch.arange(trajectories)[:, None].expand(trajectories, frames)
    else:
        blocks = torch.arange(frames) * min(_BLOCKS, frames) // frames
        group = (torch.arange(trajectories)[:, None] * _BLOCKS + blocks).expand(trajectories, frames)
    finite = torch.isfinite(codes).all(-1)
    names = group[finite].unique()
    if len(names) < 2:
        raise ValueError(f"{int(finite.sum())} codes are too few to fit a closure and hold some out; give more frames")
    chosen = torch.as_tensor(random.permutation(len(names))[: max(1, round(_HELD_OUT * len(names)))])
    held = torch.isin(group, names[chosen])
    return codes[finite & ~held], codes[finite & held]
