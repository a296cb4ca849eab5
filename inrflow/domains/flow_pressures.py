"""Pressures of incompressible flows on Taylor-Hood elements: those of viscous forces and of transport.

In du/dt = -(u . grad) u + nu lap u - grad p, they keep du/dt free of divergence and zero where velocities are held; at
outlets they are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import LinearOperator, eigsh, splu

from inrflow.domains.region import SPARE, oriented

Projection = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class TaylorHood(NamedTuple):
    """Matrices of quadratic velocities (N,), those of each component at `free` not held, and of linear pressures (V,).

    laplacian (N, N), masses (n, n) of free velocities, and weights (V, V), the mass matrix of pressures, are divided by
    the area; divergence (V, n) is not. closed: whether no velocity is free at the boundary, so that pressures are known
    up to a constant.
    """

    basis: skfem.Basis
    free: list[np.ndarray]
    laplacian: sparse.csr_matrix
    masses: sparse.csc_matrix
    divergence: sparse.csr_matrix
    weights: sparse.csr_matrix
    closed: bool
    area: float

    @property
    def constraints(self) -> sparse.csr_matrix:
        """Linearly independent rows of the divergence."""
        return self.divergence[int(self.closed) :]

    def projection(self) -> Projection:
        """Solver of masses v + divergence^T p = forces (n, K), divergence v = sources (V, K) for v and p, whose mean is
        zero in closed regions."""
        rows, size, mean = self.constraints, self.masses.shape[0], np.asarray(self.weights.sum(0)).ravel()
        saddle = splu(sparse.bmat([[self.masses, rows.T], [rows, None]]).tocsc())

        def solved(forces: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            every = saddle.solve(np.concatenate([forces, sources[int(self.closed) :]]))
            if not self.closed:
                return every[:size], every[size:]
            pressures = np.insert(every[size:], 0, 0.0, 0)
            return every[:size], pressures - mean @ pressures

        return solved

    def quadratic(self, pressures: np.ndarray) -> np.ndarray:
        """Coefficients (N, K) of quadratic elements of linear pressures (V, K)."""
        result = np.zeros((self.basis.N, pressures.shape[1]))
        result[self.basis.nodal_dofs[0]] = pressures
        result[self.basis.facet_dofs[0]] = pressures[self.basis.mesh.facets].mean(0)
        return result


def viscous_pressures(forms: TaylorHood, solved: Projection, velocities: np.ndarray) -> np.ndarray:
    """Pressures (N, K) of the force lap u, for velocities u (2, N, K); solved: the projection of the forms."""
    forces = -np.concatenate([(forms.laplacian @ part)[own] for part, own in zip(velocities, forms.free, strict=True)])
    _, pressures = solved(forces, np.zeros((forms.weights.shape[0], forces.shape[1])))
    return forms.quadratic(-forms.area * pressures)


def transport_pressures(forms: TaylorHood, solved: Projection, count: int, zero: np.ndarray | None = None
                        ) -> tuple[np.ndarray, np.ndarray]:
    """Modes (N, M) of pressures, and velocities (2, N, M) whose mean products with (u . grad) u are the coefficients of
    its pressure.

    The modes are orthonormal eigenfunctions of lowest eigenvalue of the Laplacian, the divergence of gradients of
    elements. zero (V,): values of linear elements at a point where pressures are zero, for which a constant is the last
    mode.
    """
    size, mean = forms.weights.shape[0], np.asarray(forms.weights.sum(0)).ravel()

    def inverse(pressure: np.ndarray) -> np.ndarray:
        source = pressure - float(forms.closed) * (mean @ pressure)
        _, found = solved(np.zeros((forms.masses.shape[0], 1)), (forms.weights @ source)[:, None])
        return forms.weights @ -found[:, 0]

    count = min(count, size - 2 - SPARE)
    values, vectors = eigsh(
        LinearOperator((size, size), inverse, dtype=float), count + SPARE, forms.weights, which="LM",
        v0=np.random.default_rng(0).standard_normal(size),
        Minv=LinearOperator((size, size), splu(forms.weights.tocsc()).solve, dtype=float))
    order = np.argsort(-values)
    modes = oriented(values[order], vectors[:, order], forms.weights)[:, :count]
    sources = forms.weights @ modes
    if zero is not None:
        modes = np.append(modes, np.ones((size, 1)), 1)
        sources = np.append(sources, (float(forms.closed) * mean - zero)[:, None], 1)
    tests, _ = solved(np.zeros((forms.masses.shape[0], modes.shape[1])), sources)
    velocities = np.zeros((2, forms.basis.N, modes.shape[1]))
    for part, own, of_part in zip(velocities, forms.free, np.split(tests, [len(forms.free[0])]), strict=True):
        part[own] = forms.area * of_part
    return forms.quadratic(modes), velocities
