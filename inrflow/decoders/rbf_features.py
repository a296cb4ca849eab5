"""Radial features around the fixed points of a mesh or of sensors, beside the features of a network.

A smooth network has a small deterministic residual at the points it was fitted to, which limits the accuracy of
forecasts. Radial functions of compact support (Wendland 1995) interpolate it: exact at the points, zero far from all of
them. The support is wide, since narrow ones dip between scattered points; weights are then large and of both signs, so
they are kept in double precision whatever the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inrflow.decoders.base import register_embedding
from inrflow.decoders.embeddings import Embedding

_BLOCK = 256  # points per block of distances to all nodes, which then fits the cache
_NUGGET, _RIDGE = 1e-10, 1e-8
_SUPPORT = 32.0  # in units of the median distance of nearest neighbours
_TINY = 1e-24


def spacings(points: Tensor) -> Tensor:
    """Distance (M,) from each of the points (M, d) to its nearest neighbour."""
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(torch.inf)
    return distance.amin(1)


@register_embedding("nodes")
class RadialFeatures(Embedding):
    """Embedding with K additional functions beside its harmonics, each a sum of radial functions around M nodes.

    Args:
        inner: embedding of the network; distances are taken between its inputs.
        count: number M of nodes. functions: number K. support: radius of the radial functions.
    """

    nodes: Tensor
    weights: Tensor

    def __init__(self, inner: Embedding, count: int, functions: int, support: float) -> None:
        torch.nn.Module.__init__(self)
        self.inner, self.inputs, self.support = inner, inner.inputs, support
        self.register_buffer("nodes", torch.zeros(count, inner.inputs, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(count, functions, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RadialFeatures:
        exact = self.nodes, self.weights
        super()._apply(fn, recurse)
        self.nodes, self.weights = exact[0].to(self.nodes.device), exact[1].to(self.weights.device)
        return self

    def structure(self) -> dict[str, Any]:
        count, functions = self.weights.shape
        return {"inner": self.inner, "count": count, "functions": functions, "support": self.support}

    @classmethod
    def through(cls, inner: Embedding, x: Tensor, values: Tensor) -> RadialFeatures:
        """Features that interpolate values (M, K) at distinct points x (M, d)."""
        nodes = inner(x.double())
        result = cls(inner, len(x), values.shape[1], _SUPPORT * float(spacings(nodes).median()))
        result.nodes = nodes
        kernel = result._kernel(nodes) + _NUGGET * torch.eye(len(x), dtype=torch.float64, device=x.device)
        result.weights = torch.cholesky_solve(values.double(), torch.linalg.cholesky(kernel))
        return result

    def left_out(self, values: Tensor) -> Tensor:
        """Leave-one-out errors (M, K) of the interpolation of values (M, K) at the nodes: weights divided by the
        diagonal of the inverse kernel matrix."""
        eye = torch.eye(len(self.nodes), dtype=torch.float64)
        inverse = torch.linalg.inv(self._kernel(self.nodes) + _RIDGE * eye)
        return inverse @ values / inverse.diagonal()[:, None]

    @property
    def harmonics(self) -> int:
        """Number of harmonics of the domain plus radial functions."""
        return self.inner.harmonics + self.weights.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def slopes(self, x: Tensor) -> Tensor:
        return self.inner.slopes(x)

    def evaluate_harmonics(self, x: Tensor) -> Tensor:
        inputs = self.inner(x.double()).reshape(-1, self.inputs)
        weights = self.weights.double()
        parts = [inputs] if torch.compiler.is_compiling() else inputs.split(_BLOCK)  # exported for any number of points
        values = torch.cat([self._kernel(part) @ weights for part in parts])
        return torch.cat([self.inner.evaluate_harmonics(x), values.to(x.dtype).reshape(*x.shape[:-1], -1)], -1)

    def harmonic_slopes(self, x: Tensor) -> Tensor:
        inputs = self.inner(x.double()).reshape(-1, self.inputs)
        slopes = self.inner.slopes(x.double()).reshape(x.shape[-1], -1, self.inputs)
        nodes, weights = self.nodes.double(), self.weights.double()
        parts = []
        for points, rates in zip(inputs.split(_BLOCK), slopes.split(_BLOCK, 1), strict=True):
            inside = (1 - self._distance(points)).clamp(min=0)
            near = -20 / self.support**2 * inside.square() * inside
            along = torch.einsum("dpi,pi->dp", rates, points)[..., None] - torch.einsum("dpi,mi->dpm", rates, nodes)
            parts.append((near * along) @ weights)
        values = torch.cat(parts, 1).to(x.dtype).reshape(x.shape[-1], *x.shape[:-1], -1)
        return torch.cat([self.inner.harmonic_slopes(x), values], -1)

    def _distance(self, inputs: Tensor) -> Tensor:
        """Distances (P, M) of inputs (P, inputs) to the nodes, in units of the support."""
        nodes = self.nodes.double()
        squares = sum((inputs[:, i : i + 1] - nodes[:, i]).square() for i in range(self.inputs))
        assert isinstance(squares, Tensor)
        return (squares + _TINY).sqrt() / self.support  # differentiable at the nodes

    def _kernel(self, inputs: Tensor) -> Tensor:
        distance = self._distance(inputs)
        square = (1 - distance).clamp(min=0).square()  # much faster than pow
        return square.square() * (4 * distance + 1)
