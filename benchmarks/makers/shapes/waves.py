"""Waves on meshes: membranes, plates, condensates, heat that runs."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import skfem
from scipy.sparse.linalg import eigsh, splu
from skfem.helpers import dd, ddot
from skfem.models.poisson import laplace, mass

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, problem, stepped
from benchmarks.makers.elements import circle, elements, mesh, polygon, quadratic, refined
from benchmarks.makers.spectral import etd


@problem()
def waves_disc(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = lap u - .4 v in a disc, held at 0 on the circle; at rest at first."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 1, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.1, 40
    h, inner = gap / steps, basis.complement_dofs(basis.get_dofs())
    k, m = stiffness[inner][:, inner], masses[inner][:, inner]
    solver = splu(((1 + 0.2 * h) * m + h**2 / 4 * k).tocsc())
    u = np.stack([bumps_of(generator, x, 1.0) * (1 - (x**2).sum(1)) for _ in range(count)], -1)[inner]
    v, frames = 0 * u, []
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            full = np.zeros((len(x), 2, count))
            full[inner] = np.stack([u, v], 1)
            frames.append(full[basis.nodal_dofs[0]])
        new = solver.solve((1 - 0.2 * h) * (m @ v) - h * (k @ (u + h / 4 * v)))
        u, v = u + h / 2 * (v + new), new
    return np.arange(FRAMES) * gap, x[basis.nodal_dofs[0]], np.stack(frames, 0).transpose(3, 0, 1, 2), cells


@problem()
def membrane(generator: np.random.Generator, count: int) -> Fields:
    """u_tt = lap u - 2 u - 4 u^3 - .3 u_t on a region with a round hole, held at 0 on all of its edges; u alone is
    seen: quadratic elements, in their eigenfunctions, read at corners."""
    corners = [(0, 0), (2, 0), (2, 0.9), (1.1, 1), (0.9, 1.8), (0, 1.6)]
    basis, stiffness, masses, cells = quadratic([polygon(corners, .09), circle((.6, .6), .22, .09)], .09)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.12, 30
    free = np.setdiff1d(np.arange(len(x)), basis.get_dofs().flatten())
    masses, stiffness = masses[free][:, free], stiffness[free][:, free]
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray(), subset_by_index=[0, 399])
    back = modes.T @ masses

    def rate(w: np.ndarray) -> np.ndarray:
        return np.stack([w[1], -(values[:, None] + 2) * w[0] - 0.3 * w[1] - 4 * (back @ (modes @ w[0]) ** 3)])

    size = np.exp(-values[:, None] / 60) * (values[:, None] / 12) ** -0.5
    z = size * generator.standard_normal((2, len(values), count)) * 0.25
    z[1] *= np.sqrt(values)[:, None]
    z = stepped(rate, z, gap, steps)[:, 0]
    u = np.zeros((FRAMES, len(x), count))
    u[:, free] = modes @ z
    return np.arange(FRAMES) * gap, x[nodes], u[:, nodes].transpose(2, 0, 1)[..., None], cells


@problem()
def condensate(generator: np.random.Generator, count: int) -> Fields:
    """i psi_t = -lap psi / 2 + 4 |psi|^2 psi in a disc of radius 3 at whose rim psi = 0: quadratic elements, splitting
    in their eigenfunctions, real and imaginary part."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 3, 0.27)], 0.27)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.08, 80
    free = np.setdiff1d(np.arange(len(x)), basis.get_dofs().flatten())
    values, modes = scipy.linalg.eigh(stiffness[free][:, free].toarray(), masses[free][:, free].toarray(),
                                      subset_by_index=[0, 499])
    back = modes.T @ masses[free][:, free]

    def rate(z: np.ndarray) -> np.ndarray:
        p = modes @ z
        return -4j * (back @ (abs(p) ** 2 * p))

    z = generator.standard_normal((2, len(values), count)) * np.exp(-values[:, None] / 8)
    z = (z[0] + 1j * z[1]) * 0.7
    frames = [z]
    for _ in range(FRAMES - 1):
        frames.append(etd(-0.5j * values[:, None], rate, frames[-1], gap / steps, steps))
    p = np.zeros((FRAMES, len(x), count), complex)
    p[:, free] = modes @ np.stack(frames)
    u = np.stack([p.real, p.imag], -1)[:, nodes].transpose(2, 0, 1, 3)
    return np.arange(FRAMES) * gap, x[nodes], u, {"channels": ["re", "im"], **cells}


