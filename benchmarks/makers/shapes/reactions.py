"""Reaction and diffusion on meshes of many outlines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.ndimage import map_coordinates
from scipy.sparse.linalg import splu
from skfem.models.poisson import mass

from benchmarks.makers.base import FRAMES, TRAIN, Fields, bumps, bumps_of, parameters, problem, solve, stepped
from benchmarks.makers.elements import by_modes, circle, elements, mesh, polygon, quadratic, reacting, refined

_L = [(-1.0, -1.0), (1.0, -1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 1.0)]


def _fitzhugh_nagumo(curves: list[np.ndarray], h: float) -> Callable[..., Fields]:
    """u_t = .01 lap u + u - u^3/3 - v + I, v_t = .002 lap v + .08 (u + .7 - .8 v) without flux, by linear elements; the
    excitability I is .5 by default."""
    def make(generator: np.random.Generator, count: int, excitability: float = 0.5) -> Fields:
        x, cells = mesh(curves, h)
        stiffness, masses = elements(x, cells)
        smooth = splu((sparse.diags(masses) + 0.2**2 * stiffness).tocsc())

        def field(mean: float, spread: float) -> np.ndarray:
            f = generator.standard_normal(len(x)) / np.sqrt(masses)
            for _ in range(3):
                f = smooth.solve(masses * f)
            return mean + spread * (f - f.mean()) / f.std()

        def rate(w: np.ndarray) -> np.ndarray:
            u, v = w
            lap = -(stiffness @ w.T).T / masses
            return np.stack([0.01 * lap[0] + u - u**3 / 3 - v + excitability,
                             0.002 * lap[1] + 0.08 * (u + 0.7 - 0.8 * v)])

        t = np.arange(FRAMES) * 1.0
        start = [np.stack([field(generator.uniform(-1, 1), 1.2), field(generator.uniform(0.3, 0.8), 0.3)])
                 for _ in range(count)]
        paths = [solve(rate, w, t) for w in start]
        return t, x, np.moveaxis(np.stack(paths), 2, 3), {"triangles": cells}
    return make


fhn_lshape = _fitzhugh_nagumo([polygon(_L, 0.066), circle((-0.45, -0.4), 0.2, 0.066)], 0.066)
fhn_disc = _fitzhugh_nagumo([circle((0, 0), 1, 0.066), circle((-0.4, 0.25), 0.22, 0.066),
                             circle((0.35, -0.3), 0.28, 0.066)], 0.066)


fhn_channel = _fitzhugh_nagumo([polygon([(0, 0), (3.2, 0), (3.2, 0.8), (0, 0.8)], 0.06),
                                circle((0.9, 0.4), 0.16, 0.05)], 0.06)


@problem()
def prey_perforated(generator: np.random.Generator, count: int) -> Fields:
    """Predator and prey, saturated, without flux on a disc with seven holes; linear elements."""
    turns = np.arange(6) * np.pi / 3
    holes = [circle((0.58 * np.cos(a), 0.58 * np.sin(a)), 0.13, 0.05) for a in turns]
    x, cells = mesh([circle((0, 0), 1, 0.055), circle((0, 0), 0.16, 0.05), *holes], 0.055)
    stiffness, masses = elements(x, cells)
    t = np.arange(FRAMES) * 0.6

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w
        lap = -(stiffness @ w.T).T / masses
        eaten = a * b * (1 - 0.4 * a)
        return np.stack([0.004 * lap[0] + a * (1 - a) - eaten, 0.008 * lap[1] + eaten - 0.35 * b])

    start = [np.stack([0.5 + 0.2 * bumps(generator, (x + 1) / 2, 4), 0.5 + 0.2 * bumps(generator, (x + 1) / 2, 4)])
             for _ in range(count)]
    paths = [solve(rate, w, t) for w in start]
    return t, x, np.moveaxis(np.stack(paths), 2, 3), {"triangles": cells}


@problem()
def annulus(generator: np.random.Generator, count: int, mortality: float = 0.4) -> Fields:
    """Predator and prey on a disc with a hole, polar finite differences, read at 600 scattered points."""
    rings, spokes, t = 24, 96, np.arange(FRAMES) * 0.6
    h, q = 0.7 / rings, 2 * np.pi / spokes
    r = 0.3 + (np.arange(rings) + 0.5) * h
    faces = 0.3 + np.arange(rings + 1) * h

    def laplacian(u: np.ndarray) -> np.ndarray:
        flux = np.pad(np.diff(u, axis=1), ((0, 0), (1, 1), (0, 0))) * faces[:, None] / h
        around = (np.roll(u, 1, -1) - 2 * u + np.roll(u, -1, -1)) / (r[:, None] * q) ** 2
        return np.diff(flux, axis=1) / (h * r[:, None]) + around

    def rate(u: np.ndarray) -> np.ndarray:
        a, b = u
        reaction = np.stack([a * (1 - a) - a * b, a * b - mortality * b])
        return np.array([0.01, 0.005])[:, None, None] * laplacian(u) + reaction

    angle = np.arange(spokes) * q
    grid = np.stack([r[:, None] * np.cos(angle), r[:, None] * np.sin(angle)], -1)
    place = np.random.default_rng(5)
    radius, turn = np.sqrt(place.uniform(0.32**2, 0.98**2, 600)), place.uniform(0, 2 * np.pi, 600)
    at = [(radius - r[0]) / h, turn / q]
    u = [solve(rate, np.stack([0.5 + 0.15 * bumps(generator, (grid + 1) / 2, 4),
                                0.5 + 0.15 * bumps(generator, (grid + 1) / 2, 4)]), t) for _ in range(count)]
    read = np.stack([[[map_coordinates(np.pad(f, ((0, 0), (8, 8)), mode="wrap"), [at[0], at[1] + 8], order=5,
                                       mode="nearest") for f in frame] for frame in path] for path in u])
    return t, np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1), np.moveaxis(read, 2, 3), {}


def _on_mesh(diffusion: tuple[float, ...], reaction: Callable, start: Callable, frame: float) -> Callable:
    """u_t = diffusion lap u + reaction(u) without flux on a square of side 2 with a round hole, by linear elements."""
    def make(generator: np.random.Generator, count: int) -> Fields:
        x, cells = mesh([polygon([(0, 0), (2, 0), (2, 2), (0, 2)], 0.09), circle((1.2, 0.9), 0.35, 0.09)], 0.09)
        stiffness, masses = elements(x, cells)
        spread = -sparse.diags(1 / masses) @ stiffness
        t, d = np.arange(FRAMES) * frame, np.asarray(diffusion)
        u = np.stack([solve(lambda u: d * (spread @ u) + reaction(u), start(
            np.stack([bumps(generator, x / 2, 4) for _ in diffusion], -1)), t) for _ in range(count)])
        return t, x, u, {"triangles": cells}

    return make


def _monod(u: np.ndarray) -> np.ndarray:
    """Substrate and biomass of a chemostat: growth s / (0.1 + s) b, dilution 0.3."""
    s, b = u[..., 0], u[..., 1]
    growth = s / (0.1 + s) * b
    return np.stack([0.3 * (1 - s) - growth, growth - 0.3 * b], -1)


def _hill(u: np.ndarray) -> np.ndarray:
    """A gene that activates itself: u^4 / (0.5^4 + u^4) - u + 0.03."""
    return u**4 / (0.5**4 + u**4) - u + 0.03


def _holling(u: np.ndarray) -> np.ndarray:
    """Prey with logistic growth and predators with a response of type III."""
    a, b = u[..., 0], u[..., 1]
    eaten = a**2 / (0.15 + a**2) * b
    return np.stack([a * (1 - a) - eaten, 0.8 * eaten - 0.3 * b], -1)


@problem()
def inhibition(generator: np.random.Generator, count: int) -> Fields:
    """s_t = .006 lap s + .4 (1.2 - s) - b g, b_t = .002 lap b + b (g - .3), g = s / (.15 + s + 1.5 s^2) (Haldane's
    kinetics) without flux between two circles that do not share a centre, by linear elements."""
    x, cells = mesh([circle((0, 0), 1, 0.08), circle((0.25, 0.1), 0.38, 0.08)], 0.08)
    stiffness, masses = elements(x, cells)

    def reaction(w: np.ndarray) -> np.ndarray:
        s, b = w
        growth = s / (0.15 + s + 1.5 * s**2)
        return np.stack([0.4 * (1.2 - s) - b * growth, b * (growth - 0.3)])

    w = np.stack([np.stack([mean + spread * np.tanh(bumps(generator, (x + 1) / 2, 4)) for _ in range(count)], -1)
                  for mean, spread in ((0.7, 0.35), (0.6, 0.4))])
    frames = reacting(w, reaction, stiffness.tocsc(), sparse.diags(masses).tocsc(), (0.006, 0.002), 0.02, 30)
    return np.arange(FRAMES) * 0.6, x, frames.transpose(3, 0, 2, 1), {"triangles": cells}


@problem()
def brusselator_annulus(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + 1 - 3.2 u + u^2 v, v_t = .002 lap v + 2.2 u - u^2 v without flux between two circles that do
    not share a centre."""
    basis, stiffness, masses, cells = quadratic([circle((0, 0), 1, 0.07), circle((0.15, 0), 0.35, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.4, 40

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([1 - 3.2 * u + u**2 * v, 2.2 * u - u**2 * v])

    w = np.stack([np.stack([bumps_of(generator, x, 0.4, 1.2), bumps_of(generator, x, 0.4, 2.2)])
                  for _ in range(count)], -1)
    frames = reacting(w, reaction, stiffness, masses, (0.004, 0.002), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


@problem()
def predators(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + u (1 - u) - u v / (u + .3), v_t = .006 lap v + v (1.2 u / (u + .3) - .5), no flux, on a
    T-shaped region."""
    corners = [[0, 0], [1.5, 0], [1.5, 0.5], [1, 0.5], [1, 1.5], [0.5, 1.5], [0.5, 0.5], [0, 0.5]]
    basis, stiffness, masses, cells = quadratic([polygon(np.array(corners), 0.06)], 0.06)
    x, gap, steps = basis.doflocs.T, 0.6, 60

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        eaten = u / (u + 0.3) * v
        return np.stack([u * (1 - u) - eaten, 1.2 * eaten - 0.5 * v])

    w = np.stack([np.stack([np.abs(bumps_of(generator, x, 0.2, 0.5)), np.abs(bumps_of(generator, x, 0.15, 0.45))])
                  for _ in range(count)], -1)
    frames = reacting(w, reaction, stiffness, masses, (0.004, 0.006), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


@problem()
def tissue(generator: np.random.Generator, count: int) -> Fields:
    """u_t = div(A grad u) + 4 u (1 - u) (u - .15) - v, v_t = .3 (u - 1.5 v), A = ((.02, .006), (.006, .005)), no flux
    A grad u . n, in an ellipse with a round hole: quadratic elements, seen at the corners."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outline = np.stack([1.2 * np.cos(angle), 0.8 * np.sin(angle)], 1)
    basis, _, masses, cells = quadratic([outline, circle((0.3, 0.1), 0.25, 0.09)], 0.09)
    tensor = np.array([[0.02, 0.006], [0.006, 0.005]])

    @skfem.BilinearForm
    def along(u, v, _):  # noqa: ANN001, ANN202
        return sum(tensor[i, j] * u.grad[i] * v.grad[j] for i in range(2) for j in range(2))

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([4 * u * (1 - u) * (u - 0.15) - v, 0.3 * (u - 1.5 * v)])

    x, gap, steps = basis.doflocs.T, 0.5, 50
    w = np.stack([np.stack([bumps_of(generator, x, 0.5, 0.2), bumps_of(generator, x, 0.1)]) for _ in range(count)], -1)
    frames = reacting(w, reaction, along.assemble(basis), masses, (1.0, 0.0), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


@problem()
def crowds(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u (.004 + .02 v)) + u (1 - u - .6 v), v_t = lap(v (.006 + .01 u)) + v (.9 - .7 u - v) without flux in
    an arrow with a round hole (Shigesada, Kawasaki and Teramoto 1979); training values with noise of 3 % of their
    deviations: linear elements of side .025, read at nodes of a mesh half as fine."""
    corners = [(0.0, 0.0), (1.5, 0.0), (1.5, 0.5), (1.0, 0.5), (0.75, 1.1), (0.3, 0.6), (0.0, 0.6)]
    x, cells = mesh([polygon(corners, 0.05), circle((0.75, 0.45), 0.15, 0.05)], 0.05)
    fine, parts = refined(x, cells)
    stiffness, masses = elements(fine, parts)
    u, v = (0.5 + 0.35 * np.tanh(np.stack([bumps(generator, fine / 1.5, 5) for _ in range(count)], 1))
            for _ in range(2))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        spread = [-(stiffness @ f) / masses[:, None] for f in (u * (0.004 + 0.02 * v), v * (0.006 + 0.01 * u))]
        return np.stack([spread[0] + u * (1 - u - 0.6 * v), spread[1] + v * (0.9 - 0.7 * u - v)])

    w = stepped(rate, np.stack([u, v]), 0.2, 100)[:, :, : len(x)].transpose(3, 0, 2, 1)
    w[:TRAIN] += 0.03 * w.std((0, 1, 2)) * generator.standard_normal(w[:TRAIN].shape)
    return np.arange(FRAMES) * 0.2, x, w, {"triangles": cells}


@problem()
def traps(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(.008 u + .02 u v) + u (1 - u) - u v / (u + .3), v_t = .015 lap v + .8 u v / (u + .3) - m v, prey that
    flees its predators in a square with four holes at whose rims both die, mortality m a parameter of every trajectory:
    linear elements, lumped, at a quarter of the nodes of a mesh half as fine, other ones in every trajectory."""
    m = parameters(count, [0.2, 0.26, 0.32, 0.38], [0.23, 0.35, 0.42])
    holes = [circle(at, 0.17, 0.045) for at in ((0.5, 0.55), (1.45, 0.4), (0.65, 1.5), (1.5, 1.35))]
    x, cells = mesh([polygon([(0, 0), (2, 0), (2, 2), (0, 2)], 0.045), *holes], 0.045)
    stiffness, lumped = elements(x, cells)
    lumped, rim = lumped[:, None], np.isclose(np.min([np.hypot(*(x - hole.mean(0)).T) for hole in holes], 0), 0.17)
    free = ~rim[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        eaten = u * v / (u + 0.3)
        return free * np.stack([-(stiffness @ (0.008 * u + 0.02 * u * v)) / lumped + u * (1 - u) - eaten,
                                -0.015 * (stiffness @ v) / lumped + 0.8 * eaten - m * v])

    away = 1 - np.exp(-8 * (np.min([np.hypot(*(x - hole.mean(0)).T) for hole in holes], 0) - 0.17))[:, None]
    w = np.stack([away * size * np.exp(0.5 * np.stack([bumps_of(generator, x, 1.0) for _ in range(count)], 1))
                  for size in (0.5, 0.3)])
    u = stepped(rate, w, 0.6, 120).transpose(3, 0, 2, 1)
    nodes = np.concatenate([np.flatnonzero(rim)[::2], generator.choice(np.flatnonzero(~rim), len(x) // 4, False)])
    at = np.stack([generator.choice(nodes, len(nodes) // 4, False) for _ in range(count)])
    return (np.arange(FRAMES) * 0.6, x[at], np.stack([part[:, own] for part, own in zip(u, at, strict=True)]),
            {"channels": ["prey", "predator"], "parameters": m[:, None]})


@problem()
def leaky_plate(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u + u - u^3 in a kite with a round hole, which loses du/dn = -2 u through all of its walls."""
    basis, stiffness, masses, cells = quadratic([polygon([(0, 0), (1.6, -.3), (2.0, .9), (.5, 1.3)], .09),
                                                 circle((1.1, .5), .25, .09)], .09)
    leak = mass.assemble(skfem.FacetBasis(basis.mesh, basis.elem))
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    w = np.stack([bumps_of(generator, x, 0.6, 0.2) for _ in range(count)], -1)[None]
    frames = by_modes(stiffness + 2 * leak, masses, w, lambda k: -0.03 * k[None], lambda u: u - u**3, 0.25, 30)
    return np.arange(FRAMES) * 0.25, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


for _name, _maker in {
    "fhn_lshape": fhn_lshape, "fhn_disc": fhn_disc, "fhn_channel": fhn_channel,
    "monod": _on_mesh((0.02, 0.01), _monod, lambda b: np.stack([0.5 + 0.4 * np.tanh(b[..., 0]),
                                                                0.5 + 0.4 * np.tanh(b[..., 1])], -1), 0.5),
    "hill": _on_mesh((0.01,), _hill, lambda b: 0.5 + 0.4 * np.tanh(1.5 * b), 0.5),
    "holling": _on_mesh((0.01, 0.01), _holling, lambda b: 0.5 + 0.4 * np.tanh(b), 0.6)}.items():
    problem(name=_name)(_maker)


@problem(16, 6)
def thaw(generator: np.random.Generator, count: int) -> Fields:
    """c(u) u_t = .02 lap u on a disc without flux, c = 1 + 3 exp(-((u - .5) / .15)^2), which melts near .5: linear
    elements of half the size of the cells of the file."""
    x, cells = mesh([circle((0.0, 0.0), 1.0, 0.09)], 0.09)
    fine, parts = refined(x, cells)
    stiffness, masses = elements(fine, parts)

    def rate(u: np.ndarray) -> np.ndarray:
        return np.asarray(-0.02 * (stiffness @ u) / masses / (1 + 3 * np.exp(-(((u - 0.5) / 0.15) ** 2))))

    t, u = np.arange(FRAMES) * 0.2, []
    for _ in range(count):
        f = bumps_of(generator, fine, 1.0)
        u.append(solve(rate, (f - f.min()) / np.ptp(f), t)[:, : len(x)])
    return t, x, np.stack(u)[..., None], {"triangles": cells}


@problem()
def cyclic(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + u (1 - u - 1.6 v - .5 w), v and w alike after u, v, w, without flux in an L (May and Leonard
    1975): three species that displace each other in turn; quadratic elements, read at corners."""
    corners = [(0.0, 0.0), (1.5, 0.0), (1.5, 0.6), (0.7, 0.6), (0.7, 1.4), (0.0, 1.4)]
    basis, stiffness, masses, cells = quadratic([polygon(corners, 0.06)], 0.06)
    x, seen = basis.doflocs.T, basis.nodal_dofs[0]
    w = np.stack([np.stack([np.exp(bumps_of(generator, x, 0.6, -1.0)) for _ in range(count)], -1) for _ in range(3)])

    def reaction(w: np.ndarray) -> np.ndarray:
        return w * (1 - w - 1.6 * np.roll(w, -1, 0) - 0.5 * np.roll(w, -2, 0))

    frames = reacting(w, reaction, stiffness, masses, (0.004,) * 3, 0.05, 16)
    return np.arange(FRAMES) * 0.8, x[seen], frames[:, :, seen].transpose(3, 0, 2, 1), cells


@problem()
def dissolving(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u - 3 u v, v_t = -2 u v on a disc at whose rim u = 1: acid and a mineral that stays in place;
    quadratic elements, Crank and Nicolson between half steps of the reaction, read at corners."""
    basis, stiffness, masses, cells = quadratic([circle((0.0, 0.0), 1.0, 0.08)], 0.08)
    x, seen, step, every = basis.doflocs.T, basis.nodal_dofs[0], 0.01, 15
    free = basis.complement_dofs(basis.get_dofs().all())
    inside = 1 - (x**2).sum(1)
    u = np.stack([1 - inside * (0.7 + 0.5 * np.tanh(bumps_of(generator, x, 0.8))) for _ in range(count)], -1)
    v = np.stack([1 / (1 + np.exp(-bumps_of(generator, x, 2.0))) for _ in range(count)], -1)
    spread, own = 0.01 * step * stiffness[free][:, free], masses[free][:, free]
    solver, explicit = splu((own + spread).tocsc()), own - spread

    def half(w: np.ndarray) -> np.ndarray:
        rate = np.array([-3.0, -2.0])[:, None, None]
        middle = w + step / 4 * rate * w[0] * w[1]
        w = w + step / 2 * rate * middle[0] * middle[1]
        w[0, np.setdiff1d(np.arange(len(x)), free)] = 1.0
        return w

    w = np.stack([u, v])
    frames = [w]
    for index in range(1, every * (FRAMES - 1) + 1):
        w = half(w)
        w[0, free] = 1 + solver.solve(explicit @ (w[0, free] - 1))
        w = half(w)
        if index % every == 0:
            frames.append(w)
    return (np.arange(FRAMES) * step * every, x[seen], np.stack(frames)[:, :, seen].transpose(3, 0, 2, 1),
            {**cells, "channels": ["acid", "mineral"]})


@problem()
def patchy(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .005 lap u + r u (1 - u) - u v / (u + .4), v_t = .003 lap v + .9 u v / (u + .4) - .35 v without flux on a
    disc with two holes, where growth depends on place, r = 1.2 + .6 sin 2x cos 1.5y; quadratic elements, read at
    corners."""
    curves = [circle((0.0, 0.0), 1.0, 0.08), circle((0.4, 0.3), 0.2, 0.08), circle((-0.4, -0.2), 0.15, 0.08)]
    basis, stiffness, masses, cells = quadratic(curves, 0.08)
    x, seen = basis.doflocs.T, basis.nodal_dofs[0]
    growth = (1.2 + 0.6 * np.sin(2 * x[:, 0]) * np.cos(1.5 * x[:, 1]))[:, None]
    w = np.stack([np.stack([np.exp(bumps_of(generator, x, 0.5, mean)) for _ in range(count)], -1)
                  for mean in (-0.7, -0.9)])

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        eaten = u * v / (u + 0.4)
        return np.stack([growth * u * (1 - u) - eaten, 0.9 * eaten - 0.35 * v])

    frames = reacting(w, reaction, stiffness, masses, (0.005, 0.003), 0.05, 16)
    return np.arange(FRAMES) * 0.8, x[seen], frames[:, :, seen].transpose(3, 0, 2, 1), cells
