"""Decoders whose codes are the weights of harmonics, and fields of known equations on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.pde_terms import Factor, Term
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData


def harmonic_decoder(channels: int, period: tuple[float, ...], waves: int) -> HarmonicDecoder:
    """Every channel has the harmonics up to a wavenumber; codes are their weights."""
    low = [0.0] * len(period)
    decoder = HarmonicDecoder(make_embedding(low, list(period), period, None, 2, waves), channels).double()
    count = decoder.features_size
    decoder.set_output(torch.zeros(channels, count), torch.eye(channels * count).reshape(-1, channels, count))
    return decoder


def basis_of(channels: int, period: tuple[float, ...], waves: int, shift: float = 0.0) -> LocalBasis:
    return LocalBasis(harmonic_decoder(channels, period, waves), torch.full((channels,), shift).double())


def burgers(viscosity: float, extra: tuple[Term, ...] = ()) -> LocalEquation:
    """u_t = viscosity u_xx - u u_x, with terms of no weight among the others."""
    terms = ((Factor(0, (0, 0)),), (Factor(0), Factor(0, (0,))), *extra)
    weights = torch.zeros(len(terms), 1, dtype=torch.float64)
    weights[0], weights[1] = viscosity, -1.0
    return LocalEquation(terms, weights)


def trajectories(
    equation: LocalEquation, basis: LocalBasis, count: int, seed: int, frames: int = 6, gap: float = 0.1
) -> CodeData:
    """Accurate flows from random smooth starts."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(count, basis.code_size, generator=random, dtype=torch.float64)
    start = start / (1 + torch.arange(basis.code_size, dtype=torch.float64)).sqrt() / 4
    times = gap * torch.arange(frames, dtype=torch.float64).expand(count, -1)
    codes = Integrator(step=gap / 16)(equation.field(basis), start, times).detach()
    return CodeData(codes, times, torch.ones(count, frames, dtype=torch.bool))


def points_of(basis: LocalBasis, period: float = 2 * math.pi) -> Tensor:
    return period * torch.arange(basis.points, dtype=torch.float64) / basis.points
