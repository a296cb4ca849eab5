"""Reactions in solids of tetrahedra, and along branching lines."""

from __future__ import annotations

import numpy as np
import skfem
from scipy.sparse import csr_matrix, diags
from skfem.models.poisson import laplace, mass

from benchmarks.makers.base import FRAMES, Fields, bumps, problem, solve, stepped
from benchmarks.makers.elements import reacting


@problem(12, 4)
def fhn_solid(generator: np.random.Generator, count: int) -> Fields:
    """FitzHugh-Nagumo without flux in a ball of which an eighth is cut away: linear elements on tetrahedra, read at the
    nodes of a mesh half as fine."""
    import skfem
    from skfem.models.poisson import laplace, mass

    ball = skfem.MeshTet.init_ball(3)
    coarse = ball.restrict(np.flatnonzero(~(ball.p[:, ball.t].mean(1) > 0).all(0)))
    basis = skfem.Basis(coarse.refined(1), skfem.ElementTetP1())
    stiffness, masses = laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc()
    x = basis.mesh.p.T

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([u - u**3 / 3 - v + 0.5, 0.08 * (u + 0.7 - 0.8 * v)])

    def field(mean: float, spread: float) -> np.ndarray:
        f = bumps(generator, (x + 1) / 2, 3)
        return mean + spread * (f - f.mean()) / f.std()

    w = np.stack([np.stack([field(generator.uniform(-1, 1), 1.0), field(generator.uniform(0.3, 0.8), 0.3)])
                  for _ in range(count)], -1)  # (2, N, S)
    frames = reacting(w, reaction, stiffness, masses, (0.02, 0.005), 0.05, 20)
    u = frames[:, :, : coarse.p.shape[1]].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * 1.0, coarse.p.T, u, {"tetrahedra": coarse.t.T}


