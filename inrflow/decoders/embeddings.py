"""Coordinate embeddings: inputs of the first layer of a decoder at points x, and harmonics of the domain.

On periodic domains, an embedding also provides the harmonics: functions that the output layer combines directly, beside
the features of the network.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.decoders.base import register_embedding


@register_embedding("raw")
class Embedding(nn.Module):
    """Raw embedding of coordinates (..., d) as network inputs (..., inputs), and base class of embeddings.

    Raw coordinates are centred and divided by one common length, half the longest side of the box, so that the aspect
    ratio of the domain is kept and all values lie in [-1, 1].
    """

    centre: Tensor
    #: True when the inputs are sines, as those of a hidden layer of a SIREN are.
    oscillates: bool = False

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        self.low, self.high = [float(value) for value in low], [float(value) for value in high]
        low_, high_ = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
        half_length = float((high_ - low_).max()) / 2 or 1.0
        self.register_buffer("centre", (low_ + high_) / 2)
        self.half_length = half_length
        self.inputs = len(low)

    def structure(self) -> dict[str, Any]:
        """Arguments of the constructor as plain values."""
        return {"low": self.low, "high": self.high}

    @property
    def harmonics(self) -> int:
        """Number of the domain's harmonics (without the constant)."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """Network inputs (..., inputs) of points x (..., d)."""
        return (x - self.centre.to(x.dtype)) / self.half_length

    def slopes(self, x: Tensor) -> Tensor:
        """Derivatives (d, ..., inputs) of the network inputs along each coordinate."""
        d = x.shape[-1]
        unit = torch.eye(d, dtype=x.dtype, device=x.device) / self.half_length
        return unit.view(d, *[1] * (x.dim() - 1), d).expand(d, *x.shape)

    def evaluate_harmonics(self, x: Tensor) -> Tensor:
        """Harmonics (..., M) of points x (..., d)."""
        return x.new_zeros((*x.shape[:-1], 0))

    def harmonic_slopes(self, x: Tensor) -> Tensor:
        """Derivatives (d, ..., M) of the harmonics along each coordinate."""
        return x.new_zeros((x.shape[-1], *x.shape[:-1], 0))


@register_embedding("sphere")
class SphericalEmbedding(Embedding):
    """Embedding of a sphere by unit vectors, unchanged: smooth everywhere, without seam and poles."""

    def __init__(self, dimensions: int = 3) -> None:
        super().__init__([-1.0] * dimensions, [1.0] * dimensions)

    def structure(self) -> dict[str, Any]:
        return {"dimensions": self.inputs}


@register_embedding("periodic")
class PeriodicEmbedding(Embedding):
    """Embedding by sin and cos of the first wavenumbers of every periodic coordinate; other coordinates raw.

    Args:
        low, high: box of the data, for the coordinates that are not periodic.
        period: period of each coordinate, 0 where it is not periodic.
        wavenumbers: how many multiples of the fundamental frequency the network sees (2 is the best known setting).
        harmonics: largest wavenumber K of the harmonics in each coordinate. They are the real Fourier basis of the
            whole tensor product, (2 K + 1)^d - 1 functions, and exist only where every coordinate is periodic.
    """

    oscillates = True
    multiples: Tensor
    modes: Tensor

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        period: Sequence[float],
        wavenumbers: int = 2,
        harmonics: int = 0,
    ) -> None:
        super().__init__(low, high)
        self.period = tuple(float(p) for p in period)
        self.periodic = [i for i, p in enumerate(self.period) if p > 0]
        self.raw = [i for i, p in enumerate(self.period) if p <= 0]
        self.inputs = 2 * wavenumbers * len(self.periodic) + len(self.raw)
        self.largest_harmonic = harmonics
        self.register_buffer("multiples", torch.arange(1, wavenumbers + 1, dtype=torch.float64))
        modes = _half_lattice(len(self.period), harmonics) if harmonics and not self.raw else []
        self.register_buffer("modes", torch.tensor(modes, dtype=torch.float64).reshape(-1, len(self.period)))

    def structure(self) -> dict[str, Any]:
        size = {"wavenumbers": len(self.multiples), "harmonics": self.largest_harmonic}
        return {**super().structure(), "period": list(self.period), **size}

    @property
    def harmonics(self) -> int:
        return 2 * len(self.modes)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for i in self.periodic:
            angle = (2 * math.pi / self.period[i]) * x[..., i : i + 1] * self.multiples.to(x.dtype)
            parts += [angle.sin(), angle.cos()]
        if self.raw:
            parts.append(super().forward(x)[..., self.raw])
        return torch.cat(parts, -1)

    def slopes(self, x: Tensor) -> Tensor:
        result = x.new_zeros((x.shape[-1], *x.shape[:-1], self.inputs))
        size = len(self.multiples)
        for place, i in enumerate(self.periodic):
            rate = (2 * math.pi / self.period[i]) * self.multiples.to(x.dtype)
            angle = x[..., i : i + 1] * rate
            result[i, ..., 2 * size * place : 2 * size * (place + 1)] = torch.cat(
                [rate * angle.cos(), -rate * angle.sin()], -1
            )
        for place, i in enumerate(self.raw):
            result[i, ..., 2 * size * len(self.periodic) + place] = 1 / self.half_length
        return result

    def _turns(self) -> Tensor:
        """Wave vectors (M / 2, d) of the harmonics over 2 pi, float64."""
        return self.modes.double() / torch.tensor(self.period, dtype=torch.float64).to(self.modes.device)

    def _angle(self, x: Tensor) -> Tensor:
        """Angles (..., M / 2) of the harmonics in [-pi, pi], in the precision of x.

        Whole turns are taken off in float64: in float32 an angle of many turns is known to 1e-6 only, and closed-form
        dynamics see that error.
        """
        turns = x.double() @ self._turns().T
        return (2 * math.pi * (turns - turns.round())).to(x.dtype)

    def evaluate_harmonics(self, x: Tensor) -> Tensor:
        if not len(self.modes):
            return super().evaluate_harmonics(x)
        # Unit mean square over the domain, like the constant.
        angle = self._angle(x)
        return math.sqrt(2) * torch.cat([angle.cos(), angle.sin()], -1)

    def harmonic_slopes(self, x: Tensor) -> Tensor:
        if not len(self.modes):
            return super().harmonic_slopes(x)
        angle, frequencies = self._angle(x), 2 * math.pi * self._turns().to(x.dtype)
        rates = frequencies.T.view(x.shape[-1], *[1] * (x.dim() - 1), -1)
        return math.sqrt(2) * torch.cat([-angle.sin() * rates, angle.cos() * rates], -1)


def _half_lattice(dimensions: int, largest: int) -> list[tuple[int, ...]]:
    """One wave vector of each pair {k, -k}, without 0: cos and sin of these span the real tensor Fourier basis."""
    lattice = itertools.product(range(-largest, largest + 1), repeat=dimensions)
    return [k for k in lattice if k > (0,) * dimensions]


def make_embedding(
    low: Sequence[float],
    high: Sequence[float],
    period: Sequence[float] | None,
    geometry: str | None,
    wavenumbers: int = 2,
    harmonics: int = 0,
) -> Embedding:
    """Embedding for the declared geometry: spherical, periodic if any period is given, else raw."""
    if geometry == "sphere":
        return SphericalEmbedding(len(low))
    if period is not None and any(p > 0 for p in period):
        return PeriodicEmbedding(low, high, period, wavenumbers, harmonics)
    return Embedding(low, high)
