"""Decoders whose codes are the weights of harmonics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.fourier_grid import LocalBasis


def harmonic_decoder(channels: int, period: tuple[float, ...], waves: int) -> HarmonicDecoder:
    """Every channel has the harmonics up to a wavenumber; codes are their weights."""
    low = [0.0] * len(period)
    decoder = HarmonicDecoder(make_embedding(low, list(period), period, None, 2, waves), channels).double()
    count = decoder.features_size
    decoder.set_output(torch.zeros(channels, count), torch.eye(channels * count).reshape(-1, channels, count))
    return decoder


def basis_of(channels: int, period: tuple[float, ...], waves: int, shift: float = 0.0) -> LocalBasis:
    return LocalBasis(harmonic_decoder(channels, period, waves), torch.full((channels,), shift).double())


def points_of(basis: LocalBasis, period: float = 2 * math.pi) -> Tensor:
    return period * torch.arange(basis.points, dtype=torch.float64) / basis.points
