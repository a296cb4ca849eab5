"""Products of derivatives of the decoded field as a term of a vector field: the nonlinear terms of a PDE.

A pseudospectral Galerkin method whose equation is learned: codes are synthesised to fields on a grid that is fine
enough to avoid aliasing, the products are formed there, and the rates are projected back onto the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.fourier_grid import HarmonicJacobian, LocalBasis
from inrflow.dynamics.fields.pde_terms import Factor, Term, from_plain, to_plain

_BLOCK = 2**19  # values of all products at the grid's points, kept at once


@register_term("local")
class LocalProducts(FieldTerm):
    """The projection of sum_j theta_j(c) phi_j(u) onto codes (S, Z), theta(c) = theta_0 + sum_k c_k theta_k.

    Args:
        terms: J products phi_j of two or more factors (plain lists or `Term`).
        channels: C, each with coefficients of its own.
        context_size: P.

    The decoder's basis is not stored with the term: call `attach` or `bind` before use.
    """

    def __init__(self, terms: Sequence, channels: int, context_size: int = 0) -> None:
        super().__init__()
        self.channels, self.context_size = channels, context_size
        self.terms: list[Term] = from_plain(terms)
        self.factors: list[Factor] = list(dict.fromkeys(f for term in self.terms for f in term))
        self.weight = nn.Parameter(torch.zeros(1 + context_size, len(self.terms), channels))
        self.shift: Tensor
        self.register_buffer("shift", torch.zeros(channels))  # of the basis, from which `bind` makes it again
        self.basis: LocalBasis | None = None
        self.harmonic: HarmonicJacobian | None = None

    def structure(self) -> dict[str, Any]:
        return {"terms": to_plain(self.terms), "channels": self.channels, "context_size": self.context_size}

    def bind(self, decoder: Decoder) -> None:
        self.attach(LocalBasis(decoder, self.shift))

    def attach(self, basis: LocalBasis) -> None:
        """Use a basis whose codes are the states."""
        self.basis = basis.of_degree(max((len(term) for term in self.terms), default=1))
        self.harmonic = HarmonicJacobian.of(self.basis)
        self.shift.copy_(basis.shift)

    def set(self, weight: Tensor) -> None:
        """Set the weights (1 + P, J, C)."""
        with torch.no_grad():
            self.weight.copy_(weight)

    def weight_at(self, context: Tensor | None) -> Tensor:
        """Weights (J, C), or (S, J, C) at contexts (S, P)."""
        if context is None or len(self.weight) == 1:
            return self.weight[0]
        return self.weight[0] + torch.einsum("sk,kjc->sjc", context, self.weight[1:])

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        assert self.basis is not None, "attach a basis first"
        flat = z.reshape(-1, z.shape[-1])
        weight = self.weight_at(None if c is None else c.reshape(-1, c.shape[-1])).to(flat)
        rates = []
        for rows in self._blocks(flat):
            own = weight if weight.dim() == 2 else weight[rows]
            fields = self.basis.fields(self.basis.coefficients(flat[rows]), self.factors)
            pointwise = own.transpose(-1, -2) @ self._products(fields)  # (B, C, M)
            rates.append(self.basis.project(self.basis.spectrum(pointwise)))
        return torch.cat(rates).reshape(z.shape) if rates else torch.zeros_like(z)

    def spectra(self, codes: Tensor) -> Tensor:
        """Fourier coefficients (S, J, K) of all products, for codes (S, Z)."""
        assert self.basis is not None, "attach a basis first"
        parts = []
        for rows in self._blocks(codes):
            fields = self.basis.fields(self.basis.coefficients(codes[rows]), self.factors)
            parts.append(self.basis.spectrum(self._products(fields)))
        if not parts:
            return torch.zeros(0, len(self.terms), self.basis.count, dtype=torch.complex128)
        return torch.cat(parts)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        basis = self.basis
        assert basis is not None, "attach a basis first"
        weight = self.weight_at(c).to(z).expand(len(z), -1, -1)
        unit = torch.eye(z.shape[-1], dtype=z.dtype)
        result = torch.empty(len(z), z.shape[-1], z.shape[-1], dtype=z.dtype)
        fields = basis.fields(basis.coefficients(z), self.factors)
        slopes = self._slopes(fields, weight)  # (S, C, F, M)
        if self.harmonic is not None:
            return torch.stack([self.harmonic(one, self.factors) for one in slopes]) if len(z) else result
        block = max(1, _BLOCK // (len(self.factors) * fields.shape[-1]))
        for columns in torch.arange(len(unit)).split(block):
            moved = basis.fields(basis.coefficients(unit[columns], whole=False), self.factors)  # (B, F, M)
            for s in range(len(z)):
                pointwise = torch.einsum("cfm,bfm->bcm", slopes[s], moved)
                result[s][:, columns] = basis.project(basis.spectrum(pointwise)).T
        return result

    def _products(self, fields: Tensor) -> Tensor:
        """All products (..., J, M) of the factors (..., F, M)."""
        place = {factor: i for i, factor in enumerate(self.factors)}
        products = []
        for term in self.terms:
            product = fields[..., place[term[0]], :]
            for factor in term[1:]:
                product = product * fields[..., place[factor], :]
            products.append(product)
        return torch.stack(products, -2)

    def _slopes(self, fields: Tensor, weight: Tensor) -> Tensor:
        """Derivatives (S, C, F, M) of the pointwise rates by the factors (S, F, M), with weights (S, J, C)."""
        place = {factor: i for i, factor in enumerate(self.factors)}
        slopes = fields.new_zeros(len(fields), weight.shape[-1], *fields.shape[1:])
        for j, term in enumerate(self.terms):
            for i, factor in enumerate(term):
                rest = torch.ones_like(fields[:, 0])
                for other in (*term[:i], *term[i + 1 :]):
                    rest = rest * fields[:, place[other]]
                slopes[:, :, place[factor]] += weight[:, j, :, None] * rest[:, None]
        return slopes

    def _blocks(self, codes: Tensor) -> Sequence[Tensor]:
        assert self.basis is not None
        points = self.basis.points**self.basis.dimensions
        size = max(1, _BLOCK // (points * (len(self.terms) + len(self.factors))))
        return torch.arange(len(codes)).split(size) if len(codes) else ()
