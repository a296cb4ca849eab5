"""Patterns, phases, nonlocal terms, moving sources and patches of land on meshes of many outlines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import skfem
from scipy.sparse.linalg import splu

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, problem, stepped
from benchmarks.makers.elements import by_modes, circle, elements, mesh, polygon, quadratic, reacting, refined
from benchmarks.makers.spectral import etd


@problem()
def hexagon(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .3 u - (1 + lap)^2 u + u^2 - u^3 in a regular hexagon of side 12, without flux of u and of lap u."""
    turn = np.arange(6) * np.pi / 3
    basis, stiffness, masses, cells = quadratic([polygon([tuple(12 * np.array([np.cos(a), np.sin(a)]))
                                                          for a in turn], 1.0)], 1.0)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    smooth = splu((masses + 1.0 * stiffness).tocsc())
    w = generator.standard_normal((len(x), count))
    for _ in range(3):
        w = smooth.solve(masses @ w)
    w = 0.5 * w / w.std()
    frames = by_modes(stiffness, masses, w[None], lambda k: 0.3 - (1 - k[None]) ** 2, lambda u: u**2 - u**3, 0.5, 30)
    return np.arange(FRAMES) * 0.5, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


@problem(12, 6)
def gathering(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u - div(u grad c), -lap c = u - its mean, without flux on a disc with a hole: cells drawn by what
    they make, which spreads at once; quadratic elements."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 1, .1), circle((0.3, 0.2), .2, .08)], .1)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.15, 8
    ends, h, size = splu((stiffness + 1e-9 * masses).tocsc()), gap / steps, masses.sum()
    form = skfem.BilinearForm(lambda u, v, w: u * (w["c"].grad[0] * v.grad[0] + w["c"].grad[1] * v.grad[1]))
    paths = []

    def drift(u: np.ndarray) -> np.ndarray:
        c = ends.solve(masses @ (u - (masses @ u).sum() / size))
        return form.assemble(basis, c=basis.interpolate(c)) @ u

    half = splu((masses + h / 2 * 0.03 * stiffness).tocsc())
    for _ in range(count):
        u, frames = np.clip(bumps_of(generator, x, 0.25, 0.9), 0.1, None), []
        for index in range(steps * (FRAMES - 1) + 1):
            if index % steps == 0:
                frames.append(u[nodes])
            middle = half.solve(masses @ u + h / 2 * drift(u))
            u = half.solve(masses @ u - h / 2 * 0.03 * (stiffness @ u) + h * drift(middle))
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * gap, x[nodes], np.stack(paths)[..., None], cells


@problem()
def plate_patterns(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .4 u - (1 + lap)^2 u - u^3 on a disc of radius 12, without flux of u and of lap u, every trajectory at
    times of its own, 2 % noise."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 12, 1.1)], 1.1)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    w = np.stack([bumps_of(generator, x, 0.4) + 0.3 * generator.standard_normal() * np.cos(
        x @ generator.standard_normal(2)) for _ in range(count)], -1)
    frames = by_modes(stiffness, masses, w[None], lambda k: 0.4 - (1 - k[None]) ** 2, lambda u: -u**3, 0.4, 20)
    u = frames[:, :, nodes].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * 0.4, x[nodes], u + 0.02 * u.std() * generator.standard_normal(u.shape), cells


@problem()
def phases_disc(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u^3 - u - .004 lap u) on a disc, no flux: Cahn and Hilliard in eigenfunctions of quadratic elements."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 0.6, 0.055)], 0.055)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.003, 200
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray(), subset_by_index=[0, 499])
    k, back = values[:, None], modes.T @ masses

    def rate(z: np.ndarray) -> np.ndarray:
        u = modes @ z
        return -k * (back @ (u**3 - 3 * u))

    z = back @ np.stack([bumps_of(generator, x, 0.35, generator.uniform(-0.2, 0.2)) for _ in range(count)], 1)
    linear = -0.004 * k**2 - 2 * k
    z = etd(linear, rate, z, gap / steps, steps)
    frames = [z]
    for _ in range(FRAMES - 1):
        frames.append(etd(linear, rate, frames[-1], gap / steps, steps))
    u = np.stack([(modes @ z)[nodes] for z in frames])
    return np.arange(FRAMES) * gap, x[nodes], u.transpose(2, 0, 1)[..., None], cells


