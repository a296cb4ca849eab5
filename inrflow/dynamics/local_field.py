"""Local dynamics in codes: at every point a polynomial of the values and their Laplacians, affine in a context.

Where patterns form, what happens at a point depends on what is there, not on a global code: reactions and diffusion.
The codes are decoded at collocation points, the polynomial is evaluated at each of them, and the rates are projected
back onto the codes: a Galerkin method whose equation is learned. The field commutes with translations by construction,
and a few numbers say all of it, so that a single trajectory of an environment can determine them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder
from inrflow.errors import UserError


class LocalField(nn.Module):
    """ds/dt = projection of sum_k theta_k(c) phi_k(u, lap u), theta(c) = theta_0 + sum_j c_j theta_j.

    The phi are 1, the monomials of the channels of u up to a degree, and the Laplacian of each channel, in normalised
    units; every channel has coefficients of its own. States are (S, Z), or (S, Z + P) with a context at their end,
    which does not move.

    Args:
        decoder: affine, of a domain that is periodic in all coordinates.
        low, period: (d,) lower corner and lengths of the domain.
        points: collocation points along each axis; degree + 1 times the largest wavenumber and one more let no product
            be mistaken for another.
        degree: of the polynomial.
        context_size: P.
    Raises UserError for a domain or decoder of another kind.
    """

    def __init__(
        self,
        decoder: Decoder,
        low: Sequence[float],
        period: Sequence[float] | None,
        points: int,
        degree: int = 3,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        if not decoder.affine or period is None or not all(length > 0 for length in period):
            raise UserError(
                "local dynamics need an affine decoder and a domain that is periodic in all coordinates; use the "
                "field of codes for other data"
            )
        axes = [
            a + length * torch.arange(points, dtype=torch.float64) / points
            for a, length in zip(low, period, strict=True)
        ]
        dtype = next(decoder.parameters()).dtype
        with torch.no_grad():
            offset, basis = decoder.basis(torch.cartesian_prod(*axes).reshape(-1, len(axes)).to(dtype))
        offset, basis = offset.double(), basis.double()  # (M, C), (M, C, Z)
        curved = laplacian(torch.cat([offset[..., None], basis], -1), points, period)
        # Laplacians enter in units in which they are as large as the values
        self.unit = float(basis.square().mean().sqrt() / curved[..., 1:].square().mean().sqrt().clamp(min=1e-300))
        curved = curved * self.unit
        self.points, self.channels, self.code_size = basis.shape
        self.context_size = context_size
        self.offset: Tensor
        self.basis: Tensor
        self.projection: Tensor
        self.register_buffer("offset", torch.cat([offset, curved[..., 0]], 1).flatten())
        self.register_buffer("basis", torch.cat([basis, curved[..., 1:]], 1).flatten(0, 1))
        self.register_buffer("projection", torch.linalg.pinv(basis.flatten(0, 1)))
        powers = itertools.product(range(degree + 1), repeat=self.channels)
        self.monomials = sorted((p for p in powers if sum(p) <= degree), key=lambda p: (sum(p), p))
        terms = len(self.monomials) + self.channels
        self.coefficients = nn.Parameter(torch.zeros(1 + context_size, terms, self.channels, dtype=torch.float64))

    def terms(self, codes: Tensor) -> Tensor:
        """The phi (S, M, K) at the collocation points for codes (S, Z): monomials, then Laplacians."""
        fields = (codes @ self.basis.T + self.offset).unflatten(-1, (self.points, 2 * self.channels))
        values, curved = fields[..., : self.channels], fields[..., self.channels :]
        powers: list[dict[int, Tensor]] = [{1: values[..., c]} for c in range(self.channels)]
        products = []
        for monomial in self.monomials:
            product = torch.ones_like(values[..., 0])
            for channel, power in enumerate(monomial):
                for exponent in range(2, power + 1):
                    powers[channel].setdefault(exponent, powers[channel][exponent - 1] * values[..., channel])
                if power:
                    product = product * powers[channel][power]
            products.append(product)
        return torch.cat([torch.stack(products, -1), curved], -1)

    def rates_of_terms(self, codes: Tensor) -> Tensor:
        """Rates (S, K, C, Z) of the codes that a unit of each coefficient adds."""
        projection = self.projection.unflatten(1, (self.points, self.channels))
        return torch.einsum("smk,zmc->skcz", self.terms(codes), projection)

    def rates(self, codes: Tensor, coefficients: Tensor) -> Tensor:
        """Rates (S, Z) of codes (S, Z) with coefficients (K, C), or (S, K, C) of their own."""
        pointwise = self.terms(codes) @ coefficients
        return pointwise.flatten(1) @ self.projection.T

    def at(self, context: Tensor) -> Tensor:
        """Coefficients (..., K, C) at contexts (..., P)."""
        return self.coefficients[0] + torch.einsum("...j,jkc->...kc", context, self.coefficients[1:])

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        codes, context = state[:, : self.code_size], state[:, self.code_size :]
        if not self.context_size:
            return self.rates(codes, self.coefficients[0])
        return torch.cat([self.rates(codes, self.at(context)), torch.zeros_like(context)], 1)


def laplacian(values: Tensor, points: int, period: Sequence[float]) -> Tensor:
    """Laplacian of values (M, ...) on a grid of `points` an axis, row-major, by the fast Fourier transform."""
    axes = tuple(range(len(period)))
    grid = values.reshape(*[points] * len(period), *values.shape[1:])
    squared = torch.zeros((), dtype=torch.float64)
    for axis, length in enumerate(period):
        wavenumber = 2 * math.pi / length * torch.fft.fftfreq(points, 1 / points, dtype=torch.float64)
        shape = [1] * grid.dim()
        shape[axis] = points
        squared = squared + wavenumber.square().reshape(shape)
    return torch.fft.ifftn(-squared * torch.fft.fftn(grid, dim=axes), dim=axes).real.reshape(values.shape)
