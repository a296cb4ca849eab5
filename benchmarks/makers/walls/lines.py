"""Reaction, diffusion and transport on lines between walls."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse

from benchmarks.makers.base import FRAMES, TRAIN, Fields, bumps, bumps_of, problem, solve, stepped, with_noise
from benchmarks.makers.spectral import etd


@problem()
def burgers_held(generator: np.random.Generator, count: int, viscosity: float = 0.02) -> Fields:
    """u_t = viscosity u_xx - u u_x on (0, 2), zero at both ends, 127 inner nodes."""
    n, t = 127, np.arange(FRAMES) * 0.05
    h = 2 / (n + 1)
    x = np.arange(1, n + 1) * h

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, 1)
        return viscosity * (p[2:] - 2 * u + p[:-2]) / h**2 - (p[2:] ** 2 - p[:-2] ** 2) / (4 * h)

    start = [sum(generator.standard_normal() / k * np.sin(np.pi * k * x / 2) for k in range(1, 5))
             for _ in range(count)]
    return t, x[:, None], np.stack([solve(rate, u, t, "LSODA") for u in start])[..., None], {}


@problem()
def rod(generator: np.random.Generator, count: int) -> Fields:
    """u_t = (a u_x)_x on (0, 1), a = .02 (1.2 + sin(5 x)), held at 1 on the left, no flux on the right: finite volumes,
    400 cells, read at 80."""
    n, gap = 400, 0.15
    x, faces = (np.arange(n) + 0.5) / n, np.arange(n + 1) / n
    a = 0.02 * (1.2 + np.sin(5 * faces)) * n**2
    a[0], a[-1] = 2 * a[0], 0
    matrix = sparse.diags([a[1:-1], -(a[:-1] + a[1:]), a[1:-1]], [-1, 0, 1]).toarray()
    rate, modes = np.linalg.eigh(matrix)
    steady = np.ones(n)
    start = np.stack([bumps_of(generator, x[:, None], 0.5, 0.5) for _ in range(count)])
    start = 1 + (start - 1) * (1 - np.exp(-((x / 0.2) ** 2)))
    codes = (start - steady) @ modes
    t = np.arange(FRAMES) * gap
    u = steady + (codes[:, None] * np.exp(rate * t[:, None])) @ modes.T
    return t, x[2::5, None], u[..., 2::5, None], {}


@problem()
def heated_bar(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 u_xx + u - .4 u^3 on (0, 1), held at values about 1 and 2 that differ among trajectories: finite
    differences, 200 cells, read at every fourth from the second."""
    n, t = 200, np.arange(FRAMES) * 0.1
    x, waves, rows = (np.arange(n) + 0.5) / n, np.arange(1, 6), []
    for _ in range(count):
        a, b = generator.uniform([0.7, 1.5], [1.3, 2.5])

        def rate(u: np.ndarray, a: float = a, b: float = b) -> np.ndarray:
            p = np.concatenate([[2 * a - u[0]], u, [2 * b - u[-1]]])
            return np.asarray(0.03 * n**2 * (p[2:] - 2 * u + p[:-2]) + u - 0.4 * u**3)

        sizes = generator.standard_normal(5) / waves
        rows.append(solve(rate, a + (b - a) * x + sizes @ np.sin(np.pi * waves[:, None] * x), t, "BDF"))
    return t, x[1::4, None], np.stack(rows)[..., 1::4, None], {}


