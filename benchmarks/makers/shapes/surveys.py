"""Data as surveys bring them, made before any mechanism saw them: a ventricle of which voltage alone is seen, ocean
eddies at irregular times, dendrites, ice on an island, carbon dioxide that sinks, waves in layered ground.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.fft import dstn, idstn
from scipy.special import erfc

from benchmarks.makers.base import FRAMES, Fields, bumps_of, problem
from benchmarks.makers.elements import circle, elements, mesh, reacting, refined

TRAIN, TEST = 36, 8


@problem(TRAIN, TEST)
def ventricle(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u - 8 u (u - .15)(u - 1) - u v, v_t = (.002 + .2 v / (u + .3))(-v - 8 u (u - 1.15)) (Aliev and
    Panfilov) on a disc with an eccentric hole; u alone is observed: linear elements, read at a quarter of the nodes."""
    seen, triangles = mesh([circle((0, 0), 1.0, 0.065), circle((0.2, 0.1), 0.4, 0.065)], 0.065)
    x, cells = refined(seen, triangles)
    stiffness, masses = elements(x, cells)

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-8 * u * (u - 0.15) * (u - 1) - u * v,
                         (0.002 + 0.2 * v / (u + 0.3)) * (-v - 8 * u * (u - 1.15))])

    angle = np.arctan2(x[:, 1] - 0.1, x[:, 0] - 0.2)
    starts = []
    for _ in range(count):
        turn, side = generator.uniform(0, 2 * np.pi), generator.choice([-1, 1])
        away = np.mod(side * (angle - turn) + 0.25 * bumps_of(generator, x, 1.0), 2 * np.pi)
        wave, gate = away < generator.uniform(0.4, 1.2), away > generator.uniform(4.2, 5.4)
        starts.append(np.stack([1.0 * wave, 1.8 * gate]))
    w = np.stack(starts, -1)
    gap, lumped = 1.0, sparse.diags(masses).tocsc()
    frames = reacting(w, reaction, stiffness.tocsc(), lumped, (4e-3, 0.0), gap / 20, 20)
    start = frames[4]  # four time units on, where jumps have become fronts
    u = reacting(start, reaction, stiffness.tocsc(), lumped, (4e-3, 0.0), gap / 20, 20)[:, 0, : len(seen)]
    about = {"triangles": triangles, "channels": ["voltage"]}
    return np.arange(FRAMES) * gap, seen, u.transpose(2, 0, 1)[..., None], about


