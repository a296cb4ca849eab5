"""Random initial fields, given by their Fourier coefficients, so that finer grids represent the same field."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.pdes.spectral import SpectralGrid


def random_field(
    grid: SpectralGrid, rng: np.random.Generator, deviation: Callable[[Tensor], Tensor], modes: int
) -> Tensor:
    """Coefficients (*modes) of a Gaussian random field of zero mean.

    u(x) = Re sum_m deviation(|m|^2) (a_m + i b_m) exp(i k_m x) over the integer modes m with |m_i| <= `modes`, a and
    b standard normal.
    """
    d = grid.dimensions
    numbers = torch.arange(-modes, modes + 1, dtype=torch.float64)
    lattice = torch.meshgrid(*[numbers] * d, indexing="ij")
    scale = deviation(sum((m**2 for m in lattice), torch.zeros(())))
    scale[(modes,) * d] = 0.0
    a, b = (torch.from_numpy(rng.standard_normal((2 * modes + 1,) * d)) for _ in range(2))
    coefficients = torch.complex(scale * a, scale * b)
    real_part = (coefficients + coefficients.flip(tuple(range(d))).conj()) / 2
    return _placed(grid, real_part, modes)


def smooth_field(grid: SpectralGrid, rng: np.random.Generator, deviation: float, modes: int) -> Tensor:
    """Random field with power spectrum exp(-4 |m|^2 / modes^2), cut at `modes`, and the given standard deviation at
    every point.
    """
    numbers = torch.arange(-modes, modes + 1, dtype=torch.float64)
    power = torch.exp(-4 * numbers**2 / modes**2).sum() ** grid.dimensions - 1  # less the mean mode
    return random_field(grid, rng, lambda m: deviation / power.sqrt() * torch.exp(-2 * m / modes**2), modes)


def _placed(grid: SpectralGrid, lattice: Tensor, modes: int) -> Tensor:
    """Grid layout of a Hermitian lattice of modes -M..M on every axis; modes beyond the grid's are dropped."""
    kept = min(modes, (grid.size - 1) // 2)
    result = torch.zeros([axis.numel() for axis in grid.integers], dtype=lattice.dtype)
    signed = torch.arange(-kept, kept + 1)
    source = [signed + modes] * (grid.dimensions - 1) + [torch.arange(kept + 1) + modes]
    target = [signed % grid.size] * (grid.dimensions - 1) + [torch.arange(kept + 1)]
    result[torch.meshgrid(*target, indexing="ij")] = lattice[torch.meshgrid(*source, indexing="ij")]
    return result


def gaussian_bump(grid: SpectralGrid, place: np.ndarray, radius: float, height: float) -> Tensor:
    """Coefficients of height exp(-|x - place|^2 / (2 radius^2)), summed over all periodic images."""
    volume = math.prod(math.sqrt(2 * math.pi) * radius / length for length in grid.period)
    phase = sum((k * p for k, p in zip(grid.wavenumbers, place, strict=True)), torch.zeros(()))
    return torch.polar(height * volume * torch.exp(-0.5 * radius**2 * grid.squared), -phase)


def smoothed_cube(grid: SpectralGrid, corner: np.ndarray, side: float, width: float) -> Tensor:
    """Values (n, ..., n) of the indicator of a periodic cube of side `side` (below the period), smoothed by a Gaussian
    of standard deviation `width`.
    """
    result = torch.ones(())
    for axis in range(grid.dimensions):
        length = grid.period[axis]
        positions = length / grid.size * torch.arange(grid.size, dtype=torch.float64)
        profile = torch.zeros_like(positions)
        for image in (-1, 0, 1):
            offset = (positions - corner[axis] + image * length) / (math.sqrt(2) * width)
            profile += (torch.erf(offset) - torch.erf(offset - side / (math.sqrt(2) * width))) / 2
        result = result * profile.reshape([-1 if other == axis else 1 for other in range(grid.dimensions)])
    return result
