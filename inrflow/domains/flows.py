"""Flows: divergence-free velocities in a plane region with walls, expanded in eigenfunctions of the Stokes operator.

Taylor-Hood elements (scikit-fem) with no-slip conditions on the boundary, or on the part of it where a component is
held; elsewhere, as at an outlet, the boundary is traction-free. Boundary velocities constant in time, as of a lid or an
inflow, are represented by steady modes found in data, whose coefficients are constant along a trajectory.

Where a pressure is a channel, too, its viscous part, linear in the velocity, belongs to the modes of velocities; that
of transport has modes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import LinearOperator, eigsh, splu
from skfem.helpers import dot, grad
from skfem.models.poisson import laplace, mass

from inrflow.domains.base import Domain, Harmonics, Quadrature
from inrflow.domains.flow_pressures import Projection, TaylorHood, transport_pressures, viscous_pressures
from inrflow.domains.region import SPARE, Region, RegionHarmonics, oriented
from inrflow.errors import UserError

NO_SLIP = "no-slip"
_MODES = 150  # Stokes modes whose residual steady modes are fitted to
_MOST, _LEAST, _KEPT = 4, 1e-4, 0.1  # steady modes at most; residual share that asks for any; least relative size
_FOREIGN = 0.05  # largest share of the mean square that may remain unexplained
_SMOOTH = 1e-6  # penalty of a steady mode's gradient jumps (and, smaller, of its gradients) where data are missing
_CLOSED = 1e-9  # relative to the largest entry: column sums of the divergence matrix that count as zero
_ORDER = 5  # quadrature order, exact for projected advection


class Pressure(NamedTuple):
    """Pressure as a third channel: its index among the three, divisor of its values, viscosity, number of modes of the
    transport's pressure, a point (2,) where it is zero, if any, corrections (L, N) of the pressures of the first
    velocities and, last, of the steady ones, and whether every trajectory has a constant of its own."""

    channel: int
    scale: float
    viscosity: float = 1.0
    modes: int = 64
    zero: Sequence[float] = ()
    linear: Sequence[Sequence[float]] | np.ndarray = ()
    level: bool = False


class Flows(Domain):
    """Divergence-free velocities on nodes (V, 2) and cells (E, 3); scale (2,): divisors of the components; steady
    (R, 2, N): steady modes as coefficients of quadratic elements; held (2, F): boundary facets where each component is
    held, padded by -1; None: the whole boundary. pressure: arguments of `Pressure`, if it is a channel, too."""

    kind = "flows"

    def __init__(self, nodes: np.ndarray, cells: np.ndarray, scale: np.ndarray, steady: np.ndarray | None = None,
                 held: np.ndarray | None = None, pressure: Mapping[str, Any] | None = None):
        self.region, self.held = Region(nodes, cells, 2), None if held is None else np.asarray(held, np.int64)
        if self.region.dimensions != 2:
            raise UserError(f"flows between walls are asked for in {self.region.dimensions} dimensions; give 2")
        self.dimensions, self.scale = 2, np.asarray(scale, np.float64)
        modes = np.zeros(0) if steady is None else np.asarray(steady, np.float64)
        self.steady = modes.reshape(-1, 2, self.region.basis.N)
        self.pressure = None if pressure is None else Pressure(**pressure)
        self._known: dict[int, FlowHarmonics] = {}
        self._stokes: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # modes by number

    def with_pressure(self, pressure: Pressure) -> Flows:
        """The domain with a pressure beside velocities, whose elements and Stokes modes are those of this one."""
        flows = Flows(self.region.nodes, self.region.cells, self.scale, self.steady, self.held, pressure._asdict())
        flows._stokes, flows.forms = self._stokes, self.forms
        return flows

    def with_steady(self, x: np.ndarray, u: np.ndarray) -> Flows | None:
        """The domain with steady modes fitted to velocities u (S, T, N, 2), divided by the scale, at points x (N, 2).

        They are the principal components of the residual of the time means after a fit by Stokes modes; None if too
        much remains."""
        means = np.nan_to_num(np.nanmean(u, 1)).reshape(len(u), -1)
        table = self.harmonics(_MODES).values(x)
        left = means - np.linalg.lstsq(table, means.T, rcond=1e-6)[0].T @ table.T
        amplitudes, sizes, _ = np.linalg.svd(left, full_matrices=False)
        count = int((sizes > _KEPT * sizes[0]).sum()) if sizes[0] ** 2 > _LEAST * (means**2).sum() else 0
        if (sizes[min(count, _MOST) :] ** 2).sum() > _FOREIGN * (means**2).sum():
            return None
        basis = self.region.basis
        fields = (amplitudes[:, :min(count, _MOST)].T @ means).reshape(-1, len(x), 2) * self.scale
        solved = self.smoothed(x, fields.transpose(1, 0, 2).reshape(len(x), -1))
        steady = solved.reshape(basis.N, -1, 2).transpose(1, 2, 0)
        norms = np.sqrt(np.einsum("rcn,rcn->r", steady, steady @ mass.assemble(basis).toarray()) / self.region.measure)
        return Flows(self.region.nodes, self.region.cells, self.scale, steady / norms[:, None, None], self.held)

    def smoothed(self, x: np.ndarray, fields: np.ndarray) -> np.ndarray:
        """Coefficients (N, R) of quadratic elements of fields (M, R) at points (M, 2), smooth between these."""
        basis = self.region.basis
        values = RegionHarmonics(self.region, np.eye(basis.N), np.zeros(0)).values(x)
        sides = [skfem.InteriorFacetBasis(basis.mesh, basis.elem, side=side) for side in range(2)]
        smooth = skfem.asm(skfem.BilinearForm(_kinks), sides, sides) + _LEAST * laplace.assemble(basis)
        return splu(sparse.csc_matrix(values.T @ values + _SMOOTH * smooth.toarray())).solve(values.T @ fields)

    def harmonics(self, count: int, boundary: str = NO_SLIP) -> FlowHarmonics:
        """`count` modes: the Stokes modes of lowest eigenvalue, followed by all steady modes."""
        if count not in self._known:
            self._known[count] = self._solve(count)
        return self._known[count]

    @cached_property
    def forms(self) -> TaylorHood:
        """Matrices of Taylor-Hood elements."""
        basis = self.region.basis
        pressures = basis.with_element(skfem.ElementTriP1())
        held = [basis.get_dofs()] * 2 if self.held is None else [basis.get_dofs(own[own >= 0]) for own in self.held]
        free = [np.setdiff1d(np.arange(basis.N), own.all()) for own in held]
        one = mass.assemble(skfem.Basis(basis.mesh, basis.elem, intorder=4)) / self.region.measure
        divergence = sparse.hstack([skfem.BilinearForm(lambda u, q, w, j=j: u.grad[j] * q).assemble(basis, pressures)
                                    [:, own] for j, own in enumerate(free)]).tocsr()
        closed = bool(np.abs(divergence.sum(0)).max() < _CLOSED * abs(divergence).max())
        return TaylorHood(basis, free, laplace.assemble(basis) / self.region.measure,
                          sparse.block_diag([one[own][:, own] for own in free]).tocsc(), divergence,
                          mass.assemble(pressures) / self.region.measure, closed, self.region.measure)

    def _stokes_modes(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` Stokes modes (2, N, K) of lowest eigenvalue, and the eigenvalues (K,)."""
        if count in self._stokes:
            return self._stokes[count]
        forms = self.forms
        basis, free, masses, constraints = forms.basis, forms.free, forms.masses, forms.constraints
        stiffness = sparse.block_diag([forms.laplacian[own][:, own] for own in free])
        saddle = splu(sparse.bmat([[stiffness, constraints.T], [constraints, None]]).tocsc())
        padding, both = np.zeros(constraints.shape[0]), masses.shape[0]

        def inverse(v: np.ndarray) -> np.ndarray:
            """Product M S M v, with mass matrix M and S the solution operator of the Stokes problem."""
            return masses @ saddle.solve(np.concatenate([masses @ v, padding]))[:both]

        most = max(min(count, (both - len(padding)) // 3), 1)
        start = np.random.default_rng(0).standard_normal(both)
        shape = (both, both)
        values, vectors = eigsh(LinearOperator(shape, inverse, dtype=float), min(most + SPARE, both - 1), masses,
                                which="LM", v0=start, Minv=LinearOperator(shape, splu(masses).solve, dtype=float))
        order = np.argsort(-values)
        values, vectors = values[order][:most], oriented(values[order], vectors[:, order], masses)[:, :most]
        modes = np.zeros((2, basis.N, most))
        for part, own, values_of in zip(modes, free, np.split(vectors, [len(free[0])]), strict=True):
            part[own] = values_of
        return self._stokes.setdefault(count, (modes, 1 / values))

    def _solve(self, count: int) -> FlowHarmonics:
        pressure = self.pressure
        more = 0 if pressure is None else pressure.modes + bool(len(pressure.zero)) + pressure.level
        stokes, rates = self._stokes_modes(count - len(self.steady) - more)
        count, components = len(rates), np.concatenate([stokes, self.steady.transpose(1, 2, 0)], 2)
        rates = np.append(rates, np.full(len(self.steady), rates[0]))
        if pressure is None:
            return FlowHarmonics(self, components, rates)
        solved = self.forms.projection()
        pressures = self._pressures_of(solved, components, count)
        modes, tests = transport_pressures(self.forms, solved, pressure.modes, self._zero)
        level = np.ones((len(modes), int(pressure.level)))
        alone = [np.stack([0 * own, 0 * own, own]) for own in (modes, level)]
        every = np.concatenate([components, pressures[None]])
        rates = np.insert(rates, count, np.full(modes.shape[1], rates[0]))
        return FlowHarmonics(self, np.concatenate([every[..., :count], alone[0], every[..., count:], alone[1]], 2),
                             np.append(rates, rates[:1].repeat(level.shape[1])), tests)

    @cached_property
    def _zero(self) -> np.ndarray | None:
        """Values (V,) of linear elements at the point where pressures are zero, if there is one."""
        if self.pressure is None or not len(self.pressure.zero):
            return None
        cells, local, _ = self.region.locate(np.array([self.pressure.zero]))
        values = np.zeros(len(self.region.nodes))
        values[self.region.basis.mesh.t[:, cells[0]]] = 1 - local.sum(), *local.ravel()
        return values

    def _pressures_of(self, solved: Projection, velocities: np.ndarray, count: int) -> np.ndarray:
        """Pressures (N, K) that are linear in velocities (2, N, K), of which those from `count` on are steady."""
        assert self.pressure is not None
        result = self.pressure.viscosity * viscous_pressures(self.forms, solved, velocities)
        if self._zero is not None:
            result -= self._zero @ result[self.region.basis.nodal_dofs[0]]
        added = np.asarray(self.pressure.linear, np.float64).reshape(-1, len(result)).T
        first = min(max(added.shape[1] - len(self.steady), 0), count)
        result[:, :first] += added[:, :first]
        if added.shape[1]:
            result[:, count:] += added[:, added.shape[1] - len(self.steady) :]
        return result

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances (N,) of points (N, 2) to the region."""
        return self.region.distance(x)

    @property
    def spacing(self) -> float:
        """Size of a cell."""
        return self.region.spacing

    def state(self) -> dict[str, Any]:
        """Mesh, scale, steady modes and held facets."""
        own: dict[str, Any] = {} if self.held is None else {"held": self.held}
        own |= {} if self.pressure is None else {"pressure": self.pressure._asdict()}
        return {"kind": self.kind, "nodes": self.region.nodes, "cells": self.region.cells, "scale": self.scale,
                "steady": self.steady, **own}


class FlowHarmonics(Harmonics):
    """Stokes modes, modes of pressures and, last, steady modes, as coefficients (2 or 3, N, K) of both components of
    velocities, and of a pressure, which share one code.

    Stokes modes are orthonormal, -P lap psi_k = lambda_k psi_k, with P the projection onto divergence-free fields.
    tests (2, N, M): the code of mode m of the transport's pressure is the mean of tests_m . (u . grad) u.
    """

    def __init__(self, flows: Flows, coefficients: np.ndarray, eigenvalues: np.ndarray, tests: np.ndarray | None = None
                 ) -> None:
        self.flows, self.coefficients, self.eigenvalues = flows, coefficients, eigenvalues
        self.count, self.components = len(self.eigenvalues), len(coefficients)
        self.tests = np.zeros((2, coefficients.shape[1], 0)) if tests is None else tests
        self.steady = len(flows.steady) + (flows.pressure is not None and flows.pressure.level)
        self.free = self.count - self.steady - self.tests.shape[2]  # Stokes modes

    def _each(self) -> list[RegionHarmonics]:
        return [RegionHarmonics(self.flows.region, part, self.eigenvalues) for part in self.coefficients]

    def _in_channels(self, tables: list[np.ndarray]) -> np.ndarray:
        """Tables (N, K, ...) of the components, divided by scales, as (C N, K, ...); the channel varies fastest."""
        scales, pressure = [*self.flows.scale], self.flows.pressure
        if pressure is not None:
            tables, scales = tables.copy(), [*scales, pressure.scale]
            for own in tables, scales:
                own.insert(pressure.channel, own.pop())
        every = np.stack([table / scale for table, scale in zip(tables, scales, strict=True)], 1)
        return every.reshape(-1, *every.shape[2:])

    def values(self, x: np.ndarray) -> np.ndarray:
        """Components of psi_k (C N, K), divided by the scale, at points (N, 2); the component varies fastest."""
        return self._in_channels([part.values(x) for part in self._each()])

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients (C N, K, 2) of the scaled components at points (N, 2)."""
        return self._in_channels([part.gradients(x) for part in self._each()])

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Gauss points (Q, 2) of the cells; values (2 Q, K) and gradients (2 Q, K, 2) of velocities, first components
        first."""
        points, weights, parts = self._at_gauss_points()
        values, gradients = (np.concatenate([RegionHarmonics(self.flows.region, own, self.eigenvalues)._tables(
            *parts, slopes) for own in self.coefficients[:2]]) for slopes in (False, True))
        return Quadrature(points, weights, values, gradients)

    def tests_at_gauss_points(self) -> np.ndarray:
        """Values (2 Q, M) of `tests` at the points of the quadrature."""
        *_, parts = self._at_gauss_points()
        return np.concatenate([RegionHarmonics(self.flows.region, own, self.eigenvalues)._tables(*parts, False)
                               for own in self.tests])

    def _at_gauss_points(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Gauss points (Q, 2), their weights (Q,), and their cells and reference coordinates."""
        region = self.flows.region
        basis = skfem.Basis(region.basis.mesh, region.basis.elem, intorder=_ORDER)
        cells = np.repeat(np.arange(len(region.cells)), basis.X.shape[1])
        local = np.tile(basis.X, (1, len(region.cells)))[:, :, None]
        points = basis.mapping.F(local, tind=cells)[:, :, 0].T
        return points, basis.dx.ravel() / region.measure, (cells, local)

    def lowest(self, count: int) -> RegionHarmonics:
        """Scalar harmonics of lowest eigenvalue of the region with natural conditions."""
        return self.flows.region.harmonics(count)


def _kinks(u: skfem.DiscreteField, v: skfem.DiscreteField, w: skfem.DiscreteField) -> np.ndarray:
    """Bilinear form of jumps of normal derivatives across facets; zero for quadratic functions, as inflow profiles."""
    slopes = [(-1.0) ** side * dot(grad(one), w.n) for side, one in zip(w.idx, (u, v), strict=True)]
    return np.asarray(w.h * slopes[0] * slopes[1])
