"""Decoders whose codes are the weights of harmonics."""

from __future__ import annotations

import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder


def harmonic_decoder(channels: int, period: tuple[float, ...], waves: int) -> HarmonicDecoder:
    """Every channel has the harmonics up to a wavenumber; codes are their weights."""
    low = [0.0] * len(period)
    decoder = HarmonicDecoder(make_embedding(low, list(period), period, None, 2, waves), channels).double()
    count = decoder.features_size
    decoder.set_output(torch.zeros(channels, count), torch.eye(channels * count).reshape(-1, channels, count))
    return decoder