@problem()
def plate(generator: np.random.Generator, count: int) -> Fields:
    """w_tt = -.002 lap^2 w - .3 w_t of an elliptic plate that is clamped at its rim, w and w_t: 60 modes of Morley
    elements."""
    x, cells = mesh([circle((0, 0), 1, 0.075)], 0.075)
    x = x * [1.0, 0.7]
    basis = skfem.Basis(skfem.MeshTri(x.T.copy(), cells.T.copy()), skfem.ElementTriMorley())
    stiff = skfem.BilinearForm(lambda u, v, w: ddot(dd(u), dd(v))).assemble(basis)
    masses = mass.assemble(basis)
    free = basis.complement_dofs(basis.get_dofs().all())
    values, modes = scipy.linalg.eigh(stiff[free][:, free].toarray(), masses[free][:, free].toarray(),
                                      subset_by_index=[0, 59])
    full = np.zeros((basis.N, 60))
    full[free] = modes
    shapes = full[basis.nodal_dofs[0]]  # at the nodes
    z = generator.standard_normal((count, 60)) / (1 + np.arange(60) / 3) ** 2
    t, k = np.arange(FRAMES) * 0.35, np.sqrt(0.002 * values - 0.15**2)
    decay = np.exp(-0.15 * t)[:, None]
    part = z[:, None] * decay * np.cos(k * t[:, None]) + z[:, None] * 0.15 / k * decay * np.sin(k * t[:, None])
    speed = -z[:, None] * decay * np.sin(k * t[:, None]) * (k + 0.15**2 / k)
    return t, x, np.stack([part @ shapes.T, speed @ shapes.T], -1), {"channels": ["w", "w_t"], "triangles": cells}


@problem()
def cattaneo(generator: np.random.Generator, count: int) -> Fields:
    """T_t = -div q, .3 q_t = -q - .15 grad T: heat that runs as a damped wave (Cattaneo 1948) in a square without flux,
    T = 1 at a round hole; T alone is seen, and q is 0 at first: linear elements, modes, read at half of the sides."""
    square = polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)], 0.08)
    x, cells = mesh([square, circle((0.2, -0.1), 0.3, 0.08)], 0.08)
    fine, parts = refined(x, cells)
    stiffness, lumped = elements(fine, parts)
    held = np.hypot(*(fine - [0.2, -0.1]).T) < 0.302
    free = np.flatnonzero(~held)
    half = 1 / np.sqrt(lumped[free])
    values, modes = scipy.linalg.eigh(stiffness[free][:, free].toarray() * half[:, None] * half)
    start = 0.8 * np.stack([bumps(generator, (fine + 1) / 2, 4) for _ in range(count)], 1)
    start *= np.tanh((np.hypot(*(fine - [0.2, -0.1]).T) - 0.3) / 0.2)[:, None]
    z, t = modes.T @ (start[free] / half[:, None]), np.arange(FRAMES) * 0.12
    root = np.sqrt(1 - 4 * 0.3 * 0.15 * values + 0j)
    a, b = (-1 + root) / 0.6, (-1 - root) / 0.6
    part = ((a * np.exp(b * t[:, None]) - b * np.exp(a * t[:, None])) / (a - b)).real
    u = np.ones((count, FRAMES, len(fine)))
    u[:, :, free] += np.einsum("tk,ks,nk->stn", part, z, modes * half[:, None])
    return t, x, u[:, :, : len(x), None], {"channels": ["T"], "triangles": cells}


@problem()
def half_held_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = lap u between two circles, the outer one held at 0, the inner one free: in closed form."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 1, .08), circle((0.1, 0), .35, .08)], .08)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    outer = basis.get_dofs().flatten()
    outer = outer[np.hypot(*x[outer].T) > 0.9]
    free, t = np.setdiff1d(np.arange(len(x)), outer), np.arange(FRAMES) * 0.12
    values, modes = scipy.linalg.eigh(stiffness[free][:, free].toarray(), masses[free][:, free].toarray())
    start = np.stack([bumps(generator, (x + 1) / 2, 2) * (1 - (x**2).sum(1)) for _ in range(count)], -1)[free]
    z, k = modes.T @ (masses[free][:, free] @ start), np.sqrt(values)[:, None]
    u = np.zeros((count, FRAMES, len(x), 2))
    for n, time in enumerate(t):
        u[:, n, free, 0] = (modes @ (np.cos(k * time) * z)).T
        u[:, n, free, 1] = (modes @ (-k * np.sin(k * time) * z)).T
    return t, x[nodes], u[:, :, nodes], cells


