"""Terms that are affine in the state: A(c) z + b(c), and a periodic forcing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.numerics.phases import periodic_phases


@register_term("linear")
class LinearTerm(FieldTerm):
    """A(c) z + b(c), with A(c) = A_0 + sum_k c_k A_k and b(c) likewise; zero until `set` or training.

    Args:
        state_size: n.
        context_size: P.
    """

    degree = 1

    def __init__(self, state_size: int, context_size: int = 0) -> None:
        super().__init__()
        self.state_size, self.context_size = state_size, context_size
        self.matrix = nn.Parameter(torch.zeros(state_size, state_size))
        self.bias = nn.Parameter(torch.zeros(state_size))
        if context_size:
            self.context_matrix = nn.Parameter(torch.zeros(context_size, state_size, state_size))
            self.context_bias = nn.Parameter(torch.zeros(context_size, state_size))

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        rate = nn.functional.linear(z, self.matrix, self.bias)
        if c is None or not self.context_size:
            return rate
        bias = self.context_bias
        parts = z @ self.context_matrix.flatten(0, 1).T
        return rate + weighted(parts.reshape(*z.shape[:-1], *bias.shape), c) + c @ bias

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        if c is None or not self.context_size:
            return self.matrix.expand(len(z), *self.matrix.shape)
        return self.matrix + torch.einsum("sk,kij->sij", c, self.context_matrix)

    def set(self, matrix: Tensor, bias: Tensor) -> None:
        """Set A_0 (n, n) and b_0 (n,)."""
        with torch.no_grad():
            self.matrix.copy_(matrix)
            self.bias.copy_(bias)

    def set_context(self, matrices: Tensor, biases: Tensor) -> None:
        """Set A_k (P, n, n) and b_k (P, n), the coefficients of each component of the context."""
        with torch.no_grad():
            self.context_matrix.copy_(matrices)
            self.context_bias.copy_(biases)


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
        return (self.weight_at(c) @ phases[..., None])[..., 0].expand_as(z)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z.new_zeros(len(z), self.state_size, self.state_size)

    def weight_at(self, c: Tensor | None) -> Tensor:
        """Coefficients (n, 2 K), or (..., n, 2 K) at contexts (..., P)."""
        if c is None or not self.context_size:
            return self.weight
        return self.weight + torch.einsum("...k,knj->...nj", c, self.context_weight)

    def set(self, weight: Tensor) -> None:
        """Set the coefficients (n, 2 K), cosines first."""
        with torch.no_grad():
            self.weight.copy_(weight)


def weighted(parts: Tensor, c: Tensor) -> Tensor:
    """sum_k c_k parts_k (..., n) of parts (..., P, n) and contexts (..., P)."""
    return (c[..., None] * parts).sum(-2)
