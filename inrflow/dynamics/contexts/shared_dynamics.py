"""Dynamics that several physics share: affine in a context of each, which E - 1 contexts span exactly.

`SharedEquation` is one local equation of all their terms. `SharedOperators` is one quadratic field on a shared latent
space, whose slots are functions (a harmonic in one channel): a physics occupies those of its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import Term, from_plain, to_plain
from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.restrictions import restricted
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.libraries.pde import LocalEquation

_SAMPLES = 8  # states by which terms are measured
_NEEDED = 1e-3  # of the largest rate of its channel: what a term must contribute to count as needed


def _spanned(values: Tensor, context_size: int | None, own: Tensor | float = 1.0) -> tuple[Tensor, list[float]]:
    """Contexts (E, P) along the leading directions of the spread of rows (E, U), and the share (E,) of the squares of
    each that they do not span; `own` (E, U) masks what belongs to a row."""
    count = len(values) - 1 if context_size is None else min(context_size, len(values) - 1)
    spread = values - values.mean(0)
    vectors = torch.linalg.eigh(spread @ spread.T)[1]
    contexts = (vectors.flip(1)[:, :count] * len(values) ** 0.5).contiguous()
    residual = (spread - contexts @ (contexts.T @ spread) / len(values)) * own
    return contexts, (residual.square().sum(1) / values.square().sum(1).clamp(min=1e-300)).tolist()


@dataclass(frozen=True)
class SharedEquation:
    """The equations of E physics of up to C channels, in normalised values and internal time of each.

    A force that depends on the place belongs to a physics, not to what they share.

    Attributes:
        terms: J, the union of theirs.
        weights: (1 + P, J, C).
        contexts: (E, P).
        own: (E, J, C) which coefficients each physics has; where several share too few contexts, it keeps no others.
        sizes: (J, C) root mean square of the terms over fields of the physics that have them, 1 where none has.
        lost: (E,) share of each physics' weights, measured by what they do, that the contexts do not span.
    """

    terms: tuple[Term, ...]
    weights: Tensor
    contexts: Tensor
    own: Tensor
    sizes: Tensor
    lost: list[float]

    @classmethod
    def of(
        cls, equations: Sequence[LocalEquation], sizes: Sequence[Tensor], context_size: int | None = None
    ) -> SharedEquation:
        """From the equations and the root mean square (J,) of the terms of each.

        E - 1 contexts span their weights exactly (the default), fewer the leading directions of their spread.
        """
        terms = tuple(dict.fromkeys(term for one in equations for term in one.terms))
        place = {term: j for j, term in enumerate(terms)}
        channels = max(one.several.shape[-1] for one in equations)
        weights = torch.zeros(len(equations), len(terms), channels, dtype=torch.float64)
        total = torch.zeros_like(weights)
        for e, (one, size) in enumerate(zip(equations, sizes, strict=True)):
            rows, width = torch.tensor([place[term] for term in one.terms]), one.several.shape[-1]
            weights[e, rows, :width] = one.several[0]
            total[e, rows, :width] = size[:, None]
        own = weights != 0
        squares = (total * own).square().sum(0)
        unit = torch.where(squares > 0, (squares / own.sum(0).clamp(min=1)).sqrt(), 1.0)
        scaled = (weights * unit).flatten(1)
        contexts, lost = _spanned(scaled, context_size, own.flatten(1))
        shared = torch.cat([scaled.mean(0)[None], contexts.T @ (scaled - scaled.mean(0)) / len(equations)])
        return cls(terms, shared.reshape(-1, *unit.shape) / unit, contexts, own, unit, lost)

    def equation(self, index: int, channels: int, force: Tensor | None) -> LocalEquation:
        """The equation of one physics, of its own terms."""
        whole = torch.cat([self.contexts.new_ones(1), self.contexts[index]])
        weights = torch.einsum("p,pjc->jc", whole, self.weights) * self.own[index]
        needed = self.own[index].any(1)
        chosen = tuple(term for term, one in zip(self.terms, needed.tolist(), strict=True) if one)
        return LocalEquation(chosen, weights[needed][:, :channels].contiguous(), force)

    def needed_terms(self, index: int) -> tuple[Term, ...]:
        """The terms of one physics that contribute more than a negligible part to the rate of one of its channels."""
        one = self.equation(index, self.own.shape[-1], None)
        sizes = self.sizes[self.own[index].any(1)]
        rates = (one.weights * sizes).abs()
        needed = (rates > _NEEDED * rates.amax(0)).any(1)
        return tuple(term for term, kept in zip(one.terms, needed.tolist(), strict=True) if kept)

    # ---- storing ----

    def state(self) -> dict[str, Tensor]:
        """All tensors."""
        return {name: getattr(self, name) for name in ("weights", "contexts", "own", "sizes")}

    def metadata(self) -> dict[str, Any]:
        """All else, as plain values."""
        return {"terms": to_plain(self.terms), "lost": self.lost}

    @classmethod
    def rebuilt(cls, state: dict[str, Tensor], metadata: dict[str, Any]) -> SharedEquation:
        """From what `state` and `metadata` gave."""
        return cls(tuple(from_plain(metadata["terms"])), lost=metadata["lost"], **state)


def term_sizes(basis: LocalBasis, terms: Sequence[Term], mean: Tensor, covariance: Tensor) -> Tensor:
    """Root mean square (J,) over the domain of terms of fields whose codes have this mean (Z,) and covariance."""
    values, vectors = torch.linalg.eigh(covariance.double())
    random = torch.Generator().manual_seed(0)
    normal = torch.randn(_SAMPLES, len(values), generator=random, dtype=torch.float64)
    codes = mean.double() + (normal * values.clamp(min=0).sqrt()) @ vectors.T
    result = torch.ones(len(terms), dtype=torch.float64)  # of the constant term
    varying = [j for j, term in enumerate(terms) if term]
    if varying:
        products = LocalProducts(to_plain([terms[j] for j in varying]), basis.channels)
        products.attach(basis)
        power = products.spectra(codes).abs().square().mean(0)
        twice = torch.where(basis.vectors[:, -1] > 0, 2.0, 1.0).double()  # one half of all waves is kept
        result[varying] = (power @ twice).sqrt()
    return result


class PdeRecord(TypedDict):
    """A PDE of one system in plain values.

    Keys: terms (J,) as `to_plain` gives them; weights (J, C); force (Z,) or None; shift (C,), added to normalised
    values before terms are formed.
    """

    terms: list
    weights: list
    force: list[float] | None
    shift: list[float]


def to_record(equation: LocalEquation, basis: LocalBasis) -> PdeRecord:
    """An equation of one system and the shift of its basis as plain values."""
    return {
        "terms": to_plain(equation.terms), "weights": equation.several[0].tolist(),
        "force": None if equation.force is None else equation.force.tolist(), "shift": basis.shift.tolist(),
    }


def from_record(record: PdeRecord) -> tuple[LocalEquation, Tensor]:
    """The equation and the shift (C,) that `to_record` was given."""
    weights = torch.tensor(record["weights"], dtype=torch.float64)
    return LocalEquation(tuple(from_plain(record["terms"])), weights, force_of(record)), shift_of(record)


def force_of(record: PdeRecord) -> Tensor | None:
    """The force (Z,) of a record."""
    return None if record["force"] is None else torch.tensor(record["force"], dtype=torch.float64)


def shift_of(record: PdeRecord) -> Tensor:
    """The shift (C,) of a record."""
    return torch.tensor(record["shift"], dtype=torch.float64)


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
        contexts, lost = _spanned(operators * unit, context_size)
        directions = contexts.T @ (operators - mean) / len(fields)
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


def _places(codes: Sequence[str], own: Sequence[str]) -> list[int]:
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


