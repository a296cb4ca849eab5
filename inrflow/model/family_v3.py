"""Reader of earlier families, whose members shared a local equation or a quadratic field of the domain's harmonics.

Both were affine in a context of each physics; each gets the field that it had there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import Term, from_plain
from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.sum import VectorField


def separate_fields(
    state: Mapping[str, Any], metadata: Mapping[str, Any], decoders: Mapping[str, Decoder]
) -> dict[str, VectorField]:
    """The vector field of each physics of a family of version 3, by name."""
    members = metadata["members"]
    equations = [name for name, about in members.items() if about["pde"] is not None]
    others = [name for name in members if name not in equations]
    fields = {}
    for index, name in enumerate(equations):
        shared, pde = state["equation"], members[name]["pde"]
        theta = _at(shared["weights"], shared["contexts"][index]) * shared["own"][index]
        basis = LocalBasis(decoders[name], torch.tensor(pde["shift"], dtype=torch.float64))
        terms = from_plain(metadata["equation"]["terms"])
        fields[name] = _equation(terms, theta[:, : basis.channels], pde["force"], basis)
    if others:
        about = metadata["operators"]
        whole = VectorField.from_structure(about["field"]).double()
        whole.load_state_dict(state["operators"]["field"])
        slots = {code: i for i, code in enumerate(about["codes"])}
        for index, name in enumerate(others):
            own = torch.tensor([slots[code] for code in members[name]["code_names"]])
            fields[name] = _quadratic(whole, state["operators"]["contexts"][index], own)
    return {name: fields[name] for name in members}


def _at(weights: Tensor, context: Tensor) -> Tensor:
    """Weights (1 + P, ...) at a context (P,)."""
    return torch.tensordot(torch.cat([context.new_ones(1), context]), weights, 1)


def _equation(terms: list[Term], theta: Tensor, force: list[float] | None, basis: LocalBasis) -> VectorField:
    """The field of codes of a local equation with coefficients theta (J, C)."""
    products = [j for j, term in enumerate(terms) if len(term) > 1 and bool(theta[j].any())]
    field = VectorField.of(basis.code_size, local=[terms[j] for j in products], channels=basis.channels).double()
    matrix = torch.zeros(basis.code_size, basis.code_size, dtype=torch.float64)
    bias = torch.zeros(basis.code_size, dtype=torch.float64)
    for j, term in enumerate(terms):
        for out in theta[j].nonzero()[:, 0].tolist() if len(term) < 2 else ():
            added = basis.linear(term[0], out) if term else (torch.zeros_like(matrix), basis.unity(out))
            matrix, bias = matrix + theta[j, out] * added[0], bias + theta[j, out] * added[1]
    field.set_linear(matrix, bias if force is None else bias + torch.tensor(force, dtype=torch.float64))
    if products:
        local = field.term(LocalProducts)
        local.set(theta[None, products])
        local.attach(basis)
    return field


def _quadratic(shared: VectorField, context: Tensor, own: Tensor) -> VectorField:
    """The field of some codes (their numbers among those of a shared field) at a context (P,)."""
    size, couplings, linear = shared.state_size, shared.get(Couplings), shared.linear
    matrix = shared.matrix_at(context)[own[:, None], own]
    bias = linear.bias.detach() + (context @ linear.context_bias.detach() if shared.context_size else 0.0)
    triples, weight = torch.zeros(3, 0, dtype=torch.int64), matrix.new_zeros(0)
    if couplings is not None:
        place = torch.full((size,), -1)
        place[own] = torch.arange(len(own))
        triples = place[torch.stack([couplings.out, couplings.left, couplings.right])]
        weight = couplings.weight_at(context if shared.context_size else None).detach()
        kept = (triples >= 0).all(0)
        triples, weight = triples[:, kept], weight[kept]
    result = VectorField.of(len(own), couplings=len(weight)).double()
    result.set_linear(matrix, bias[own])
    if len(weight):
        result.term(Couplings).set(triples, weight)
    return result
