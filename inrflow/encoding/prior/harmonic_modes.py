"""Fourier modes in place of POD modes: codes are coefficients of single harmonics, ordered by wavenumber.

POD modes are optimal for one data set and differ between data sets. Fourier coefficients mean the same in all, so that
what is learned of one physics carries over to another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding
from inrflow.encoding.prior.modes import OutputModes

_SMALL = 1e-12


@dataclass(frozen=True)
class HarmonicLabels:
    """Harmonic of each code: sqrt(2) cos or sin of a wave vector, or the constant, in one channel.

    Attributes:
        waves: (Z, d) integer multiples of the fundamental wavenumbers, one of each pair {k, -k}.
        sine: (Z,) true for the sine.
        channel: (Z,) index of the channel.
    """

    waves: Tensor
    sine: Tensor
    channel: Tensor

    def __len__(self) -> int:
        return len(self.waves)

    def first(self, size: int) -> HarmonicLabels:
        """Labels of the first `size` codes."""
        return HarmonicLabels(self.waves[:size], self.sine[:size], self.channel[:size])

    def whole_sizes(self) -> list[int]:
        """Numbers of leading codes that end with a complete shell of equal wavenumber."""
        square = self.waves.square().sum(1)
        ends = (square[1:] != square[:-1]).nonzero()[:, 0] + 1
        return [*ends.tolist(), len(self)]

    def names(self) -> list[str]:
        """Name of each code, the same for the same function in any number of dimensions."""
        names = []
        for wave, sine, channel in zip(self.waves.tolist(), self.sine.tolist(), self.channel.tolist(), strict=True):
            while wave and wave[-1] == 0:
                wave.pop()
            names.append(f"{channel}:{','.join(map(str, wave))}:{'sin' if sine else 'cos'}")
        return names


def harmonic_modes(embedding: Embedding, modes: OutputModes) -> tuple[OutputModes, HarmonicLabels] | None:
    """Modes that are single harmonics of the domain, ordered by wavenumber, with the variances that `modes` give them.

    Coefficients are taken to be independent, as they are for statistically homogeneous fields. None where the domain
    has no harmonics or the features are not the harmonics alone.
    """
    if not isinstance(embedding, PeriodicEmbedding) or not embedding.harmonics:
        return None
    channels = len(modes.mean)
    half = embedding.modes.round().to(torch.int64)
    waves = torch.cat([torch.zeros(1, half.shape[1], dtype=torch.int64), half, half])
    sine = torch.cat([torch.zeros(1 + len(half)), torch.ones(len(half))]).bool()
    features = len(waves)
    if modes.modes.shape[2] != features:  # a trunk adds features
        return None
    square = waves.square().sum(1)
    key = square * (4 * features) + 2 * _rank(waves) + sine
    order = key.argsort()
    second = modes.mean.square() + torch.einsum("zcf,z->cf", modes.modes.square(), modes.variances)
    feature = order.repeat_interleave(channels)
    channel = torch.arange(channels).repeat(features)
    labels = HarmonicLabels(waves[feature], sine[feature], channel)
    rank = torch.arange(len(feature))
    selected = torch.zeros(len(feature), channels, features, dtype=torch.float64)
    selected[rank, channel, feature] = 1.0
    variances = second[channel, feature]
    variances = variances.clamp(min=_SMALL * float(variances.max()))
    return OutputModes(torch.zeros_like(modes.mean), selected, variances, modes.noise), labels


def _rank(waves: Tensor) -> Tensor:
    """Rank of each wave vector (F, d) in lexicographic order; equal vectors have equal ranks."""
    return torch.unique(waves, dim=0, return_inverse=True)[1]
