"""Jacobians of products of derivatives on harmonic codes, by gathers from a spectrum instead of transforms.

A change of one code is a wave, and the product of two waves is the waves of the sum and the difference of their
wavenumbers. The derivative of a projected pointwise rate s(x) df(x) by a code is therefore a combination of two Fourier
coefficients of s, whatever the number of points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.pde_terms import Factor

_ALONE = 1e-12  # share of a code's energy that may lie in other waves and channels


class HarmonicJacobian:
    """Jacobian on codes z_j that are the weights of 2 Re(b_j exp(i k_j x)), each in one channel.

    Args:
        basis: whose grid is fine enough for the products.
        place (Z,) of the codes' waves among the coefficients kept, amplitude (Z,) complex, channel (Z,).
    """

    def __init__(self, basis: LocalBasis, place: Tensor, amplitude: Tensor, channel: Tensor) -> None:
        self.basis, self.place, self.amplitude = basis, place, amplitude
        waves = basis.wavenumbers[place]
        self.own = [(channel == c).nonzero()[:, 0] for c in range(basis.channels)]
        still = (waves == 0).all(1)
        self.scale = 1 / (torch.where(still, 2.0, 1.0) * amplitude.abs().square())
        self.less, self.more = (
            [[self._where(waves[rows][:, None] + sign * waves[columns]) for columns in self.own] for rows in self.own]
            for sign in (-1, 1)
        )

    @classmethod
    def of(cls, basis: LocalBasis) -> HarmonicJacobian | None:
        """The Jacobian for a basis; None where a code is more than one wave in one channel."""
        modes = torch.view_as_complex(basis.modes.unflatten(1, (basis.channels, basis.count, 2)))
        energy = modes.abs().square()
        waves = basis.wavenumbers
        last = waves[:, -1]
        weight = torch.where(last > 0, 2.0, 1.0).double()
        total = (energy * weight).sum((1, 2))
        place = energy.flatten(1).argmax(1)
        channel, wave = place // basis.count, place % basis.count
        peak = energy.flatten(1).gather(1, place[:, None])[:, 0]
        whole = torch.where((waves == 0).all(1), 1.0, 2.0).double()[wave] * peak
        if not bool(((total - whole).abs() < _ALONE * total).all()):
            return None
        amplitude = modes.flatten(1).gather(1, place[:, None])[:, 0]
        amplitude = torch.where((waves[wave] == 0).all(1), amplitude / 2, amplitude)
        return cls(basis, wave, amplitude, channel)

    def _where(self, waves: Tensor) -> Tensor:
        """Index (...,) of wavenumbers (..., d) in the flat spectrum of the grid; one past its end for those beyond the
        grid."""
        n = self.basis.points
        flat = torch.zeros(waves.shape[:-1], dtype=torch.int64)
        for axis in range(waves.shape[-1]):
            flat = flat * n + waves[..., axis] % n
        return torch.where((waves.abs() > n // 2).any(-1), n ** waves.shape[-1], flat)

    def __call__(self, slopes: Tensor, factors: Sequence[Factor]) -> Tensor:
        """Derivative (Z, Z) of the rates by the codes, of slopes (C, F, M): the rate of channel c at a point changes by
        slopes[c, f] times the change of factor f."""
        basis, b = self.basis, self.amplitude
        d, n = basis.dimensions, basis.points
        spectra = torch.fft.fftn(slopes.unflatten(-1, [n] * d), dim=tuple(range(-d, 0)), norm="forward").flatten(-d)
        spectra = torch.nn.functional.pad(spectra, (0, 1))
        result = torch.zeros(len(b), len(b), dtype=slopes.dtype)
        for c, rows in enumerate(self.own):
            left = b[rows, None].conj() * self.scale[rows, None]
            for e, columns in enumerate(self.own):
                driven = torch.zeros(1, dtype=b.dtype)
                for f, factor in enumerate(factors):
                    if factor.channel == e:
                        moved = b[columns] * basis.symbol(factor)[self.place[columns]]
                        driven = driven + spectra[c, f].take(self.less[c][e]) * moved
                        driven = driven + spectra[c, f].take(self.more[c][e]) * moved.conj()
                result[rows[:, None], columns] = (left * driven).real
        return result
