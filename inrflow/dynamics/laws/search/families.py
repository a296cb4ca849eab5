"""Families of terms that a law is sought in: a short list, or the transport of a velocity without divergence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.domains import Box, Domain, Harmonics
from inrflow.domains.box import PERIODIC
from inrflow.domains.flows import Flows
from inrflow.dynamics.laws.flow import TERMS
from inrflow.dynamics.laws.terms import Term, short_list
from inrflow.dynamics.laws.transform import transform_of

_COMBINED = (("linear", "products"), ("linear", "transport"), ("linear", "products", "transport"),
             ("linear", "products", "transport", "fluxes"))
_DIVERGENCE = 1e-2  # mean square, relative to that of all derivatives, up to which a velocity has none
_FRAMES = 16  # looked at
_LOW, _MORE = 24, 64  # harmonics of a force, and of a coefficient, that vary in place


@dataclass(frozen=True)
class Families:
    """Terms by the names of their families, and the families that laws are sought in together."""

    terms: dict[str, list[Term]]
    combined: tuple[tuple[str, ...], ...] = _COMBINED

    @property
    def every(self) -> list[Term]:
        """All terms."""
        return [term for family in self.terms.values() for term in family]

    def in_place(self, harmonics: Harmonics, several: bool) -> Iterator[Families]:
        """The same with a force that varies in place; then, of one system, values with div(a grad .) of one channel,
        or of all. None for modes of flows.

        Of one: little of another's, which makes up for errors of splines, would let short waves grow.
        """
        if harmonics.components > 1:
            return
        low, more = (range(1, min(harmonics.lowest(most).count, harmonics.count)) for most in (_LOW, _MORE))
        force = [Term(place=m) for m in low]  # no more than quadrature resolves
        yield Families({**self.terms, "force": force}, tuple((*names, "force") for names in self.combined))
        if several or "products" not in self.terms:
            return
        values = [term for term in self.terms["linear"] if not term.power]
        fluxes = {f"flux {term.products[0][0][0]}": [replace(term, power=1),
                                                     *(replace(term, place=m, flux=True) for m in more)]
                  for term in values if term.linear}
        yield Families({"values": values, **fluxes}, (*(("values", name) for name in fluxes), ("values", *fluxes)))


def families_of(domain: Domain, harmonics: Harmonics, states: np.ndarray, units: Sequence[float] | None = None
                ) -> Families:
    """Families of terms for codes (S, T, C, K) of channels in units (C,), 1 by default."""
    channels = states.shape[2]
    units = units or (1.0,) * channels
    if isinstance(domain, Flows):
        return Families(TERMS)
    terms = short_list(channels, domain.dimensions, domain.kind == "sphere")
    if not is_solenoidal(domain, harmonics, states, units):
        return Families(terms)
    flow = [Term.transport(j, units) for j in range(channels)]
    return Families({"linear": terms["linear"], "flow": flow}, (("linear", "flow"),))


def is_solenoidal(domain: Domain, harmonics: Harmonics, states: np.ndarray, units: Sequence[float]) -> bool:
    """Whether channels are the components of a velocity without divergence, on a periodic box."""
    d = domain.dimensions
    if not (isinstance(domain, Box) and set(domain.axes) == {PERIODIC} and states.shape[2] == d > 1):
        return False
    frames = states.reshape(-1, d, states.shape[3])
    frames = frames[:: max(len(frames) // _FRAMES, 1)] * np.asarray(units)[:, None]
    transform = transform_of(harmonics, 2)
    slopes = torch.stack([transform.fields(torch.tensor(frames), axis) for axis in range(d)])  # (d, B, C, Q)
    divergence = slopes.diagonal(dim1=0, dim2=2).sum(-1)
    return bool(divergence.square().mean() < _DIVERGENCE * slopes.square().sum((0, 2)).mean())
