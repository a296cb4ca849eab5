"""Flows and transport on meshes: past obstacles, stirred, through porous ground."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import SuperLU, splu
from scipy.spatial import cKDTree
from skfem.helpers import ddot, div, dot, grad

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, parameters, problem, solve, stepped
from benchmarks.makers.elements import circle, elements, mesh, polygon, quadratic, refined


@problem()
def tracer_channel(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u past a cylinder, w a steady potential flow; the inflow held at sin(pi y)^2, no flux
    elsewhere."""
    basis, stiffness, masses, cells = quadratic([polygon([(0, 0), (3, 0), (3, 1), (0, 1)], 0.07),
                                                 circle((0.9, 0.45), 0.18, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.1, 40
    psi = x[:, 1].copy()
    outer = basis.get_dofs().flatten()
    round_hole = outer[np.hypot(*(x[outer] - [0.9, 0.45]).T) < 0.19]
    psi[round_hole] = 0.45
    psi = skfem.solve(*skfem.condense(stiffness, x=psi, D=outer))

    @skfem.BilinearForm
    def moved(u: skfem.DiscreteField, v: skfem.DiscreteField, w: skfem.DiscreteField) -> np.ndarray:
        slope = w["psi"].grad
        return (slope[1] * u.grad[0] - slope[0] * u.grad[1]) * v

    operator = (moved.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
    held = np.flatnonzero(x[:, 0] < 1e-9)
    free = np.setdiff1d(np.arange(len(x)), held)
    h, inflow = gap / steps, np.sin(np.pi * x[held, 1])[:, None] ** 2
    a, m = operator[free][:, free], masses[free][:, free]
    source, solver = operator[free][:, held] @ inflow, splu((m + h / 2 * a).tocsc())
    u = np.stack([bumps_of(generator, x, 0.5, 0.5) for _ in range(count)], -1)
    blend = np.exp(-((x[:, :1] / 0.15) ** 2))
    u = ((1 - blend) * u + blend * np.sin(np.pi * x[:, 1:]) ** 2)[free]
    frames = []
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            full = np.zeros((len(x), count))
            full[free], full[held] = u, inflow
            frames.append(full[basis.nodal_dofs[0]])
        u = solver.solve(m @ u - h * (a @ u / 2 + source))
    return np.arange(FRAMES) * gap, x[basis.nodal_dofs[0]], np.stack(frames).transpose(2, 0, 1)[..., None], cells


@skfem.BilinearForm
def _carried(u, v, w):  # noqa: ANN001, ANN202
    slope = w["psi"].grad
    return (slope[1] * u.grad[0] - slope[0] * u.grad[1]) * v


def _velocity(basis: skfem.Basis, masses: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Velocities (n, 2) of a stream function, projected onto the elements."""
    sides = [skfem.LinearForm(lambda v, w, j=j: w["psi"].grad[j] * v).assemble(basis, psi=basis.interpolate(psi))
             for j in range(2)]
    solver = splu(masses)
    return np.stack([solver.solve(sides[1]), -solver.solve(sides[0])], -1)


def _transported(operator: np.ndarray, masses: np.ndarray, u: np.ndarray, held: np.ndarray, gap: float, steps: int
                 ) -> np.ndarray:
    """Frames (T, n) of masses u_t = -operator u, held where it is held: Crank and Nicolson."""
    free, h, frames = np.setdiff1d(np.arange(len(u)), held), gap / steps, []
    a, m = operator[free][:, free], masses[free][:, free]
    source, solver = operator[free][:, held] @ u[held], splu((m + h / 2 * a).tocsc())
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            frames.append(u.copy())
        u = u.copy()
        u[free] = solver.solve(m @ u[free] - h * (a @ u[free] / 2 + source))
    return np.stack(frames)


@problem()
def stirred(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u without flux in an ellipse with a hole, stirred by a steady flow w of its own in
    every trajectory, given as two channels: quadratic elements."""
    turn = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    basis, stiffness, masses, cells = quadratic([np.stack([1.3 * np.cos(turn), 0.8 * np.sin(turn)], 1),
                                                 circle((0.4, 0.1), 0.22, 0.09)], 0.09)
    x, nodes, walls, u = basis.doflocs.T, basis.nodal_dofs[0], basis.get_dofs().flatten(), []
    for _ in range(count):
        psi = skfem.solve(*skfem.condense(stiffness, masses @ bumps_of(generator, x, 6.0), D=walls))
        operator = (_carried.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
        frames = _transported(operator, masses, bumps_of(generator, x, 0.5, 0.5), np.zeros(0, int), 0.15, 30)
        still = np.broadcast_to(_velocity(basis, masses, psi), (FRAMES, len(x), 2))
        u.append(np.concatenate([frames[..., None], still], -1)[:, nodes])
    return np.arange(FRAMES) * 0.15, x[nodes], np.stack(u), {**cells, "channels": ["u", "wx", "wy"]}


@problem()
def obstacles(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u in a channel past a round obstacle at another place in every trajectory, w its
    potential flow, given as two channels; the inflow is held at sin(pi y)^2; quadratic elements, at scattered nodes."""
    every, places = [], []
    for _ in range(count):
        centre = np.array([generator.uniform(0.6, 1.2), generator.uniform(0.35, 0.65)])
        basis, stiffness, masses, _ = quadratic([polygon([(0, 0), (2, 0), (2, 1), (0, 1)], .08),
                                                 circle(tuple(centre), .18, .07)], .08)
        x, walls = basis.doflocs.T, basis.get_dofs().flatten()
        psi = x[:, 1].copy()
        psi[walls[np.hypot(*(x[walls] - centre).T) < 0.19]] = centre[1]
        psi = skfem.solve(*skfem.condense(stiffness, x=psi, D=walls))
        operator = (_carried.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
        blend = np.exp(-((x[:, 0] / 0.15) ** 2))
        u = (1 - blend) * bumps_of(generator, x, 0.4, 0.5) + blend * np.sin(np.pi * x[:, 1]) ** 2
        frames = _transported(operator, masses, u, np.flatnonzero(x[:, 0] < 1e-9), 0.08, 20)
        still = np.broadcast_to(_velocity(basis, masses, psi), (FRAMES, len(x), 2))
        nodes = basis.nodal_dofs[0]
        every.append(np.concatenate([frames[..., None], still], -1)[:, nodes])
        places.append(x[nodes])
    least = min(map(len, places))
    rows = [np.sort(generator.permutation(len(x))[:least]) for x in places]
    u = np.stack([one[:, row] for one, row in zip(every, rows, strict=True)])
    return (np.arange(FRAMES) * 0.08, np.stack([x[row] for x, row in zip(places, rows, strict=True)]), u,
            {"channels": ["u", "wx", "wy"]})


def _slopes(x: np.ndarray, cells: np.ndarray) -> tuple[list[sparse.csr_matrix], sparse.csr_matrix]:
    """Derivatives along both axes (E, N) of linear elements, and the map (N, E) from cells to loads of nodes."""
    edges = x[np.roll(cells, -1, 1)] - x[np.roll(cells, 1, 1)]
    double = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    slopes = np.stack([edges[..., 1], -edges[..., 0]]) / double[:, None]  # (2, E, 3), of the three functions
    rows = np.repeat(np.arange(len(cells)), 3)
    gradient = [sparse.csr_matrix((part.ravel(), (rows, cells.ravel())), (len(cells), len(x))) for part in slopes]
    return gradient, sparse.csr_matrix((np.repeat(np.abs(double) / 6, 3), (cells.ravel(), rows)), (len(x), len(cells)))


@problem()
def burgers_lshape(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u . grad u + .01 lap u, both components without flux through the walls of an L in the unit box; linear
    elements of side .01, read at nodes of a mesh four times as coarse."""
    coarse, triangles = mesh([polygon([(0, 0), (1, 0), (1, 0.45), (0.55, 0.45), (0.55, 1), (0, 1)], 0.04)], 0.04)
    x, cells = refined(*refined(coarse, triangles))
    stiffness, masses = elements(x, cells)
    gradient, spread = _slopes(x, cells)
    t = np.arange(FRAMES) * 0.05

    def rate(w: np.ndarray) -> np.ndarray:
        moved = sum(w[j, :, None] * (spread @ (gradient[j] @ w.T)) for j in range(2))
        return ((-0.01 * (stiffness @ w.T) - moved) / masses[:, None]).T

    def field() -> np.ndarray:
        f = bumps(generator, x, 4)
        return 0.5 * (f - f.mean()) / f.std() + 0.3 * generator.standard_normal()

    paths = [solve(rate, np.stack([field(), field()]), t)[..., : len(coarse)] for _ in range(count)]
    return t, coarse, np.moveaxis(np.stack(paths), 2, 3), {"triangles": triangles}


@problem()
def duct(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -w . grad w + .015 lap w (two components), c_t = -w . grad c + .01 lap c + 3 c (1 - c) (c - .2) in a Z: at
    the inlet w is held at a profile of .7 and c at 1, along floor and ceiling of the lower arm w is 0, nothing else is
    held; linear elements of side .0225, read at nodes of a mesh half as fine."""
    coarse, triangles = mesh([polygon([(0, 0), (1, 0), (1, 1), (1.6, 1), (1.6, 1.45), (0.55, 1.45), (0.55, 0.45),
                                       (0, 0.45)], 0.045)], 0.045)
    x, cells = refined(coarse, triangles)
    stiffness, masses = elements(x, cells)
    gradient, spread = _slopes(x, cells)
    inlet = x[:, 0] < 1e-9
    held = inlet | (x[:, 1] < 1e-9) | (np.isclose(x[:, 1], 0.45) & (x[:, 0] < 0.55 + 1e-9))
    profile = 2.8 * x[:, 1] / 0.45 * (1 - x[:, 1] / 0.45) * (x[:, 1] < 0.45) * np.exp(-((x[:, 0] / 0.1) ** 2))
    away = 1 - np.exp(-((cKDTree(x[held]).query(x)[0] / 0.12) ** 2))
    inside = 1 - np.exp(-((x[:, 0] / 0.12) ** 2))

    def rate(w: np.ndarray) -> np.ndarray:  # (3, N, S)
        moved = [sum(w[j] * (spread @ (gradient[j] @ f)) for j in range(2)) for f in w]
        result = np.stack([-(k * (stiffness @ f) + own) / masses[:, None]
                           for k, f, own in zip((0.015, 0.015, 0.01), w, moved, strict=True)])
        result[2] += 3 * w[2] * (1 - w[2]) * (w[2] - 0.2)
        result[:2, held] = result[2, inlet] = 0
        return result

    w = np.stack([np.stack([away * bumps_of(generator, x, 0.45, 0.1) + profile,
                            away * bumps_of(generator, x, 0.45, 0.15),
                            inside * np.clip(bumps_of(generator, x, 0.35, 0.4), -0.2, 1.2) + 1 - inside])
                  for _ in range(count)], -1)
    u = stepped(rate, w, 0.09, 48)[:, :, : len(coarse)].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * 0.09, coarse, u, {"triangles": triangles, "channels": ["u", "v", "c"]}


@problem()
def aquifer(generator: np.random.Generator, count: int) -> Fields:
    """Head (m) under a plain: s h_t = div(h K grad h) + rain, in a kite of 100 km with a round lake that holds 20 m;
    days of 86,400 s, K = 3e-4 m/s, s = .1: Boussinesq, quadratic elements, implicit."""
    basis, stiffness, masses, cells = quadratic([1e5 * polygon([(0, 0), (1.6, -.3), (2.0, .9), (.5, 1.3)], .12) / 2,
                                                 5e4 * circle((1.1, .5), .25, .1)], 5500)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    lake = basis.get_dofs().flatten()
    lake = lake[np.hypot(*(x[lake] - 5e4 * np.array([1.1, .5])).T) < 5e4 * .26]
    gap, steps = 4e7, 10
    form = skfem.BilinearForm(lambda u, v, w: w["h"] * (u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]))
    rain, paths = masses @ np.full(len(x), 2e-10), []
    for _ in range(count):
        h = 20 + np.abs(bumps_of(generator, x, 8.0)) * (1 - np.exp(-((np.hypot(*(x - 5e4 * np.array([1.1, .5])).T)
                                                                      / 5e4 - .25) / .2) ** 2))
        h[lake], frames, dt = 20.0, [], gap / steps
        for index in range(steps * (FRAMES - 1) + 1):
            if index % steps == 0:
                frames.append(h[nodes])
            middle = h
            for _ in range(2):
                a = 3e-4 * form.assemble(basis, h=basis.interpolate(middle))
                new = skfem.solve(*skfem.condense(0.1 * masses + dt / 2 * a, 0.1 * masses @ h - dt / 2 * (a @ h)
                                                  + dt * rain, x=h, D=lake))
                middle = (h + new) / 2
            h = new
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * gap, x[nodes], np.stack(paths)[..., None], {**cells, "channels": ["head"]}


@problem()
def porous_ring(generator: np.random.Generator, count: int) -> Fields:
    """T_t = -w . grad T + .02 lap T, w = -grad p + T e_y, div w = 0: a porous ring of radii .5 and 1.5 that no flow
    leaves, held at 1 inside and at 0 outside. T alone is seen: differences in r, Fourier around, 33 x 96."""
    n, m = 33, 96
    r, k = np.linspace(0.5, 1.5, n)[:, None], np.fft.rfftfreq(m, 1 / m)
    angle, h = 2 * np.pi * np.arange(m) / m, 1 / (n - 1)
    inverses = []
    for wave in k:
        matrix = np.diag(-2 / h**2 - (wave / r[:, 0]) ** 2)
        at = np.arange(1, n - 1)
        matrix[at, at - 1], matrix[at, at + 1] = 1 / h**2 - 1 / (2 * h * r[at, 0]), 1 / h**2 + 1 / (2 * h * r[at, 0])
        matrix[[0, -1]] = np.eye(n)[[0, -1]]
        if wave == 0:  # no circulation around the hole, as T is the same along its wall
            matrix[0, :3] = np.array([-1.5, 2, -0.5]) / h
        inverses.append(np.linalg.inv(matrix))
    solver = np.stack(inverses)

    def around(f: np.ndarray) -> np.ndarray:
        return np.fft.irfft(1j * k * np.fft.rfft(f), m)

    def rate(heat: np.ndarray) -> np.ndarray:
        outward, turned = np.gradient(heat, h, axis=1, edge_order=2), around(heat) / r
        source = -(np.cos(angle) * outward - np.sin(angle) * turned)  # lap psi = -T_x
        source[:, [0, -1]] = 0
        psi = np.fft.irfft(np.einsum("kij,cjk->cik", solver, np.fft.rfft(source)), m)
        change = np.zeros_like(heat)
        second = np.diff(heat, 2, axis=1) / h**2 + (outward / r)[:, 1:-1] + (around(around(heat)) / r**2)[:, 1:-1]
        carried = around(psi) / r * outward - np.gradient(psi, h, axis=1, edge_order=2) * turned
        change[:, 1:-1] = 0.02 * second - carried[:, 1:-1]
        return change

    waves = sum(generator.standard_normal((count, 1, 1)) / (i + j) * np.sin(np.pi * i * (r - 0.5)) * np.cos(
        j * angle + generator.uniform(0, 2 * np.pi, (count, 1, 1))) for i in (1, 2) for j in range(5))
    heat = np.log(1.5 / r) / np.log(3) + 0.3 * waves
    frames = stepped(rate, heat, 0.3, 60)[:, :, ::2, ::3].swapaxes(0, 1).reshape(count, FRAMES, -1, 1)
    places = np.stack([r * np.cos(angle), r * np.sin(angle)], -1)[::2, ::3].reshape(-1, 2)
    return np.arange(FRAMES) * 0.3, places, frames, {"channels": ["T"]}


@problem()
def step(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -w . grad w - grad p + .02 lap w behind a step of half the height of a channel of 3 x 1, from flows at
    random: a parabola of speed s enters at the left, s a parameter of every trajectory, free at the right, at rest at
    the walls: elements of Taylor and Hood, read at corners."""
    corners = [(0.0, 0.5), (0.8, 0.5), (0.8, 0.0), (3.0, 0.0), (3.0, 1.0), (0.0, 1.0)]
    nodes, cells = mesh([polygon(corners, 0.07)], 0.07)
    grid = skfem.MeshTri(nodes.T, cells.T)
    velocity = skfem.Basis(grid, skfem.ElementVector(skfem.ElementTriP2()), intorder=4)
    pressure = skfem.Basis(grid, skfem.ElementTriP1(), intorder=4)
    nu, gap, steps = 0.02, 0.15, 40
    dt, n = gap / steps, velocity.N
    masses = skfem.BilinearForm(lambda u, v, _: dot(u, v)).assemble(velocity)
    viscous = nu * skfem.BilinearForm(lambda u, v, _: ddot(grad(u), grad(v))).assemble(velocity)
    divergence = skfem.BilinearForm(lambda u, q, _: -div(u) * q).assemble(velocity, pressure)
    walls = velocity.get_dofs(grid.facets_satisfying(lambda x: x[0] < 3 - 1e-9, boundaries_only=True)).all()
    free = np.setdiff1d(np.arange(n + pressure.N), walls)
    at = velocity.doflocs
    first = np.zeros(n, bool)
    first[np.concatenate([velocity.nodal_dofs[0], velocity.facet_dofs[0]])] = True
    profile = np.where(first & (at[0] < 1e-9), 16 * (at[1] - 0.5) * (1 - at[1]), 0.0)
    s = parameters(count, [0.5, 0.8, 1.1, 1.4], [0.65, 1.25, 1.6])

    def solver(a: sparse.csr_matrix) -> tuple[SuperLU, sparse.csc_matrix]:
        whole = sparse.bmat([[a, divergence.T], [divergence, None]]).tocsc()
        return splu(whole[free][:, free]), whole[free][:, walls]

    def project(factor: tuple[SuperLU, sparse.csc_matrix], right: np.ndarray) -> np.ndarray:
        w = np.zeros((n + pressure.N, count))
        w[walls] = (profile[:, None] * s)[walls]
        w[free] = factor[0].solve(np.concatenate([right, np.zeros((pressure.N, count))])[free] - factor[1] @ w[walls])
        return w[:n]

    weights = velocity.dx.ravel()

    def sampled(part: int, derivative: int | None) -> sparse.csr_matrix:
        rows = np.arange(weights.size).reshape(velocity.dx.shape)
        blocks = []
        for i in range(velocity.Nbfun):
            one = velocity.basis[i][0]
            value = one.value[part] if derivative is None else one.grad[part][derivative]
            columns = np.broadcast_to(velocity.element_dofs[i][:, None], rows.shape).ravel()
            blocks.append(sparse.csr_matrix((np.broadcast_to(value, rows.shape).ravel(), (rows.ravel(), columns)),
                                            (weights.size, n)))
        return sum(blocks[1:], blocks[0]).tocsr()

    values = [sampled(c, None) for c in range(2)]
    slopes = [[sampled(c, d) for d in range(2)] for c in range(2)]

    def transport(w: np.ndarray) -> np.ndarray:
        along = [value @ w for value in values]
        return -sum(values[c].T @ (weights[:, None] * sum(along[d] * (slopes[c][d] @ w) for d in range(2)))
                    for c in range(2))

    calm = solver(viscous / nu + 1e-9 * masses)
    eddies = np.zeros((n, count))  # at random, projected
    for i in range(count):
        for part in (first, ~first):
            eddies[part, i] = 1.0 * bumps(generator, at[:, part].T / np.array([3, 1]), 4)
    w = project(calm, viscous @ eddies / nu + 30 * masses @ eddies)
    implicit = solver(masses / dt + viscous / 2)
    seen, frames, old = velocity.nodal_dofs, [w], None
    for index in range(1, steps * (FRAMES - 1) + 1):
        force = transport(w)
        both = force if old is None else 1.5 * force - 0.5 * old
        old = force
        w = project(implicit, (masses @ w) / dt - viscous @ w / 2 + both)
        if index % steps == 0:
            frames.append(w)
    u = np.stack(frames)[:, seen].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * gap, nodes, u, {"channels": ["vx", "vy"], "triangles": cells, "parameters": s[:, None]}
