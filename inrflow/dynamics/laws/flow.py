"""Laws of flows between walls: transport, viscosity and friction, projected on divergence-free modes.

The pressure drops out, for it does no work on such modes. Codes (B, 1, K): both components of a velocity share one
code; those of steady modes are constant. Where the pressure is a channel, too, its own codes follow from the transport.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrflow.domains.flows import FlowHarmonics
from inrflow.domains.transform import sums_over
from inrflow.dynamics.laws.field import DiagnosticField, LawField
from inrflow.dynamics.laws.library import LIBRARIES, Library
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.numerics.effort import effort

FRICTION, VISCOSITY = Term((((0, VALUE),),)), Term((((0, VALUE),),), 1)
TRANSPORT = Term.transport(0, (1.0, 1.0))
TERMS = {"linear": [VISCOSITY], "products": [], "transport": [TRANSPORT], "fluxes": [FRICTION]}


class FlowLibrary(Library):
    """Terms of flows on their modes."""

    def __init__(self, terms: Sequence[Term], harmonics: FlowHarmonics):
        nn.Module.__init__(self)
        self.terms = self.every = tuple(term for term in terms if isinstance(term, Term))
        rule = harmonics.quadrature()
        self.free, self.points = harmonics.free, 2 * len(rule.points)  # of two components
        self.first_steady = harmonics.count - harmonics.steady
        weights = torch.tensor(rule.weights)[:, None]
        self.values = torch.tensor(rule.values).reshape(2, len(rule.points), -1)  # (2, Q, K)
        self.slopes = torch.tensor(rule.gradients).permute(2, 0, 1).reshape(2, *self.values.shape)  # (axis, 2, Q, K)
        self.projection = (self.values[..., : self.free] * weights).flatten(0, 1).T  # (free, 2 Q)
        self.register_buffer("eigenvalues", torch.tensor(harmonics.eigenvalues))
        self.pressures = (torch.tensor(harmonics.tests_at_gauss_points()) * weights.repeat(2, 1)).T  # (M, 2 Q)
        steady = self.values[..., self.first_steady :].flatten(0, 1)
        weighted = self.slopes * weights
        self.by_steady = {  # contributions of steady modes to linear terms: (free, R)
            FRICTION: self.projection @ steady,
            VISCOSITY: -torch.einsum("acqk,acqr->kr", weighted[..., : self.free],
                                     self.slopes[..., self.first_steady :]),
        }

    def linear(self, term: Term) -> Tensor:
        """Multipliers (K,) of modes by a linear term, 0 for steady ones."""
        symbol = torch.ones_like(self.eigenvalues) if term == FRICTION else -self.eigenvalues
        return torch.where(torch.arange(len(symbol)) < self.free, symbol, 0.0)

    def fields(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities (B, 2, Q) and their derivatives (B, axis, 2, Q)."""
        return ((z @ self.values.flatten(0, 1).T).unflatten(1, (2, -1)),
                (z @ self.slopes.flatten(0, 2).T).unflatten(1, (2, 2, -1)))

    def transport(self, z: Tensor, pressure: bool = False) -> Tensor:
        """P (u . grad) u of codes (B, K), or the codes of its pressure: (B, K)."""
        velocity, slopes = self.fields(z)
        along = (velocity[:, :, None] * slopes).sum(1)  # (B, 2, Q)
        rows, first = (self.pressures, self.free) if pressure else (self.projection, 0)
        return nn.functional.pad(along.flatten(1) @ rows.T, (first, len(self.eigenvalues) - first - len(rows)))

    def transport_slopes(self, z: Tensor, lead: int, rows: Tensor) -> Tensor:
        """Jacobian (B, R, lead) of projections (R, 2 Q) of the transport with respect to the leading codes, at codes
        (B, K)."""
        velocity, slopes = self.fields(z)
        carried = torch.einsum("baq,acqk->bcqk", velocity, self.slopes[..., :lead])
        carried = carried + torch.einsum("bacq,aqk->bcqk", slopes, self.values[..., :lead])
        return rows @ carried.flatten(1, 2)

    def driven(self, term: Term, z: Tensor) -> Tensor:
        """Contribution (B, K) of steady modes of codes (B, K) to a linear term."""
        return nn.functional.pad(z[:, self.first_steady :] @ self.by_steady[term].T,
                                 (0, len(self.eigenvalues) - self.free))

    def work(self, states: int, rows: int) -> tuple[float, float, float]:
        return 4 * states * self.values.numel(), 8 * states * self.values[..., 0].numel(), 30

    def features(self, z: Tensor, rows: int, weights: Tensor | None = None) -> Tensor:
        flat = z[:, 0]
        each = [self.transport(flat) if term == TRANSPORT else self.linear(term) * flat + self.driven(term, flat)
                for term in self.every]
        return sums_over(torch.stack(each, 1)[..., :rows], weights)


