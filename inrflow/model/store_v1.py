"""Reader of model files of version 1, where a field is stored as 13 sizes and the kind of its dynamics as a note of the
training, and a term of such fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.linear import weighted
from inrflow.errors import UserError

EARLIER = "inrflow-surrogate", 1  # format and version that are read
_RENAMED = {  # beginnings of the names of a field's tensors
    "matrix": "terms.linear.matrix",
    "bias": "terms.linear.bias",
    "context_matrix": "terms.linear.context_matrix",
    "context_bias": "terms.linear.context_bias",
    "forcing": "terms.forcing.weight",
    "context_forcing": "terms.forcing.context_weight",
    "residual": "terms.network.layers",
    "products": "terms.products",
}


def upgraded(path: Path, state: dict[str, Any], metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and metadata of a surrogate of version 1, converted to the present version.

    Raises UserError where the file is damaged or has a term that was removed.
    """
    try:
        about = {**metadata, "version": 2, "field": _structure(path, metadata["field"])}
        return {**state, "field": _field_state(state["field"])}, about
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); restore it or train again") from error


def _field_state(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors by their present names."""
    result = {}
    for name, value in state.items():
        first, *others = name.split(".")
        result[".".join([_RENAMED.get(first, first), *others])] = value
    return result


def _structure(path: Path, shape: dict[str, Any]) -> dict[str, Any]:
    """The structure of a field described by 13 sizes."""
    size, contexts = shape["state_size"], shape["context_size"]
    if shape["quadratic_rank"]:
        raise UserError(f"{path} has a quadratic part of given rank (dynamics.quadratic_rank), which this version of "
                        "inrflow does not have; train again with dynamics.products")
    both = {"state_size": size, "context_size": contexts}
    forced = {"forcing_period": shape["forcing_period"], "forcing_harmonics": shape["forcing_harmonics"]}
    terms: list[dict[str, Any]] = []
    if shape["linear"]:
        terms.append({"term": "linear", **both})
    if shape["forcing_period"]:
        terms.append({"term": "forcing", **both, "period": forced["forcing_period"],
                      "harmonics": forced["forcing_harmonics"]})
    if shape["depth"]:
        terms.append({"term": "network", **both, "width": shape["width"], "depth": shape["depth"], **forced,
                      "swish": shape["swish"]})
    if shape["products"]:
        terms.append({"term": "products", **both, "count": shape["products"]})
    terms += [{"term": name} for name in ("couplings", "local") if shape[name]]  # which `build_term` refuses
    return {**both, "terms": terms}


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
        products = z[..., self.left] * z[..., self.right]
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
        """Jacobian of W p(z), by its tensor of second derivatives, without memory for every state and pair."""
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
