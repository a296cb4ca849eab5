"""Quadratic terms, as a Galerkin projection of many PDEs has them: dense in listed pairs, or sparse in listed triples.

Of all n (n + 1) / 2 products of n components those of components of large variance matter: the pairs are part of the
term, so that their number can be bounded.
"""

from __future__ import annotations

import warnings

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


@register_term("couplings")
class Couplings(FieldTerm):
    """A sparse list of products: the rate of component `out` gains weight(c) z_left z_right, affine in the context.

    Args:
        count: M, number of triples.
        context_size: P, 0 for weights that are the same in all contexts.
    """

    degree = 2
    out: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, count: int, context_size: int = 0) -> None:
        super().__init__()
        self.count, self.context_size = count, context_size
        for name in ("out", "left", "right"):
            self.register_buffer(name, torch.zeros(count, dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(count))
        self.context_weight = nn.Parameter(torch.zeros(context_size, count))
        self._cached: tuple | None = None

    def weight_at(self, context: Tensor | None) -> Tensor:
        """Weights (M,), or (..., M) at contexts (..., P) on which they depend."""
        if context is None or not self.context_size:
            return self.weight
        return self.weight + context @ self.context_weight

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        if not torch.is_grad_enabled() and z.device.type == "cpu" and torch.backends.mkl.is_available():
            return self._by_matrices(z, c)
        terms = self.weight_at(c) * z[..., self.left] * z[..., self.right]
        return torch.zeros_like(z).index_add_(-1, self.out, terms)

    def _by_matrices(self, state: Tensor, context: Tensor | None) -> Tensor:
        """The same by one sparse matrix and one more for each number of the context: 20 times faster."""
        flat = state.reshape(-1, state.shape[-1]).T.contiguous()
        left, right, (matrix, *further) = self._matrices(len(flat))
        products = flat.index_select(0, left) * flat.index_select(0, right)
        rate = matrix.to(state.dtype) @ products
        if context is not None:
            for k, one in enumerate(further):  # none where the weights do not depend on the context
                rate = rate + context[..., k].reshape(-1) * (one.to(state.dtype) @ products)
        return rate.T.reshape(state.shape)

    def _matrices(self, size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Pairs (K,), (K,) of components and sparse matrices (n, K) of their weights, cached until these change."""
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

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        size = z.shape[1]
        weight = self.weight_at(c)
        flat = z.new_zeros(len(z), size * size)
        flat.index_add_(1, self.out * size + self.left, weight * z[:, self.right])
        flat.index_add_(1, self.out * size + self.right, weight * z[:, self.left])
        return flat.reshape(-1, size, size)

    def set(self, triples: Tensor, weight: Tensor, context_weight: Tensor | None = None) -> None:
        """Set the triples (3, M) of out, left and right, their weights (M,) and what each number of the context adds
        (P, M)."""
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
    """The `count` pairs (K,), (K,) of components with the largest products of deviations (n,)."""
    left, right = torch.triu_indices(len(deviation), len(deviation))
    if count < len(left):
        strength = deviation[left] * deviation[right]
        kept = strength.argsort(descending=True, stable=True)[:count].sort().values
        left, right = left[kept], right[kept]
    return left, right
