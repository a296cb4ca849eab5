"""Products of state components: the quadratic part of a vector field, as a Galerkin projection of many PDEs has it.

Of all n (n + 1) / 2 products of n components those of components with much variance matter: the list of the pairs is
part of the field, so that their number can be bounded.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


class Products(nn.Module):
    """W(c) p(s) with p the products s_i s_j of a list of pairs; W(c) = W_0 + sum_k c_k W_k, set by a least-squares fit.

    Args:
        size: n, of the state.
        count: number of pairs.
        contexts: P, of the contexts on which the weights depend.
    """

    left: Tensor
    right: Tensor

    def __init__(self, size: int, count: int, contexts: int = 0) -> None:
        super().__init__()
        self.register_buffer("left", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(count, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(size, count))
        if contexts:
            self.context_weight = nn.Parameter(torch.zeros(contexts, size, count))

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """What the products add to the rates of states (..., n) at contexts (..., P)."""
        products = products_of(state, self.left, self.right)
        rate = products @ self.weight.T
        if context is None:
            return rate
        parts = (products @ self.context_weight.flatten(0, 1).T).unflatten(-1, self.context_weight.shape[:2])
        return rate + (context[..., None] * parts).sum(-2)

    def jacobian(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """Derivative (..., n, n) of what the products add, at states (..., n) and contexts (..., P)."""
        result = self._derivative(self.weight, state)
        if context is not None:
            for k, weight in enumerate(self.context_weight):
                result = result + context[..., k, None, None] * self._derivative(weight, state)
        return result

    def _derivative(self, weight: Tensor, state: Tensor) -> Tensor:
        """Derivative of W p(s), through the tensor of its second derivatives: no memory for every state and pair."""
        size = state.shape[-1]
        tensor, weight = state.new_zeros(len(weight), size * size), weight.to(state)
        tensor.index_add_(1, self.left * size + self.right, weight)
        tensor.index_add_(1, self.right * size + self.left, weight)
        return torch.einsum("ijk,...k->...ij", tensor.unflatten(1, (size, size)), state)

    def set(self, left: Tensor, right: Tensor, weight: Tensor, context_weight: Tensor | None = None) -> None:
        """Set the pairs (K,), their weights (n, K) and what each context adds to these (P, n, K)."""
        with torch.no_grad():
            self.left.copy_(left)
            self.right.copy_(right)
            self.weight.copy_(weight)
            if context_weight is not None:
                self.context_weight.copy_(context_weight)


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
        self._cached: tuple | None = None

    def weight_at(self, context: Tensor | None) -> Tensor:
        """Weights (M,), or (..., M) at contexts (..., P) on which they depend."""
        if context is None or not len(self.context_weight):
            return self.weight
        return self.weight + context @ self.context_weight

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """What the products add to the rates of states (..., n)."""
        if not torch.is_grad_enabled() and state.device.type == "cpu" and torch.backends.mkl.is_available():
            return self._by_matrices(state, context)
        terms = self.weight_at(context) * state[..., self.left] * state[..., self.right]
        return torch.zeros_like(state).index_add_(-1, self.out, terms)

    def _by_matrices(self, state: Tensor, context: Tensor | None) -> Tensor:
        """The same by one sparse matrix for all contexts and one for each: some 20 times faster, without gradients."""
        flat = state.reshape(-1, state.shape[-1]).T.contiguous()
        left, right, (matrix, *further) = self._matrices(len(flat))
        products = flat.index_select(0, left) * flat.index_select(0, right)
        rate = matrix.to(state.dtype) @ products
        if context is not None:
            for k, one in enumerate(further):
                rate = rate + context[..., k].reshape(-1) * (one.to(state.dtype) @ products)
        return rate.T.reshape(state.shape)

    def _matrices(self, size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Pairs (K,), (K,) of components and sparse matrices (n, K) of their weights, made anew when these change."""
        key = [(w.data_ptr(), w._version, w.dtype) for w in (self.weight, self.context_weight)]
        if self._cached is None or self._cached[0] != (size, key):
            pairs, column = torch.unique(self.left * size + self.right, return_inverse=True)
            indices = torch.stack([self.out, column])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
                matrices = [
                    torch.sparse_coo_tensor(indices, weight, (size, len(pairs)), check_invariants=False)
                    .coalesce()
                    .to_sparse_csr()
                    for weight in [self.weight.detach(), *self.context_weight.detach()]
                ]
            self._cached = (size, key), (pairs // size, pairs % size, matrices)
        return self._cached[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cached": None}  # copies make their own

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