class FlowField(LawField):
    """dz/dt of the codes (..., K) of a flow."""

    library: FlowLibrary
    leading = 96  # at most: if steady codes are not among these, their uncertainty has no effect on others

    def __init__(self, library: FlowLibrary, theta: Tensor):
        nn.Module.__init__(self)
        self.library, self.channels, self.values = library, 1, None
        self.register_buffer("theta", theta)
        self.weights = {term: weight for term, weight in zip(library.every, theta[:, 0], strict=True) if weight}
        self._cache, self.products_of, self.network = {}, {TRANSPORT: {}}, None
        self.blocks, self.rows = self._blocks(), None

    def _blocks(self) -> Tensor:
        parts = [weight * self.library.linear(term) for term, weight in self.weights.items() if term != TRANSPORT]
        return sum(parts, torch.zeros_like(self.library.eigenvalues))[:, None, None]

    def products(self, z: Tensor) -> Tensor:
        flat, library = z[:, 0], self.library
        parts = [weight * (library.transport(flat) if term == TRANSPORT else library.driven(term, flat))
                 for term, weight in self.weights.items()]
        return sum(parts, torch.zeros_like(flat))[:, None]

    def count_effort(self, states: int, steps: int) -> None:
        values = self.library.values  # (2, Q, K)
        effort.add(16 * steps * states * values.numel(), 32 * steps * states * values[..., 0].numel(), 100 * steps)

    def slopes(self, z: Tensor, lead: int | None = None) -> Tensor:
        library, z, lead = self.library, z.double(), lead or z.shape[1]
        total = z.new_zeros(len(z), lead, lead)
        for term, weight in self.weights.items():
            if term == TRANSPORT:
                rows = library.projection[:lead]
                total[:, : len(rows)] += weight * library.transport_slopes(z, lead, rows)
            elif lead > library.first_steady:
                total[:, : library.free, library.first_steady :] += weight * library.by_steady[term]
        return total


class FlowPressure(FlowField, DiagnosticField):
    """Codes (..., K) of modes of the pressure of transport, times a coefficient, in place of rates."""

    @property
    def own(self) -> Tensor:
        at = torch.arange(len(self.library.eigenvalues))
        return (at >= self.library.free) & (at < self.library.first_steady)

    def products(self, z: Tensor) -> Tensor:
        return self.weights[TRANSPORT] * self.library.transport(z[:, 0], pressure=True)[:, None]

    def slopes(self, z: Tensor, lead: int | None = None) -> Tensor:
        """Jacobian (B, K, K) with respect to the leading velocities."""
        library, count = self.library, min(self.leading, self.library.free)
        total = z.new_zeros(len(z), len(self.own), len(self.own), dtype=torch.float64)
        slopes = library.transport_slopes(z.double(), count, library.pressures)
        total[:, self.own, :count] = self.weights[TRANSPORT] * slopes
        return total


LIBRARIES[FlowHarmonics] = FlowLibrary
FlowLibrary.field, FlowLibrary.diagnostic = FlowField, FlowPressure
