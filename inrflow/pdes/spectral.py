"""Fourier representation of real fields on a periodic box: transforms, derivatives, dealiasing, exact evaluation.

A field is given by its Fourier coefficients in the half-space layout of `torch.fft.rfftn`, normalised "forward": the
coefficient of a mode does not depend on the number of grid points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_EVALUATED_TOGETHER = 2**22  # complex numbers in the largest intermediate of an evaluation, 64 MiB


class SpectralGrid:
    """Grid of n^d equispaced points x_j = j period / n of a periodic box, and its Fourier modes.

    `size`: points per axis; `period`: length of each axis (its length is d). Fields have shape (..., n, ..., n),
    coefficients (..., n, ..., n // 2 + 1), complex128.
    """

    def __init__(self, size: int, period: Sequence[float]):
        self.size = size
        self.period = tuple(float(length) for length in period)
        self.dimensions = len(self.period)
        self.shape = (size,) * self.dimensions
        self.mean: Any = (..., *[0] * self.dimensions)  # the index of the mode that is the field's mean
        self._axes = tuple(range(-self.dimensions, 0))

    @cached_property
    def integers(self) -> list[Tensor]:
        """Integer wavenumbers of each axis, shaped to broadcast over the coefficients."""
        result = []
        for axis in range(self.dimensions):
            last = axis == self.dimensions - 1
            frequencies = torch.fft.rfftfreq if last else torch.fft.fftfreq
            numbers = frequencies(self.size, d=1 / self.size, dtype=torch.float64)
            result.append(numbers.reshape([-1 if other == axis else 1 for other in range(self.dimensions)]))
        return result

    @cached_property
    def wavenumbers(self) -> list[Tensor]:
        """Angular wavenumbers 2 pi m / period of each axis, shaped to broadcast over the coefficients."""
        return [2 * math.pi / length * numbers for length, numbers in zip(self.period, self.integers, strict=True)]

    @cached_property
    def derivative(self) -> list[Tensor]:
        """The factor i k of each axis; zero at the Nyquist frequency, which has no first derivative on the grid."""
        return [
            1j * torch.where(2 * numbers.abs() == self.size, 0.0, wavenumbers)
            for numbers, wavenumbers in zip(self.integers, self.wavenumbers, strict=True)
        ]

    @cached_property
    def squared(self) -> Tensor:
        """|k|^2, the symbol of minus the Laplacian."""
        return sum((wavenumbers**2 for wavenumbers in self.wavenumbers), torch.zeros(()))

    def mask(self, degree: int) -> Tensor:
        """Mask of the modes that are free of aliasing in products of `degree` fields (2: 2/3 rule, 3: 1/2; 1: all but
        Nyquist).
        """
        keep = torch.ones((), dtype=torch.bool)
        for numbers in self.integers:
            keep = keep & (numbers.abs() * (degree + 1) < self.size)
        return keep.to(torch.float64)

    def transform(self, field: Tensor) -> Tensor:
        return torch.fft.rfftn(field, dim=self._axes, norm="forward")

    def inverse(self, coefficients: Tensor) -> Tensor:
        return torch.fft.irfftn(coefficients, s=self.shape, dim=self._axes, norm="forward")

    def points(self, size: int | None = None) -> Tensor:
        """Coordinates (size^d, d) of the grid with `size` points per axis (default: this grid's own), last axis
        fastest.
        """
        size = size or self.size
        axes = [length / size * torch.arange(size, dtype=torch.float64) for length in self.period]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, self.dimensions)

    def on_grid(self, coefficients: Tensor, size: int) -> Tensor:
        """Values (..., size^d) at `points(size)`: a subset of the grid's if `size` divides its size, else of the
        trigonometric polynomial.
        """
        if self.size % size == 0:
            chosen: Any = (..., *[slice(None, None, self.size // size)] * self.dimensions)
            return self.inverse(coefficients)[chosen].flatten(-self.dimensions)
        result = coefficients
        for axis in range(self.dimensions):  # replaces the first remaining axis of modes by one of points, put last
            positions = self.period[axis] / size * torch.arange(size, dtype=torch.float64)
            result = result.movedim(-self.dimensions, -1) @ self._basis(axis, positions).transpose(-1, -2)
        return result.real.flatten(-self.dimensions)

    def evaluate(self, coefficients: Tensor, x: Tensor) -> Tensor:
        """Values of the trigonometric polynomial at any points, exact whatever the grid.

        `coefficients` (S, C, *modes); `x` (N, d), shared, or (S, N, d). Returns (S, N, C).
        """
        x = x.to(torch.float64).expand(coefficients.shape[0], -1, -1)
        rows = coefficients[..., 0].numel()
        blocks = x.split(max(1, _EVALUATED_TOGETHER // rows), dim=1)
        return torch.cat([self._evaluate(coefficients, block) for block in blocks], dim=1)

    def _evaluate(self, coefficients: Tensor, x: Tensor) -> Tensor:
        last = self.dimensions - 1
        result = torch.einsum("sc...k,snk->sc...n", coefficients, self._basis(last, x[..., last]))
        for axis in reversed(range(last)):
            result = torch.einsum("sc...kn,snk->sc...n", result, self._basis(axis, x[..., axis]))
        return result.real.transpose(1, 2)

    def _basis(self, axis: int, positions: Tensor) -> Tensor:
        """exp(i k x) of one axis, (S, N, K): at Nyquist its cosine, and on the halved axis doubled for the conjugate
        modes that are not stored.
        """
        numbers = self.integers[axis].flatten()
        basis = torch.exp(1j * positions[..., None] * self.wavenumbers[axis].flatten())
        nyquist = 2 * numbers.abs() == self.size
        basis[..., nyquist] = basis[..., nyquist].real.to(basis.dtype)
        if axis == self.dimensions - 1:
            basis[..., (numbers > 0) & ~nyquist] *= 2
        return basis