@problem()
def cortex(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u + K s(u) - v, v_t = .3 u - .25 v, K s = integral of 2.4 exp(-r^2 / .04) - .9 exp(-r^2 / .16), each of
    unit mass, times s = 1 / (1 + exp(-8 (u - .3))), over a star-shaped sheet of nerves (Amari; Pinto and Ermentrout),
    at 450 scattered places: quadrature by the masses of linear elements."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    edge = (1 + 0.25 * np.cos(5 * turn))[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    x, cells = mesh([edge], 0.04)
    masses, far = elements(x, cells)[1], np.square(x[:, None] - x).sum(-1)
    kernel = (2.4 * np.exp(-far / 0.04) / (0.04 * np.pi) - 0.9 * np.exp(-far / 0.16) / (0.16 * np.pi)) * masses

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-u + kernel @ (1 / (1 + np.exp(-8 * (u - 0.3)))) - v, 0.3 * u - 0.25 * v])

    w = np.stack([np.stack([bumps_of(generator, x, size, mean) for _ in range(count)], 1)
                  for size, mean in ((0.4, 0.3), (0.15, 0.2))])
    seen = generator.choice(len(x), 450, False)
    u = stepped(rate, w, 0.4, 8)[:, :, seen]
    return np.arange(FRAMES) * 0.4, x[seen], u.transpose(3, 0, 2, 1), {"channels": ["activity", "recovery"]}


@problem()
def circling(generator: np.random.Generator, count: int) -> Fields:
    """T_t = .02 lap T + 8 exp(-|x - s(t)|^2 / .02) - .4 (T^4 - .3^4) on a plate, a disc without flux: a torch s circles
    once in 1.2 and heat is radiated; trajectories start together: linear elements, read at half of the sides."""
    x, cells = mesh([circle((0, 0), 1, 0.09)], 0.09)
    fine, parts = refined(x, cells)
    stiffness, masses = elements(fine, parts)
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


@problem()
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


def _fine(curves: list[np.ndarray], h: float, reach: float, start: Callable, reaction: Callable,
          diffusivities: tuple[float, float], step: float) -> Callable[..., Fields]:
    """Two reacting fields on linear elements of side h / 2, seen at nodes h apart, from smoothed noise."""
    def make(generator: np.random.Generator, count: int) -> Fields:
        x, cells = mesh(curves, h)
        stiffness, diagonal = elements(*refined(x, cells))
        masses = sparse.diags(diagonal).tocsc()
        smooth = splu((masses + reach**2 * stiffness).tocsc())
        noise = generator.standard_normal((2, len(diagonal), count)) / np.sqrt(diagonal)[:, None]
        for _ in range(3):
            noise = np.stack([smooth.solve(masses @ part) for part in noise])
        noise -= noise.mean(1, keepdims=True)
        u = reacting(start(noise / noise.std(1, keepdims=True)), reaction, stiffness.tocsc(), masses, diffusivities,
                     step, 20)
        return np.arange(FRAMES) * 20 * step, x, u[:, :, : len(x)].transpose(3, 0, 2, 1), {"triangles": cells}

    return make


hall_spirals = problem(name="hall_spirals")(_fine(
    [polygon([(0, 0), (2, 0), (2, 2), (0, 2)], 0.045), *(circle((a, b), 0.13, 0.045) for a in (0.6, 1.4)
                                                         for b in (0.6, 1.4))], 0.045, 0.16,
    lambda f: np.stack([1 / (1 + np.exp(-2 * f[0])), 0.4 + 0.3 * f[1]]),
    lambda w: np.stack([w[0] * (1 - w[0]) * (w[0] - (w[1] + 0.01) / 0.75) / 0.05, w[0] - w[1]]), (2e-3, 1e-3), 0.01))
corner_stripes = problem(name="corner_stripes")(_fine(
    [polygon([(0, 0), (2.2, 0), (2.2, 1), (1, 1), (1, 2.2), (0, 2.2)], 0.04)], 0.04, 0.1,
    lambda f: np.stack([1.0 + 0.25 * f[0], 0.9 + 0.12 * f[1]]),
    lambda w: np.stack([0.1 - w[0] + w[0] ** 2 * w[1], 0.9 - w[0] ** 2 * w[1]]), (5e-4, 1e-2), 0.02))
