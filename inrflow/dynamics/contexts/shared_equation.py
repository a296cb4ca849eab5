"""One local equation for several physics: all of their terms, with weights that are affine in a context of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.libraries.fourier_grid import LocalBasis
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.libraries.pde_terms import Term, from_plain, to_plain

_SAMPLES = 8  # states by which terms are measured
_NEEDED = 1e-3  # of the largest rate of its channel: what a term must contribute to count as needed


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
        mean = scaled.mean(0)
        spread = scaled - mean
        vectors = torch.linalg.eigh(spread @ spread.T)[1]
        possible = len(equations) - 1
        count = possible if context_size is None else min(context_size, possible)
        contexts = (vectors.flip(1)[:, :count] * len(equations) ** 0.5).contiguous()
        directions = contexts.T @ spread / len(equations)
        missed = (spread - contexts @ directions) * own.flatten(1)
        lost = (missed.square().sum(1) / scaled.square().sum(1).clamp(min=1e-300)).tolist()
        shared = torch.cat([mean[None], directions]).reshape(-1, *unit.shape) / unit
        return cls(terms, shared, contexts, own, unit, lost)

    def equation(self, index: int, channels: int, force: Tensor | None) -> LocalEquation:
        """The equation of one physics, of its own terms."""
        whole = torch.cat([self.contexts.new_ones(1), self.contexts[index]])
        weights = torch.einsum("p,pjc->jc", whole, self.weights) * self.own[index]
        needed = self.own[index].any(1)
        chosen = tuple(term for term, one in zip(self.terms, needed.tolist(), strict=True) if one)
        return LocalEquation(chosen, weights[needed][:, :channels].contiguous(), force)

    def needed_terms(self, index: int) -> tuple[Term, ...]:
        """The terms of one physics that do more than a negligible part of what moves one of its channels."""
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
        """The rest, fit for JSON."""
        return {"terms": to_plain(self.terms), "lost": self.lost}

    @classmethod
    def rebuilt(cls, state: dict[str, Tensor], metadata: dict[str, Any]) -> SharedEquation:
        """From what `state` and `metadata` gave."""
        return cls(tuple(from_plain(metadata["terms"])), lost=metadata["lost"], **state)


def term_sizes(basis: LocalBasis, terms: Sequence[Term], mean: Tensor, covariance: Tensor) -> Tensor:
    """Root mean square (J,) of terms over the domain, of fields whose codes have this mean (Z,) and covariance."""
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