@problem(TRAIN, TEST)
def eddies(generator: np.random.Generator, count: int) -> Fields:
    """Stream functions of two quasi-geostrophic layers of a sheared current, q1_t + J(p1, q1) + .5 q1_x + (beta + F)
    p1_x = nu lap q1, q2_t + J(p2, q2) - .5 q2_x + (beta - F) p2_x = nu lap q2 - .3 lap p2, q1 = lap p1 + F (p2 - p1),
    q2 likewise, beta 2, F 8, nu .004, at 20 times of each trajectory's own: Fourier on 64 x 64, read on 32 x 32."""
    n, dt, shear, beta, couple, nu, drag = 64, 0.02, 0.5, 2.0, 8.0, 4e-3, 0.3
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = k[:, None], np.arange(n // 2 + 1)[None]
    square = kx**2 + ky**2
    keep = (np.abs(kx) <= n // 3) & (ky <= n // 3)
    whole = np.where(square > 0, square * (square + 2 * couple), 1.0)

    def streams(q: np.ndarray) -> np.ndarray:
        return -((square + couple) * q + couple * q[::-1]) / whole

    def rate(q: np.ndarray) -> np.ndarray:
        p = streams(q)
        u, v, qx, qy = (np.fft.irfft2(f * keep) for f in (-1j * ky * p, 1j * kx * p, 1j * kx * q, 1j * ky * q))
        flow = np.array([shear, -shear])[:, None, None, None]
        tilt = np.array([beta + 2 * couple * shear, beta - 2 * couple * shear])[:, None, None, None]
        f = -np.fft.rfft2((u + flow) * qx + v * (qy + tilt)) * keep - nu * square * q
        f[1] += drag * square * p[1]
        return f

    f = generator.standard_normal((2, count, n, n))
    q = np.fft.rfft2(f) * np.exp(-square / 8) * square * keep * 0.8
    before = 100
    times = np.concatenate([np.zeros((count, 1), int), generator.integers(6, 20, (count, FRAMES - 1)).cumsum(1)], 1)
    u = np.zeros((count, FRAMES, n // 2, n // 2, 2))
    for step in range(before + times.max() + 1):
        for s, i in zip(*np.nonzero(times == step - before), strict=True):
            u[s, i] = np.moveaxis(np.fft.irfft2(streams(q[:, s])), 0, -1)[::2, ::2]
        a = rate(q)
        b = rate(q + dt / 2 * a)
        c = rate(q + dt / 2 * b)
        q = q + dt / 6 * (a + 2 * b + 2 * c + rate(q + dt * c))
    at = np.arange(n // 2) * 4 * np.pi / n
    x = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    return times * dt, x, u.reshape(count, FRAMES, -1, 2), {"channels": ["upper", "lower"], "period": [2 * np.pi] * 2}


@problem(TRAIN, TEST)
def dendrites(generator: np.random.Generator, count: int) -> Fields:
    """tau f_t = div(e^2 grad f) - d_x(e e' f_y) + d_y(e e' f_x) + f (1 - f)(f - .5 + .9 atan(10 (1 - T)) / pi),
    T_t = lap T + 1.6 f_t, e = .03 (1 + .04 cos 4 angle(grad f)), tau = 6e-4: crystals in an undercooled melt
    (Kobayashi), periodic, differences on 96 x 96 cells, read at every second."""
    n, length, dt, every, tau = 96, 4.5, 2.5e-4, 12, 6e-4
    h = length / n

    def slope(f: np.ndarray, axis: int) -> np.ndarray:
        return (np.roll(f, -1, axis) - np.roll(f, 1, axis)) / (2 * h)

    def laplacian(f: np.ndarray) -> np.ndarray:
        return (np.roll(f, 1, 1) + np.roll(f, -1, 1) + np.roll(f, 1, 2) + np.roll(f, -1, 2) - 4 * f) / h**2

    at = np.arange(n) * h
    x, y = np.meshgrid(at, at, indexing="ij")
    f = np.zeros((count, n, n))
    for s in range(count):
        for _ in range(generator.integers(3, 6)):
            a, b, r = generator.uniform(0, length), generator.uniform(0, length), generator.uniform(0.15, 0.4)
            away = np.hypot(*(np.mod(p - q + length / 2, length) - length / 2 for p, q in ((x, a), (y, b))))
            f[s] = np.maximum(f[s], 1 / (1 + np.exp((away - r) / 0.05)))
    heat, frames = 0.3 * f, []
    for step in range(every * FRAMES + 1):
        if step % every == 0 and step:
            frames.append(np.stack([f, heat], -1)[:, ::2, ::2])
        fx, fy = slope(f, 1), slope(f, 2)
        turn = 4 * np.arctan2(fy, fx)
        e, own = 0.03 * (1 + 0.04 * np.cos(turn)), -0.03 * 0.16 * np.sin(turn)
        change = (e**2 * laplacian(f) + slope(e**2, 1) * fx + slope(e**2, 2) * fy - slope(e * own * fy, 1)
                  + slope(e * own * fx, 2) + f * (1 - f) * (f - 0.5 + 0.9 / np.pi * np.arctan(10 * (1 - heat)))) / tau
        f, heat = f + dt * change, heat + dt * (laplacian(heat) + 1.6 * change)
    points = np.stack([x, y], -1)[::2, ::2].reshape(-1, 2)
    u = np.stack(frames, 1).reshape(count, FRAMES, -1, 2)
    return np.arange(FRAMES) * every * dt, points, u, {"channels": ["solid", "T"], "period": [length] * 2}


@problem(TRAIN, TEST)
def glacier(generator: np.random.Generator, count: int) -> Fields:
    """h_t = div(.3 h^5 |grad s|^2 grad s) + .8 (s - .45), s = b + h, h >= 0: thickness of ice on the hills b of an
    island, no ice at its shore, 5 % noise on training values: linear elements, read at a quarter of the nodes."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    shore = (1 + 0.15 * np.cos(2 * turn + 0.5) + 0.08 * np.sin(3 * turn))[:, None] * np.stack(
        [np.cos(turn), np.sin(turn)], 1)
    seen, triangles = mesh([shore], 0.095)
    x, cells = refined(seen, triangles)
    masses = elements(x, cells)[1][:, None]
    edges = x[np.roll(cells, -1, 1)] - x[np.roll(cells, 1, 1)]
    area = 0.5 * np.abs(np.linalg.det(edges[:, :2]))[:, None]
    rows = np.repeat(np.arange(len(cells)), 3)
    turned = np.cross(edges[:, 0], edges[:, 1])[:, None, None] * np.stack([-edges[..., 1], edges[..., 0]], -1)
    turned /= 4 * area[:, :, None] ** 2
    slopes = [sparse.csr_matrix((turned[..., i].ravel(), (rows, cells.ravel())), (len(cells), len(x))) for i in (0, 1)]
    mean = sparse.csr_matrix((np.full(cells.size, 1 / 3), (rows, cells.ravel())), (len(cells), len(x)))
    edge = np.zeros((len(x), 1), bool)
    sides, times = np.unique(np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), 1), axis=0,
                             return_counts=True)
    edge[sides[times == 1]] = True
    radius = np.hypot(x[:, 0], x[:, 1])[:, None]
    bed = 0.35 * np.maximum(1 - radius**2, 0) + 0.06 * bumps_of(generator, x, 1.0)[:, None]
    inland = np.clip((1 - radius) / 0.35, 0, 1)
    h = np.concatenate([inland * np.exp(0.35 * bumps_of(generator, x, 1.0) - 0.7)[:, None] for _ in range(count)], 1)
    dt, every, frames = 1.25e-4, 640, []
    for step in range(every * FRAMES + 1):
        if step % every == 0 and step:
            frames.append(h[: len(seen)])
        s = bed + h
        gx, gy = (g @ s for g in slopes)
        flux = 0.3 * area * (mean @ h) ** 5 * (gx**2 + gy**2)
        h = h + dt * (0.8 * (s - 0.45) - (slopes[0].T @ (flux * gx) + slopes[1].T @ (flux * gy)) / masses)
        h = np.where(edge, 0.0, np.maximum(h, 0))
    u = np.stack(frames).transpose(2, 0, 1)[..., None]
    u[:TRAIN] += 0.05 * u[:TRAIN].std() * generator.standard_normal(u[:TRAIN].shape)
    return np.arange(FRAMES) * every * dt, seen, u, {"triangles": triangles, "channels": ["thickness"]}


@problem(TRAIN, TEST)
def carbon_dioxide(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -w . grad c + .005 lap c, w = -grad p - c e_y without divergence (Darcy): a heavy solute that sinks into a
    porous layer of 2 x 1, c = 1 on top, no flux elsewhere, no flow through walls; c alone is observed: stream functions
    in sines, differences on 96 x 48 cells, Runge-Kutta of third order, read at every third cell."""
    n, m, dt, every, kappa = 96, 48, 0.0125, 32, 0.005
    h = 1 / m
    wave = (2 * np.cos(np.pi * np.arange(1, n) / n)[:, None] + 2 * np.cos(np.pi * np.arange(1, m) / m) - 4) / h**2

    def rate(c: np.ndarray) -> np.ndarray:
        wide = np.pad(c, ((0, 0), (1, 1), (0, 0)), mode="edge")
        wide = np.concatenate([wide[:, :, :1], wide, 2 - wide[:, :, -1:]], 2)
        to_right = np.diff(c, axis=1) / h
        flow = np.zeros((len(c), n + 1, m + 1))
        flow[:, 1:-1, 1:-1] = idstn(dstn((to_right[:, :, 1:] + to_right[:, :, :-1]) / 2, 1, axes=(1, 2)) / wave, 1,
                                    axes=(1, 2))
        u, v = np.diff(flow, axis=2) / h, -np.diff(flow, axis=1) / h
        across = u * (wide[:, 1:, 1:-1] + wide[:, :-1, 1:-1]) / 2 - kappa * np.diff(wide[:, :, 1:-1], axis=1) / h
        along = v * (wide[:, 1:-1, 1:] + wide[:, 1:-1, :-1]) / 2 - kappa * np.diff(wide[:, 1:-1], axis=2) / h
        return -(np.diff(across, axis=1) + np.diff(along, axis=2)) / h

    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)
    start = []
    for _ in range(count):
        thick, more = (bumps_of(generator, x.reshape(-1, 2), 1.0).reshape(n, m) for _ in range(2))
        layer = erfc((1 - x[..., 1]) / (0.15 + 0.05 * thick.clip(-2, 2)))
        start.append(layer + 0.25 * np.maximum(more - 0.5, 0) * (1 - x[..., 1]))
    c = np.stack(start)
    frames = []
    for step in range(40 + every * (FRAMES - 1) + 1):
        if step >= 40 and (step - 40) % every == 0:
            frames.append(c[:, 1::3, 1::3])
        a = c + dt * rate(c)
        b = 0.75 * c + 0.25 * (a + dt * rate(a))
        c = c / 3 + 2 / 3 * (b + dt * rate(b))
    u = np.stack(frames, 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * every * dt, x[1::3, 1::3].reshape(-1, 2), u, {"channels": ["c"]}


@problem(TRAIN, TEST)
def seismograms(generator: np.random.Generator, count: int) -> Fields:
    """w_t = div s, s_t = lambda tr(e) I + 2 mu e, e = sym grad w: velocities of waves in layered ground under a
    free surface, absorbed at the other sides, at 450 places of 2 x 1; stress is not observed: staggered differences on
    cells of 1/64, sponges of 24 cells."""
    n, m, sponge, h = 128, 64, 24, 1 / 64
    wide, deep = n + 2 * sponge, m + sponge
    ix, iy = np.arange(wide) - sponge, np.arange(deep) - sponge  # of cells of the region from 0; the top is y = 1
    x, y = np.meshgrid((ix + 0.5) * h, (iy + 0.5) * h, indexing="ij")
    bed = np.digitize(y + 0.06 * np.sin(2.5 * x), [0.3, 0.62, 0.85])
    stiff = np.array([1.1, 0.8, 0.5, 0.3])[bed]  # lambda + 2 mu at density 1
    mu = stiff / 3
    lam = stiff - 2 * mu
    depth = np.maximum(np.maximum(-x, x - 2), -y).clip(0) / (sponge * h)
    dt, every = 0.0075, 16
    damp = np.exp(-dt * 8 * depth**2)

    def back(f: np.ndarray, axis: int) -> np.ndarray:
        return np.diff(f, axis=axis, prepend=0) / h

    def ahead(f: np.ndarray, axis: int) -> np.ndarray:
        return np.diff(f, axis=axis, append=0) / h

    inside = (depth == 0)
    place = (0.5 - 0.5 * np.cos(np.pi * np.clip(np.minimum(np.minimum(x, 2 - x), y) / 0.2, 0, 1))) * inside
    w = np.zeros((2, count, wide, deep))
    for i in range(2):
        for s in range(count):
            for _ in range(5):
                a, b, r = generator.uniform(0.2, 1.8), generator.uniform(0.2, 1.0), generator.uniform(0.08, 0.16)
                w[i, s] += generator.standard_normal() * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * r * r)) * place
    vx, vy = w
    xx, yy, xy = np.zeros((3, count, wide, deep))
    frames = []
    for step in range(every * (FRAMES - 1) + 1):
        if step % every == 0:
            frames.append(np.stack([vx, vy], -1)[:, inside])
        ex, ey = ahead(vx, 1), back(vy, 2)
        ey[..., -1] = -(lam / stiff)[:, -1] * ex[..., -1]  # no normal stress on top
        xx = damp * (xx + dt * (stiff * ex + lam * ey))
        yy = damp * (yy + dt * (stiff * ey + lam * ex))
        xy = damp * (xy + dt * mu * (back(vy, 1) + ahead(vx, 2)))
        xy[..., -1] = 0
        vx = damp * (vx + dt * (back(xx, 1) + back(xy, 2)))
        vy = damp * (vy + dt * (ahead(xy, 1) + ahead(yy, 2)))
    places = np.sort(generator.choice(inside.sum(), 450, replace=False))
    points = np.stack([x, y], -1)[inside][places]
    u = np.stack(frames, 1)[:, :, places]
    return np.arange(FRAMES) * every * dt, points, u, {"channels": ["vx", "vy"]}
