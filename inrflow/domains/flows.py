"""Flows: divergence-free velocities in a plane region with walls, expanded in eigenfunctions of the Stokes operator.

Taylor-Hood elements (scikit-fem) with no-slip conditions on the boundary, or on the part of it where a component is
held; elsewhere, as at an outlet, the boundary is traction-free. Boundary velocities constant in time, as of a lid or an
inflow, are represented by steady modes found in data, whose coefficients are constant along a trajectory.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import LinearOperator, eigsh, splu
from skfem.helpers import dot, grad
from skfem.models.poisson import laplace, mass

from inrflow.domains.base import Domain, Harmonics, Quadrature
from inrflow.domains.region import SPARE, Region, RegionHarmonics, oriented
from inrflow.errors import UserError

NO_SLIP = "no-slip"
_MODES = 150  # Stokes modes whose residual steady modes are fitted to
_MOST, _LEAST, _KEPT = 4, 1e-4, 0.1  # steady modes at most; residual share that asks for any; least relative size
_FOREIGN = 0.05  # largest share of the mean square that may remain unexplained
_SMOOTH = 1e-6  # penalty of a steady mode's gradient jumps (and, smaller, of its gradients) where data are missing
_CLOSED = 1e-9  # relative to the largest entry: column sums of the divergence matrix that count as zero
_ORDER = 5  # quadrature order, exact for projected advection


class Flows(Domain):
    """Divergence-free velocities on nodes (V, 2) and cells (E, 3); scale (2,): divisors of the components; steady
    (R, 2, N): steady modes as coefficients of quadratic elements; held (2, F): boundary facets where each component is
    held, padded by -1; None: the whole boundary."""

    kind = "flows"

    def __init__(self, nodes: np.ndarray, cells: np.ndarray, scale: np.ndarray, steady: np.ndarray | None = None,
                 held: np.ndarray | None = None):
        self.region, self.held = Region(nodes, cells, 2), None if held is None else np.asarray(held, np.int64)
        if self.region.dimensions != 2:
            raise UserError(f"flows between walls are asked for in {self.region.dimensions} dimensions; give 2")
        self.dimensions, self.scale = 2, np.asarray(scale, np.float64)
        modes = np.zeros(0) if steady is None else np.asarray(steady, np.float64)
        self.steady = modes.reshape(-1, 2, self.region.basis.N)
        self._known: dict[int, FlowHarmonics] = {}

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
        values = RegionHarmonics(self.region, np.eye(basis.N), np.zeros(0)).values(x)
        sides = [skfem.InteriorFacetBasis(basis.mesh, basis.elem, side=side) for side in range(2)]
        smooth = skfem.asm(skfem.BilinearForm(_kinks), sides, sides) + _LEAST * laplace.assemble(basis)
        matrix = sparse.csc_matrix(values.T @ values + _SMOOTH * smooth.toarray())
        fields = (amplitudes[:, :min(count, _MOST)].T @ means).reshape(-1, len(x), 2) * self.scale
        solved = splu(matrix).solve(values.T @ fields.transpose(1, 0, 2).reshape(len(x), -1))
        steady = solved.reshape(basis.N, -1, 2).transpose(1, 2, 0)
        norms = np.sqrt(np.einsum("rcn,rcn->r", steady, steady @ mass.assemble(basis).toarray()) / self.region.measure)
        return Flows(self.region.nodes, self.region.cells, self.scale, steady / norms[:, None, None], self.held)

    def harmonics(self, count: int, boundary: str = NO_SLIP) -> FlowHarmonics:
        """`count` modes: the Stokes modes of lowest eigenvalue, followed by all steady modes."""
        if count not in self._known:
            self._known[count] = self._solve(count)
        return self._known[count]

    def _solve(self, count: int) -> FlowHarmonics:
        basis = self.region.basis
        pressures = basis.with_element(skfem.ElementTriP1())
        held = [basis.get_dofs()] * 2 if self.held is None else [basis.get_dofs(own[own >= 0]) for own in self.held]
        free = [np.setdiff1d(np.arange(basis.N), own.all()) for own in held]
        whole, one = laplace.assemble(basis), mass.assemble(skfem.Basis(basis.mesh, basis.elem, intorder=4))
        stiffness = sparse.block_diag([whole[own][:, own] for own in free])
        masses = sparse.block_diag([one[own][:, own] for own in free]).tocsc() / self.region.measure
        divergence = sparse.hstack([skfem.BilinearForm(lambda u, q, w, j=j: u.grad[j] * q).assemble(basis, pressures)
                                    [:, own] for j, own in enumerate(free)]).tocsr()
        closed = np.abs(divergence.sum(0)).max() < _CLOSED * abs(divergence).max()
        divergence, both = divergence[int(closed) :], masses.shape[0]  # no outlets: pressure up to a constant
        saddle = splu(sparse.bmat([[stiffness / self.region.measure, divergence.T], [divergence, None]]).tocsc())
        padding = np.zeros(divergence.shape[0])

        def inverse(v: np.ndarray) -> np.ndarray:
            """Product M S M v, with mass matrix M and S the solution operator of the Stokes problem."""
            return masses @ saddle.solve(np.concatenate([masses @ v, padding]))[:both]

        count = max(min(count - len(self.steady), (both - len(padding)) // 3), 1)
        start = np.random.default_rng(0).standard_normal(both)
        shape = (both, both)
        values, vectors = eigsh(LinearOperator(shape, inverse, dtype=float), min(count + SPARE, both - 1), masses,
                                which="LM", v0=start, Minv=LinearOperator(shape, splu(masses).solve, dtype=float))
        order = np.argsort(-values)
        values, vectors = values[order][:count], oriented(values[order], vectors[:, order], masses)[:, :count]
        components = np.zeros((2, basis.N, count + len(self.steady)))
        for part, own, values_of in zip(components, free, np.split(vectors, [len(free[0])]), strict=True):
            part[own, :count] = values_of
        components[:, :, count:] = self.steady.transpose(1, 2, 0)
        rates = 1 / values
        return FlowHarmonics(self, components, np.append(rates, np.full(len(self.steady), rates[0])))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances (N,) of points (N, 2) to the region."""
        return self.region.distance(x)

    @property
    def spacing(self) -> float:
        """Size of a cell."""
        return self.region.spacing

    def state(self) -> dict[str, Any]:
        """Mesh, scale, steady modes and held facets."""
        own = {} if self.held is None else {"held": self.held}
        return {"kind": self.kind, "nodes": self.region.nodes, "cells": self.region.cells, "scale": self.scale,
                "steady": self.steady, **own}


