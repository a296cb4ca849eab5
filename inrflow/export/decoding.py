"""Decoders as modules that torch.export and ONNX can express, with float64 inputs and outputs in data units."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder, has_output_layer
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Harmonics
from inrflow.domains.box import BoxHarmonics
from inrflow.domains.sphere import SphereHarmonics
from inrflow.model.joint import Model
from inrflow.model.surrogate import Surrogate


def needs_points(decoder: Decoder) -> bool:
    """Whether values at arbitrary points would need a search of mesh cells, which a graph cannot express."""
    return isinstance(decoder, DomainHarmonicDecoder) and _functions(decoder.harmonics) is None


class Decode(nn.Module):
    """Decoder: values u (S, N, C) of codes z (S, Z) at points x (N, d)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        decoder = self.decoder = surrogate.decoder
        self.functions = _functions(decoder.harmonics) if isinstance(decoder, DomainHarmonicDecoder) else None
        self.dtype = next(decoder.parameters()).dtype
        self.register_buffer("mean", surrogate.normalisation.mean.double())
        self.register_buffer("scale", surrogate.normalisation.scale.double())

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.normalised(x, z).double() * self.scale + self.mean

    def normalised(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalised values (S, N, C) of codes z (S, Z) at points x (N, d)."""
        decoder = self.decoder
        if self.functions is not None:
            assert isinstance(decoder, DomainHarmonicDecoder)
            return _sum(self.functions(x)[:, None], z, decoder)
        x = x.to(self.dtype)
        if has_output_layer(decoder):  # the code stays in float64, as in queries
            offset, modes = decoder.output.double(), decoder.output_map.double()
            features = decoder.features(x).double()
            weights = offset + (z @ modes.flatten(1)).reshape(-1, *offset.shape)
            return features @ weights.transpose(-1, -2)
        if decoder.affine:
            offset, basis = decoder.basis(x)
            return offset.double() + torch.einsum("ncz,sz->snc", basis.double(), z)
        return decoder(x, z.to(self.dtype))


class DecodeAtPoints(nn.Module):
    """Decoder at fixed points (N, d) chosen on export: values u (S, N, C) of codes z (S, Z)."""

    offset: Tensor
    basis: Tensor

    def __init__(self, surrogate: Model, points: np.ndarray) -> None:
        super().__init__()
        x = torch.as_tensor(points, dtype=next(surrogate.decoder.parameters()).dtype)
        with torch.no_grad():
            offset, basis = surrogate.decoder.basis(x)
        scale = surrogate.normalisation.scale.double()
        self.register_buffer("offset", offset.double() * scale + surrogate.normalisation.mean.double())
        self.register_buffer("basis", (basis.double() * scale[:, None]).flatten(0, 1))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.basis.T).reshape(-1, *self.offset.shape) + self.offset


def _sum(table: Tensor, z: Tensor, decoder: DomainHarmonicDecoder) -> Tensor:
    """Normalised fields (S, N, C) of codes (S, C K) from a table (N, 1, K) of harmonics."""
    codes = z.reshape(-1, decoder.code_size // decoder.count, decoder.count)
    return (codes @ table[:, 0].T).transpose(1, 2) + decoder.offset.double()


def _functions(harmonics: Harmonics) -> nn.Module | None:
    """Module that maps points (N, d) to harmonics (N, K); None for finite-element harmonics on a mesh."""
    if isinstance(harmonics, BoxHarmonics):
        return _BoxFunctions(harmonics)
    return _SphereFunctions(harmonics.degree) if isinstance(harmonics, SphereHarmonics) else None


class _BoxFunctions(nn.Module):
    """Products of sines and cosines: psi_k = prod_j size_jk sin(wave_jk (x_j - lower_j) + shift_jk); sines of wave
    number 0 denote affine functions."""

    lower: Tensor
    waves: Tensor
    affine: Tensor
    units: Tensor
    shifts: Tensor
    sizes: Tensor

    def __init__(self, harmonics: BoxHarmonics) -> None:
        super().__init__()
        box = harmonics.box
        every = np.stack([harmonics.waves(j)[0] for j in range(box.dimensions)])
        sizes, less = (np.stack(part) for part in zip(*map(harmonics.shapes, range(box.dimensions)), strict=True))
        shifts = np.pi / 2 - less
        self.register_buffer("lower", torch.tensor(box.lower))
        self.register_buffer("waves", torch.tensor(every))
        self.register_buffer("shifts", torch.tensor(shifts))
        self.register_buffer("sizes", torch.tensor(sizes))
        self.steady = harmonics.steady
        affine = (every == 0) & (shifts == 0)
        self.register_buffer("affine", torch.tensor(affine))
        self.register_buffer("units", torch.tensor(math.sqrt(12) / box.lengths))

    def forward(self, x: Tensor) -> Tensor:
        beyond = (x - self.lower)[:, :, None]
        values = self.sizes * (beyond * self.waves + self.shifts).sin()
        if self.steady:
            values = torch.where(self.affine, beyond * self.units[:, None] - math.sqrt(3), values)
        return values.prod(1)


class _SphereFunctions(nn.Module):
    """Real spherical harmonics (N, (L + 1)^2) at unit vectors (N, 3), by the recurrences of Legendre functions divided
    by powers of the sine of the colatitude (Condon-Shortley phase), and powers of x + i y."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, x: Tensor) -> Tensor:
        x = x / x.square().sum(1, keepdim=True).sqrt()
        east, north, z = x[:, 0], x[:, 1], x[:, 2]
        cosines, sines = [torch.ones_like(z)], [torch.zeros_like(z)]
        for _ in range(self.degree):
            cosines, sines = ([*cosines, cosines[-1] * east - sines[-1] * north],
                              [*sines, cosines[-1] * north + sines[-1] * east])
        legendre: dict[tuple[int, int], Tensor] = {(0, 0): torch.ones_like(z)}
        for m in range(self.degree + 1):
            if m:
                legendre[m, m] = -math.sqrt((2 * m + 1) / (2 * m)) * legendre[m - 1, m - 1]
            for degree in range(m + 1, self.degree + 1):
                first = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
                second = math.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1)) if degree > m + 1 else 0.0
                value = z * legendre[degree - 1, m]
                if second:
                    value = value - second * legendre[degree - 2, m]
                legendre[degree, m] = first * value
        columns = []
        for degree in range(self.degree + 1):
            columns.append(legendre[degree, 0])
            for m in range(1, degree + 1):
                value = math.sqrt(2) * legendre[degree, m]
                columns += [value * cosines[m], value * sines[m]]
        return torch.stack(columns, 1)
