"""Further data, made before any mechanism saw them: walls that leak or are held in part, surfaces, stirred and charged
matter, obstacles elsewhere in every trajectory, seasons, delays, fronts, coarse or odd frames, units.

python benchmarks/unseen_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import scipy.linalg
import skfem
from blind_data import _bumps, _etd, _quadratic
from collection_data import _real, _torus, _waves
from data_makers import FRAMES, Fields, bumps, solve, write_problems
from scipy.fft import dctn, idctn
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import splu
from shape_data import _circle, _polygon
from skfem.models.poisson import mass

TRAIN, TEST = 24, 8


def _modal(stiffness: np.ndarray, masses: np.ndarray, w: np.ndarray, linear: Callable, reaction: Callable, gap: float,
           steps: int) -> np.ndarray:
    """Frames (T, C, n, S) from w (C, n, S) of finite elements: linear(eigenvalues) (C, n) exact, reactions by
    Runge-Kutta, in all eigenfunctions."""
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray())
    back = modes.T @ masses

    def rate(z: np.ndarray) -> np.ndarray:
        return back @ reaction(modes @ z)

    z, frames = back @ w, [w]
    for _ in range(FRAMES - 1):
        z = _etd(linear(values)[..., None], rate, z, gap / steps, steps)
        frames.append(modes @ z)
    return np.stack(frames)


def leaky_plate(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u + u - u^3 in a kite with a round hole, which loses du/dn = -2 u through all of its walls."""
    basis, stiffness, masses, cells = _quadratic([_polygon([(0, 0), (1.6, -.3), (2.0, .9), (.5, 1.3)], .09),
                                                  _circle((1.1, .5), .25, .09)], .09)
    leak = mass.assemble(skfem.FacetBasis(basis.mesh, basis.elem))
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    w = np.stack([_bumps(generator, x, 0.6, 0.2) for _ in range(count)], -1)[None]
    frames = _modal(stiffness + 2 * leak, masses, w, lambda k: -0.03 * k[None], lambda u: u - u**3, 0.25, 30)
    return np.arange(FRAMES) * 0.25, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


def half_held_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = lap u between two circles, the outer one held at 0, the inner one free: in closed form."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 1, .08), _circle((0.1, 0), .35, .08)], .08)
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


