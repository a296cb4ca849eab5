"""Waves on lines between walls or open ends: beams, strings, light, sound, tides."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, problem, solve, stepped, with_noise


@problem()
def sine_gordon(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = u_xx - sin u between walls without flux on (0, 10): finite differences, 400 cells, read at 80."""
    n, length, t = 400, 10.0, np.arange(FRAMES) * 0.4
    h, x = length / n, (np.arange(n) + 0.5) * length / n

    def rate(time: float, w: np.ndarray) -> np.ndarray:
        u, v = w.reshape(2, n)
        p = np.pad(u, 1, mode="edge")
        return np.concatenate([v, (p[2:] - 2 * u + p[:-2]) / h**2 - np.sin(u)])

    starts = [np.concatenate([bumps_of(generator, x[:, None], 1.5), bumps_of(generator, x[:, None], 0.5)])
              for _ in range(count)]
    u = np.stack([solve_ivp(rate, (0, t[-1]), w, "DOP853", t, rtol=1e-8, atol=1e-8).y.T for w in starts])
    return t, x[2::5, None], np.moveaxis(u.reshape(count, FRAMES, 2, n), 2, 3)[:, :, 2::5], {}


@problem()
def beam(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = -.001 u_xxxx on (0, 1) between clamps, u = u_x = 0: differences, exact in time."""
    n = 120
    h, t = 1 / (n + 1), np.arange(FRAMES) * 0.35
    second = (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) / h**2
    fourth = second @ second
    fourth[0, 0] += 2 / h**4
    fourth[-1, -1] += 2 / h**4
    values, modes = np.linalg.eigh(0.001 * fourth)
    w, x = np.sqrt(values), (np.arange(n) + 1) * h
    z, v = generator.standard_normal((2, count, 8)) / (1 + np.arange(8)) ** 2
    phase = w[:8] * t[:, None, None]
    u = np.stack([(z * np.cos(phase) + v * np.sin(phase)) @ modes[:, :8].T,
                  (w[:8] * (v * np.cos(phase) - z * np.sin(phase))) @ modes[:, :8].T], -1).swapaxes(0, 1)
    return t, x[1::2, None], u[:, :, 1::2] * np.sqrt(n), {}


@problem()
def foundation(generator: np.random.Generator, count: int) -> Fields:
    """q_tt = -.002 q_xxxx - q - 6 q^3 - .3 q_t on (0, 1), a hinged beam on a hardening foundation, struck at random;
    its deflection alone is seen: 32 sines."""
    j, t = np.arange(1, 33), np.arange(FRAMES) * 0.15
    x, sines = np.linspace(0, 1, 97), np.sin(np.pi * np.outer(np.linspace(0, 1, 97), j))
    stiffness = 0.002 * (np.pi * j) ** 4 + 1

    def rate(w: np.ndarray) -> np.ndarray:
        cubes = 2 / 96 * sines.T @ (sines @ w[0]) ** 3
        return np.stack([w[1], -stiffness[:, None] * w[0] - 6 * cubes - 0.3 * w[1]])

    start = np.zeros((2, 32, count))
    start[:, :5] = generator.standard_normal((2, 5, count)) / np.arange(1, 6)[:, None] ** 1.5 * [[[0.4]], [[1.0]]]
    return t, x[::2, None], (sines @ solve(rate, start, t)[:, 0]).transpose(2, 0, 1)[..., ::2, None], {
        "channels": ["q"]}


@problem()
def glass(generator: np.random.Generator, count: int) -> Fields:
    """e_t = (dh/dx) / eps, h_t = de/dx in a line cavity (0, 1) of conducting walls (e = 0), eps = 1 + 1.5 exp(-30 (x -
    .6)^2): staggered differences, 400 cells."""
    n, t = 400, np.arange(FRAMES) * 0.06
    edge, middle = np.arange(1, n) / n, (np.arange(n) + 0.5) / n
    eps = 1 + 1.5 * np.exp(-30 * (edge - 0.6) ** 2)

    def rate(w: np.ndarray) -> np.ndarray:
        e, h = w[: n - 1], w[n - 1 :]
        return np.concatenate([np.diff(h) * n / eps, np.diff(np.pad(e, 1)) * n])

    rows = []
    for _ in range(count):
        a, b = generator.standard_normal((2, 6)) / np.arange(1, 7)
        wave = np.pi * np.arange(1, 7)[:, None]
        w = solve(rate, np.concatenate([a @ np.sin(wave * edge), b @ np.cos(wave * middle)]), t, "DOP853")
        e, h = w[:, : n - 1], (w[:, n - 1 : -1] + w[:, n:]) / 2
        rows.append(np.stack([e, h], -1)[:, 3::5])
    return t, edge[3::5, None], np.stack(rows), {"channels": ["e", "h"]}


@problem()
def thermoelastic(generator: np.random.Generator, count: int) -> Fields:
    """q_t = v, v_t = q_xx - .4 T_x, T_t = .01 T_xx - .4 v_x on (0, 1), q = 0 and T_x = 0 at the ends: differences."""
    n, t = 400, np.arange(FRAMES) * 0.12
    x, h = np.linspace(0, 1, n + 1), 1 / n

    def rate(w: np.ndarray) -> np.ndarray:
        q, v, heat = w
        force = np.zeros(n + 1)
        force[1:-1] = np.diff(q, 2) / h**2 - 0.2 * (heat[2:] - heat[:-2]) / h
        v = np.concatenate([[0.0], v[1:-1], [0.0]])
        mirrored = np.concatenate([heat[1:2], heat, heat[-2:-1]])
        return np.stack([v, force, 0.01 * np.diff(mirrored, 2) / h**2 - 0.4 * np.gradient(v, h, edge_order=2)])

    paths = []
    for _ in range(count):
        q, v = (np.sum([generator.standard_normal() * np.sin(np.pi * j * x) / j**p for j in range(1, 6)], 0)
                for p in (2, 1.5))
        heat = np.sum([generator.standard_normal() * np.cos(np.pi * j * x) / j**1.5 for j in range(1, 6)], 0)
        paths.append(solve(rate, np.stack([q, v, heat]), t)[..., ::4])
    return t, x[::4, None], np.stack(paths).swapaxes(2, 3), {"channels": ["q", "v", "theta"]}


@problem()
def junction(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = (a u_x)_x - sin u - .1 v, a = 1 + .5 sin(2 pi x / 10) + .2 cos(6 pi x / 10), between walls of
    (0, 10) without flux; 5 % noise on training values: differences, 400 cells, at every fifth."""
    n, gap, steps = 400, 0.3, 30
    h, x = 10 / n, (np.arange(n) + 0.5) * 10 / n
    face = np.arange(1, n) * h
    a = (1 + 0.5 * np.sin(0.2 * np.pi * face) + 0.2 * np.cos(0.6 * np.pi * face))[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([v, np.diff(np.pad(a * np.diff(u, axis=0) / h, ((1, 1), (0, 0))), axis=0) / h
                         - np.sin(u) - 0.1 * v])

    def field(size: float) -> np.ndarray:
        k = np.arange(8)
        return size * np.cos(np.pi / 10 * k * x[:, None]) @ (generator.standard_normal((8, count)) / (1 + k[:, None]))

    u = stepped(rate, np.stack([field(1.5), field(0.7)]), gap, steps)[:, :, 2::5]
    return np.arange(FRAMES) * gap, x[2::5, None], with_noise(generator, u.transpose(3, 0, 2, 1), 0.05), {}


@problem()
def open_pipe(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -u_x, u_t = -p_x in a pipe of length 1 that sound leaves through both ends: closed form, at 80 points."""
    t, x = np.arange(FRAMES) * 0.04, (np.arange(80) + 0.5) / 80

    def pulses(s: np.ndarray, own: np.ndarray) -> np.ndarray:
        return sum(a * np.exp(-(((s - c) / w) ** 2)) for a, c, w in own)

    u = np.zeros((count, FRAMES, 80, 2))
    for n in range(count):
        right, left = (np.stack([generator.uniform(-1, 1, 3), generator.uniform(0.2, 0.8, 3),
                                 generator.uniform(0.05, 0.09, 3)], 1) for _ in range(2))
        f, g = pulses(x - t[:, None], right), pulses(x + t[:, None], left)
        u[n] = np.stack([f + g, f - g], -1)
    return t, x[:, None], u, {"channels": ["p", "u"]}


@problem()
def open_line(generator: np.random.Generator, count: int) -> Fields:
    """u_tt = u_xx - sin u - .15 u_t on (0, 12), whose ends let waves out (u_t = -du/dn): pendulums on a string, their
    angle alone is seen: differences, 600 cells, at every eighth."""
    n, gap, steps = 600, 0.3, 30
    h, x = 12 / n, (np.arange(n) + 0.5) * 12 / n

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        ends = np.concatenate([v[:1], u[1:] / h - u[:-1] / h, -v[-1:]])
        return np.stack([v, np.diff(ends, axis=0) / h - np.sin(u) - 0.15 * v])

    def field(size: float) -> np.ndarray:
        k, a = np.arange(1, 9), generator.standard_normal((2, 8, count))
        phase = 2 * np.pi * k[:, None] * x / 12
        f = (np.cos(phase).T @ (a[0] / k[:, None]) + np.sin(phase).T @ (a[1] / k[:, None]))
        return size * f / f.std(0)

    u = stepped(rate, np.stack([field(1.4), field(0.7)]), gap, steps)[:, 0, 4::8]
    return np.arange(FRAMES) * gap, x[4::8, None], u.transpose(2, 0, 1)[..., None], {}


@problem()
def estuary(generator: np.random.Generator, count: int) -> Fields:
    """Level (m) and velocity in a channel of 40 km whose depth falls from 10 to 4 m, closed at its head, a tide of its
    own amplitude and phase at its mouth in every trajectory, friction .0025 |q| q: differences, hourly."""
    n, length, period, t = 200, 40e3, 44712.0, np.arange(FRAMES) * 3600.0
    h, faces = length / n, 10 - 6 * np.arange(n + 1) / n
    x, depth = (np.arange(n) + 0.5) * h, (faces[1:] + faces[:-1]) / 2
    paths = []
    for _ in range(count):
        size, phase = generator.uniform(0.5, 1.8), generator.uniform(0, 2 * np.pi)

        def rate(time: float, y: np.ndarray, size: float = size, phase: float = phase) -> np.ndarray:
            level, flux = y[:n], y[n:]
            tide = size * np.sin(2 * np.pi * time / period + phase)
            height = np.concatenate([[faces[0] + tide], ((depth + level)[:-1] + (depth + level)[1:]) / 2, [1.0]])
            fall = np.concatenate([[2 * (level[0] - tide)], np.diff(level), [0.0]]) / h
            v, advected = flux / height, np.zeros(n + 1)
            advected[1:-1] = v[1:-1] * (v[2:] - v[:-2]) / (2 * h)
            change = -9.81 * height * fall - height * advected - 0.0025 * np.abs(v) * v
            change[-1] = 0
            return np.concatenate([-np.diff(flux) / h, change])

        y = solve_ivp(rate, (-2 * period, t[-1]), np.zeros(2 * n + 1), "RK45", t, rtol=1e-6, atol=1e-7, max_step=60).y.T
        v = (y[:, n + 1 :] + y[:, n:-1]) / 2 / (depth + y[:, :n])
        paths.append(np.stack([y[:, :n], v], -1)[:, ::2])
    return t, x[::2, None], np.stack(paths), {"channels": ["eta", "v"]}


@problem()
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


@problem()
def stiffening_rod(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = (u_x + .6 u_x^2 + .4 u_x^3)_x + .01 v_xx, an elastic rod held at both ends of (0, 1): differences,
    256 cells, read at 65 nodes."""
    n, t = 256, np.arange(FRAMES) * 0.05
    x = np.arange(n + 1) / n
    waves = np.sin(np.pi * np.outer(np.arange(1, 6), x)) / np.arange(1, 6)[:, None]

    def rate(y: np.ndarray) -> np.ndarray:
        u, v = y
        slope = np.diff(u) * n
        force = np.diff(slope + 0.6 * slope**2 + 0.4 * slope**3 + 0.01 * np.diff(v) * n) * n
        return np.stack([v, np.pad(force, 1)])

    starts = [np.stack([0.12 * generator.standard_normal(5) @ waves, 0.4 * generator.standard_normal(5) @ waves])
              for _ in range(count)]
    u = np.stack([solve(rate, start, t) for start in starts])
    return t, x[::4, None], np.moveaxis(u, 2, 3)[:, :, ::4], {"channels": ["u", "v"]}
