"""Sparse quadratic fields dz/dt = b + A z + couplings: restriction to some codes, and merging of equal triples."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.sum import VectorField


def coalesced(triples: Tensor, weight: Tensor, tolerance: float = 1e-14) -> tuple[Tensor, Tensor]:
    """Distinct triples (3, M) among (3, K) and the sums (..., M) of their weights (..., K), without negligible ones."""
    base = int(triples.max()) + 1 if triples.numel() else 1
    keys, which = torch.unique((triples[0] * base + triples[1]) * base + triples[2], return_inverse=True)
    distinct = torch.stack([keys // base**2, keys // base % base, keys % base])
    total = weight.new_zeros(*weight.shape[:-1], distinct.shape[1]).index_add(-1, which, weight)
    size = total.abs() if total.dim() == 1 else total.abs().amax(0)
    kept = size > tolerance * size.amax().clamp(min=1e-300) if size.numel() else size > 0
    return distinct[:, kept], total[..., kept]


def restricted(field: VectorField, places: list[int]) -> VectorField:
    """The restriction of a quadratic field to the codes `places`, in their order; -1 stands for a code of no motion."""
    size = field.state_size
    there = torch.tensor(places)
    inverse = torch.full((size,), -1, dtype=torch.int64)
    inverse[there[there >= 0]] = (there >= 0).nonzero()[:, 0]
    matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
    rows = (there >= 0).nonzero()[:, 0]
    matrix[rows[:, None], rows] = field.linear.matrix.detach().double()[there[rows][:, None], there[rows]]
    bias = torch.zeros(len(places), dtype=torch.float64)
    bias[rows] = field.linear.bias.detach().double()[there[rows]]
    triples, weight = torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    part = field.get(Couplings)
    if part is not None:
        triples = inverse[torch.stack([part.out, part.left, part.right])]
        kept = (triples >= 0).all(0) & (part.weight.detach() != 0)
        triples, weight = triples[:, kept], part.weight.detach().double()[kept]
        triples = torch.stack([triples[0], triples[1:].amin(0), triples[1:].amax(0)])
    result = VectorField.of(len(places), couplings=len(weight)).double()
    result.set_linear(matrix, bias)
    if len(weight):
        result.term(Couplings).set(triples, weight)
    return result
