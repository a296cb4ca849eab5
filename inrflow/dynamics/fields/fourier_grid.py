"""Codes of a periodic domain as Fourier coefficients of fields, their derivatives on a grid, and the way back.

Where every code is a single harmonic, derivatives of products are gathers from a spectrum instead of transforms: a
change of one code is a wave, and a product of waves is the two waves of their sum and difference. So how a pointwise
rate s(x) df(x) drives a code is told by two Fourier coefficients of s, whatever the number of points.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.pde_terms import FOURTH, LAPLACIAN, Factor
from inrflow.numerics.sparse_columns import SparseColumns

_TRUNK_WAVES = {1: 64, 2: 16, 3: 8}  # largest wavenumber that is looked at where a network has functions of its own
_DEGREE = 3


def has_local_basis(decoder: Decoder) -> bool:
    """Whether a decoder's fields can be differentiated and multiplied: affine, periodic in one to three coordinates."""
    embedding = getattr(decoder, "embedding", None)
    return (
        decoder.affine and isinstance(embedding, PeriodicEmbedding) and not embedding.raw
        and len(embedding.period) in _TRUNK_WAVES
    )


def _grid_points(waves: int, degree: int) -> int:
    """Points along an axis by which no product of so many factors is mistaken for a resolved wave; their number is even
    and has small prime factors, and is transformed fast."""
    least = (degree + 1) * waves + 2
    return next(n for n in itertools.count(least + least % 2, 2) if _is_smooth(n))


def _indices(waves: int, points: int) -> Tensor:
    """Where the waves kept lie in a spectrum of so many points."""
    return torch.tensor([*range(waves + 1), *range(points - waves, points)])


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


