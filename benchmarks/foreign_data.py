"""Foreign data, made before any mechanism saw them: a plasma in phase space, an age-structured population, convection
of which only temperature is seen, noisy crowds, a beam without its velocity, a reactor fed at its inlet, particles
between two wells, a basin over an uneven floor.

python benchmarks/foreign_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
from data_makers import FRAMES, Fields, bumps, solve, stepped, write_problems
from scipy.interpolate import RectBivariateSpline
from scipy.sparse import csr_matrix, diags, identity, kron
from scipy.sparse.linalg import expm_multiply
from shape_data import _circle, _elements, _mesh, _polygon, _refined

TRAIN, TEST = 24, 8


def plasma(generator: np.random.Generator, count: int) -> Fields:
    """f_t = -v f_x + E f_v, E_x = 1 - integral of f over v: electrons of two streams in the plane of place and velocity
    (Vlasov and Poisson), periodic in x over 4 pi: splitting, shifts by Fourier (Cheng and Knorr 1976), 48 x 96."""
    n, m, length, most, dt, every = 48, 96, 4 * np.pi, 6.0, 0.05, 8
    x, v = np.arange(n) / n * length, -most + (np.arange(m) + 0.5) / m * 2 * most
    kx, kv = 2 * np.pi * np.fft.fftfreq(n, length / n), 2 * np.pi * np.fft.fftfreq(m, 2 * most / m)
    streams = sum(np.exp(-((v - at) ** 2) / 2) for at in (-1.6, 1.6)) / np.sqrt(8 * np.pi)
    density = 1 + np.sum([generator.uniform(0.02, 0.25, (count, 1)) / j * np.cos(
        j * x / 2 + generator.uniform(0, 2 * np.pi, (count, 1))) for j in (1, 2)], 0)
    f, inverse = density[..., None] * streams, np.divide(1j, kx, out=np.zeros(n, complex), where=kx != 0)
    moved = np.exp(-1j * kx[:, None] * v * dt / 2)
    frames = [f]
    for step in range(1, every * (FRAMES - 1) + 1):
        f = np.fft.ifft(np.fft.fft(f, axis=1) * moved, axis=1).real
        field = np.fft.ifft(inverse * np.fft.fft(f.sum(2) * 2 * most / m - 1)).real  # E_k = i (f - 1)_k / k
        f = np.fft.ifft(np.fft.fft(f, axis=2) * np.exp(1j * kv * field[..., None] * dt), axis=2).real
        f = np.fft.ifft(np.fft.fft(f, axis=1) * moved, axis=1).real
        if step % every == 0:
            frames.append(f)
    points = np.stack(np.meshgrid(x[::2], v[::2], indexing="ij"), -1).reshape(-1, 2)
    return (np.arange(FRAMES) * every * dt, points, np.stack(frames, 1)[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1),
            {"channels": ["f"], "period": [length, 0.0]})


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


def annulus(generator: np.random.Generator, count: int) -> Fields:
    """T_t = -w . grad T + .02 lap T, w = -grad p + T e_y, div w = 0: a porous ring of radii .5 and 1.5 that no flow
    leaves, held at 1 inside and at 0 outside. T alone is seen: differences in r, Fourier around, 33 x 96."""
    n, m = 33, 96
    r, k = np.linspace(0.5, 1.5, n)[:, None], np.fft.rfftfreq(m, 1 / m)
    angle, h = 2 * np.pi * np.arange(m) / m, 1 / (n - 1)
    inverses = []
    for wave in k:
        matrix = np.diag(-2 / h**2 - (wave / r[:, 0]) ** 2)
        at = np.arange(1, n - 1)
        matrix[at, at - 1], matrix[at, at + 1] = 1 / h**2 - 1 / (2 * h * r[at, 0]), 1 / h**2 + 1 / (2 * h * r[at, 0])
        matrix[[0, -1]] = np.eye(n)[[0, -1]]
        if wave == 0:  # no circulation around the hole, as T is the same along its wall
            matrix[0, :3] = np.array([-1.5, 2, -0.5]) / h
        inverses.append(np.linalg.inv(matrix))
    solver = np.stack(inverses)

    def around(f: np.ndarray) -> np.ndarray:
        return np.fft.irfft(1j * k * np.fft.rfft(f), m)

    def rate(heat: np.ndarray) -> np.ndarray:
        outward, turned = np.gradient(heat, h, axis=1, edge_order=2), around(heat) / r
        source = -(np.cos(angle) * outward - np.sin(angle) * turned)  # lap psi = -T_x
        source[:, [0, -1]] = 0
        psi = np.fft.irfft(np.einsum("kij,cjk->cik", solver, np.fft.rfft(source)), m)
        change = np.zeros_like(heat)
        second = np.diff(heat, 2, axis=1) / h**2 + (outward / r)[:, 1:-1] + (around(around(heat)) / r**2)[:, 1:-1]
        carried = around(psi) / r * outward - np.gradient(psi, h, axis=1, edge_order=2) * turned
        change[:, 1:-1] = 0.02 * second - carried[:, 1:-1]
        return change

    waves = sum(generator.standard_normal((count, 1, 1)) / (i + j) * np.sin(np.pi * i * (r - 0.5)) * np.cos(
        j * angle + generator.uniform(0, 2 * np.pi, (count, 1, 1))) for i in (1, 2) for j in range(5))
    heat = np.log(1.5 / r) / np.log(3) + 0.3 * waves
    frames = stepped(rate, heat, 0.3, 60)[:, :, ::2, ::3].swapaxes(0, 1).reshape(count, FRAMES, -1, 1)
    places = np.stack([r * np.cos(angle), r * np.sin(angle)], -1)[::2, ::3].reshape(-1, 2)
    return np.arange(FRAMES) * 0.3, places, frames, {"channels": ["T"]}


def crowds(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u (.004 + .02 v)) + u (1 - u - .6 v), v_t = lap(v (.006 + .01 u)) + v (.9 - .7 u - v) without flux in
    an arrow with a round hole (Shigesada, Kawasaki and Teramoto 1979); training values with noise of 3 % of their
    deviations: linear elements of side .025, read at nodes of a mesh half as fine."""
    corners = [(0.0, 0.0), (1.5, 0.0), (1.5, 0.5), (1.0, 0.5), (0.75, 1.1), (0.3, 0.6), (0.0, 0.6)]
    x, cells = _mesh([_polygon(corners, 0.05), _circle((0.75, 0.45), 0.15, 0.05)], 0.05)
    fine, parts = _refined(x, cells)
    stiffness, masses = _elements(fine, parts)
    u, v = (0.5 + 0.35 * np.tanh(np.stack([bumps(generator, fine / 1.5, 5) for _ in range(count)], 1))
            for _ in range(2))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        spread = [-(stiffness @ f) / masses[:, None] for f in (u * (0.004 + 0.02 * v), v * (0.006 + 0.01 * u))]
        return np.stack([spread[0] + u * (1 - u - 0.6 * v), spread[1] + v * (0.9 - 0.7 * u - v)])

    w = stepped(rate, np.stack([u, v]), 0.2, 100)[:, :, : len(x)].transpose(3, 0, 2, 1)
    w[:TRAIN] += 0.03 * w.std((0, 1, 2)) * generator.standard_normal(w[:TRAIN].shape)
    return np.arange(FRAMES) * 0.2, x, w, {"triangles": cells}


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


