"""Mixed data, made before any mechanism saw them: light in a glass between metal walls, a nerve's voltage alone, noise
that drives, traffic, heat and sound in a rod, a heart's surface, tides in a channel, coupled clocks.

python benchmarks/mixed_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
from data_makers import FRAMES, Fields, solve, surface_elements, write_problems
from scipy.integrate import solve_ivp
from scipy.ndimage import map_coordinates
from scipy.sparse.linalg import splu
from scipy.spatial import ConvexHull

TRAIN, TEST = 24, 8


def _waves(generator: np.random.Generator, phase: np.ndarray, most: int, size: float) -> np.ndarray:
    """A sum of cosines of whole multiples, up to `most`, of a phase (N,), of amplitudes size / j."""
    return np.sum([size * generator.standard_normal() / j * np.cos(j * phase + generator.uniform(0, 2 * np.pi))
                   for j in range(1, most + 1)], 0)


def maxwell(generator: np.random.Generator, count: int) -> Fields:
    """eps dE/dt = curl H, dH/dt = -curl E, E across a box of 1.3 x 1 between metal walls, a round lens of eps up to 2.2
    in it: Yee's scheme at cells of 1/80, E and H at one time, at 450 scattered points."""
    n, m, h, every = 105, 81, 1 / 80, 10
    dt, axes = h / 2, (np.arange(n) * h, np.arange(m) * h)
    x, y = np.meshgrid(*axes, indexing="ij")
    eps = 1 + 1.2 * np.exp(-30 * ((x - 0.8) ** 2 + (y - 0.45) ** 2))
    points = generator.uniform([0.01, 0.01], [1.29, 0.99], (450, 2))
    at, paths = (points / h).T, []
    for _ in range(count):
        e = np.sum([generator.standard_normal() * np.sin(np.pi * i * x / 1.3) * np.sin(np.pi * j * y) / (i * i + j * j)
                    for i in range(1, 5) for j in range(1, 5)], 0)
        hx, hy = -dt / 2 * np.diff(e, axis=1) / h, dt / 2 * np.diff(e, axis=0) / h
        frames = []
        for step in range(every * (FRAMES - 1) + 1):
            if step % every == 0:
                now = hx + dt / 2 * np.diff(e, axis=1) / h, hy - dt / 2 * np.diff(e, axis=0) / h
                frames.append(np.stack([map_coordinates(e, at, order=3),
                                        map_coordinates(now[0], at - [[0], [0.5]], order=3, mode="nearest"),
                                        map_coordinates(now[1], at - [[0.5], [0]], order=3, mode="nearest")], -1))
            e[1:-1, 1:-1] += dt / eps[1:-1, 1:-1] * (np.diff(hy, axis=0)[:, 1:-1] - np.diff(hx, axis=1)[1:-1]) / h
            hx = hx - dt * np.diff(e, axis=1) / h
            hy = hy + dt * np.diff(e, axis=0) / h
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * every * dt, points, np.stack(paths), {"channels": ["Ez", "Hx", "Hy"]}


def nerve(generator: np.random.Generator, count: int) -> Fields:
    """Voltage (mV) along an axon of Hodgkin and Huxley (1952) without flux at its ends; its three gates are not seen:
    differences at 120 points."""
    n, t = 120, np.arange(FRAMES) * 0.5
    x = (np.arange(n) + 0.5) / n * 6

    def rate(w: np.ndarray) -> np.ndarray:
        v, m, h, k = w
        opening = [0.1 * (v + 40) / (1 - np.exp(-(v + 40) / 10) + 1e-12), 0.07 * np.exp(-(v + 65) / 20),
                   0.01 * (v + 55) / (1 - np.exp(-(v + 55) / 10) + 1e-12)]
        closing = [4 * np.exp(-(v + 65) / 18), 1 / (1 + np.exp(-(v + 35) / 10)), 0.125 * np.exp(-(v + 65) / 80)]
        second = np.diff(np.concatenate([v[:1], v, v[-1:]]), 2) / (x[1] - x[0]) ** 2
        current = 120 * m**3 * h * (v - 50) + 36 * k**4 * (v + 77) + 0.3 * (v + 54.4)
        return np.stack([0.12 * second - current,
                         *(a * (1 - g) - b * g for a, b, g in zip(opening, closing, (m, h, k), strict=True))])

    paths = []
    for _ in range(count):
        centres = generator.uniform(0, 6, 2)
        v = -65 + np.sum([generator.uniform(20, 60) * np.exp(-((x - c) / 0.4) ** 2) for c in centres], 0)
        gates = [np.full(n, rest) for rest in (0.053, 0.596, 0.318)]
        paths.append(solve(rate, np.stack([v, *gates]), t, "LSODA")[:, 0])
    return t, x[:, None], np.stack(paths)[..., None], {"channels": ["V"]}


