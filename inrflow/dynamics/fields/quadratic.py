"""Quadratic terms in listed pairs of components, as a Galerkin projection of many PDEs has them.

The pairs are part of the term, so that their number can be bounded. Models of earlier versions have such terms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.linear import weighted


@register_term("products")
class Products(FieldTerm):
    """W(c) p(z), p the products z_i z_j of a list of pairs, W(c) = W_0 + sum_k c_k W_k; zero until `set` or training.

    Args:
        state_size: n.
        count: K, number of pairs.
        context_size: P, numbers of the context on which the weights depend.
    """

    degree = 2
    left: Tensor
    right: Tensor

    def __init__(self, state_size: int, count: int, context_size: int = 0) -> None:
        super().__init__()
        self.state_size, self.count, self.context_size = state_size, count, context_size
        self.register_buffer("left", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(count, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(state_size, count))
        if context_size:
            self.context_weight = nn.Parameter(torch.zeros(context_size, state_size, count))

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        products = products_of(z, self.left, self.right)
        rate = products @ self.weight.T
        if c is None or not self.context_size:
            return rate
        parts = (products @ self.context_weight.flatten(0, 1).T).unflatten(-1, self.context_weight.shape[:2])
        return rate + weighted(parts, c)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        result = self._derivative(self.weight, z)
        if c is not None and self.context_size:
            for k, weight in enumerate(self.context_weight):
                result = result + c[..., k, None, None] * self._derivative(weight, z)
        return result

    def _derivative(self, weight: Tensor, state: Tensor) -> Tensor:
        """Derivative of W p(z), through the tensor of its second derivatives: no memory for every state and pair."""
        size = state.shape[-1]
        tensor, weight = state.new_zeros(len(weight), size * size), weight.to(state)
        tensor.index_add_(1, self.left * size + self.right, weight)
        tensor.index_add_(1, self.right * size + self.left, weight)
        return torch.einsum("ijk,...k->...ij", tensor.unflatten(1, (size, size)), state)

    def set(self, left: Tensor, right: Tensor, weight: Tensor, context_weight: Tensor | None = None) -> None:
        """Set the pairs (K,), their weights W_0 (n, K) and W_k (P, n, K)."""
        with torch.no_grad():
            self.left.copy_(left)
            self.right.copy_(right)
            self.weight.copy_(weight)
            if context_weight is not None:
                self.context_weight.copy_(context_weight)


def products_of(state: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Products (..., K) of the components of states (..., n)."""
    return state[..., left] * state[..., right]