@problem()
def ball(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u + 2 u - u^3 in a ball at whose surface u = 0: linear elements on tetrahedra, read at half of the
    sides."""
    coarse = skfem.MeshTet.init_ball(3)
    mesh = coarse.refined(1)
    basis = skfem.Basis(mesh, skfem.ElementTetP1())
    stiffness, masses = laplace.assemble(basis).tocsr(), mass.assemble(basis).tocsr()
    free = basis.complement_dofs(basis.get_dofs().all())
    x = mesh.p.T
    u = np.stack([1.2 * bumps(generator, (x + 1) / 2, 3) * (1 - (x**2).sum(1)) for _ in range(count)], 1)
    frames = reacting(u[None, free], lambda w: 2 * w - w**3, stiffness[free][:, free].tocsc(),
                      masses[free][:, free].tocsc(), (0.03,), 0.02, 6)
    every = np.zeros((FRAMES, len(x), count))
    every[:, free] = frames[:, 0]
    return (np.arange(FRAMES) * 0.12, coarse.p.T, every[:, : coarse.p.shape[1]].transpose(2, 0, 1)[..., None],
            {"tetrahedra": coarse.t.T})


@problem()
def repressors(generator: np.random.Generator, count: int) -> Fields:
    """a_t = .01 lap a + 4 / (1 + c^4) - a, and b, c alike after a, b, without flux in a cube of which an eighth is cut
    away (Elowitz and Leibler 2000): linear elements on tetrahedra, read at nodes of a mesh half as fine."""
    g = np.linspace(-1, 1, 9)
    cube = skfem.MeshTet.init_tensor(g, g, g)
    coarse = cube.restrict(np.flatnonzero(~(cube.p[:, cube.t].mean(1) > 0).all(0)))
    basis = skfem.Basis(coarse.refined(1), skfem.ElementTetP1())
    x = basis.mesh.p.T

    def reaction(w: np.ndarray) -> np.ndarray:
        return 4 / (1 + np.roll(w, 1, 0) ** 4) - w

    w = np.stack([[np.exp(generator.normal(0, 0.4) + 0.5 * bumps(generator, (x + 1) / 2, 3)) for _ in range(count)]
                  for _ in range(3)]).swapaxes(1, 2)
    frames = reacting(w, reaction, laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc(), (0.01,) * 3, 0.05, 8)
    return (np.arange(FRAMES) * 0.4, coarse.p.T, frames[:, :, : coarse.p.shape[1]].transpose(3, 0, 2, 1),
            {"channels": ["a", "b", "c"], "tetrahedra": coarse.t.T})


@problem()
def river(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -s c_x + .002 c_xx - .2 c in a river of five reaches: 1 and 2 join into 3, 3 and 4 into 5; water runs at
    s = 1, .7, .8, .5, .9 with discharges that add up, clean at the springs and free at the mouth; spills of its own in
    every trajectory: finite volumes (upwind of third order), 80 cells a reach, at every third."""
    m, t = 80, np.arange(FRAMES) * 0.12
    ends = np.array([[[0, 1.0], [0.9, 0.6]], [[0, 0.1], [0.9, 0.6]], [[0.9, 0.6], [1.8, 0.7]],
                     [[1.1, -0.1], [1.8, 0.7]], [[1.8, 0.7], [2.8, 0.9]]])
    long, speed = np.linalg.norm(np.diff(ends, axis=1)[:, 0], axis=1), np.array([1.0, 0.7, 0.8, 0.5, 0.9])
    area = np.array([1.0, 1.2, 0, 1.4, 0])
    area[2] = (area[0] * speed[0] + area[1] * speed[1]) / speed[2]
    area[4] = (area[2] * speed[2] + area[3] * speed[3]) / speed[4]
    h, above = long / m, {2: (0, 1), 4: (2, 3)}
    s = (np.arange(m) + 0.5) / m
    x = ends[:, None, 0] + s[:, None] * np.diff(ends, axis=1)

    def rate(c: np.ndarray) -> np.ndarray:  # (5, m, S)
        out = np.zeros_like(c)
        flow = area * speed
        for r in range(5):
            up = above.get(r)
            head = sum(flow[i] * c[i, -1] for i in up) / flow[r] if up else 0 * c[r, 0]
            wide = np.concatenate([head[None], head[None], c[r], c[r, -1:]])
            face = (2 * wide[2:] + 5 * wide[1:-1] - wide[:-2]) / 6  # of the cells' ends downstream
            flux = speed[r] * np.concatenate([head[None], face[-m:]])
            spread = -0.002 * np.diff(wide[1:], axis=0) / h[r]
            spread[0] = 0
            out[r] = -np.diff(flux + spread, axis=0) / h[r] - 0.2 * c[r]
        return out

    c = np.zeros((5, m, count))
    for n in range(count):
        for _ in range(3):
            at = x[generator.integers(5), generator.integers(m)]
            c[..., n] += generator.uniform(0.4, 1.5) * np.exp(-((x - at) ** 2).sum(-1) / generator.uniform(0.01, 0.04))
    frames = stepped(rate, c, t[1], 40)
    return t, x[:, 1::3].reshape(-1, 2), frames[:, :, 1::3].reshape(FRAMES, -1, count).transpose(2, 0, 1)[..., None], {
        "channels": ["c"]}


@problem()
def fibre(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 u_ss + 6 u (1 - u) (u - .15) - v, v_t = .3 (u - 2 v) along three branches of length 1 in the plane
    that meet in a point, without flux at their ends (Kirchhoff's condition where they meet): differences, 120 each."""
    m, t = 120, np.arange(FRAMES) * 0.35
    along, first = np.arange(3 * m).reshape(3, m), np.array([[0, m], [m, 2 * m], [2 * m, 0]])
    inner = np.stack([along[:, :-1].ravel(), along[:, 1:].ravel()], 1)
    pairs, weights = np.concatenate([inner, first]), np.r_[np.ones(len(inner)), np.full(3, 2 / 3)] * m**2
    links = csr_matrix((weights, pairs.T), (3 * m, 3 * m))
    spread = links + links.T - diags(np.asarray((links + links.T).sum(1)).ravel())
    s = (np.arange(m) + 0.5) / m
    turns = np.pi / 2 + 2 * np.pi * np.arange(3) / 3 + [0.0, 0.2, -0.3]
    x = np.concatenate([np.stack([s * np.cos(a), s * np.sin(a)], 1) for a in turns])

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([0.004 * (spread @ u) + 6 * u * (1 - u) * (u - 0.15) - v, 0.3 * (u - 2 * v)])

    u = [1 / (1 + np.exp(-4 * bumps(generator, (x + 1) / 2, 5))) for _ in range(count)]
    v = [0.2 / (1 + np.exp(-3 * bumps(generator, (x + 1) / 2, 3))) for _ in range(count)]
    w = solve(rate, np.stack([np.stack(u, 1), np.stack(v, 1)]), t, "RK23")
    return t, x[::3], w.transpose(3, 0, 2, 1)[:, :, ::3], {}


@problem(20, 6)
def kinks(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = .3 lap u + u - u^3 - .3 v (phi^4 theory with friction) without flux in a quarter of a thick pipe:
    linear elements on tetrahedra, lumped, read at half of the sides."""
    a, b, c = np.linspace(0, 1, 6), np.linspace(0, 1, 11), np.linspace(0, 1, 9)
    box = skfem.MeshTet.init_tensor(a, b, c)

    def bent(p: np.ndarray) -> np.ndarray:
        r, turn = 0.7 + 0.8 * p[0], np.pi / 2 * p[1]
        return np.stack([r * np.cos(turn), r * np.sin(turn), 1.4 * p[2]])

    fine = box.refined(1)
    basis = skfem.Basis(skfem.MeshTet(bent(fine.p), fine.t), skfem.ElementTetP1())
    stiffness = laplace.assemble(basis).tocsr()
    lumped = np.asarray(mass.assemble(basis).sum(1)).ravel()[:, None]
    x, gap, steps = basis.mesh.p.T, 0.3, 60
    unit = (x - x.min(0)) / (x.max(0) - x.min(0))
    u, v = (np.stack([scale * bumps(generator, unit, 2) + offset * generator.uniform(-1, 1) for _ in range(count)], 1)
            for scale, offset in ((0.9, 0.4), (0.5, 0.0)))
    dt, frames = gap / steps, [np.stack([u, v])]
    for index in range(1, steps * (FRAMES - 1) + 1):  # leapfrog with friction exact
        v = v + dt / 2 * (u - u**3 - 0.3 * stiffness @ u / lumped)
        v = v * np.exp(-0.3 * dt / 2)
        u = u + dt * v
        v = v * np.exp(-0.3 * dt / 2)
        v = v + dt / 2 * (u - u**3 - 0.3 * stiffness @ u / lumped)
        if index % steps == 0:
            frames.append(np.stack([u, v]))
    seen = box.p.shape[1]
    w = np.stack(frames)[:, :, :seen].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * gap, bent(box.p).T, w, {"tetrahedra": box.t.T}
