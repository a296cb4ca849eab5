"""Periodic forcing: a Fourier series in time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.linear import weighted
from inrflow.numerics.phases import periodic_phases


@register_term("forcing")
class ForcingTerm(FieldTerm):
    """sum_k a_k cos(k w t) + b_k sin(k w t) with w = 2 pi / period, coefficients affine in the context.

    Args:
        state_size: n.
        period: internal time.
        harmonics: K, multiples of the frequency.
        context_size: P.
    """

    degree = 0

    def __init__(self, state_size: int, period: float, harmonics: int = 2, context_size: int = 0) -> None:
        super().__init__()
        self.state_size, self.period, self.harmonics, self.context_size = state_size, period, harmonics, context_size
        self.weight = nn.Parameter(torch.zeros(state_size, 2 * harmonics))
        if context_size:
            self.context_weight = nn.Parameter(torch.zeros(context_size, state_size, 2 * harmonics))

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        phases = periodic_phases(t, self.period, self.harmonics).to(z.dtype)
        phases = phases.expand(*z.shape[:-1], phases.shape[-1])
        rate = phases @ self.weight.T
        if c is None or not self.context_size:
            return rate
        parts = phases @ self.context_weight.flatten(0, 1).T
        return rate + weighted(parts.unflatten(-1, self.context_weight.shape[:2]), c)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z.new_zeros(len(z), self.state_size, self.state_size)

    def weight_at(self, c: Tensor | None) -> Tensor:
        """Coefficients (n, 2 K), or (..., n, 2 K) at contexts (..., P)."""
        if c is None or not self.context_size:
            return self.weight
        return self.weight + torch.einsum("...k,knj->...nj", c, self.context_weight)

    def set(self, weight: Tensor) -> None:
        """Set the coefficients (n, 2 K), those of the cosines first."""
        with torch.no_grad():
            self.weight.copy_(weight)
