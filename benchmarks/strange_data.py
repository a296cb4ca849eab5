"""Strange data, made before any mechanism saw them: a soil that drains, a dam over a bump, repression in a solid, a
torch that circles on a plate, two layers of an ocean, waves whose constants the file gives, a branching fibre, islands.

python benchmarks/strange_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
import skfem
from blind_data import _etd
from data_makers import FRAMES, Fields, bumps, reacting, solve, stepped, write_problems
from scipy.sparse import csr_matrix, diags
from shape_data import _circle, _elements, _mesh, _refined
from skfem.models.poisson import laplace, mass

TRAIN, TEST = 24, 8


def soil(generator: np.random.Generator, count: int) -> Fields:
    """s_t = (.03 s^2.5 s_z - .25 s^4.5)_z, water in a column of soil (Richards; Brooks and Corey), depths z of 0 to 1,
    rain of its own in every trajectory above, free drainage below: finite volumes, 200 cells, at every fourth."""
    n, t, rain = 200, np.arange(FRAMES) * 0.25, generator.uniform(0.0, 0.12, count)
    depth, h = (np.arange(n)[:, None] + 0.5) / n, 1 / n

    def rate(s: np.ndarray) -> np.ndarray:
        face = np.maximum((s[1:] + s[:-1]) / 2, 1e-9)
        inner = 0.25 * face**4.5 - 0.03 * face**2.5 * np.diff(s, axis=0) / h
        return -np.diff(np.concatenate([rain[None], inner, 0.25 * np.maximum(s[-1:], 0) ** 4.5]), axis=0) / h

    s = 0.55 + 0.3 * np.tanh(np.stack([bumps(generator, depth, 4) for _ in range(count)], 1))
    return t, depth[::4], solve(rate, s, t).transpose(2, 0, 1)[:, :, ::4, None], {"channels": ["moisture"]}


def dam(generator: np.random.Generator, count: int) -> Fields:
    """h_t = -q_x, q_t = -(q^2 / h + h^2 / 2)_x - h b_x over a bump b between walls of (0, 4): a step of the level runs
    as a bore; finite volumes (MUSCL, Rusanov), 800 cells, depth and discharge at every eighth."""
    n, gap, steps = 800, 0.12, 60
    h, x = 4 / n, (np.arange(n) + 0.5) * 4 / n
    bump = 0.25 * np.exp(-(((x - 2.4) / 0.35) ** 2))

    def rate(w: np.ndarray) -> np.ndarray:  # (2, n, S) of level over the bump's foot and discharge
        wide = np.concatenate([w[:, 1::-1] * [[[1]], [[-1]]], w, w[:, :-3:-1] * [[[1]], [[-1]]]], 1)
        step = np.diff(wide, axis=1)
        slope = np.where(step[:, 1:] * step[:, :-1] > 0, 2 * step[:, 1:] * step[:, :-1] / np.where(
            step[:, 1:] + step[:, :-1] == 0, 1, step[:, 1:] + step[:, :-1]), 0)  # van Leer's
        floor = np.r_[bump[0], (bump[1:] + bump[:-1]) / 2, bump[-1]][:, None]
        sides = [(wide[:, 1:-1] + slope / 2)[:, :-1], (wide[:, 1:-1] - slope / 2)[:, 1:]]
        parts = [(level - floor, q) for level, q in sides]
        speed = np.maximum(*(abs(q / d) + np.sqrt(d) for d, q in parts))
        one, two = (np.stack([q, q**2 / d + d**2 / 2]) for d, q in parts)
        flux = (one + two) / 2 - speed / 2 * (sides[1] - sides[0])
        force = -np.diff(floor, axis=0) / h * (sides[1][0][:-1] + sides[0][0][1:] - floor[:-1] - floor[1:]) / 2
        return -np.diff(flux, axis=1) / h + np.stack([0 * force, force])

    level = 0.8 + 0.06 * np.stack([bumps(generator, x[:, None] / 4, 3) for _ in range(count)], 1)
    level += np.where(x[:, None] < generator.uniform(0.6, 1.8, count), generator.uniform(0.0, 0.35, count), 0)
    frames = stepped(rate, np.stack([level, 0 * level]), gap, steps)
    frames[:, 0] -= bump[:, None]
    return np.arange(FRAMES) * gap, x[4::8, None], frames[:, :, 4::8].transpose(3, 0, 2, 1), {"channels": ["h", "q"]}


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


def circling(generator: np.random.Generator, count: int) -> Fields:
    """T_t = .02 lap T + 8 exp(-|x - s(t)|^2 / .02) - .4 (T^4 - .3^4) on a plate, a disc without flux: a torch s circles
    once in 1.2 and heat is radiated; trajectories start together: linear elements, read at half of the sides."""
    x, cells = _mesh([_circle((0, 0), 1, 0.09)], 0.09)
    fine, parts = _refined(x, cells)
    stiffness, masses = _elements(fine, parts)
    t = np.arange(FRAMES) * 0.18

    def rate(w: np.ndarray) -> np.ndarray:  # heat, and a row of times
        turn, heat = 2 * np.pi * w[-1, 0] / 1.2, w[:-1]
        flame = 8 * np.exp(-((fine - 0.6 * np.array([np.cos(turn), np.sin(turn)])) ** 2).sum(1) / 0.02)[:, None]
        change = -0.02 * (stiffness @ heat) / masses[:, None] + flame - 0.4 * (heat**4 - 0.3**4)
        return np.concatenate([change, np.ones_like(w[-1:])])

    heat = 0.8 + 0.5 * np.tanh(np.stack([bumps(generator, (fine + 1) / 2, 4) for _ in range(count)], 1))
    frames = stepped(rate, np.concatenate([heat, 0 * heat[:1]]), t[1], 36)
    return t, x, frames[:, : len(x)].transpose(2, 0, 1)[..., None], {
        "channels": ["T"], "triangles": cells, "time_period": 1.2}


def two_layers(generator: np.random.Generator, count: int) -> Fields:
    """q_t = -J(p, q) - U q_x - (1 + 4 (U - U')) p_x + .02 lap q in each of two layers, q = lap p + 4 (p' - p), that
    move at U = 1 and 0: potential vorticities of a baroclinic ocean (Phillips 1954), periodic along x over 2 pi,
    between walls pi apart where p = 0: images on 64 x 32, read at 32 x 16 centres."""
    n, gap, steps = 64, 0.25, 25
    k, m = np.fft.rfftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n)
    ky, kx = np.meshgrid(m, k, indexing="ij")
    k2, keep = kx**2 + ky**2, (kx < n / 3) & (abs(ky) < n / 3)
    det = np.where(k2 > 0, k2 * (k2 + 8), np.inf)
    mean, slope = np.array([1.0, 0.0])[:, None, None], np.array([1 + 4.0, 1 - 4.0])[:, None, None]

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        p = -((k2 + 4) * w + 4 * w[:, ::-1]) / det
        turn = back(1j * kx * p) * back(1j * ky * w) - back(1j * ky * p) * back(1j * kx * w)
        return keep * (-np.fft.rfft2(turn) - 1j * kx * (mean * w + slope * p))

    y, x = np.meshgrid((np.arange(n) + 0.5) / n * 2 * np.pi, (np.arange(n) + 0.5) / n * 2 * np.pi, indexing="ij")
    q = sum(generator.standard_normal((count, 2, 1, 1)) / (i + j) * 3 * np.sin(j * y) * np.cos(
        i * x + generator.uniform(0, 7, (count, 2, 1, 1))) for i in range(4) for j in (1, 2, 3))
    w, frames = np.fft.rfft2(q), []
    for frame in range(FRAMES):
        w = _etd(-0.02 * k2, rate, w, gap / steps, steps) if frame else w
        frames.append(back(w)[..., : n // 2 : 2, ::2])
    points = np.stack([x, y], -1)[: n // 2 : 2, ::2].reshape(-1, 2)
    return np.arange(FRAMES) * gap, points, np.stack(frames, 1).reshape(count, FRAMES, 2, -1).swapaxes(2, 3), {
        "channels": ["q1", "q2"], "period": [2 * np.pi, 0.0]}


def bores(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + a u_xx - b u_xxx on a circle of length 10 (Korteweg, de Vries and Burgers), a of .02 to .2 and b
    of 0 to .1 its own in every trajectory and given as parameters: Fourier, at 64 of 192 points."""
    n, t = 192, np.arange(FRAMES) * 0.2
    k = 2j * np.pi * np.fft.rfftfreq(n, 10 / n)
    keep, x = abs(k) < 2 / 3 * abs(k).max(), np.arange(n) / n * 10
    given = np.stack([generator.uniform(0.02, 0.2, count), generator.uniform(0, 0.1, count)], 1)
    w = np.fft.rfft(0.3 + sum(generator.standard_normal((count, 1)) / j * np.cos(
        0.2 * np.pi * j * x + generator.uniform(0, 7, (count, 1))) for j in range(1, 5)))
    frames = [w]
    for _ in range(FRAMES - 1):
        w = _etd(given[:, :1] * k**2 - given[:, 1:] * k**3, lambda w: -k / 2 * keep * np.fft.rfft(
            np.fft.irfft(w, n) ** 2), w, 0.2 / 40, 40)
        frames.append(w)
    return t, x[::3, None], np.fft.irfft(np.stack(frames, 1), n)[..., ::3, None], {
        "period": [10.0], "parameters": given}


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


def islands(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .006 lap u + r u - u^2, r of 0 to 2 in two fertile places, on a bean of land in 1.5 x 1 that nothing
    leaves: finite volumes of side 1/50, at 350 cells, 15 % of the values missing."""
    n, m, h, t = 75, 50, 0.02, np.arange(FRAMES) * 0.25
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)
    land = ((x - [0.75, 0.5]) / [0.72, 0.48]) ** 2
    land = (land.sum(-1) < 1) & (((x - [0.75, 1.0]) ** 2).sum(-1) > 0.35**2)
    fertile = sum(2 * np.exp(-((x - at) ** 2).sum(-1) / 0.06) for at in ([0.35, 0.6], [1.1, 0.35]))
    open_x, open_y = land[1:] & land[:-1], land[:, 1:] & land[:, :-1]

    def rate(u: np.ndarray) -> np.ndarray:  # (S, n, m)
        fluxes = np.diff(u, axis=1) * open_x, np.diff(u, axis=2) * open_y
        lap = sum(np.diff(np.pad(f, [(0, 0), *((int(i == j),) * 2 for i in range(2))]), axis=1 + j)
                  for j, f in enumerate(fluxes))
        return 0.006 * lap / h**2 + fertile * u - u**2

    u = np.stack([0.6 * np.exp(0.9 * bumps(generator, x, 4)) for _ in range(count)])
    u = stepped(rate, u * land, t[1], 30).swapaxes(0, 1)
    seen = generator.choice(np.flatnonzero(land.ravel()), 350, replace=False)
    values = u.reshape(count, FRAMES, -1)[..., seen]
    values[generator.random(values.shape) < 0.15] = np.nan
    return t, x.reshape(-1, 2)[seen], values[..., None], {}


MAKERS = {maker.__name__: maker for maker in (soil, dam, repressors, circling, two_layers, bores, fibre, islands)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