def torus_surface(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .06 lap u + u - u^3/3 - v + .5, v_t = .02 lap v + .08 (u + .7 - .8 v) on a torus of radii 1 and .4:
    differences in both angles, 80 x 40, read at every second point of a triangulated surface."""
    n, m = 80, 40
    p, q = np.meshgrid(np.arange(n) / n * 2 * np.pi, np.arange(m) / m * 2 * np.pi, indexing="ij")
    ring, dp, dq = 1 + 0.4 * np.cos(q), 2 * np.pi / n, 2 * np.pi / m
    x = np.stack([ring * np.cos(p), ring * np.sin(p), 0.4 * np.sin(q)], -1)
    between = 1 + 0.4 * np.cos(q + dq / 2)

    def lap(u: np.ndarray) -> np.ndarray:
        around = (np.roll(u, 1, -2) - 2 * u + np.roll(u, -1, -2)) / dp**2 / ring**2
        flux = between * (np.roll(u, -1, -1) - u) / dq
        return around + (flux - np.roll(flux, 1, -1)) / dq / ring / 0.4**2

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([0.06 * lap(u) + u - u**3 / 3 - v + 0.5, 0.02 * lap(v) + 0.08 * (u + 0.7 - 0.8 * v)])

    t = np.arange(FRAMES) * 0.5
    u = np.stack([solve(rate, np.stack([
        size * bumps(generator, x / 3 + 0.5, 2) + mean for size, mean in ((1.2, 0.0), (0.4, 0.5))]), t)
                  for _ in range(count)])[..., ::2, ::2]
    i, j = np.meshgrid(np.arange(n // 2), np.arange(m // 2), indexing="ij")
    a, b, c, d = ((i + e) % (n // 2) * (m // 2) + (j + f) % (m // 2) for e, f in ((0, 0), (1, 0), (1, 1), (0, 1)))
    cells = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return t, x[::2, ::2].reshape(-1, 3), np.moveaxis(u, 2, -1).reshape(count, FRAMES, -1, 2), {"triangles": cells}


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


def stirred(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u without flux in an ellipse with a hole, stirred by a steady flow w of its own in
    every trajectory, given as two channels: quadratic elements."""
    turn = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    basis, stiffness, masses, cells = _quadratic([np.stack([1.3 * np.cos(turn), 0.8 * np.sin(turn)], 1),
                                                  _circle((0.4, 0.1), 0.22, 0.09)], 0.09)
    x, nodes, walls, u = basis.doflocs.T, basis.nodal_dofs[0], basis.get_dofs().flatten(), []
    for _ in range(count):
        psi = skfem.solve(*skfem.condense(stiffness, masses @ _bumps(generator, x, 6.0), D=walls))
        operator = (_carried.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
        frames = _transported(operator, masses, _bumps(generator, x, 0.5, 0.5), np.zeros(0, int), 0.15, 30)
        still = np.broadcast_to(_velocity(basis, masses, psi), (FRAMES, len(x), 2))
        u.append(np.concatenate([frames[..., None], still], -1)[:, nodes])
    return np.arange(FRAMES) * 0.15, x[nodes], np.stack(u), {**cells, "channels": ["u", "wx", "wy"]}


def obstacles(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u in a channel past a round obstacle at another place in every trajectory, w its
    potential flow, given as two channels; the inflow is held at sin(pi y)^2; quadratic elements, at scattered nodes."""
    every, places = [], []
    for _ in range(count):
        centre = np.array([generator.uniform(0.6, 1.2), generator.uniform(0.35, 0.65)])
        basis, stiffness, masses, _ = _quadratic([_polygon([(0, 0), (2, 0), (2, 1), (0, 1)], .08),
                                                  _circle(tuple(centre), .18, .07)], .08)
        x, walls = basis.doflocs.T, basis.get_dofs().flatten()
        psi = x[:, 1].copy()
        psi[walls[np.hypot(*(x[walls] - centre).T) < 0.19]] = centre[1]
        psi = skfem.solve(*skfem.condense(stiffness, x=psi, D=walls))
        operator = (_carried.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
        blend = np.exp(-((x[:, 0] / 0.15) ** 2))
        u = (1 - blend) * _bumps(generator, x, 0.4, 0.5) + blend * np.sin(np.pi * x[:, 1]) ** 2
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


def hexagon(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .3 u - (1 + lap)^2 u + u^2 - u^3 in a regular hexagon of side 12, without flux of u and of lap u."""
    turn = np.arange(6) * np.pi / 3
    basis, stiffness, masses, cells = _quadratic([_polygon([tuple(12 * np.array([np.cos(a), np.sin(a)]))
                                                            for a in turn], 1.0)], 1.0)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    smooth = splu((masses + 1.0 * stiffness).tocsc())
    w = generator.standard_normal((len(x), count))
    for _ in range(3):
        w = smooth.solve(masses @ w)
    w = 0.5 * w / w.std()
    frames = _modal(stiffness, masses, w[None], lambda k: 0.3 - (1 - k[None]) ** 2, lambda u: u**2 - u**3, 0.5, 30)
    return np.arange(FRAMES) * 0.5, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


def gathering(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u - div(u grad c), -lap c = u - its mean, without flux on a disc with a hole: cells drawn by what
    they make, which spreads at once; quadratic elements."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 1, .1), _circle((0.3, 0.2), .2, .08)], .1)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.15, 8
    ends, h, size = splu((stiffness + 1e-9 * masses).tocsc()), gap / steps, masses.sum()
    form = skfem.BilinearForm(lambda u, v, w: u * (w["c"].grad[0] * v.grad[0] + w["c"].grad[1] * v.grad[1]))
    paths = []

    def drift(u: np.ndarray) -> np.ndarray:
        c = ends.solve(masses @ (u - (masses @ u).sum() / size))
        return form.assemble(basis, c=basis.interpolate(c)) @ u

    half = splu((masses + h / 2 * 0.03 * stiffness).tocsc())
    for _ in range(count):
        u, frames = np.clip(_bumps(generator, x, 0.25, 0.9), 0.1, None), []
        for index in range(steps * (FRAMES - 1) + 1):
            if index % steps == 0:
                frames.append(u[nodes])
            middle = half.solve(masses @ u + h / 2 * drift(u))
            u = half.solve(masses @ u - h / 2 * 0.03 * (stiffness @ u) + h * drift(middle))
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * gap, x[nodes], np.stack(paths)[..., None], cells


def alloy(generator: np.random.Generator, count: int) -> Fields:
    """u_t = div((1 - u^2) grad(u^3 - u - .004 lap u)) between walls of a unit box: phases of degenerate mobility,
    finite volumes, 48 x 48 cells, at 24 x 24."""
    n, t = 48, np.arange(FRAMES) * 0.02
    x = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(x, x, indexing="ij"), -1)

    def slopes(f: np.ndarray) -> list[np.ndarray]:
        return [n * np.diff(f, axis=0, prepend=f[:1], append=f[-1:]),
                n * np.diff(f, axis=1, prepend=f[:, :1], append=f[:, -1:])]

    def divergence(flux: list[np.ndarray]) -> np.ndarray:
        return np.asarray(np.diff(flux[0], axis=0) + np.diff(flux[1], axis=1)) * n

    def rate(u: np.ndarray) -> np.ndarray:
        force, padded = slopes(u**3 - u - 0.004 * divergence(slopes(u))), np.pad(u, 1, mode="edge")
        sides = [(padded[1:, 1:-1] + padded[:-1, 1:-1]) / 2, (padded[1:-1, 1:] + padded[1:-1, :-1]) / 2]
        return divergence([(1 - side**2) * part for side, part in zip(sides, force, strict=True)])

    start = [_bumps(generator, x.reshape(-1, 2), 0.8).reshape(n, n) for _ in range(count)]
    u = np.stack([solve(rate, 0.35 * np.tanh(f), t, "RK23") for f in start])
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    centres = (x[::2, ::2] + x[1::2, 1::2]) / 2
    return t, centres.reshape(-1, 2), u.reshape(count, FRAMES, -1, 1), {}


def _periodic(start: np.ndarray, linear: np.ndarray, rate: Callable, gap: float, steps: int, length: float,
              every: int = 2, channels: tuple[str, ...] = ("u", "v")) -> Fields:
    """Fields on a torus from start (S, C, n, n), at every other point: linear exact, rate(fields) explicit."""
    n, keep = start.shape[-1], _torus(start.shape[-1])[3]
    w, frames = keep * np.fft.fft2(start), []
    for _ in range(FRAMES):
        frames.append(_real(w)[..., ::every, ::every])
        w = _etd(linear, lambda w: keep * rate(w), w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(0, n, every) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    u = np.moveaxis(np.stack(frames, 1).reshape(len(start), FRAMES, start.shape[1], -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [length] * 2, "channels": list(channels[: start.shape[1]])}


def electrolyte(generator: np.random.Generator, count: int) -> Fields:
    """p_t = .004 lap p + div(p grad f), n_t = .006 lap n - div(n grad f), -lap f = p - n on a torus of length 1:
    Poisson, Nernst and Planck at 32 x 32 of 64 x 64."""
    kx, ky, k2, _, inverse, _ = _torus(64)
    start = np.stack([[1 + 0.25 * _waves(generator, 64, 2, 4) for _ in range(2)] for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        f = inverse * (w[:, 0] - w[:, 1])
        slopes, total = [_real(1j * k * f) for k in (kx, ky)], []
        for i, sign in enumerate((1, -1)):
            c = _real(w[:, i])
            total.append(sign * sum(1j * k * np.fft.fft2(c * slope) for k, slope in zip((kx, ky), slopes, strict=True)))
        return np.stack(total, 1)

    return _periodic(start, np.stack([-0.004 * k2, -0.006 * k2]), rate, 0.15, 20, 1.0, channels=("p", "n"))


def spirals(generator: np.random.Generator, count: int) -> Fields:
    """Barkley's stiff medium: u_t = lap u / 25 + u (1 - u) (u - (v + .05) / .75) / .05, v_t = u - v on a torus of
    length 16, whose fronts pass a point in a tenth of a gap between frames."""
    _, _, k2, _, _, _ = _torus(96)
    k2 = k2 / 16**2
    start = np.stack([[0.5 + 0.5 * np.tanh(3 * _waves(generator, 96, 2, 3)), 0.3 + 0.2 * _waves(generator, 96, 2, 3)]
                      for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = _real(w[:, 0]), _real(w[:, 1])
        return np.fft.fft2(np.stack([20 * u * (1 - u) * (u - (v + 0.05) / 0.75), u - v], 1))

    return _periodic(start, np.stack([-k2 / 25, 0 * k2]), rate, 0.25, 50, 16.0)


def quasigeostrophic(generator: np.random.Generator, count: int) -> Fields:
    """b_t = -J(psi, b) - .05 (-lap)^.5 b, psi = -(-lap)^-.5 b on a torus of length 2 pi: surface temperature."""
    kx, ky, k2, _, _, _ = (part / (2 * np.pi) ** power for part, power in zip(
        _torus(64)[:3] + (np.ones(1),) * 3, (1, 1, 2, 0, 0, 0), strict=True))
    root = np.sqrt(k2)
    inverse = 1 / np.where(root > 0, root, np.inf)

    def rate(w: np.ndarray) -> np.ndarray:
        psi = -inverse * w[:, 0]
        return -np.fft.fft2(_real(-1j * ky * psi) * _real(1j * kx * w[:, 0])
                            + _real(1j * kx * psi) * _real(1j * ky * w[:, 0]))[:, None]

    start = np.stack([[_waves(generator, 64, 2, 5)] for _ in range(count)])
    return _periodic(start, -0.05 * root[None], rate, 0.15, 20, 2 * np.pi, channels=("b",))


def _line(generator: np.random.Generator, count: int, n: int, length: float, t: np.ndarray, rate: Callable,
          start: Callable, every: int = 2) -> Fields:
    """One field on a circle: rate(u, k, t) of points and wave numbers; its times t, of one or of all trajectories."""
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    u = [solve_ivp(lambda time, w: rate(w, k, time), (own[0], own[-1]), start(), "LSODA", own, rtol=1e-8,
                   atol=1e-10).y.T for own in np.broadcast_to(t, (count, FRAMES))]
    return t, np.arange(0, n, every)[:, None] / n * length, np.stack(u)[..., ::every, None], {"period": [length]}


def _lap(u: np.ndarray, k: np.ndarray, power: float = 2.0) -> np.ndarray:
    return np.asarray(-np.fft.ifft(np.abs(k) ** power * np.fft.fft(u)).real)


def fractional(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -.12 (-d2/dx2)^.65 u + u - u^3 on a circle of length 10."""
    return _line(generator, count, 128, 10.0, np.arange(FRAMES) * 0.2,
                 lambda u, k, t: 0.12 * _lap(u, k, 1.3) + u - u**3, lambda: 0.5 * _waves(generator, 128, 1, 6))


def season(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .05 u_xx + u - u^3 + .8 cos(2 pi t / 3) cos(2 pi x / 10), a forcing of known period, on a circle of length
    10; trajectories start together."""
    points = np.arange(128) / 128 * 10

    def rate(u: np.ndarray, k: np.ndarray, t: float) -> np.ndarray:
        return 0.05 * _lap(u, k) + u - u**3 + 0.8 * np.cos(2 * np.pi * t / 3) * np.cos(0.2 * np.pi * points)

    t, x, u, about = _line(generator, count, 128, 10.0, np.arange(FRAMES) * 0.3, rate,
                           lambda: 0.5 * _waves(generator, 128, 1, 6))
    return t, x, u, {**about, "time_period": 3.0}


def delay(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + 2 u (1 - u(t - .8)) on a circle of length 4, from .6 before the first frame: fixed steps."""
    n, h, lag = 96, 0.01, 80
    k = 2 * np.pi * np.fft.fftfreq(n, 4.0 / n)
    decay, u = np.exp(-0.02 * k**2 * h), []
    for _ in range(count):
        path = [np.clip(0.6 + 0.25 * _waves(generator, n, 1, 4), 0.05, None)] * (lag + 1)
        for _ in range(80 + 40 * (FRAMES - 1)):
            now, then, later = path[-1], path[-1 - lag], path[-lag]
            slope = 2 * now * (1 - then)
            ahead = np.fft.ifft(decay * np.fft.fft(now + h * slope)).real
            path.append(np.fft.ifft(decay * np.fft.fft(now + h / 2 * slope)).real + h * ahead * (1 - later))
        u.append(np.stack(path[lag + 80 :: 40]))
    return np.arange(FRAMES) * 0.4, np.arange(0, n, 2)[:, None] / n * 4, np.stack(u)[..., ::2, None], {"period": [4.0]}


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


def odd_frames(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + .02 u_xx - .002 u_xxx on a circle of length 2, frames at times of their own."""
    t = np.sort(np.concatenate([np.zeros((count, 1)), generator.uniform(0, 1.9, (count, FRAMES - 1))], 1), 1)
    t += np.arange(FRAMES) * 0.02
    return _line(generator, count, 192, 2.0, t, lambda u, k, t: np.fft.ifft(
        (-0.02 * k**2 + 0.002j * k**3) * np.fft.fft(u) - 0.5j * k * (np.abs(k) < 190) * np.fft.fft(u**2)).real,
        lambda: 0.5 * _waves(generator, 192, 1, 4))


def long_line(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + .002 u_xx on a circle of length 2: steep fronts, at all of 2048 points."""
    return _line(generator, count, 2048, 2.0, np.arange(FRAMES) * 0.06, lambda u, k, t: np.fft.ifft(
        -0.002 * k**2 * np.fft.fft(u) - 0.5j * k * (np.abs(k) < 2100) * np.fft.fft(u**2)).real,
        lambda: 0.5 * _waves(generator, 2048, 1, 4) + 0.3 * generator.standard_normal(), every=1)


def tracks(generator: np.random.Generator, count: int) -> Fields:
    """Pressure (1e5 Pa) and humidity (5e-3) on a plain of 3000 x 2000 km without flux, hours: a slow and a fast field
    that excite each other, of units that differ by eight orders; cosines."""
    n, m, size = 45, 30, np.array([1e3, 1e-3])[:, None, None]
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) / n * 3000, (np.arange(m) + 0.5) / m * 2000, indexing="ij"), -1)
    k2 = (np.pi * np.arange(n)[:, None] / 3000) ** 2 + (np.pi * np.arange(m) / 2000) ** 2

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w
        lap = [idctn(-k2 * dctn(f)) for f in w]
        return np.stack([1.5e3 * lap[0] + 0.4 * (a - a**3 / 3 - b), 300 * lap[1] + 0.1 * (a + 0.7 - 0.8 * b)])

    t, flat = np.arange(FRAMES) * 1.5, x.reshape(-1, 2)
    start = [np.stack([_bumps(generator, flat, s).reshape(n, m) for s in (1.2, 0.5)]) for _ in range(count)]
    u = np.stack([solve(rate, w, t) for w in start]) * size + np.array([1e5, 5e-3])[:, None, None]
    return t, flat, u.reshape(count, FRAMES, 2, -1).swapaxes(2, 3), {"channels": ["p", "q"]}


MAKERS = {maker.__name__: maker for maker in (
    leaky_plate, half_held_waves, torus_surface, stirred, obstacles, hexagon, electrolyte, spirals, quasigeostrophic,
    gathering, alloy, fractional, season, delay, front, odd_frames, long_line, tracks)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST, {
        "odd_frames": (5, 8), "front": (12, 8), "gathering": (12, 6), "torus_surface": (12, 4)})
