"""Data beyond those before, made before any mechanism saw them: plasma drift waves, a membrane that hardens, prey taxis
on a torus, a line with open ends, oscillators between walls, phases on a disc, a condensate, a stirred box, vegetation.

python benchmarks/beyond_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.linalg
from blind_data import _bumps, _etd, _quadratic
from data_makers import FRAMES, Fields, bumps, stepped, surface_elements, write_problems
from scipy.sparse import csr_matrix
from shape_data import _circle, _polygon

TRAIN, TEST = 24, 8


def drift_waves(generator: np.random.Generator, count: int) -> Fields:
    """z_t = -J(p, z) + (p - n) + .02 lap z, n_t = -J(p, n) + (p - n) - p_y + .02 lap n, z = lap p, on a torus of length
    20: vorticity and density at the edge of a plasma (Hasegawa and Wakatani 1983), at 32 x 32 of 64 x 64 points."""
    n, length, gap, steps = 64, 20.0, 0.6, 60
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    kx, ky, keep = 1j * k[:, None], 1j * k[None, : n // 2 + 1], 2 / 3 * abs(k).max()
    ky = 1j * abs(ky.imag)
    k2 = -(kx**2 + ky**2).real
    keep, inverse = (abs(kx) < keep) & (abs(ky) < keep), -1.0 / np.where(k2 > 0, k2, 1) * (k2 > 0)

    def real(f: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(f, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        p = inverse * w[0]
        px, py = real(kx * p), real(ky * p)
        moved = np.stack([np.fft.rfft2(px * real(ky * f) - py * real(kx * f)) for f in w])
        return keep * (p - w[1] - np.stack([moved[0], moved[1] + ky * p]))

    w = keep * np.fft.rfft2(generator.standard_normal((2, count, n, n))) * np.exp(-k2 / 2) * 4
    w[0] *= k2 > 0
    linear = -0.02 * k2
    w = _etd(linear, rate, w, gap / steps, 20 * steps)
    frames = [w]
    for _ in range(FRAMES - 1):
        frames.append(_etd(linear, rate, frames[-1], gap / steps, steps))
    u = real(np.stack(frames))[..., ::2, ::2].transpose(2, 0, 3, 4, 1).reshape(count, FRAMES, -1, 2)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, u, {"channels": ["z", "n"], "period": [length] * 2}


def membrane(generator: np.random.Generator, count: int) -> Fields:
    """u_tt = lap u - 2 u - 4 u^3 - .3 u_t on a region with a round hole, held at 0 on all of its edges; u alone is
    seen: quadratic elements, in their eigenfunctions, read at corners."""
    corners = [(0, 0), (2, 0), (2, 0.9), (1.1, 1), (0.9, 1.8), (0, 1.6)]
    basis, stiffness, masses, cells = _quadratic([_polygon(corners, .09), _circle((.6, .6), .22, .09)], .09)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.12, 30
    free = np.setdiff1d(np.arange(len(x)), basis.get_dofs().flatten())
    masses, stiffness = masses[free][:, free], stiffness[free][:, free]
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray(), subset_by_index=[0, 399])
    back = modes.T @ masses

    def rate(w: np.ndarray) -> np.ndarray:
        return np.stack([w[1], -(values[:, None] + 2) * w[0] - 0.3 * w[1] - 4 * (back @ (modes @ w[0]) ** 3)])

    size = np.exp(-values[:, None] / 60) * (values[:, None] / 12) ** -0.5
    z = size * generator.standard_normal((2, len(values), count)) * 0.25
    z[1] *= np.sqrt(values)[:, None]
    z = stepped(rate, z, gap, steps)[:, 0]
    u = np.zeros((FRAMES, len(x), count))
    u[:, free] = modes @ z
    return np.arange(FRAMES) * gap, x[nodes], u[:, nodes].transpose(2, 0, 1)[..., None], cells


def _wavy_torus(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n m, 3) and triangles of a torus whose tube is wider at two places."""
    p, q = np.meshgrid(np.arange(n) / n * 2 * np.pi, np.arange(m) / m * 2 * np.pi, indexing="ij")
    tube = 0.4 * (1 + 0.2 * np.cos(2 * p))
    ring = 1 + tube * np.cos(q)
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    a, b, c, d = ((i + e) % n * m + (j + f) % m for e, f in ((0, 0), (1, 0), (1, 1), (0, 1)))
    cells = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return np.stack([ring * np.cos(p), ring * np.sin(p), tube * np.sin(q)], -1).reshape(-1, 3), cells


