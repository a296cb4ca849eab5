"""One quadratic vector field for several physics on a shared latent space, affine in a context of each.

The slots of the shared space are functions (a harmonic in one channel): a physics occupies those of its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.restrictions import restricted
from inrflow.dynamics.fields.sum import VectorField


@dataclass(frozen=True)
class SharedOperators:
    """The operators of E physics.

    Attributes:
        codes: names of the n slots.
        field: quadratic, of n codes and P contexts, float64.
        contexts: (E, P).
        lost: (E,) share of each physics' own operator that the contexts do not span.
    """

    codes: list[str]
    field: VectorField
    contexts: Tensor
    lost: list[float]

    @classmethod
    def of(
        cls, names: Sequence[Sequence[str]], fields: Sequence[VectorField], variances: Sequence[Tensor],
        context_size: int | None = None,
    ) -> SharedOperators:
        """The shared field of E physics.

        E physics have E operators: E - 1 contexts span them exactly (the default), fewer the leading directions of
        their spread, in the units that codes of the members vary by.

        Args:
            names: of the codes of each physics.
            fields: quadratic, of these codes.
            variances: of these codes, (Z,) each.
        """
        codes = list(dict.fromkeys(name for own in names for name in own))
        fields = [restricted(field, _places(codes, own)) for field, own in zip(fields, names, strict=True)]
        triples = torch.cat([_triples(field) for field in fields], 1)
        triples = torch.unique(triples, dim=1)
        deviation = _deviation(codes, names, variances)
        operators = torch.stack([_flat(field, triples) for field in fields])
        unit = torch.cat([
            torch.ones(len(codes), dtype=torch.float64), deviation.repeat(len(codes)),
            deviation[triples[1]] * deviation[triples[2]],
        ])
        mean = operators.mean(0)
        spread = (operators - mean) * unit
        values, vectors = torch.linalg.eigh(spread @ spread.T)
        possible = len(fields) - 1
        size = possible if context_size is None else min(context_size, possible)
        contexts = (vectors.flip(1)[:, :size] * len(fields) ** 0.5).contiguous()
        directions = contexts.T @ (operators - mean) / len(fields)
        missed = (operators - mean - contexts @ directions) * unit
        lost = (missed.square().sum(1) / (operators * unit).square().sum(1).clamp(min=1e-300)).tolist()
        field = _shared(len(codes), triples, mean, directions)
        return cls(codes, field, contexts, lost)

    def field_of(self, context: Tensor) -> VectorField:
        """The field of all slots at a context (P,)."""
        size, shared = len(self.codes), self.field
        if not shared.context_size:
            return shared
        couplings, linear = shared.get(Couplings), shared.linear
        result = VectorField.of(size, couplings=0 if couplings is None else couplings.count).double()
        result.set_linear(shared.matrix_at(context), (linear.bias + context @ linear.context_bias).detach())
        if couplings is not None:
            result.term(Couplings).set(_triples(shared), couplings.weight_at(context).detach())
        return result

    def own_field(self, index: int, codes: Sequence[str]) -> VectorField:
        """The field of one physics on its own codes."""
        slots = {code: i for i, code in enumerate(self.codes)}
        return restricted(self.field_of(self.contexts[index]), [slots[code] for code in codes])

    # ---- storing ----

    def state(self) -> dict[str, Any]:
        """All tensors."""
        return {"field": self.field.state_dict(), "contexts": self.contexts}

    def metadata(self) -> dict[str, Any]:
        """The rest, fit for JSON."""
        return {"codes": self.codes, "lost": self.lost, "field": self.field.structure()}

    @classmethod
    def rebuilt(cls, state: dict[str, Any], metadata: dict[str, Any]) -> SharedOperators:
        """From what `state` and `metadata` gave."""
        field = VectorField.from_structure(metadata["field"]).double()
        field.load_state_dict(state["field"])
        return cls(metadata["codes"], field.eval(), state["contexts"], metadata["lost"])


def _places(codes: list[str], own: Sequence[str]) -> list[int]:
    place = {name: i for i, name in enumerate(own)}
    return [place.get(name, -1) for name in codes]


def _triples(field: VectorField) -> Tensor:
    couplings = field.get(Couplings)
    if couplings is None:
        return torch.zeros(3, 0, dtype=torch.int64)
    return torch.stack([couplings.out, couplings.left, couplings.right])


def _flat(field: VectorField, triples: Tensor) -> Tensor:
    """bias, matrix and the weights of the given triples, one after the other."""
    weight = torch.zeros(triples.shape[1], dtype=torch.float64)
    own, couplings = _triples(field), field.get(Couplings)
    if couplings is not None:
        size = field.state_size
        keys = (triples[0] * size + triples[1]) * size + triples[2]
        mine = (own[0] * size + own[1]) * size + own[2]
        order = keys.argsort()
        weight.index_add_(0, order[torch.searchsorted(keys[order], mine)], couplings.weight.detach().double())
    return torch.cat([field.linear.bias.detach().double(), field.linear.matrix.detach().double().flatten(), weight])


def _deviation(codes: list[str], names: Sequence[Sequence[str]], variances: Sequence[Tensor]) -> Tensor:
    """Standard deviation (n,) of the codes, over the physics that have them."""
    total, count = torch.zeros(len(codes)).double(), torch.zeros(len(codes)).double()
    slots = {code: i for i, code in enumerate(codes)}
    for own, variance in zip(names, variances, strict=True):
        index = torch.tensor([slots[code] for code in own])
        total[index] += variance.double()
        count[index] += 1
    return (total / count.clamp(min=1)).sqrt()


def _shared(size: int, triples: Tensor, mean: Tensor, directions: Tensor) -> VectorField:
    contexts, count = len(directions), triples.shape[1]
    field = VectorField.of(size, couplings=count, context_size=contexts).double()
    cut = size + size * size
    field.set_linear(mean[size:cut].reshape(size, size), mean[:size])
    if contexts:
        field.set_context_linear(directions[:, size:cut].reshape(contexts, size, size), directions[:, :size])
    if count:
        field.term(Couplings).set(triples, mean[cut:], directions[:, cut:])
    return field.eval()