def stochastic(generator: np.random.Generator, count: int) -> Fields:
    """du = (.003 lap u + u - u^3) dt + 1.5 dW on the periodic unit square, W smooth in space and white in time:
    Fourier, 32 x 32, semi-implicit Euler steps."""
    n, dt, every, before = 32, 0.02, 20, 200
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    k2 = k[:, None] ** 2 + k**2
    smooth = np.exp(-k2 / (8 * np.pi) ** 2 / 2)
    x = np.stack(np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij"), -1).reshape(-1, 2)

    def noise() -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(generator.standard_normal((count, n, n))) * smooth).real

    w, frames = 4 * noise(), []
    for step in range(before + every * (FRAMES - 1) + 1):
        if step >= before and (step - before) % every == 0:
            frames.append(w)
        moved = w + dt * (w - w**3) + np.sqrt(dt) * 1.5 * noise()
        w = np.fft.ifft2(np.fft.fft2(moved) / (1 + 0.003 * dt * k2)).real
    u = np.stack(frames, 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * every * dt, x, u, {"period": [1.0, 1.0]}


def traffic(generator: np.random.Generator, count: int) -> Fields:
    """Cars on a circular road of length 10: r_t = -(r v)_x, v_t = -v v_x + (V(r) - v) / .8 - .5 r_x / r + .05 v_xx / r
    with a sigmoid V (Kerner and Konhaeuser 1993): Fourier, 128."""
    n, length, t = 128, 10.0, np.arange(FRAMES) * 0.4
    x, k = np.arange(n) / n * length, 2j * np.pi * np.fft.fftfreq(n, length / n)

    def slope(f: np.ndarray) -> np.ndarray:
        return np.fft.ifft(k * np.fft.fft(f)).real

    def wished(r: np.ndarray) -> np.ndarray:
        return 1.5 * (1 / (1 + np.exp((r / 0.55 - 0.45) / 0.15)) - 3.7e-6)

    def rate(w: np.ndarray) -> np.ndarray:
        r, v = w
        return np.stack([-slope(r * v), -v * slope(v) + (wished(r) - v) / 0.8 - 0.5 * slope(r) / r
                         + 0.05 * slope(slope(v)) / r])

    paths = []
    for _ in range(count):
        r = np.clip(0.35 + _waves(generator, 2 * np.pi * x / length, 5, 0.05), 0.1, 0.8)
        v = wished(r) + _waves(generator, 2 * np.pi * x / length, 4, 0.05)
        paths.append(solve(rate, np.stack([r, v]), t, "LSODA"))
    return t, x[:, None], np.stack(paths).swapaxes(2, 3), {"channels": ["rho", "v"], "period": [length]}


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


def _ellipsoid(levels: int, axes: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and triangles of a refined icosahedron, stretched."""
    golden = (1 + 5**0.5) / 2
    x = np.array([p for a in (-1, 1) for b in (-golden, golden) for p in ((0, a, b), (a, b, 0), (b, 0, a))], float)
    for _ in range(levels):
        cells = ConvexHull(x / np.linalg.norm(x, axis=1, keepdims=True)).simplices
        x = np.concatenate([x, *((x[cells[:, i]] + x[cells[:, j]]) / 2 for i, j in ((0, 1), (1, 2), (2, 0)))])
        x = np.unique(np.round(x / np.linalg.norm(x, axis=1, keepdims=True), 10), axis=0)
    return x * np.array(axes), ConvexHull(x).simplices


def heart(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + 8 u (u - .1) (1 - u) - u v, v_t = (.01 + .2 v / (u + .3)) (-v - 8 u (u - 1.1)) on an ellipsoid
    (Aliev and Panfilov 1996): linear surface elements at 642 nodes, Crank and Nicolson with explicit reactions."""
    x, cells = _ellipsoid(3, (1.0, 1.0, 1.6))
    stiffness, masses = surface_elements(x, cells)
    dt, every = 0.02, 25
    implicit, explicit = splu(masses + dt * 0.01 * stiffness), masses - dt * 0.01 * stiffness
    u, v = np.zeros((2, len(x), count))
    for s in range(count):
        for _ in range(generator.integers(1, 4)):
            u[:, s] = np.maximum(u[:, s], np.exp(-((x - x[generator.integers(len(x))]) ** 2).sum(1) / 0.12))
        ahead = generator.standard_normal(3)
        v[:, s] = 1.2 / (1 + np.exp(-6 * (x @ ahead / np.linalg.norm(ahead) - 0.2)))

    def reaction(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 8 * u * (u - 0.1) * (1 - u) - u * v, (0.01 + 0.2 * v / (u + 0.3)) * (-v - 8 * u * (u - 1.1))

    frames = []
    for step in range(every * (FRAMES - 1) + 1):
        if step % every == 0:
            frames.append(np.stack([u, v], -1))
        du, dv = reaction(u, v)
        du, dv = reaction(u + dt / 2 * du, v + dt / 2 * dv)
        u, v = implicit.solve(explicit @ u + masses @ (dt * du)), v + dt * dv
    return (np.arange(FRAMES) * every * dt, x, np.stack(frames).transpose(2, 0, 1, 3),
            {"channels": ["u", "v"], "triangles": cells})


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


def clocks(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -mean over y of (1 + .95 cos(x - y)) sin(p(x) - p(y) + 1.2) on a circle (Abrams and Strogatz 2004), seen as
    cos p and sin p: 128 oscillators."""
    n, t = 128, np.arange(FRAMES) * 1.0
    x = np.arange(n) / n * 2 * np.pi
    coupling, paths = (1 + 0.95 * np.cos(x[:, None] - x)) / n, []

    def rate(p: np.ndarray) -> np.ndarray:
        return np.cos(p + 1.2) * (coupling @ np.sin(p)) - np.sin(p + 1.2) * (coupling @ np.cos(p))

    for _ in range(count):
        bump = 6 * generator.uniform(-0.5, 0.5) * np.exp(-2 * (x - generator.uniform(2, 4)) ** 2)
        p = solve(rate, bump + _waves(generator, x, 4, 1.0), t, "LSODA")
        paths.append(np.stack([np.cos(p), np.sin(p)], -1))
    return t, x[:, None], np.stack(paths), {"channels": ["c", "s"], "period": [2 * np.pi]}


MAKERS = {maker.__name__: maker for maker in (
    maxwell, nerve, stochastic, traffic, thermoelastic, heart, estuary, clocks)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
