"""Burgers equations on a line in Fourier coefficients, that are known, and codes on the harmonics of a domain."""

from __future__ import annotations

import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels, harmonic_modes
from inrflow.encoding.prior.modes import OutputModes

RANDOM = torch.Generator().manual_seed(0)


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


def random_operator(waves: Waves, scale: float) -> SpectralOperator:
    """Of a real field: real on the constant, conjugate weights on conjugate products."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.complex(*(torch.randn(*shape, generator=RANDOM, dtype=torch.float64) for _ in range(2))) * scale

    operator = SpectralOperator(
        normal(waves.channels, waves.count), normal(waves.count, waves.channels, waves.channels),
        normal(waves.channels, len(waves.out)),
    )
    return operator


def line_of_trajectories(trajectories: int) -> tuple[HarmonicLabels, CodeData, Waves]:
    labels = labels_of(1, 1, 5)
    waves = Waves(labels)
    return labels, flows(waves, burgers(waves), trajectories, RANDOM), waves
