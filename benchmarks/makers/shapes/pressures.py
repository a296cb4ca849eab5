"""Flows along walls with their pressure, by elements of Taylor and Hood on meshes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import splu
from skfem.helpers import ddot, div, dot, grad

from benchmarks.makers.base import FRAMES, Fields, bumps, problem
from benchmarks.makers.elements import circle, mesh, polygon


@problem()
def ring_pressure(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -w . grad w - grad p + .01 lap w between two eccentric circles that hold the flow, from eddies at random;
    the pressure is 0 at one node."""
    outline = [circle((0.0, 0.0), 1.0, 0.09), circle((0.2, 0.0), 0.4, 0.09)]
    return _flow(generator, count, mesh(outline, 0.09), 0.01, 0.3)


@problem()
def step_pressure(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -w . grad w - grad p + .02 lap w behind a step of half the height of a channel of 3 x 1, from eddies at
    random: a parabola of a speed of its own in every trajectory enters at the left, and leaves freely at the right."""
    corners = [(0.0, 0.5), (0.8, 0.5), (0.8, 0.0), (3.0, 0.0), (3.0, 1.0), (0.0, 1.0)]
    return _flow(generator, count, mesh([polygon(corners, 0.07)], 0.07), 0.02, 0.15,
                 lambda x: np.where(x[0] < 1e-9, 16 * (x[1] - 0.5) * (1 - x[1]), 0.0), 3.0)


def _flow(generator: np.random.Generator, count: int, outline: tuple[np.ndarray, np.ndarray], viscosity: float,
          gap: float, profile: Callable[[np.ndarray], np.ndarray] = lambda x: 0 * x[0], outlet: float = np.inf
          ) -> Fields:
    """Velocities and pressures at nodes: Crank and Nicolson for viscosity, Adams and Bashforth for transport, 40 steps
    a frame. profile: of the velocity along x at the boundary, times .5 to 1.4; outlet: x beyond which it is free."""
    nodes, cells = outline
    grid = skfem.MeshTri(nodes.T, cells.T)
    velocity = skfem.Basis(grid, skfem.ElementVector(skfem.ElementTriP2()), intorder=4)
    pressure = skfem.Basis(grid, skfem.ElementTriP1(), intorder=4)
    steps, n = 40, velocity.N
    dt = gap / steps
    masses = skfem.BilinearForm(lambda u, v, w: dot(u, v)).assemble(velocity)
    viscous = skfem.BilinearForm(lambda u, v, w: viscosity * ddot(grad(u), grad(v))).assemble(velocity)
    divergence = skfem.BilinearForm(lambda u, q, w: -div(u) * q).assemble(velocity, pressure)
    held = velocity.get_dofs(grid.facets_satisfying(lambda x: x[0] < outlet - 1e-9, boundaries_only=True)).all()
    held = np.append(held, n) if np.isinf(outlet) else held  # the pressure of a closed region
    free, at = np.setdiff1d(np.arange(n + pressure.N), held), velocity.doflocs
    along = np.concatenate([velocity.nodal_dofs[0], velocity.facet_dofs[0]])
    inflow = np.zeros((n + pressure.N, count))
    inflow[along] = profile(at[:, along])[:, None] * generator.uniform(0.5, 1.4, count)

    def solver(matrix: sparse.csr_matrix, values: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Solver of matrix u + grad p = right with div u = 0, for u and p, with boundary values."""
        whole = sparse.bmat([[matrix, divergence.T], [divergence, None]]).tocsc()
        factor, lifted = splu(whole[free][:, free]), whole[free][:, held] @ values[held]

        def solved(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            result = np.zeros((n + pressure.N, count))
            result[held] = values[held]
            result[free] = factor.solve(np.concatenate([right, np.zeros((pressure.N, count))])[free] - lifted)
            return result[:n], result[n:]

        return solved

    def transport(w: np.ndarray) -> np.ndarray:
        result = np.empty_like(w)
        for i, one in enumerate(w.T):
            moved = velocity.interpolate(one)
            result[:, i] = -skfem.LinearForm(lambda v, _, u=moved: dot(
                np.einsum("jkl,ijkl->ikl", u.value, u.grad), v)).assemble(velocity)
        return result

    low, extent = at.min(1, keepdims=True), np.ptp(at, axis=1)[:, None]
    eddies, across = np.zeros((n, count)), np.setdiff1d(np.arange(n), along)
    for i in range(count):
        for part in (along, across):
            eddies[part, i] = bumps(generator, ((at - low) / extent)[:, part].T, 4)
    w, _ = solver(viscous / viscosity + 1e-9 * masses, inflow)(viscous @ eddies / viscosity + 30 * masses @ eddies)
    implicit, accelerated = solver(masses / dt + viscous / 2, inflow), solver(masses, 0 * inflow)
    frames, old = [], None
    w, _ = implicit(masses @ w / dt - viscous @ w / 2 + transport(w))
    for index in range(steps * (FRAMES - 1) + 1):
        force = transport(w)
        if index % steps == 0:
            _, p = accelerated(force - viscous @ w)
            frames.append(np.concatenate([w[velocity.nodal_dofs], p[pressure.nodal_dofs]]).transpose(1, 0, 2))
        w, _ = implicit(masses @ w / dt - viscous @ w / 2 + (force if old is None else 1.5 * force - 0.5 * old))
        old = force
    return np.arange(FRAMES) * gap, nodes, np.stack(frames).transpose(3, 0, 1, 2), {
        "channels": ["vx", "vy", "p"], "triangles": cells}
