"""LawTerm: a law on a domain's harmonics as a registered term of vector fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.decoders.domain_harmonics import plain
from inrflow.domains import from_state
from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.laws.field import LawField, Library
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.terms import Term

_LEADING = 320  # codes that products couple in the linearised flow
_SERIES = 1.0  # norm up to which the series of the products is used: an error of 1/24 of a standard deviation


@register_term("law")
class LawTerm(FieldTerm):
    """dz/dt = sum_j theta_jc term_j, projected onto K harmonics; codes (C K,), those of the first channel first.

    Args:
        domain, boundary, count: of the harmonics, as `DomainHarmonicDecoder` has them.
        terms: J terms as plain values; theta: (J, C) coefficients.
        largest: norm of the largest code of the data; forecasts far beyond it have diverged.
    """

    def __init__(
        self, domain: Mapping[str, Any], boundary: str, count: int, terms: Sequence[dict], theta: Sequence[Sequence],
        largest: float = math.inf,
    ) -> None:
        super().__init__()
        self.domain, self.boundary, self.count, self.largest = plain(domain), boundary, count, largest
        self.terms = [dict(term) for term in terms]
        # Least squares in float64 found the coefficients; no gradient trains them.
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float64), requires_grad=False)
        self._built: tuple[int, LawField] | None = None
        self._library: tuple[Library, ...] = ()

    @classmethod
    def of(cls, law: Law) -> LawTerm:
        """The term of a fitted law."""
        return cls(law.domain.state(), law.boundary, law.codes.harmonics.count, [term.state() for term in law.terms],
                   law.theta.tolist(), law.largest)

    def structure(self) -> dict[str, Any]:
        return {"domain": self.domain, "boundary": self.boundary, "count": self.count, "terms": self.terms,
                "theta": self.theta.tolist(), "largest": self.largest}

    def law(self) -> LawField:
        """The field of the present coefficients, float64."""
        version = self.theta._version
        if self._built is None or self._built[0] != version:
            if not self._library:
                harmonics = from_state(self.domain).harmonics(self.count, self.boundary)
                self._library = (Library([Term.from_state(term) for term in self.terms], harmonics),)
            object.__setattr__(self, "_built", (version, LawField(self._library[0], self.theta.double())))
        assert self._built is not None
        return self._built[1]

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.law()(t, z)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Derivative (S, n, n) by codes (S, n), in closed form."""
        return (self._of_products(z) + self._linear()).to(z)

    def tangent_flow(self, z: Tensor, gap: Tensor) -> Tensor:
        """Flow (S, n, n) of the law linearised at codes (S, n), over times gap (S or 1,).

        Strang splitting: the linear part, which may be stiff, is exponentiated in its blocks; the products, a series
        of third order, in steps that are short for them. Products couple the leading harmonics alone, so that the cost
        of spreads is bounded: errors of the others are small, and decay.
        """
        law, channels = self.law(), self.law().channels
        count = len(law.library.eigenvalues)
        lead = min(count, max(1, _LEADING // channels))
        product = self._of_products(z, lead) * gap[:, None, None]
        halvings = max(0, math.ceil(math.log2(max(float(product.abs().sum(-1).max()), 1e-12) / _SERIES)))
        product = product / 2**halvings
        eye = torch.eye(channels * lead).to(product)
        small = eye + product + product @ (product @ (eye + product / 3) / 2)
        half = torch.zeros(len(gap), *law.blocks.shape).to(product)
        for row, time in enumerate(gap.tolist()):
            half[row] = torch.linalg.matrix_exp(law.blocks * (time / 2 ** (halvings + 1)))
        if law.coupled:
            flow = self._embedded(small, lead)
            flow = half[:, 0] @ flow @ half[:, 0]
            for _ in range(halvings):
                flow = flow @ flow
            return flow.to(z)
        inner = half[:, :lead]
        block = small.reshape(len(small), channels, lead, channels, lead)
        block = torch.einsum("skde,sekfl->sdkfl", inner.expand(len(block), -1, -1, -1), block)
        small = torch.einsum("sdkfl,slfg->sdkgl", block, inner.expand(len(block), -1, -1, -1)).reshape(small.shape)
        for _ in range(halvings):
            small = small @ small
        flow = self._embedded(small, lead).reshape(len(small), channels, count, channels, count)
        outer = torch.linalg.matrix_exp(law.blocks[None, lead:] * gap[:, None, None, None])
        every = torch.arange(lead, count)
        flow[:, :, every, :, every] = outer.transpose(0, 1).expand(-1, len(small), -1, -1)
        return flow.flatten(3, 4).flatten(1, 2).to(z)

    def _embedded(self, small: Tensor, lead: int) -> Tensor:
        """Maps (S, C lead, C lead) of the leading harmonics as maps (S, n, n) that leave the others."""
        channels, count = self.law().channels, len(self.law().library.eigenvalues)
        result = torch.eye(channels * count).to(small).repeat(len(small), 1, 1)
        index = (torch.arange(channels)[:, None] * count + torch.arange(lead)).flatten()
        result[:, index[:, None], index] = small
        return result

    def _linear(self) -> Tensor:
        """The linear part as a matrix (n, n)."""
        law = self.law()
        if law.coupled:
            return law.blocks[0]
        every = torch.arange(len(law.blocks))
        result = law.blocks.new_zeros(law.channels, len(every), law.channels, len(every))
        result[:, every, :, every] = law.blocks
        return result.flatten(2, 3).flatten(0, 1)

    def _of_products(self, z: Tensor, lead: int | None = None) -> Tensor:
        """Derivative (S, C lead, C lead) of the terms that are not linear, by and of the leading harmonics (all).

        A multiplication at each quadrature point.
        """
        law = self.law()
        library, channels, count = law.library, law.channels, len(law.library.eigenvalues)
        codes = z.reshape(-1, channels, count).double()
        lead = count if lead is None else lead
        result = codes.new_zeros(len(codes), channels, lead, channels, lead)
        factors = library.at_points(codes, [term for term in law.products_of if not term.linear])
        weights: dict[tuple[int, int, int, Tensor | None], Tensor] = {}
        for term, fields in law.products_of.items():
            if term.linear:
                for out, field in fields.items():
                    result[:, out, :, term.products[0][0][0]] += law.matrix(term, field)[:lead, :lead]
                continue
            for products, operator in library.operators(term, lead):
                for product, sign, place in [(one, sign, i) for one, sign in products for i in range(len(one))]:
                    slope: Tensor | float = float(sign)
                    for other in (*product[:place], *product[place + 1 :]):
                        slope = slope * factors[other]
                    for out, field in fields.items():
                        key, part = (out, *product[place], operator), field * slope
                        weights[key] = weights[key] + part if key in weights else part
        for (out, channel, axis, operator), weight in weights.items():
            table = library.table(axis, lead)
            part = library.projected(weight.expand(len(codes), len(table))[..., None] * table, lead)
            result[:, out, :, channel] += part if operator is None else operator @ part
        return result.flatten(3, 4).flatten(1, 2)

    def advance(self, state: Tensor, gap: Tensor, step: float) -> Tensor:
        """Codes (S, n) after times gap (S,), exact in the linear part, in steps of at most `step`; NaN where they
        diverge."""
        law, result = self.law(), torch.empty_like(state, dtype=torch.float64)
        for dt in torch.unique(gap):
            rows = gap == dt
            result[rows] = law.bounded(state[rows].double(), float(dt), step, self.largest)
        return result.to(state)
