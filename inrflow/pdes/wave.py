"""The embedded default data: the 2-D wave equation in the protocol of the DINo paper, made in a moment and without any file.

u_tt = c^2 lap u on a periodic square, channels u and v = u_t. A run starts at rest from one Gaussian bump of random radius, height and
place, and is cut into consecutive windows of equal length: the trajectories. Each Fourier mode is a harmonic oscillator, so every frame
is exact: no time step is involved. Coordinates, period, speed and initial conditions are those of DINo (Yin et al., ICLR 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

PERIOD = 2.0  # of the physical domain [-1, 1]^2, in which speed and radii are given
SPEED = 1 / 16


@dataclass(frozen=True)
class WaveData:
    """Trajectories of the wave equation: `t` (T,), `x` (N, 2), `u` (S, T, N, 2), `period` (2,), and its symmetries.

    `symmetries` holds `generators` (2, 2, 3), `generators_channels` (2, 2, 2), `maps` (2, 2, 3), `maps_channels` (2, 2, 2) and
    `names`, one for each generator and then for each map.
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    period: np.ndarray
    symmetries: dict
    channels: tuple[str, ...] = ("u", "v")
    coordinates: tuple[str, ...] = ("x", "y")


def default_wave(
    trajectories: int = 64,
    seed: int = 0,
    grid: int = 32,
    frames: int = 20,
    dt: float = 0.25,
    windows: int = 8,
) -> WaveData:
    """Trajectories of the wave equation on a grid x grid square.

    `windows` consecutive windows of `frames` frames, `dt` apart, are cut from each run. A run's initial condition depends on `seed` and
    the run's index alone. As in the DINo protocol, coordinates run from 0 to 0.5 over the grid's first to last point, so the period is
    0.5 grid / (grid - 1).
    """
    runs = math.ceil(trajectories / windows)
    wavenumber = 2 * math.pi / PERIOD * torch.fft.fftfreq(grid, d=1 / grid, dtype=torch.float64)
    half = 2 * math.pi / PERIOD * torch.fft.rfftfreq(grid, d=1 / grid, dtype=torch.float64)
    kx, ky = torch.meshgrid(wavenumber, half, indexing="ij")
    squared = kx**2 + ky**2
    frequency = SPEED * squared.sqrt()

    start = torch.stack([_bump_spectrum(np.random.default_rng([seed, run]), kx, ky, squared) for run in range(runs)]) * grid**2
    times = dt * torch.arange(windows * frames, dtype=torch.float64)
    phase = times[:, None, None] * frequency
    displacement = torch.fft.irfft2(start[:, None] * torch.cos(phase), s=(grid, grid))
    velocity = torch.fft.irfft2(-start[:, None] * frequency * torch.sin(phase), s=(grid, grid))
    u = torch.stack([displacement, velocity], dim=-1).reshape(runs * windows, frames, grid * grid, 2)

    axis = torch.linspace(0, 0.5, grid, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    return WaveData(
        t=times[:frames].numpy(),
        x=x.numpy(),
        u=u[:trajectories].to(torch.float32).numpy(),
        period=np.full(2, 0.5 * grid / (grid - 1)),
        symmetries=_symmetries(),
    )


def _bump_spectrum(rng: np.random.Generator, kx: torch.Tensor, ky: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """Fourier coefficients of one periodic Gaussian bump (the sum of all its images), anywhere in the domain."""
    radius = 0.25 + 0.05 * rng.random()
    height = 2 + 2 * rng.random()
    place = PERIOD * rng.random(2)
    amplitude = height * 2 * math.pi * radius**2 / PERIOD**2 * torch.exp(-0.5 * radius**2 * squared)
    return torch.polar(amplitude, -(kx * place[0] + ky * place[1]))


def _symmetries() -> dict:
    """Translations along both axes, reflection of the first axis, exchange of the axes; u and v are scalars under all of them."""
    generators = np.zeros((2, 2, 3))
    generators[0, 0, 2] = generators[1, 1, 2] = 1
    maps = np.array([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    return {
        "generators": generators,
        "generators_channels": np.zeros((2, 2, 2)),
        "maps": maps,
        "maps_channels": np.broadcast_to(np.eye(2), (2, 2, 2)).copy(),
        "names": ("translation", "translation", "reflection", "exchange"),
    }
