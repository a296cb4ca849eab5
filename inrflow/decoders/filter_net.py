"""Decoder of DINo (Yin et al., ICLR 2023): a Fourier multiplicative filter net (Fathony et al., ICLR 2021) with codes.

    h_0 = g_0(x) * (b_0 + A_0 z)
    h_l = g_l(x) * (B_l h_{l-1} + b_l + A_l z)          l = 1 .. L,    g_l(x) = [sin(W_l x), cos(W_l x)]
    u   = w . h_L + c

The filters g depend on x alone and all other steps are affine, so u is affine in z. One net with one output serves all
channels: each channel has its own code, and z is their concatenation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder, on_own_device, register_decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.errors import UserError

# DINo's grids have both axes linspace(0, 0.5); its input scale refers to a side of this length.
_SIDE = 0.5


@register_decoder("filter_net")
class FourierFilterNet(Decoder):
    """Fourier multiplicative filter net whose code enters every layer as a shift; affine in the code.

    Args:
        embedding: coordinate embedding, raw for the published decoder. Its values in [-1, 1] are mapped to [0, 0.5],
            the coordinates of DINo's experiments, so that `scale` means what it means there.
        channels: number C of channels, each with a code of its own.
        code_size: Z, of all channels together; a multiple of C.
        width: hidden width H, even: half sines, half cosines.
        depth: number L of layers after the first.
        scale: input scale. Filter weights start as U(-1/sqrt(d), 1/sqrt(d)) times scale / sqrt(L + 1). A product of all
            L + 1 filters adds their frequencies: scale / sqrt(3 d) radians per unit in root mean square, whatever L.
            With 64 in two dimensions that is two oscillations over the side of 0.5.
    Raises UserError if the code cannot be divided evenly among the channels.
    """

    affine = True
    code_per_channel = True

    def __init__(
        self, embedding: Embedding, channels: int, code_size: int, width: int = 64, depth: int = 3, scale: float = 64.0
    ) -> None:
        super().__init__()
        if code_size < channels or code_size % channels:
            raise UserError(
                f"a code of size {code_size} cannot be shared out among {channels} channels; for the filter net give "
                f"decoder.code_size a positive multiple of {channels}"
            )
        if width % 2:
            raise UserError(f"decoder.width={width} cannot be shared by as many sines as cosines; give an even width")
        self.embedding = embedding
        self.channels, self.code_size, self.width, self.depth, self.scale = channels, code_size, width, depth, scale
        own = code_size // channels
        inputs = embedding.inputs

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-1, 1) / math.sqrt(fan_in))

        # As published: every weight and bias U(-1/sqrt(fan in), 1/sqrt(fan in)).
        self.filters = nn.ParameterList(uniform(inputs, width // 2, inputs) for _ in range(depth + 1))
        self.biases = nn.ParameterList(uniform(width if layer else inputs, width) for layer in range(depth + 1))
        self.code_maps = nn.ParameterList(uniform(own, width, own) for _ in range(depth + 1))
        self.weights = nn.ParameterList(uniform(width, width, width) for _ in range(depth))
        self.output = uniform(width, width)
        self.output_bias = uniform(width, 1)

    def structure(self) -> dict[str, Any]:
        return {
            "embedding": self.embedding,
            "channels": self.channels,
            "code_size": self.code_size,
            "width": self.width,
            "depth": self.depth,
            "scale": self.scale,
        }

    def _filters(self, x: Tensor) -> list[Tensor]:
        """The filters g_l(x), each (..., N, H)."""
        coordinates = (self.embedding(x) + 1) * (_SIDE / 2)
        share = self.scale / math.sqrt(self.depth + 1)
        angles = [coordinates @ (share * weight).T for weight in self.filters]
        return [torch.cat([angle.sin(), angle.cos()], -1) for angle in angles]

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """u (..., N, C), layer by layer as published; filters of shared points are evaluated once."""
        filters = [g[..., None, :, :] for g in self._filters(x)]
        codes = z.unflatten(-1, (self.channels, -1))
        hidden = None
        for layer, (g, bias, code_map) in enumerate(zip(filters, self.biases, self.code_maps, strict=True)):
            inner = (codes @ code_map.T + bias)[..., None, :]
            if hidden is not None:
                inner = hidden @ self.weights[layer - 1].T + inner
            hidden = g * inner
        assert hidden is not None
        return (hidden @ self.output + self.output_bias).transpose(-1, -2)

    @on_own_device
    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offset and basis by one reverse sweep from the output to the first layer.

        The sweep carries the adjoint du/dh_l (..., N, H); its products with b_l and A_l sum to offset and basis. The
        cost is one evaluation of the net for any number of codes.
        """
        filters = self._filters(x)
        offset: Tensor = self.output_bias
        own: Tensor | None = None
        adjoint: Tensor = self.output
        for layer in range(self.depth, -1, -1):
            adjoint = filters[layer] * adjoint
            offset = offset + adjoint @ self.biases[layer]
            contribution = adjoint @ self.code_maps[layer]
            own = contribution if own is None else own + contribution
            if layer:
                adjoint = adjoint @ self.weights[layer - 1]
        assert own is not None
        # Channel c depends on its own part of the code alone.
        basis = own[..., None, None, :] * torch.eye(self.channels).to(own)[..., None]
        return offset[..., None].expand(*offset.shape, self.channels), basis.flatten(-2)
