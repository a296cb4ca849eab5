"""Codes on the harmonics of a periodic domain: the same functions for every physics, ordered by wavenumber.

Codes in order of variance are best for one data set, but mean something else for the next. Fourier coefficients mean
the same for all: what one physics has taught of them can be asked of another.
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
    """What each code is the coefficient of: sqrt(2) cos or sin of a wave vector, or the constant, in one channel.

    Attributes:
        waves: (Z, d) whole multiples of the fundamental wavenumbers, one of each pair {k, -k}.
        sine: (Z,) whether of the sine.
        channel: (Z,).
    """

    waves: Tensor
    sine: Tensor
    channel: Tensor

    def __len__(self) -> int:
        return len(self.waves)

    def first(self, size: int) -> HarmonicLabels:
        """Those of the leading codes."""
        return HarmonicLabels(self.waves[:size], self.sine[:size], self.channel[:size])

    def of_channel(self, channel: int) -> HarmonicLabels:
        """Those of one channel."""
        own = self.channel == channel
        return HarmonicLabels(self.waves[own], self.sine[own], self.channel[own])

    def whole_sizes(self) -> list[int]:
        """Numbers of leading codes that end with a whole shell of equal wavenumbers."""
        square = self.waves.square().sum(1)
        ends = (square[1:] != square[:-1]).nonzero()[:, 0] + 1
        return [*ends.tolist(), len(self)]

    def names(self) -> list[str]:
        """A name for each code, equal for equal functions whatever the number of dimensions."""
        found = []
        for wave, sine, channel in zip(self.waves.tolist(), self.sine.tolist(), self.channel.tolist(), strict=True):
            while wave and wave[-1] == 0:
                wave.pop()
            found.append(f"{channel}:{','.join(map(str, wave))}:{'sin' if sine else 'cos'}")
        return found


def harmonic_modes(embedding: Embedding, modes: OutputModes) -> tuple[OutputModes, HarmonicLabels] | None:
    """The same statistics with the domain's harmonics as modes, by wavenumber; None where there are none.

    Whole shells only; coefficients vary independently, as those of fields without a preferred place do.
    """
    if not isinstance(embedding, PeriodicEmbedding) or not embedding.harmonics:
        return None
    channels = len(modes.mean)
    half = embedding.modes.round().to(torch.int64)
    waves = torch.cat([torch.zeros(1, half.shape[1], dtype=torch.int64), half, half])
    sine = torch.cat([torch.zeros(1 + len(half)), torch.ones(len(half))]).bool()
    features = len(waves)
    if modes.modes.shape[2] != features:  # a trunk has functions of its own
        return None
    square = waves.square().sum(1)
    key = (square * (4 * features) + 2 * _rank(waves) + sine)
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
    """A number for each wave vector (F, d), equal for equal ones."""
    return torch.unique(waves, dim=0, return_inverse=True)[1]
