"""Functions that mend a trunk at the fixed points of a mesh or of sensors, beside its features.

A network that is smooth enough to be right between the points does not pass through the values at them: what it leaves
there is small but has nothing of noise, and forecasts would never be better than it. Radial functions of compact
support (Wendland 1995) interpolate that rest: at the points nothing is left, far from all of them nothing is added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.registry import register_embedding

_BLOCK = 256  # points whose distances to all nodes are formed at once: they stay in cache
_NUGGET = 1e-8
_SUPPORT = 8.0  # in units of the typical distance of neighbours
_TINY = 1e-24


def spacings(points: Tensor) -> Tensor:
    """Distance (M,) of each of the points (M, d) to the nearest other."""
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(torch.inf)
    return distance.amin(1)


@register_embedding("nodes")
class RadialFeatures(Embedding):
    """An embedding whose harmonics are joined by K functions, each a sum of radial functions around M nodes.

    Args:
        inner: what the network sees; distances are taken between its inputs.
        count: number M of nodes. functions: number K. support: distance at which a radial function has come to zero.
    """

    nodes: Tensor
    weights: Tensor

    def __init__(self, inner: Embedding, count: int, functions: int, support: float) -> None:
        torch.nn.Module.__init__(self)
        self.inner, self.inputs, self.support = inner, inner.inputs, support
        self.register_buffer("nodes", torch.zeros(count, inner.inputs, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(count, functions, dtype=torch.float64))

    def structure(self) -> dict[str, Any]:
        count, functions = self.weights.shape
        return {"inner": self.inner, "count": count, "functions": functions, "support": self.support}

    @classmethod
    def through(cls, inner: Embedding, x: Tensor, values: Tensor) -> RadialFeatures:
        """Functions with the given values (M, K) at the points x (M, d), which must be distinct."""
        nodes = inner(x.double())
        result = cls(inner, len(x), values.shape[1], _SUPPORT * float(spacings(nodes).median()))
        result.nodes = nodes
        kernel = result._kernel(nodes) + _NUGGET * torch.eye(len(x), dtype=torch.float64, device=x.device)
        result.weights = torch.cholesky_solve(values.double(), torch.linalg.cholesky(kernel))
        return result

    @property
    def harmonics(self) -> int:
        """Number of functions that reach the output directly: the domain's harmonics and those of the nodes."""
        return self.inner.harmonics + self.weights.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def slopes(self, x: Tensor) -> Tensor:
        return self.inner.slopes(x)

    def evaluate_harmonics(self, x: Tensor) -> Tensor:
        inputs = self.inner(x.double()).reshape(-1, self.inputs)
        weights = self.weights.double()
        values = torch.cat([self._kernel(part) @ weights for part in inputs.split(_BLOCK)])
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
        return (squares + _TINY).sqrt() / self.support  # a derivative at the nodes too

    def _kernel(self, inputs: Tensor) -> Tensor:
        distance = self._distance(inputs)
        square = (1 - distance).clamp(min=0).square()  # far faster than a power
        return square.square() * (4 * distance + 1)
