"""Burgers equations on a line in Fourier coefficients, that are known, and codes on the harmonics of a domain."""

from __future__ import annotations

import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.spectral import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.harmonic_codes import HarmonicLabels, harmonic_modes
from inrflow.encoding.modes import OutputModes


def labels_of(channels: int, dimensions: int, largest: int) -> HarmonicLabels:
    """Labels of all harmonics up to a wavenumber."""
    embedding = make_embedding([0.0] * dimensions, [1.0] * dimensions, [1.0] * dimensions, None, 2, largest)
    features = 1 + embedding.harmonics
    mean = torch.zeros(channels, features).double()
    found = harmonic_modes(embedding, OutputModes(mean, mean[None] + 1, torch.ones(1).double(), torch.ones(channels)))
    assert found is not None
    return found[1]


def burgers(waves: Waves, viscosity: float = 0.05, transport: float = 0.05) -> SpectralOperator:
    """dU_k = -viscosity k^2 U_k - transport i k sum U_p U_q over all p + q = k."""
    k = torch.arange(waves.count).double()
    twice = torch.where(waves.left == waves.right, 1.0, 2.0).double()
    return SpectralOperator(
        torch.zeros(1, waves.count, dtype=torch.complex128),
        (-viscosity * k.square()).to(torch.complex128)[:, None, None],
        torch.complex(torch.zeros(len(waves.out)).double(), -transport * k[waves.out] * twice)[None],
    )


def flows(
    waves: Waves, operator: SpectralOperator, trajectories: int, random: torch.Generator, spacing: float = 0.25
) -> CodeData:
    """Codes of exact flows from random starts, 9 frames each."""
    start = torch.randn(trajectories, len(waves.labels), generator=random, dtype=torch.float64)
    times = spacing * torch.arange(9).double().expand(trajectories, -1)
    codes = Integrator(step=0.05)(waves.field(operator), start, times).detach()
    return CodeData(codes, times, torch.ones(trajectories, 9, dtype=torch.bool))