@problem()
def radial(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 (u_rr + u_r / r) + u - u^3 of the radius alone, .05 < r < 1, no flux: finite volumes in r."""
    n, t = 200, np.arange(FRAMES) * 0.2
    edge = np.linspace(0.05, 1, n + 1)
    r, h = (edge[1:] + edge[:-1]) / 2, edge[1] - edge[0]

    def rate(u: np.ndarray) -> np.ndarray:
        return 0.01 * np.diff(edge * np.pad(np.diff(u) / h, 1)) / h / r + u - u**3

    u = np.stack([solve(rate, bumps(generator, r[:, None], 4), t, "LSODA") for _ in range(count)])
    return t, r[1::3, None], u[..., 1::3, None], {}


@problem()
def reactor(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -c_x + c_xx / 60 - w, T_t = -T_x + T_xx / 60 + .6 w - .5 (T - 1), w = 2 c exp(8 (1 - 1 / T)) along a tube
    (0, 1), fed with .6 to 1.4 at .9 to 1.1, which differ among trajectories, no gradient at its end: differences."""
    n, t = 240, np.arange(FRAMES) * 0.06
    x, h = np.linspace(0, 1, n + 1), 1 / n
    inlet = np.stack([generator.uniform(0.6, 1.4, count), generator.uniform(0.9, 1.1, count)])[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        whole = np.concatenate([w, w[:, -2:-1]], 1)
        c, heat = w[:, 1:]
        made = 2 * c * np.exp(8 * (1 - 1 / heat))
        change = np.zeros_like(w)
        change[:, 1:] = np.diff(whole, 2, axis=1) / h**2 / 60 - (whole[:, 2:] - whole[:, :-2]) / (2 * h)
        change[:, 1:] += np.stack([-made, 0.6 * made - 0.5 * (heat - 1)])
        return change

    shapes = np.stack([[bumps(generator, x[:, None], 4) for _ in range(count)] for _ in range(2)]).swapaxes(1, 2)
    shapes = np.tanh(shapes) * (1 - np.exp(-((x / 0.2) ** 2)))[:, None]
    w = inlet + np.array([0.4, 0.1])[:, None, None] * shapes
    return t, x[::3, None], solve(rate, w, t).transpose(3, 0, 2, 1)[:, :, ::3], {"channels": ["c", "T"]}


@problem()
def arrhenius(generator: np.random.Generator, count: int) -> Fields:
    """Temperature and fuel: T_t = 0.02 T_xx + w - 0.1 T, y_t = 0.01 y_xx - w + 0.1 (1 - y), w = 3 y exp(-2 / T), walls.

    On (0, 3), 64 of 192 cells.
    """
    n, h, t = 192, 3 / 192, np.arange(FRAMES) * 0.3
    x = ((np.arange(n) + 0.5) * h)[:, None]

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, ((0, 0), (1, 1)), mode="edge")
        w = 3 * u[1] * np.exp(-2 / np.maximum(u[0], 0.05))
        return np.array([[0.02], [0.01]]) * np.diff(p, 2, 1) / h**2 + np.stack(
            [w - 0.1 * u[0], 0.1 * (1 - u[1]) - w])

    u = np.stack([solve(rate, np.stack([0.8 + 0.5 * np.tanh(bumps(generator, x / 3, 4)),
                                        0.7 + 0.25 * np.tanh(bumps(generator, x / 3, 4))]), t) for _ in range(count)])
    return t, x[1::3], np.moveaxis(u, 2, 3)[:, :, 1::3], {"channels": ["T", "y"]}


@problem()
def uneven_burner(generator: np.random.Generator, count: int) -> Fields:
    """T_t = .02 T_xx - k (T - .5) + w, y_t = .01 y_xx - w + .1 (1 - y), w = 2 c y exp(-2 / T) on (0, 3) without flux,
    with losses k and a catalyst c of place: 192 cells, means of three are read."""
    n, h = 192, 3 / 192
    x = (np.arange(n) + 0.5) * h
    losses, catalyst = (0.25 + 0.15 * np.tanh((x - 1.5) / 0.4))[:, None], (1 + 0.8 * np.sin(2 * np.pi * x / 3))[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        burnt = 2 * catalyst * w[1] * np.exp(-2 / np.maximum(w[0], 0.05))
        spread = np.diff(np.pad(w, ((0, 0), (1, 1), (0, 0)), mode="edge"), 2, 1) / h**2
        return np.stack([0.02 * spread[0] - losses * (w[0] - 0.5) + burnt,
                         0.01 * spread[1] - burnt + 0.1 * (1 - w[1])])

    w = np.stack([np.stack([mean + bumps_of(generator, x[:, None], size) for _ in range(count)], -1)
                  for mean, size in ((1.2, 0.35), (0.7, 0.15))])
    frames = stepped(rate, w, 0.4, 200).reshape(FRAMES, 2, n // 3, 3, count).mean(3)
    return np.arange(FRAMES) * 0.4, x[1::3, None], frames.transpose(3, 0, 2, 1), {"channels": ["T", "y"]}


@problem(12, 8)
def front(generator: np.random.Generator, count: int) -> Fields:
    """u_t = u_xx + u (1 - u) between walls of (0, 80): fronts, which in the frames forecast run where none was."""
    n, h = 400, 0.2
    x, u = (np.arange(n) + 0.5) * h, []

    def rate(u: np.ndarray) -> np.ndarray:
        padded = np.pad(u, 1, mode="edge")
        return np.asarray((padded[2:] - 2 * u + padded[:-2]) / h**2 + u * (1 - u))

    for _ in range(count):
        size, place, width = generator.uniform([0.3, 4, 1], [1.0, 12, 3])
        u.append(solve(rate, size / (1 + np.exp((x - place) / width)), np.arange(FRAMES) * 1.5))
    return np.arange(FRAMES) * 1.5, x[1::4, None], np.stack(u)[..., 1::4, None], {}


@problem()
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


@problem()
def ginzburg_walls(generator: np.random.Generator, count: int) -> Fields:
    """A_t = A + (1 + .5 i) A_xx - (1 + b i) |A|^2 A on (0, 30) without flux, b a parameter of every trajectory: 0, .5,
    1, 1.5 in training, .7, 1.2 and 2 in tests: real and imaginary part, differences, 300 cells, at every fourth."""
    n, gap, steps = 300, 0.4, 100
    h, x = 30 / n, (np.arange(n)[:, None] + 0.5) * 30 / n
    b = np.concatenate([np.resize([0.0, 0.5, 1.0, 1.5], TRAIN), np.resize([0.7, 1.2, 2.0], count - TRAIN)])

    def rate(a: np.ndarray) -> np.ndarray:
        lap = np.diff(np.pad(a, ((1, 1), (0, 0)), mode="edge"), 2, 0) / h**2
        return a + (1 + 0.5j) * lap - (1 + 1j * b) * abs(a) ** 2 * a

    k = np.arange(16)[:, None]
    z = (generator.standard_normal((16, count)) + 1j * generator.standard_normal((16, count))) / (1 + k / 4) ** 2
    a = stepped(rate, np.cos(np.pi * x / 30 * k.T) @ z * 0.6, gap, steps)[:, 1::4]
    u = np.stack([a.real, a.imag], -1).transpose(2, 0, 1, 3)
    return np.arange(FRAMES) * gap, x[1::4], u, {"channels": ["re", "im"], "parameters": b[:, None]}


@problem()
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


@problem()
def ageing(generator: np.random.Generator, count: int) -> Fields:
    """n_t = -n_a - (.3 + 1.5 a^2 + .4 N) n for ages of 0 to 1, births n(0) = integral of b n, N all who live
    (McKendrick and von Foerster), after one life time: along characteristics, 400 steps of age."""
    m, every = 400, 32
    a, da = np.linspace(0, 1, m + 1), 1 / m
    births = 9 * np.exp(-(((a - 0.4) / 0.12) ** 2))
    weights = np.r_[0.5, np.ones(m - 1), 0.5] * da
    n = np.exp(np.stack([bumps(generator, a[:, None], 4) for _ in range(count)]))
    frames = []
    for step in range(m + every * (FRAMES - 1) + 1):
        if step >= m and (step - m) % every == 0:
            frames.append(n)
        death = 0.3 + 1.5 * (a[:-1] + da / 2) ** 2 + 0.4 * (n @ weights)[:, None]
        n = np.concatenate([0 * n[:, :1], n[:, :-1] * np.exp(-death * da)], 1)
        n[:, 0] = n @ (births * weights) / (1 - births[0] * weights[0])
    return np.arange(FRAMES) * every * da, a[::5, None], np.stack(frames, 1)[:, :, ::5, None], {"channels": ["n"]}


@problem()
def sorption(generator: np.random.Generator, count: int) -> Fields:
    """u_t = D / R(u) u_xx, R = 1 + 2.2 u^-.126, held at 1 on the left, losing D u_x on the right: 200 cells, at 100."""
    t = np.arange(FRAMES) * 25.0
    d, h, x = 5e-4, 1 / 200, (np.arange(200) + 0.5) / 200
    retarding = (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * 0.874

    def rate(u: np.ndarray) -> np.ndarray:
        padded = np.concatenate([[2 - u[0]], u, [u[-1] - h * d * (u[-1] - u[-2]) / h]])
        bent = (padded[2:] - 2 * u + padded[:-2]) / h**2
        return np.asarray(d * bent / (1 + retarding * np.maximum(u, 1e-6) ** (0.874 - 1)))

    u = []
    for _ in range(count):
        f = bumps(generator, x[:, None], 4)
        u.append(solve(rate, 0.05 + 0.4 * (f - f.min()) / np.ptp(f), t, "BDF"))
    return t, x[::2, None], np.stack(u)[..., ::2, None], {}


@problem(24, 10)
def flame_walls(generator: np.random.Generator, count: int) -> Fields:
    """h_t = -h_xx - h_xxxx - h_x^2 / 2 less its mean on (0, 32) without flux of h and h_xx, chaotic, 10 % noise on
    training values: cosines, 192, read at every other centre of their cells, from the second one on."""
    n, gap = 192, 1.0
    k, x = np.pi * np.arange(n) / 32, (np.arange(n) + 0.5) / n * 32
    cosines, sines = np.cos(np.outer(k, x)), np.sin(np.outer(k, x))
    keep = (0 < np.arange(n)) & (np.arange(n) < 2 * n // 3)

    def rate(z: np.ndarray) -> np.ndarray:
        return np.asarray(-((z * k) @ sines) ** 2 @ cosines.T / n * keep)

    z = 0.3 * generator.standard_normal((count, n)) * (keep & (np.arange(n) < 20))
    frames = [etd(k**2 - k**4, rate, z, 0.02, 3000)]
    for _ in range(FRAMES - 1):
        frames.append(etd(k**2 - k**4, rate, frames[-1], gap / 50, 50))
    u = (np.stack(frames, 1) @ cosines)[:, :, 1::2, None]
    return np.arange(FRAMES) * gap, x[1::2, None], with_noise(generator, u, 0.1), {}
