"""Products of state components: the quadratic part of a vector field, as a Galerkin projection of many PDEs has it.

Of all n (n + 1) / 2 products of n components those of components with much variance matter: the list of the pairs is
part of the field, so that their number can be bounded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Products(nn.Module):
    """W p(s) with p the products s_i s_j of a list of pairs; linear in W, which a least-squares fit sets.

    Args:
        size: n, of the state.
        count: number of pairs.
    """

    left: Tensor
    right: Tensor

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.register_buffer("left", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(count, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(size, count))

    def forward(self, state: Tensor) -> Tensor:
        """What the products add to the rates of states (..., n)."""
        return products_of(state, self.left, self.right) @ self.weight.T

    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative (..., n, n) of what the products add, at states (..., n)."""
        size = state.shape[-1]
        tensor = state.new_zeros(len(self.weight), size * size)  # d rate_i / d s_j = sum_k tensor_ijk s_k
        weight = self.weight.to(state)
        tensor.index_add_(1, self.left * size + self.right, weight)
        tensor.index_add_(1, self.right * size + self.left, weight)
        return torch.einsum("ijk,...k->...ij", tensor.unflatten(1, (size, size)), state)

    def set(self, left: Tensor, right: Tensor, weight: Tensor) -> None:
        """Set the pairs (K,) and their weights (n, K)."""
        with torch.no_grad():
            self.left.copy_(left)
            self.right.copy_(right)
            self.weight.copy_(weight)


class Couplings(nn.Module):
    """A sparse list of products: the rate of component `out` gains weight * s_left * s_right.

    Weights are affine in a context.

    Args:
        count: number M of triples.
        contexts: P.
    """

    out: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, count: int, contexts: int = 0) -> None:
        super().__init__()
        for name in ("out", "left", "right"):
            self.register_buffer(name, torch.zeros(count, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(count))
        self.context_weight = nn.Parameter(torch.zeros(contexts, count))

    def weight_at(self, context: Tensor | None) -> Tensor:
        """Weights (M,) or (..., M) at contexts (..., P)."""
        return self.weight if context is None else self.weight + context @ self.context_weight

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """What the products add to the rates of states (..., n)."""
        terms = self.weight_at(context) * state[..., self.left] * state[..., self.right]
        return torch.zeros_like(state).index_add_(-1, self.out, terms)

    def jacobian(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """Derivative (S, n, n) of what the products add, at states (S, n)."""
        size = state.shape[1]
        weight = self.weight_at(context)
        flat = state.new_zeros(len(state), size * size)
        flat.index_add_(1, self.out * size + self.left, weight * state[:, self.right])
        flat.index_add_(1, self.out * size + self.right, weight * state[:, self.left])
        return flat.reshape(-1, size, size)

    def set(self, triples: Tensor, weight: Tensor, context_weight: Tensor | None = None) -> None:
        """Set the triples (3, M) of out, left and right, their weights (M,) and what each context adds (P, M)."""
        with torch.no_grad():
            self.out.copy_(triples[0])
            self.left.copy_(triples[1])
            self.right.copy_(triples[2])
            self.weight.copy_(weight)
            if context_weight is not None:
                self.context_weight.copy_(context_weight)


def products_of(state: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Products (..., K) of the components of states (..., n)."""
    return state[..., left] * state[..., right]


def leading_pairs(deviation: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` pairs (K,), (K,) of components whose deviations (n,) have the largest products."""
    left, right = torch.triu_indices(len(deviation), len(deviation))
    if count < len(left):
        strength = deviation[left] * deviation[right]
        kept = strength.argsort(descending=True, stable=True)[:count].sort().values
        left, right = left[kept], right[kept]
    return left, right
