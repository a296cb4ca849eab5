"""Dynamics whose coefficients are polynomials in the wavenumber: the symbols of constant-coefficient operators.

A term d^a u_c multiplies the coefficient of exp(i k x) by (i k)^a, a term d^a u_c d^b u_e the product of those of p and
q by (i p)^a (i q)^b: the same few real numbers for all waves, found by least squares on all waves at once. A handful of
transitions determines couplings of short waves in which hardly anything moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.libraries.integral_form import refit, search
from inrflow.dynamics.libraries.spectral import Block, SpectralFit, SpectralForm
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.numerics.ridge import ridge_grid

RIDGES = ridge_grid(-12, -4)
_ORDER = 2  # of derivatives in a term, all factors together; linear terms have the squared Laplacian too
_STORED = 1e8  # values of all terms at all products, kept at once

Derivative = tuple[int, ...]  # axes


class SymbolFit:
    """Terms of an equation on the transitions of a `SpectralFit`, whose integrals are shared."""

    def __init__(self, fit: SpectralFit) -> None:
        self.fit, self.waves = fit, fit.waves
        self.linear, self.products = linear_symbols(self.waves), product_symbols(self.waves)

    @property
    def terms(self) -> int:
        """Number of unknowns of each channel."""
        return 1 + self.waves.channels * len(self.linear) + len(self.products)

    def features(self, block: Block) -> Tensor:
        """Integrals (B, H, J) of all terms: a constant, linear ones, products."""
        step, linear, products = block[:3]
        waves = self.waves
        constant = torch.zeros(len(step), waves.count, dtype=torch.complex128)
        constant[:, 0] = step[:, 0]
        columns = [constant]
        for channel in range(waves.channels):
            columns += [linear[:, channel, : waves.count] * symbol for symbol in self.linear]
        several = products.to(torch.complex128)
        for symbol in self.products:
            columns.append(torch.zeros_like(constant).index_add(1, waves.out, several * symbol))
        return torch.stack(columns, -1)

    def solutions(
        self, about: SpectralOperator | None, ridges: Sequence[float]
    ) -> Iterator[tuple[float, SpectralOperator]]:
        """Operators for each ridge, which is relative to the mean square of each term."""
        block = self.fit.gathered(about)
        features, change = self.features(block), block.change.transpose(1, 2)
        design = torch.view_as_real(features).transpose(2, 3).reshape(-1, features.shape[-1])
        target = torch.view_as_real(change).transpose(2, 3).reshape(-1, self.waves.channels)
        unit = design.square().mean(0).sqrt().clamp(min=1e-300)
        design = design / unit
        gram, right = design.T @ design, design.T @ target
        for ridge in ridges:
            regular = gram.clone()
            regular.diagonal().add_(ridge * len(design))
            yield ridge, self.operator(torch.linalg.solve(regular, right) / unit[:, None])

    def field(self, solution: SpectralOperator) -> VectorField:
        """The vector field of an operator, float64."""
        return self.waves.field(solution)

    def operator(self, coefficients: Tensor) -> SpectralOperator:
        """The operator of coefficients (J, C) of the terms, for each channel's rate."""
        waves, orders = self.waves, len(self.linear)
        result = waves.nothing()
        values = coefficients.to(torch.complex128)
        result.constant[:, 0] = values[0]
        for channel in range(waves.channels):
            own = values[1 + channel * orders : 1 + (channel + 1) * orders]  # (orders, C)
            result.linear[:, :, channel] = self.linear.T @ own
        if len(self.products):
            result.products = values[1 + waves.channels * orders :].T @ self.products
        return result

    def search(self, validation: CodeData, first: int, corrections: int = 2) -> SpectralForm | None:
        """The best by rollouts of `validation` codes from frame `first`; None where every one diverges."""
        best = search(self, lambda one: self.fit.rollout_error(one, validation, first), RIDGES, corrections)
        if best is None:
            return None
        return SpectralForm(self.waves, best.solution, None, best.ridges[-1:], best.score, equation=True)

    def refit(self, form: SpectralForm) -> SpectralForm:
        """The form fitted once more with its ridge, along its own flow, to the transitions of this fit."""
        return replace(form, operator=refit(self, form.ridges[:1], form.operator) or form.operator)


def linear_symbols(waves: Waves) -> Tensor:
    """(i k)^a (K, H) of all derivatives up to the second order, and of the squared Laplacian."""
    k = waves.vectors.double()
    several = [_symbol(k, axes) for axes in derivatives(k.shape[1], _ORDER)]
    return torch.stack([*several, (k.square().sum(1) ** 2).to(torch.complex128)])


def product_symbols(waves: Waves) -> Tensor:
    """Symbols (K, M) at every product of all pairs of factors, derivatives of channels, up to a total order."""
    if not len(waves.out):
        return torch.zeros(0, 0, dtype=torch.complex128)
    full = 2 * waves.count - 1
    k = torch.cat([waves.vectors, -waves.vectors[1:]]).double()
    left, right = waves.left // full, waves.right // full
    p, q = k[waves.left % full], k[waves.right % full]
    distinct = waves.left != waves.right
    axes = derivatives(k.shape[1], _ORDER)
    at_p, at_q = {a: _symbol(p, a) for a in axes}, {a: _symbol(q, a) for a in axes}
    factors = list(itertools.product(range(waves.channels), axes))
    symbols = []
    for one, (c, a) in enumerate(factors):
        for e, b in factors[one:]:
            if len(a) + len(b) <= _ORDER:
                both = ((left == c) & (right == e)) * at_p[a] * at_q[b]
                symbols.append(both + (distinct & (right == c) & (left == e)) * at_q[a] * at_p[b])
    return torch.stack(symbols)


def derivatives(dimensions: int, order: int) -> list[Derivative]:
    """All derivatives up to an order, as lists of axes."""
    return [
        axes for n in range(order + 1) for axes in itertools.combinations_with_replacement(range(dimensions), n)
    ]


def transitions_wanted(waves: Waves) -> float:
    """How many transitions may be looked at, that the terms at all products take bounded time and memory."""
    factors = waves.channels * len(derivatives(waves.vectors.shape[1], _ORDER))
    return _STORED / (factors * (factors + 1) / 2) / max(len(waves.out), 1)


def _symbol(k: Tensor, axes: Derivative) -> Tensor:
    """(i k)^a of wave vectors (N, d)."""
    result = torch.ones(len(k), dtype=torch.complex128)
    for axis in axes:
        result = result * 1j * k[:, axis]
    return result