class FlowHarmonics(Harmonics):
    """Stokes modes and, last, steady modes, as coefficients (2, N, K) of both components, which share one code.

    Stokes modes are orthonormal, -P lap psi_k = lambda_k psi_k, with P the projection onto divergence-free fields.
    """

    components: ClassVar[int] = 2

    def __init__(self, flows: Flows, coefficients: np.ndarray, eigenvalues: np.ndarray):
        self.flows, self.coefficients, self.eigenvalues = flows, coefficients, eigenvalues
        self.count = len(self.eigenvalues)
        self.steady = len(flows.steady)

    def _each(self) -> list[RegionHarmonics]:
        return [RegionHarmonics(self.flows.region, part, self.eigenvalues) for part in self.coefficients]

    def values(self, x: np.ndarray) -> np.ndarray:
        """Components of psi_k (2 N, K), divided by the scale, at points (N, 2); the component varies fastest."""
        both = np.stack([part.values(x) / size for part, size in zip(self._each(), self.flows.scale, strict=True)], 1)
        return both.reshape(-1, self.count)

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients (2 N, K, 2) of the scaled components at points (N, 2)."""
        parts = zip(self._each(), self.flows.scale, strict=True)
        both = np.stack([part.gradients(x) / size for part, size in parts], 1)
        return both.reshape(-1, self.count, 2)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Gauss points (Q, 2) of the cells; values (2 Q, K) and gradients (2 Q, K, 2), all first components first."""
        region = self.flows.region
        basis = skfem.Basis(region.basis.mesh, region.basis.elem, intorder=_ORDER)
        cells = np.repeat(np.arange(len(region.cells)), basis.X.shape[1])
        local = np.tile(basis.X, (1, len(region.cells)))[:, :, None]
        points = basis.mapping.F(local, tind=cells)[:, :, 0].T
        values, gradients = (np.concatenate([part._tables(cells, local, slopes) for part in self._each()])
                             for slopes in (False, True))
        return Quadrature(points, basis.dx.ravel() / region.measure, values, gradients)

    def lowest(self, count: int) -> RegionHarmonics:
        """Scalar harmonics of lowest eigenvalue of the region with natural conditions."""
        return self.flows.region.harmonics(count)


def _kinks(u: skfem.DiscreteField, v: skfem.DiscreteField, w: skfem.DiscreteField) -> np.ndarray:
    """Bilinear form of jumps of normal derivatives across facets; zero for quadratic functions, as inflow profiles."""
    slopes = [(-1.0) ** side * dot(grad(one), w.n) for side, one in zip(w.idx, (u, v), strict=True)]
    return np.asarray(w.h * slopes[0] * slopes[1])