@problem(24, 10)
def sound_l(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -div v, v_t = -grad p - .3 v in an L with a round hole, whose walls no flow passes: 160 eigenfunctions of
    quadratic elements on a mesh twice as fine as that seen, in closed form, slopes by projection."""
    x, cells = mesh([polygon([(0, 0), (1.6, 0), (1.6, 0.8), (0.8, 0.8), (0.8, 1.6), (0, 1.6)], 0.05),
                     circle((0.42, 0.42), 0.16, 0.05)], 0.05)
    fine, parts = refined(x, cells)
    basis = skfem.Basis(skfem.MeshTri(fine.T, parts.T), skfem.ElementTriP2())
    values, modes = eigsh(laplace.assemble(basis).tocsc(), 160, mass.assemble(basis).tocsc(), sigma=-1.0)
    values, nodes = np.maximum(values, 0.0), basis.nodal_dofs[0][: len(x)]
    slopes = np.stack([[basis.project(part)[nodes] for part in basis.interpolate(mode).grad] for mode in modes.T])
    size = (values > 1e-6) * np.exp(-values / 150) * (1 + values / 20) ** -0.5
    t, turn = np.arange(FRAMES)[:, None] * 0.08, np.sqrt(np.maximum(values - 0.15**2, 1e-14))
    decay, cosine, sine = np.exp(-0.15 * t), np.cos(turn * t), np.sin(turn * t) / turn
    u = np.empty((count, FRAMES, len(x), 3))
    for own in u:  # the potential c of v = -grad c has c_t = p - .3 c and p_t = lap c
        p, c = size * generator.standard_normal((2, 160)) / np.stack([np.ones(160), np.sqrt(values + 1e-12)])
        first = p - 0.3 * c
        c, rate = (decay * (c * cosine + (first + 0.15 * c) * sine),
                   decay * (first * cosine - (0.15 * first + values * c) * sine))
        own[..., 0] = (rate + 0.3 * c) @ modes[nodes].T
        own[..., 1:] = -np.einsum("tk,kin->tni", c, slopes)
    return t[:, 0], x, u, {"triangles": cells, "channels": ["p", "vx", "vy"]}


@problem()
def potential_triangle(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = .5 lap u - V u - .1 v, V = 4 + 6 sin(3 x) cos(2 y), held at 0 around a triangle: 120
    eigenfunctions of quadratic elements in closed form, read at the 265 corners of their mesh."""
    basis, stiffness, masses, cells = quadratic([polygon([(0, 0), (1.6, 0.1), (0.6, 1.3)], 0.07)], 0.07)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    potential = skfem.BilinearForm(lambda u, v, w: (4 + 6 * np.sin(3 * w.x[0]) * np.cos(2 * w.x[1])) * u * v)
    inner = np.setdiff1d(np.arange(len(x)), basis.get_dofs().flatten())
    values, modes = scipy.linalg.eigh((0.5 * stiffness + potential.assemble(basis)).toarray()[np.ix_(inner, inner)],
                                      masses.toarray()[np.ix_(inner, inner)], subset_by_index=[0, 119])
    size, turn = np.exp(-values / 60) / (1 + values / 10), np.sqrt(values - 0.05**2)
    t = np.arange(FRAMES)[:, None] * 0.12
    decay, cosine, sine = np.exp(-0.05 * t), np.cos(turn * t), np.sin(turn * t) / turn
    u = np.zeros((count, FRAMES, len(x), 2))
    for own in u:
        a, b = size * generator.standard_normal((2, 120)) * np.stack([np.ones(120), np.sqrt(values)])
        own[:, inner, 0] = (decay * (a * cosine + (b + 0.05 * a) * sine)) @ modes.T
        own[:, inner, 1] = (decay * (b * cosine - (0.05 * b + values * a) * sine)) @ modes.T
    return t[:, 0], x[nodes], u[:, :, nodes], {**cells, "channels": ["u", "v"]}