def taxis(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap u + u (1 - u) - u v, v_t = .02 lap v - div(.06 v grad u) + v (1.6 u - .7): predators that climb the
    gradient of their prey, on a torus that is no surface of revolution: linear elements, lumped, read at a quarter."""
    n, m, gap, steps = 80, 36, 0.5, 50
    x, cells = _wavy_torus(n, m)
    stiffness, masses = surface_elements(x, cells)
    lumped = np.asarray(masses.sum(1)).ravel()[:, None]
    stiffness = stiffness.tocsr()
    edges = np.stack([x[cells[:, (i + 2) % 3]] - x[cells[:, (i + 1) % 3]] for i in range(3)])
    area = np.linalg.norm(np.cross(edges[0], edges[1]), axis=1) / 2
    local = np.einsum("iec,jec->ije", edges, edges) / 4 / area  # of gradients of shape functions
    each = np.arange(len(cells))
    onto = [csr_matrix((np.ones(len(cells)), (cells[:, i], each)), (len(x), len(cells))) for i in range(3)]

    def drift(v: np.ndarray, u: np.ndarray) -> np.ndarray:
        mean = v[cells].mean(1)
        return sum(onto[i] @ (mean * sum(local[i, j][:, None] * u[cells[:, j]] for j in range(3))) for i in range(3))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-0.01 * (stiffness @ u) / lumped + u * (1 - u) - u * v,
                         (-0.02 * (stiffness @ v) + 0.06 * drift(v, u)) / lumped + v * (1.6 * u - 0.7)])

    w = np.stack([[mean * np.exp(0.5 * bumps(generator, x / 3 + 0.5, 4)) for _ in range(count)] for mean in (0.5, 0.4)])
    frames = stepped(rate, w.swapaxes(1, 2), gap, steps).reshape(FRAMES, 2, n, m, count)[:, :, ::2, ::2]
    return (np.arange(FRAMES) * gap, x.reshape(n, m, 3)[::2, ::2].reshape(-1, 3),
            frames.reshape(FRAMES, 2, -1, count).transpose(3, 0, 2, 1),
            {"channels": ["prey", "predator"], "triangles": _wavy_torus(n // 2, m // 2)[1]})


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


def phases_disc(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u^3 - u - .004 lap u) on a disc, no flux: Cahn and Hilliard in eigenfunctions of quadratic elements."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 0.6, 0.055)], 0.055)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.003, 200
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray(), subset_by_index=[0, 499])
    k, back = values[:, None], modes.T @ masses

    def rate(z: np.ndarray) -> np.ndarray:
        u = modes @ z
        return -k * (back @ (u**3 - 3 * u))

    z = back @ np.stack([_bumps(generator, x, 0.35, generator.uniform(-0.2, 0.2)) for _ in range(count)], 1)
    linear = -0.004 * k**2 - 2 * k
    z = _etd(linear, rate, z, gap / steps, steps)
    frames = [z]
    for _ in range(FRAMES - 1):
        frames.append(_etd(linear, rate, frames[-1], gap / steps, steps))
    u = np.stack([(modes @ z)[nodes] for z in frames])
    return np.arange(FRAMES) * gap, x[nodes], u.transpose(2, 0, 1)[..., None], cells


def condensate(generator: np.random.Generator, count: int) -> Fields:
    """i psi_t = -lap psi / 2 + 4 |psi|^2 psi in a disc of radius 3 at whose rim psi = 0: quadratic elements, splitting
    in their eigenfunctions, real and imaginary part."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 3, 0.27)], 0.27)
    x, nodes, gap, steps = basis.doflocs.T, basis.nodal_dofs[0], 0.08, 80
    free = np.setdiff1d(np.arange(len(x)), basis.get_dofs().flatten())
    values, modes = scipy.linalg.eigh(stiffness[free][:, free].toarray(), masses[free][:, free].toarray(),
                                      subset_by_index=[0, 499])
    back = modes.T @ masses[free][:, free]

    def rate(z: np.ndarray) -> np.ndarray:
        p = modes @ z
        return -4j * (back @ (abs(p) ** 2 * p))

    z = generator.standard_normal((2, len(values), count)) * np.exp(-values[:, None] / 8)
    z = (z[0] + 1j * z[1]) * 0.7
    frames = [z]
    for _ in range(FRAMES - 1):
        frames.append(_etd(-0.5j * values[:, None], rate, frames[-1], gap / steps, steps))
    p = np.zeros((FRAMES, len(x), count), complex)
    p[:, free] = modes @ np.stack(frames)
    u = np.stack([p.real, p.imag], -1)[:, nodes].transpose(2, 0, 1, 3)
    return np.arange(FRAMES) * gap, x[nodes], u, {"channels": ["re", "im"], **cells}


def gyres(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -w . grad c + .004 lap c in a closed box of 1.5 x 1, w two unequal gyres that no channel holds: finite
    volumes, 120 x 80 cells, at 450 scattered ones."""
    n, m, h, gap, steps = 120, 80, 1 / 80, 0.15, 40
    px, py = np.meshgrid(np.arange(n + 1) * h, np.arange(m + 1) * h, indexing="ij")
    psi = 0.14 * np.sin(np.pi * (px / 1.5) ** 1.3 * 2) * np.sin(np.pi * py)
    to_x, to_y = np.diff(psi, axis=1)[..., None] / h, -np.diff(psi, axis=0)[..., None] / h  # through faces
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def rate(c: np.ndarray) -> np.ndarray:
        p = np.pad(c, ((1, 1), (1, 1), (0, 0)), mode="edge")
        fx = to_x * (p[1:, 1:-1] + p[:-1, 1:-1]) / 2 - 0.004 * np.diff(p[:, 1:-1], axis=0) / h
        fy = to_y * (p[1:-1, 1:] + p[1:-1, :-1]) / 2 - 0.004 * np.diff(p[1:-1], axis=1) / h
        return -np.diff(fx, axis=0) / h - np.diff(fy, axis=1) / h

    c = np.stack([_bumps(generator, x.reshape(-1, 2), 1.0).reshape(n, m) for _ in range(count)], -1)
    u = stepped(rate, c, gap, steps).reshape(FRAMES, n * m, count)
    seen = generator.choice(n * m, 450, replace=False)
    return np.arange(FRAMES) * gap, x.reshape(-1, 2)[seen], u[:, seen].transpose(2, 0, 1)[..., None], {}


def vegetation(generator: np.random.Generator, count: int) -> Fields:
    """w_t = a - w - w b^2 + 1.5 w_x + .6 lap w, b_t = w b^2 - .45 b + .1 lap b: water that runs down a slope and plants
    (Klausmeier 1999), along x periodic over 8, walls without flux along y over 4; rain a a parameter of every
    trajectory: .9, 1.1, 1.3, 1.5 in training, 1, 1.4 and 1.8 in tests: differences, 64 x 32, at 32 x 16."""
    n, m, h, gap, steps = 64, 32, 0.125, 0.4, 80
    a = np.concatenate([np.resize([0.9, 1.1, 1.3, 1.5], TRAIN), np.resize([1.0, 1.4, 1.8], count - TRAIN)])
    x = np.stack(np.meshgrid(np.arange(n) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def lap(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, ((0, 0), (1, 1), (0, 0)), mode="edge")
        around = (16 * (np.roll(u, 1, 0) + np.roll(u, -1, 0)) - np.roll(u, 2, 0) - np.roll(u, -2, 0) - 30 * u) / 12
        return (around + p[:, 2:] + p[:, :-2] - 2 * u) / h**2

    def rate(f: np.ndarray) -> np.ndarray:
        w, b = f
        slope = (8 * (np.roll(w, -1, 0) - np.roll(w, 1, 0)) - np.roll(w, -2, 0) + np.roll(w, 2, 0)) / (12 * h)
        return np.stack([a - w - w * b**2 + 1.5 * slope + 0.6 * lap(w), w * b**2 - 0.45 * b + 0.1 * lap(b)])

    k = np.arange(1, 5)

    def field(mean: float) -> np.ndarray:
        c = generator.standard_normal((2, 4, 4, count)) / (k[:, None] + np.arange(4))[..., None]
        along, across = np.pi / 4 * k[:, None] * x[:, 0, 0], np.cos(np.pi / 4 * np.arange(4)[:, None] * x[0, :, 1])
        f = np.einsum("kps,kx,py->xys", c[0], np.cos(along), across) + np.einsum(
            "kps,kx,py->xys", c[1], np.sin(along), across)
        return mean * np.exp(0.5 * f / f.std((0, 1)))

    f = stepped(rate, np.stack([field(0.6), field(1.2)]), gap, steps)[:, :, ::2, ::2]
    return (np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), f.reshape(FRAMES, 2, -1, count).transpose(3, 0, 2, 1),
            {"channels": ["water", "plants"], "parameters": a[:, None]})


MAKERS = {maker.__name__: maker for maker in (drift_waves, membrane, taxis, open_line, ginzburg_walls, phases_disc,
                                              condensate, gyres, vegetation)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