class LocalBasis:
    """Fields u = offset + modes z of an affine decoder on a periodic box, in Fourier coefficients up to a wavenumber.

    Args:
        decoder: affine, on a domain that is periodic in all coordinates.
        shift: (C,) added to the decoded values: products are formed of values plus shift.
    Raises ValueError for another decoder: ask `has_local_basis` first.
    """

    def __init__(self, decoder: Decoder, shift: Tensor) -> None:
        if not has_local_basis(decoder):
            raise ValueError("local terms need an affine decoder of a domain that is periodic in all coordinates")
        embedding = decoder.embedding
        assert isinstance(embedding, PeriodicEmbedding)
        period = embedding.period
        d = self.dimensions = len(period)
        own = embedding.largest_harmonic
        self.waves = k = own if own and isinstance(decoder, HarmonicDecoder) else max(own, _TRUNK_WAVES[d])
        self.points = n = _grid_points(k, _DEGREE)
        axes = [length * torch.arange(n, dtype=torch.float64) / n for length in period]
        with torch.no_grad():
            exact = copy.deepcopy(decoder).cpu().double()
            offset, basis = exact.basis(torch.cartesian_prod(*axes).reshape(-1, d))
        fields = torch.cat([(offset + shift.to(offset))[..., None], basis], -1)  # (M, C, 1 + Z)
        self.channels, self.code_size = basis.shape[1:]
        self.shift = shift.double()
        grid = fields.permute(2, 1, 0).reshape(1 + self.code_size, self.channels, *[n] * d)
        self._full, self._last = _indices(k, n), torch.arange(k + 1)
        coefficients = self._crop(torch.fft.rfftn(grid, dim=tuple(range(-d, 0)), norm="forward"))
        self.count = coefficients.shape[-1]  # K, of one half of all waves
        self.offset = torch.view_as_real(coefficients[0]).flatten()
        self.modes = torch.view_as_real(coefficients[1:]).flatten(1)  # (Z, C K 2)
        weight = torch.where(self._index(d - 1) > 0, 2.0, 1.0).double()  # the other half is the conjugate
        weighted = (self.modes.unflatten(1, (self.channels, self.count, 2)) * weight[:, None]).flatten(1)
        self.projection = torch.linalg.solve(weighted @ self.modes.T, weighted).T.contiguous()  # (C K 2, Z)
        self._gathered = SparseColumns.of(self.modes), SparseColumns.of(self.projection)
        self.wavenumbers = torch.stack([self._index(a) for a in range(d)], -1)  # (K, d)
        self.vectors = 2 * math.pi * self.wavenumbers.double() / torch.tensor(period, dtype=torch.float64)
        self._symbols: dict[tuple, Tensor] = {}

    def of_degree(self, degree: int) -> LocalBasis:
        """The same basis on a grid for products of at most so many factors."""
        points = _grid_points(self.waves, degree)
        if degree >= _DEGREE or points >= self.points:
            return self
        other = copy.copy(self)
        other.points, other._full = points, _indices(self.waves, points)
        return other

    def _index(self, axis: int) -> Tensor:
        """Wavenumber (K,) of each coefficient along an axis."""
        full = torch.where(self._full > self.waves, self._full - self.points, self._full)
        each = [full] * (self.dimensions - 1) + [self._last]
        return torch.cartesian_prod(*each).reshape(-1, self.dimensions)[:, axis]

    def _crop(self, spectrum: Tensor) -> Tensor:
        """Coefficients (..., K) of the waves kept, from those of the grid."""
        d = self.dimensions
        for axis in range(d - 1):
            spectrum = spectrum.index_select(axis - d, self._full)
        return spectrum[..., : self.waves + 1].flatten(-d)

    def symbol(self, factor: Factor) -> Tensor:
        """What a factor multiplies the coefficients (K,) of its channel with; derivatives in the units of the box."""
        key = (factor.axes, factor.inverse)
        if key not in self._symbols:
            square = self.vectors.square().sum(1)
            symbol = torch.ones(self.count, dtype=torch.complex128)
            if factor.axes in (LAPLACIAN, FOURTH):
                symbol = (-square if factor.axes == LAPLACIAN else square**2).to(torch.complex128)
            else:
                for axis in factor.axes:
                    symbol = symbol * 1j * self.vectors[:, axis]
            if factor.inverse:
                symbol = torch.where(square > 0, -symbol / square.clamp(min=1e-300), 0.0)
            self._symbols[key] = symbol
        return self._symbols[key]

    def coefficients(self, codes: Tensor, whole: bool = True) -> Tensor:
        """Complex coefficients (..., C, K) of fields of codes (..., Z), without the offset unless `whole`."""
        modes = self._gathered[0]
        flat = codes @ self.modes if modes is None else modes(codes)
        flat = flat + self.offset if whole else flat
        return torch.view_as_complex(flat.unflatten(-1, (self.channels, self.count, 2)))

    def fields(self, coefficients: Tensor, factors: Sequence[Factor]) -> Tensor:
        """Factors (..., F, M) at the grid's points, of coefficients (..., C, K)."""
        d, n = self.dimensions, self.points
        each = torch.stack([coefficients[..., f.channel, :] * self.symbol(f) for f in factors], -2)
        shape = [len(self._full)] * (d - 1) + [self.waves + 1]
        each = each.unflatten(-1, shape)
        for axis in range(d - 1):
            padded = each.new_zeros(*each.shape[: axis - d], n, *each.shape[axis - d + 1 or None :])
            each = padded.index_copy(axis - d, self._full, each)
        return torch.fft.irfftn(each, s=[n] * d, dim=tuple(range(-d, 0)), norm="forward").flatten(-d)

    def spectrum(self, fields: Tensor) -> Tensor:
        """Coefficients (..., K) of fields (..., M) at the grid's points."""
        d = self.dimensions
        grid = fields.unflatten(-1, [self.points] * d)
        return self._crop(torch.fft.rfftn(grid, dim=tuple(range(-d, 0)), norm="forward"))

    def project(self, coefficients: Tensor) -> Tensor:
        """Codes (..., Z) nearest to fields of coefficients (..., C, K): least squares over the box."""
        flat = torch.view_as_real(coefficients).flatten(-3)
        projection = self._gathered[1]
        return flat @ self.projection if projection is None else projection(flat)

    def project_channel(self, coefficients: Tensor, channel: int) -> Tensor:
        """Codes (..., Z) nearest to fields of coefficients (..., K) in one channel, 0 in the others."""
        part = self.projection.unflatten(0, (self.channels, 2 * self.count))[channel]
        return torch.view_as_real(coefficients).flatten(-2) @ part

    def unity(self, channel: int) -> Tensor:
        """Rates (Z,) of a constant 1 in one channel."""
        coefficients = torch.zeros(self.count, dtype=torch.complex128)
        coefficients[0] = 1.0
        return self.project_channel(coefficients, channel)

    def linear(self, factor: Factor, out: int) -> tuple[Tensor, Tensor]:
        """Matrix (Z, Z) and bias (Z,) of the rates that a linear term with weight 1 in channel `out` gives."""
        modes = torch.view_as_complex(self.modes.unflatten(1, (self.channels, self.count, 2)))
        own = torch.cat([self.coefficients(self.modes.new_zeros(1, self.code_size)), modes])[:, factor.channel]
        codes = self.project_channel(own * self.symbol(factor), out)
        return codes[1:].T.contiguous(), codes[0]


_ALONE = 1e-12  # share of a code's energy that may lie in other waves and channels


class HarmonicJacobian:
    """Codes z_j that are the weights of 2 Re(b_j exp(i k_j x)), each in one channel.

    Args:
        basis: on whose grid the products are formed without aliasing.
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
        """That of a basis, None where a code is more than one wave in one channel."""
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
        """Place (...,) of waves (..., d) in the flat spectrum of the grid; that of an entry behind it where a product's
        factor has none."""
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
