"""Modulated SIREN: sine network (Sitzmann et al., NeurIPS 2020) with shifts, scales and output layer set by a code.

    h_0 = embedding(x)
    h_l = sin(w0 * (1 + scale_l(z)) * (W_l h_{l-1} + b_l) + w0 * shift_l(z))          l = 1 .. L
    u   = output(z) [1, harmonics(x), h_L]

With output modulation alone the trunk (the layers h) is shared by all codes and u is affine in z: encoding is then one
linear solve, and many codes are decoded by one evaluation of the trunk and a matrix product.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from inrflow_kernels import modulated_siren, modulated_siren_jacobian, modulated_siren_jvp, siren_features
from torch import Tensor, nn

from inrflow.decoders.base import AffineDecoder, on_own_device, register_decoder
from inrflow.decoders.embeddings import Embedding

MODULATIONS = ("shift", "scale", "output")


@register_decoder("siren")
class ModulatedSiren(AffineDecoder):
    """SIREN decoder with any subset of shift, scale and output modulation; affine in the code with output alone.

    Args:
        embedding: coordinate embedding; its harmonics are features beside those of the network.
        channels: number C of channels of u.
        code_size: Z. With output modulation it can be changed later by `set_output`.
        width, depth: hidden width H and number L of sine layers, at least 1 (without layers: `HarmonicDecoder`).
        w0: frequency scale. Pre-activations are w0 times the output of the linear layer, so w0 sets the number of
            oscillations of the first layer over the domain (inputs lie in [-1, 1]): 2 behind a periodic embedding,
            which oscillates already, 5 to 10 for smooth fields of raw coordinates, 30 for images.
        modulation: what the code modulates, a non-empty subset of ("shift", "scale", "output").
    """

    def __init__(
        self,
        embedding: Embedding,
        channels: int,
        code_size: int,
        width: int = 128,
        depth: int = 2,
        w0: float = 5.0,
        modulation: Sequence[str] = ("output",),
    ) -> None:
        super().__init__()
        unknown = set(modulation) - set(MODULATIONS)
        if unknown or not modulation:
            raise ValueError(f"modulation must be a non-empty subset of {MODULATIONS}, found {tuple(modulation)}")
        if depth < 1:
            raise ValueError(f"a SIREN has 1 layer or more, found depth={depth}; HarmonicDecoder has no network")
        self.embedding = embedding
        self.channels, self.code_size = channels, code_size
        self.width, self.depth, self.w0 = width, depth, w0
        self.modulation = tuple(m for m in MODULATIONS if m in modulation)
        self.affine = self.modulation == ("output",)
        # SIREN initialisation: the first layer U(-1/n, 1/n), the others U(-sqrt(6/n)/w0, sqrt(6/n)/w0), so that every
        # pre-activation after the factor w0 has unit variance at any depth. Behind sines of a periodic embedding the
        # first layer is already a hidden one.
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        inputs = embedding.inputs
        for layer in range(depth):
            bound = math.sqrt(6 / inputs) / w0 if layer or embedding.oscillates else 1 / inputs
            self.weights.append(nn.Parameter(torch.empty(width, inputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(width).uniform_(-bound, bound)))
            inputs = width
        for name in ("shift", "scale"):
            if name in self.modulation:
                spread = 0.3 if name == "scale" else 1.0 / w0
                initial = torch.empty(code_size, depth, width).uniform_(-1, 1) * spread / math.sqrt(code_size)
                self.register_parameter(f"{name}_map", nn.Parameter(initial))
        self.draw_output(self.features_size, "output" in self.modulation)

    def structure(self) -> dict[str, Any]:
        return {
            "embedding": self.embedding,
            "channels": self.channels,
            "code_size": self.code_size,
            "width": self.width,
            "depth": self.depth,
            "w0": self.w0,
            "modulation": list(self.modulation),
        }

    @property
    def features_size(self) -> int:
        """Number F of features: the constant, the harmonics and H sines."""
        return 1 + self.embedding.harmonics + self.width

    @on_own_device
    def features(self, x: Tensor) -> Tensor:
        """Features (..., N, F) of points x (..., N, d): the constant, the harmonics, the unmodulated last layer."""
        folded = [self.w0 * w for w in self.weights]
        sines = siren_features(self.embedding(x), folded, self.w0 * torch.stack(list(self.biases)))
        return torch.cat([torch.ones_like(x[..., :1]), self.embedding.evaluate_harmonics(x), sines], -1)

    def output_weights(self, z: Tensor) -> Tensor:
        """Weights (..., C, F) of the output layer at codes z (..., Z)."""
        if "output" in self.modulation:
            return super().output_weights(z)
        return self.output.expand(*z.shape[:-1], *self.output.shape)

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        if self.affine:
            return super().forward(x, z)
        batch, points, codes = _flattened(x, z)
        modulated, harmonic_weights = self._modulated(codes)
        u = modulated_siren(self.embedding(points), **modulated)
        if self.embedding.harmonics:
            u = u + self.embedding.evaluate_harmonics(points) @ harmonic_weights.transpose(-1, -2)
        return u.reshape(*batch, *u.shape[-2:])

    @on_own_device
    def linearise(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.affine:
            return super().linearise(x, z)
        modulated, harmonic_weights = self._modulated(z)
        maps: dict[str, Any] = {}
        if "shift" in self.modulation:
            maps["shift_map"] = self.w0 * self.get_parameter("shift_map")
        if "scale" in self.modulation:
            maps["gain_map"] = self.get_parameter("scale_map")
            biases = self.w0 * torch.stack(list(self.biases))
            maps["shift_map"] = maps.get("shift_map", 0.0) + biases * maps["gain_map"]
        split = 1 + self.embedding.harmonics
        if "output" in self.modulation:
            maps["output_weight_map"] = self.output_map[..., split:]
            maps["output_bias_map"] = self.output_map[..., 0]
        u, jacobian = modulated_siren_jacobian(self.embedding(x), **modulated, **maps)
        if self.embedding.harmonics:
            harmonics = self.embedding.evaluate_harmonics(x)
            u = u + harmonics @ harmonic_weights.transpose(-1, -2)
            if "output" in self.modulation:
                moved = harmonics @ self.output_map[..., 1:split].flatten(0, 1).T
                jacobian = jacobian + moved.unflatten(-1, (self.code_size, self.channels)).transpose(-1, -2)
        return u, jacobian

    @on_own_device
    def slopes(self, x: Tensor, z: Tensor) -> Tensor:
        batch, points, codes = _flattened(x, z)
        modulated, harmonic_weights = self._modulated(codes)
        moved = self.embedding.slopes(points)
        slopes = modulated_siren_jvp(self.embedding(points), **modulated, x_tangent=moved)[1]
        if self.embedding.harmonics:
            changes = self.embedding.harmonic_slopes(points)
            changes = changes if points.dim() == 3 else changes.unsqueeze(1)
            slopes = slopes + changes @ harmonic_weights.transpose(-1, -2)
        return slopes.movedim(0, -1).reshape(*batch, *slopes.shape[-2:], len(slopes))

    def _modulated(self, codes: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Arguments of `modulated_siren` other than the points for codes (S, Z), and output weights (S, C, M) of the
        harmonics."""
        shift = self.w0 * torch.stack(list(self.biases))
        gain = None
        if "scale" in self.modulation:
            gain = 1 + torch.einsum("sz,zlh->slh", codes, self.scale_map)
            shift = shift * gain
        if "shift" in self.modulation:
            shift = shift + self.w0 * torch.einsum("sz,zlh->slh", codes, self.shift_map)
        weights = self.output_weights(codes)
        split = 1 + self.embedding.harmonics
        arguments = {
            "hidden_weights": [self.w0 * weight for weight in self.weights],
            "shift": shift,
            "gain": gain,
            "output_weight": weights[..., split:].contiguous(),
            "output_bias": weights[..., 0].contiguous(),
        }
        return arguments, weights[..., 1:split]


def _flattened(x: Tensor, z: Tensor) -> tuple[torch.Size, Tensor, Tensor]:
    """Leading dimensions of the result, points (N, d) shared by all codes or (S, N, d), and codes (S, Z)."""
    batch = torch.broadcast_shapes(x.shape[:-2], z.shape[:-1])
    codes = z.expand(*batch, z.shape[-1]).reshape(-1, z.shape[-1])
    return batch, x if x.dim() == 2 else x.expand(*batch, *x.shape[-2:]).flatten(0, -3), codes
