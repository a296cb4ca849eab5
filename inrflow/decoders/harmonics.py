"""Spectral decoder with the harmonics of an embedding as features, without a network.

    u = output(z) [1, harmonics(x)]

On a periodic box these are the real Fourier functions up to a wavenumber, so that codes are coefficients of Fourier
functions or of modes composed of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inrflow.decoders.base import AffineDecoder, on_own_device, register_decoder
from inrflow.decoders.embeddings import Embedding


@register_decoder("harmonics")
class HarmonicDecoder(AffineDecoder):
    """Linear combinations of the constant and the M harmonics of a domain: F = 1 + M features.

    Args:
        embedding: coordinate embedding, whose harmonics are the features.
        channels: number C of channels of u.
        code_size: initial Z; `set_output` may change it.
    """

    def __init__(self, embedding: Embedding, channels: int, code_size: int = 1) -> None:
        super().__init__()
        self.embedding, self.channels, self.code_size = embedding, channels, code_size
        self.draw_output(1 + embedding.harmonics)

    def structure(self) -> dict[str, Any]:
        return {"embedding": self.embedding, "channels": self.channels, "code_size": self.code_size}

    @on_own_device
    def features(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x[..., :1]), self.embedding.evaluate_harmonics(x)], -1)

    @on_own_device
    def slopes(self, x: Tensor, z: Tensor) -> Tensor:
        """Derivatives du/dx (..., N, C, d) in closed form."""
        weights = self.output_weights(z)[..., None, :, 1:]  # (..., 1, C, M)
        slopes = self.embedding.harmonic_slopes(x).movedim(0, -3) @ weights.transpose(-1, -2)  # (..., d, N, C)
        return slopes.movedim(-3, -1)