def wells(generator: np.random.Generator, count: int) -> Fields:
    """p_t = div(p grad V) + .25 lap p, V = (x^2 - 1)^2 / 2 + y^2 + .3 x y, without flux in (-2, 2) x (-1.5, 1.5)
    (Fokker and Planck), at 300 scattered points of its own in every trajectory: finite volumes of Scharfetter and
    Gummel, 120 x 90, exact in time."""
    n, m, d = 120, 90, 0.25
    axes = [-2 + (np.arange(n) + 0.5) / n * 4, -1.5 + (np.arange(m) + 0.5) / m * 3]
    x, y = np.meshgrid(*axes, indexing="ij")
    v = ((x**2 - 1) ** 2 / 2 + y**2 + 0.3 * x * y).ravel()
    h, matrix = 4 / n, csr_matrix((n * m, n * m))
    for forward in (kron(diags([np.ones(n - 1)], [1]), identity(m)), kron(identity(n), diags([np.ones(m - 1)], [1]))):
        rows, columns = forward.tocoo().row, forward.tocoo().col
        rise = (v[columns] - v[rows]) / d
        there, back = (d / h**2 * z / np.expm1(z) for z in (rise, -rise))  # rates from rows to columns and back
        for source, target, rates in ((rows, columns, there), (columns, rows, back)):
            matrix = matrix + csr_matrix((rates, (target, source)), (n * m,) * 2) - csr_matrix(
                (rates, (source, source)), (n * m,) * 2)
    starts = np.zeros((n * m, count))
    for s in range(count):
        for _ in range(generator.integers(1, 4)):
            (a, b), width = generator.uniform([-1.6, -1.0], [1.6, 1.0]), generator.uniform(0.25, 0.5)
            starts[:, s] += generator.uniform(0.3, 1) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / width**2).ravel()
    frames = expm_multiply(matrix, starts / starts.sum(0) / h**2, 0, 0.08 * (FRAMES - 1), FRAMES)
    points = generator.uniform([-1.95, -1.45], [1.95, 1.45], (count, 300, 2))
    u = np.stack([[RectBivariateSpline(*axes, frame[:, s].reshape(n, m)).ev(*points[s].T) for frame in frames]
                  for s in range(count)])
    return np.arange(FRAMES) * 0.08, points, u[..., None], {"channels": ["p"]}


