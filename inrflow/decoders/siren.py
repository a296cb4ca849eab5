"""The modulated SIREN: a sine network (Sitzmann et al., NeurIPS 2020) whose layers a code shifts, scales and reads out.

    h_0 = embedding(x)
    h_l = sin(w0 * (1 + scale_l(z)) * (W_l h_{l-1} + b_l) + w0 * shift_l(z))          l = 1 .. L
    u   = output(z) [1, harmonics(x), h_L]

With output modulation alone the trunk (everything below the last line) is shared by all codes and u is affine in z:
encoding is then one linear solve and many codes are decoded by one evaluation of the trunk and a matrix product.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from inrflow_kernels import modulated_siren, modulated_siren_jacobian, modulated_siren_jvp, siren_features
from torch import Tensor, nn

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.runtime.devices import on_own_device

MODULATIONS = ("shift", "scale", "output")


class ModulatedSiren(Decoder):
    """SIREN decoder with any subset of shift, scale and output modulation.

    Args:
        embedding: coordinate embedding; its harmonics reach the output directly.
        channels: number C of channels of u.
        code_size: Z. With output modulation it can be changed later by `set_output`.
        width, depth: hidden width H and number L of sine layers; depth 0 leaves the harmonics alone.
        w0: frequency scale. Pre-activations are w0 times what the linear layer gives, so w0 sets how many oscillations
            the first layer spreads over the domain (inputs lie in [-1, 1]): 2 behind a periodic embedding, which
            oscillates already, 5 to 10 for smooth fields of raw coordinates, 30 for images.
        modulation: what the code does, a subset of ("shift", "scale", "output").
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
        self.embedding = embedding
        self.channels, self.code_size, self.depth, self.w0 = channels, code_size, depth, w0
        self.width = width if depth else 0
        self.modulation = tuple(m for m in MODULATIONS if m in modulation)
        self.affine = self.modulation == ("output",)
        # SIREN initialisation: the first layer U(-1/n, 1/n), the others U(-sqrt(6/n)/w0, sqrt(6/n)/w0), so that every
        # pre-activation after the factor w0 has unit variance at any depth. Behind sines of a periodic embedding the
        # first layer is already a hidden one.
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        inputs = embedding.inputs
        hidden_input = type(embedding).__name__ == "PeriodicEmbedding"
        for layer in range(depth):
            bound = math.sqrt(6 / inputs) / w0 if layer or hidden_input else 1 / inputs
            self.weights.append(nn.Parameter(torch.empty(width, inputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(width).uniform_(-bound, bound)))
            inputs = width
        for name in ("shift", "scale"):
            if name in self.modulation:
                spread = 0.3 if name == "scale" else 1.0 / w0
                initial = torch.empty(code_size, depth, width).uniform_(-1, 1) * spread / math.sqrt(code_size)
                self.register_parameter(f"{name}_map", nn.Parameter(initial))
        features = self.features_size
        self.output = nn.Parameter(torch.empty(channels, features).uniform_(-1, 1) * math.sqrt(1 / features))
        if "output" in self.modulation:
            initial = torch.randn(code_size, channels, features) / math.sqrt(features)
            self.output_map = nn.Parameter(initial)

    @property
    def features_size(self) -> int:
        """Number F of functions that the output layer combines: the constant, the harmonics and H sines."""
        return 1 + self.embedding.harmonics + self.width

    @on_own_device
    def features(self, x: Tensor) -> Tensor:
        """Features (..., N, F) of points x (..., N, d): the constant, the harmonics, the unmodulated last layer."""
        parts = [torch.ones_like(x[..., :1]), self.embedding.evaluate_harmonics(x)]
        if self.depth:
            folded = [self.w0 * w for w in self.weights]
            parts.append(siren_features(self.embedding(x), folded, self.w0 * torch.stack(list(self.biases))))
        return torch.cat(parts, -1)

    @on_own_device
    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.affine:
            return super().basis(x)
        return self._basis_of(self.features(x))

    def _basis_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (..., N, C) and basis (..., N, C, Z) of an affine decoder where its features are (..., N, F)."""
        basis = features @ self.output_map.transpose(0, 1).flatten(0, 1).T
        return features @ self.output.T, basis.unflatten(-1, (self.channels, self.code_size))

    def set_output(self, mean: Tensor, modes: Tensor) -> None:
        """Replace the output layer: `mean` (C, F) and one (C, F) mode for each code dimension, `modes` (Z, C, F)."""
        self.output = nn.Parameter(mean.to(self.output))
        self.output_map = nn.Parameter(modes.to(self.output))
        self.code_size = len(modes)

    def output_weights(self, z: Tensor) -> Tensor:
        """Weights (..., C, F) of the output layer at codes z (..., Z)."""
        if "output" not in self.modulation:
            return self.output.expand(*z.shape[:-1], *self.output.shape)
        return self.output + (z @ self.output_map.flatten(1)).unflatten(-1, self.output.shape)

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        if self.affine and x.shape[:-2].numel() == 1:
            return self._at_shared_points(x, z)
        if self.affine:
            return self.features(x) @ self.output_weights(z).transpose(-1, -2)
        batch, points, codes = _flattened(x, z)
        modulated, harmonic_weights = self._modulated(codes)
        u = modulated_siren(self.embedding(points), **modulated)
        if self.embedding.harmonics:
            u = u + self.embedding.evaluate_harmonics(points) @ harmonic_weights.transpose(-1, -2)
        return u.reshape(*batch, *u.shape[-2:])

    def _at_shared_points(self, x: Tensor, z: Tensor) -> Tensor:
        """Values (..., N, C) of an affine decoder at points x (1, ..., N, d) of all codes, as one matrix product: with
        the output weights of every code, or with the basis at the points, whichever is less work."""
        features, codes = self.features(x).flatten(0, -2), z.reshape(-1, z.shape[-1])
        points, functions = features.shape
        batch = torch.broadcast_shapes(x.shape[:-2], z.shape[:-1])
        by_weights = len(codes) * functions * (self.code_size + points)
        by_basis = points * self.code_size * (functions + len(codes))
        if by_basis < by_weights:
            offset, basis = self._basis_of(features)
            values = torch.addmm(offset.flatten(), codes, basis.flatten(0, 1).T)
            return values.reshape(*batch, points, -1)
        weights = self.output_weights(codes)
        values = (weights.flatten(0, 1) @ features.T).unflatten(0, (len(codes), -1))  # (S, C, N)
        return values.transpose(1, 2).reshape(*batch, points, -1)

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
        if not self.depth:
            return super().slopes(x, z)
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
        """Arguments of `modulated_siren`, all but the points, at codes (S, Z); output weights (S, C, M) of the
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
    """Leading dimensions of the result, points (N, d) that all codes share or (S, N, d), and codes (S, Z)."""
    batch = torch.broadcast_shapes(x.shape[:-2], z.shape[:-1])
    codes = z.expand(*batch, z.shape[-1]).reshape(-1, z.shape[-1])
    return batch, x if x.dim() == 2 else x.expand(*batch, *x.shape[-2:]).flatten(0, -3), codes