def bay(generator: np.random.Generator, count: int) -> Fields:
    """Shallow water that turns in a closed basin of 1.5 x 1 over an uneven floor: e_t = -div((H + e) w),
    w_t = -w . grad w - 2 k x w - grad e + .004 lap w, H from .4 to 1.1, walls that slip: staggered differences,
    90 x 60 cells, read at the centres of every third."""
    n, m, h = 90, 60, 1 / 60
    x, y = np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij")
    depth = 1.1 - 0.6 * np.exp(-((x - 0.5) ** 2 + (y - 0.6) ** 2) / 0.08) - 0.3 * x / 1.5

    def mean(f: np.ndarray, axis: int) -> np.ndarray:
        return (np.take(f, np.arange(1, f.shape[axis]), axis) + np.take(f, np.arange(f.shape[axis] - 1), axis)) / 2

    def padded(f: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate([np.take(f, [0], axis), f, np.take(f, [-1], axis)], axis)

    def split(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        e, u, v = np.split(w, [n * m, n * m + (n - 1) * m], 1)
        closed = np.pad(u.reshape(-1, n - 1, m), ((0, 0), (1, 1), (0, 0)))
        return e.reshape(-1, n, m), closed, np.pad(v.reshape(-1, n, m - 1), ((0, 0), (0, 0), (1, 1)))

    def rate(w: np.ndarray) -> np.ndarray:
        e, u, v = split(w)
        whole = depth + e
        level = -np.diff(padded(mean(whole, 1), 1) * u, axis=1) / h - np.diff(
            padded(mean(whole, 2), 2) * v, axis=2) / h
        forces = []
        for f, other, axis, turn in ((u, v, 1, 2.0), (v, u, 2, -2.0)):
            inner = np.take(f, np.arange(1, f.shape[axis] - 1), axis)
            across = mean(mean(other, 3 - axis), axis)  # of the other velocity where this one is
            ahead = (np.take(f, np.arange(2, f.shape[axis]), axis) - np.take(f, np.arange(f.shape[axis] - 2), axis))
            side = padded(inner, 3 - axis)
            aside = np.take(side, np.arange(2, side.shape[3 - axis]), 3 - axis) - np.take(
                side, np.arange(side.shape[3 - axis] - 2), 3 - axis)
            lap = (np.diff(f, 2, axis=axis) + np.diff(side, 2, axis=3 - axis)) / h**2
            forces.append(-inner * ahead / (2 * h) - across * aside / (2 * h) + turn * across
                          - np.diff(e, axis=axis) / h + 0.004 * lap)
        return np.concatenate([f.reshape(len(w), -1) for f in (level, *forces)], 1)

    e = 0.12 * np.stack([bumps(generator, np.stack([x / 1.5, y], -1), 3) for _ in range(count)])
    w = np.concatenate([e.reshape(count, -1), np.zeros((count, (n - 1) * m + n * (m - 1)))], 1)
    frames = []
    for frame in stepped(rate, w, 0.15, 15):
        e, u, v = split(frame)
        frames.append(np.stack([f[:, 1::3, 1::3] for f in (e, mean(u, 1), mean(v, 2))], -1).reshape(count, -1, 3))
    places = np.stack([x, y], -1)[1::3, 1::3].reshape(-1, 2)
    return np.arange(FRAMES) * 0.15, places, np.stack(frames, 1), {"channels": ["eta", "u", "v"]}


MAKERS = {maker.__name__: maker for maker in (plasma, ageing, annulus, crowds, foundation, reactor, wells, bay)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
