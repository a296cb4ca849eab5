"""Fresh data, made before any mechanism saw them: a clamped plate, electrons in phase space, patterns on a dome, heat
that is a wave, a river that branches, a ball, a tracer in a shear flow, a flock in a channel, sound that leaves a pipe.

python benchmarks/fresh_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.linalg
import skfem
from blind_data import _etd
from data_makers import FRAMES, Fields, bumps, reacting, stepped, surface_elements, write_problems
from shape_data import _circle, _elements, _mesh, _polygon, _refined
from skfem.helpers import dd, ddot
from skfem.models.poisson import laplace, mass

TRAIN, TEST = 24, 8


def plate(generator: np.random.Generator, count: int) -> Fields:
    """w_tt = -.002 lap^2 w - .3 w_t of an elliptic plate that is clamped at its rim, w and w_t: 60 modes of Morley
    elements."""
    x, cells = _mesh([_circle((0, 0), 1, 0.075)], 0.075)
    x = x * [1.0, 0.7]
    basis = skfem.Basis(skfem.MeshTri(x.T.copy(), cells.T.copy()), skfem.ElementTriMorley())
    stiff = skfem.BilinearForm(lambda u, v, w: ddot(dd(u), dd(v))).assemble(basis)
    masses = mass.assemble(basis)
    free = basis.complement_dofs(basis.get_dofs().all())
    values, modes = scipy.linalg.eigh(stiff[free][:, free].toarray(), masses[free][:, free].toarray(),
                                      subset_by_index=[0, 59])
    full = np.zeros((basis.N, 60))
    full[free] = modes
    shapes = full[basis.nodal_dofs[0]]  # at the nodes
    z = generator.standard_normal((count, 60)) / (1 + np.arange(60) / 3) ** 2
    t, k = np.arange(FRAMES) * 0.35, np.sqrt(0.002 * values - 0.15**2)
    decay = np.exp(-0.15 * t)[:, None]
    part = z[:, None] * decay * np.cos(k * t[:, None]) + z[:, None] * 0.15 / k * decay * np.sin(k * t[:, None])
    speed = -z[:, None] * decay * np.sin(k * t[:, None]) * (k + 0.15**2 / k)
    return t, x, np.stack([part @ shapes.T, speed @ shapes.T], -1), {"channels": ["w", "w_t"], "triangles": cells}


def landau(generator: np.random.Generator, count: int) -> Fields:
    """f_t = -v f_x - E f_v, E_x = mean(f) - rho: electrons in phase space, x periodic over 4 pi, v of -6 to 6 (Vlasov
    and Poisson): splitting, shifts by Fourier, 64 x 96, read at 32 x 48."""
    n, m, steps, gap = 64, 96, 20, 0.4
    x, v = np.arange(n) / n * 4 * np.pi, (np.arange(m) + 0.5) / m * 12 - 6
    k, q = np.fft.fftfreq(n, 2 / n), 2 * np.pi * np.fft.fftfreq(m, 12 / m)
    over = np.where(k == 0, 0, 1 / np.where(k == 0, 1, 1j * k))
    wave = sum(generator.uniform(0, 0.15, (count, 1)) * np.cos(j * x / 2 + generator.uniform(0, 7, (count, 1)))
               for j in (1, 2, 3))
    beam = generator.uniform(0.0, 0.15, (count, 1))
    f = (1 + wave)[..., None] * ((1 - beam) * np.exp(-(v**2) / 2) + beam * 2 * np.exp(-((v - 2.5) ** 2) * 2))[:, None]
    f = f / np.sqrt(2 * np.pi)
    drift, dt, frames = np.exp(-1j * k[:, None] * v * gap / steps / 2), gap / steps, [f]
    for _ in range(FRAMES - 1):
        for _ in range(steps):
            f = np.fft.ifft(drift * np.fft.fft(f, axis=1), axis=1).real
            rho = f.sum(-1) * 12 / m
            field = np.fft.ifft(over * np.fft.fft(rho.mean(1, keepdims=True) - rho, axis=1), axis=1).real
            f = np.fft.ifft(np.exp(1j * q * -field[..., None] * dt) * np.fft.fft(f, axis=2), axis=2).real
            f = np.fft.ifft(drift * np.fft.fft(f, axis=1), axis=1).real
        frames.append(f)
    points = np.stack(np.meshgrid(x[::2], v[::2], indexing="ij"), -1).reshape(-1, 2)
    u = np.stack(frames, 1)[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, points, u, {"channels": ["f"], "period": [4 * np.pi, 0.0]}


def dome(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + 1 - 4 u + u^2 v, v_t = .01 lap v + 3 u - u^2 v (Prigogine and Lefever) on the part of a sphere
    within 75 degrees of its pole, without flux at its rim: linear elements, read at half of the sides."""
    flat, cells = _mesh([_circle((0, 0), 1, 0.1)], 0.1)
    fine, parts = _refined(flat, cells)
    turn = np.radians(75) * np.linalg.norm(fine, axis=1, keepdims=True)
    x = np.concatenate([np.sinc(turn / np.pi) * np.radians(75) * fine, np.cos(turn)], 1)
    stiffness, masses = surface_elements(x, parts)
    u = np.stack([1 + 0.7 * np.tanh(bumps(generator, (x + 1) / 2, 3)) for _ in range(count)], 1)
    v = np.stack([2.5 + 1.0 * np.tanh(bumps(generator, (x + 1) / 2, 3)) for _ in range(count)], 1)

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([1 - 4 * u + u**2 * v, 3 * u - u**2 * v])

    frames = reacting(np.stack([u, v]), reaction, stiffness, masses, (0.02, 0.01), 0.02, 10)[:, :, : len(flat)]
    return np.arange(FRAMES) * 0.2, x[: len(flat)], frames.transpose(3, 0, 2, 1), {"triangles": cells}


def cattaneo(generator: np.random.Generator, count: int) -> Fields:
    """T_t = -div q, .3 q_t = -q - .15 grad T: heat that runs as a damped wave (Cattaneo 1948) in a square without flux,
    T = 1 at a round hole; T alone is seen, and q is 0 at first: linear elements, modes, read at half of the sides."""
    square = _polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)], 0.08)
    x, cells = _mesh([square, _circle((0.2, -0.1), 0.3, 0.08)], 0.08)
    fine, parts = _refined(x, cells)
    stiffness, lumped = _elements(fine, parts)
    held = np.hypot(*(fine - [0.2, -0.1]).T) < 0.302
    free = np.flatnonzero(~held)
    half = 1 / np.sqrt(lumped[free])
    values, modes = scipy.linalg.eigh(stiffness[free][:, free].toarray() * half[:, None] * half)
    start = 0.8 * np.stack([bumps(generator, (fine + 1) / 2, 4) for _ in range(count)], 1)
    start *= np.tanh((np.hypot(*(fine - [0.2, -0.1]).T) - 0.3) / 0.2)[:, None]
    z, t = modes.T @ (start[free] / half[:, None]), np.arange(FRAMES) * 0.12
    root = np.sqrt(1 - 4 * 0.3 * 0.15 * values + 0j)
    a, b = (-1 + root) / 0.6, (-1 - root) / 0.6
    part = ((a * np.exp(b * t[:, None]) - b * np.exp(a * t[:, None])) / (a - b)).real
    u = np.ones((count, FRAMES, len(fine)))
    u[:, :, free] += np.einsum("tk,ks,nk->stn", part, z, modes * half[:, None])
    return t, x, u[:, :, : len(x), None], {"channels": ["T"], "triangles": cells}


def river(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -s c_x + .002 c_xx - .2 c in a river of five reaches: 1 and 2 join into 3, 3 and 4 into 5; water runs at
    s = 1, .7, .8, .5, .9 with discharges that add up, clean at the springs and free at the mouth; spills of its own in
    every trajectory: finite volumes (upwind of third order), 80 cells a reach, at every third."""
    m, t = 80, np.arange(FRAMES) * 0.12
    ends = np.array([[[0, 1.0], [0.9, 0.6]], [[0, 0.1], [0.9, 0.6]], [[0.9, 0.6], [1.8, 0.7]],
                     [[1.1, -0.1], [1.8, 0.7]], [[1.8, 0.7], [2.8, 0.9]]])
    long, speed = np.linalg.norm(np.diff(ends, axis=1)[:, 0], axis=1), np.array([1.0, 0.7, 0.8, 0.5, 0.9])
    area = np.array([1.0, 1.2, 0, 1.4, 0])
    area[2] = (area[0] * speed[0] + area[1] * speed[1]) / speed[2]
    area[4] = (area[2] * speed[2] + area[3] * speed[3]) / speed[4]
    h, above = long / m, {2: (0, 1), 4: (2, 3)}
    s = (np.arange(m) + 0.5) / m
    x = ends[:, None, 0] + s[:, None] * np.diff(ends, axis=1)

    def rate(c: np.ndarray) -> np.ndarray:  # (5, m, S)
        out = np.zeros_like(c)
        flow = area * speed
        for r in range(5):
            up = above.get(r)
            head = sum(flow[i] * c[i, -1] for i in up) / flow[r] if up else 0 * c[r, 0]
            wide = np.concatenate([head[None], head[None], c[r], c[r, -1:]])
            face = (2 * wide[2:] + 5 * wide[1:-1] - wide[:-2]) / 6  # of the cells' ends downstream
            flux = speed[r] * np.concatenate([head[None], face[-m:]])
            spread = -0.002 * np.diff(wide[1:], axis=0) / h[r]
            spread[0] = 0
            out[r] = -np.diff(flux + spread, axis=0) / h[r] - 0.2 * c[r]
        return out

    c = np.zeros((5, m, count))
    for n in range(count):
        for _ in range(3):
            at = x[generator.integers(5), generator.integers(m)]
            c[..., n] += generator.uniform(0.4, 1.5) * np.exp(-((x - at) ** 2).sum(-1) / generator.uniform(0.01, 0.04))
    frames = stepped(rate, c, t[1], 40)
    return t, x[:, 1::3].reshape(-1, 2), frames[:, :, 1::3].reshape(FRAMES, -1, count).transpose(2, 0, 1)[..., None], {
        "channels": ["c"]}


def ball(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 lap u + 2 u - u^3 in a ball at whose surface u = 0: linear elements on tetrahedra, read at half of the
    sides."""
    coarse = skfem.MeshTet.init_ball(3)
    mesh = coarse.refined(1)
    basis = skfem.Basis(mesh, skfem.ElementTetP1())
    stiffness, masses = laplace.assemble(basis).tocsr(), mass.assemble(basis).tocsr()
    free = basis.complement_dofs(basis.get_dofs().all())
    x = mesh.p.T
    u = np.stack([1.2 * bumps(generator, (x + 1) / 2, 3) * (1 - (x**2).sum(1)) for _ in range(count)], 1)
    frames = reacting(u[None, free], lambda w: 2 * w - w**3, stiffness[free][:, free].tocsc(),
                      masses[free][:, free].tocsc(), (0.03,), 0.02, 6)
    every = np.zeros((FRAMES, len(x), count))
    every[:, free] = frames[:, 0]
    return (np.arange(FRAMES) * 0.12, coarse.p.T, every[:, : coarse.p.shape[1]].transpose(2, 0, 1)[..., None],
            {"tetrahedra": coarse.t.T})


def shear(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(p, w) + .01 lap w, w = -lap p and a tracer c_t = -J(p, c) + .005 lap c between slippery walls y = 0 and
    1 of a box that is periodic along x over 2 (incompressible flow; Kelvin and Helmholtz): images on 96 x 96, u, v and
    c read at 32 x 16 centres."""
    n, gap, steps = 96, 0.12, 24
    k = np.fft.fftfreq(n, 1 / n) * np.pi
    ky, kx = np.meshgrid(k, k[: n // 2 + 1], indexing="ij")
    kx = abs(kx)
    k2, keep = kx**2 + ky**2, (kx < n * np.pi / 3) & (abs(ky) < n * np.pi / 3)
    inverse = np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1), 0)

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        p = inverse * w[:, :1]
        u, v = back(1j * ky * p), back(-1j * kx * p)
        return -1.0 * keep * np.fft.rfft2(u * back(1j * kx * w) + v * back(1j * ky * w))

    side = (np.arange(n) + 0.5) / n * 2
    y, x = np.meshgrid(side, side, indexing="ij")
    inner = np.where(y < 1, y, 2 - y)
    sign = np.where(y < 1, 1, -1)
    jet = generator.uniform(-3, 3, (count, 1, 1)) / np.cosh(
        (inner - generator.uniform(0.35, 0.65, (count, 1, 1))) / 0.12)
    swirl = sum(generator.standard_normal((count, 1, 1)) * 4 / (i + j) * np.sin(np.pi * j * y) * np.cos(
        np.pi * i * x + generator.uniform(0, 7, (count, 1, 1))) for i in range(4) for j in (1, 2, 3))
    c = 0.5 + 0.5 * np.tanh((inner - 0.5 + 0.2 * np.sin(np.pi * x + generator.uniform(0, 7, (count, 1, 1)))) / 0.15)
    w, frames = np.fft.rfft2(np.stack([jet * sign * 2 + swirl, c], 1)), []
    for frame in range(FRAMES):
        w = _etd(-np.stack([0.01 * k2, 0.005 * k2]), rate, w, gap / steps, steps) if frame else w
        p = inverse * w[:, 0]
        frames.append(np.stack([back(1j * ky * p), back(-1j * kx * p), back(w[:, 1])], 1)[..., 1 : n // 2 : 3, 1::3])
    points = np.stack([x, y], -1)[1 : n // 2 : 3, 1::3].reshape(-1, 2)
    return np.arange(FRAMES) * gap, points, np.stack(frames, 1).reshape(count, FRAMES, 3, -1).swapaxes(2, 3), {
        "channels": ["u", "v", "c"], "period": [2.0, 0.0]}


def flock(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -.8 p . grad p + p - |p|^2 p + .02 lap p + .02 grad div p of a flock's direction (Toner and Tu 1995) in a
    channel, periodic along x over 3, p = 0 at walls 1 apart: differences, 120 x 41, read at every third point."""
    n, m = 120, 41
    h = 3 / n
    y, x = np.meshgrid(np.arange(m) * h, np.arange(n) * h, indexing="ij")
    y, dy = y / y.max(), 1 / (m - 1)

    def along(u: np.ndarray) -> np.ndarray:
        return (np.roll(u, -1, -1) - np.roll(u, 1, -1)) / (2 * h)

    def across(u: np.ndarray) -> np.ndarray:
        return np.gradient(u, dy, axis=-2, edge_order=2)

    def rate(w: np.ndarray) -> np.ndarray:  # (2, S, m, n)
        lap = (np.roll(w, 1, -1) - 2 * w + np.roll(w, -1, -1)) / h**2
        lap[..., 1:-1, :] += np.diff(w, 2, axis=-2) / dy**2
        div = along(w[0]) + across(w[1])
        out = -0.8 * (w[0] * along(w) + w[1] * across(w)) + w * (1 - (w**2).sum(0)) + 0.02 * lap
        out += 0.02 * np.stack([along(div), across(div)])
        out[..., [0, -1], :] = 0
        return out

    unit = np.stack([(1 + np.cos(2 * np.pi * x / 3)) / 2, (1 + np.sin(2 * np.pi * x / 3)) / 2, y], -1)
    w = np.stack([[0.8 * np.tanh(bumps(generator, unit, 3)) for _ in range(count)] for _ in range(2)])
    frames = stepped(rate, w * np.tanh(np.minimum(y, 1 - y) / 0.1), 0.15, 30)
    points = np.stack([x, y], -1)[1::3, ::3]
    return np.arange(FRAMES) * 0.15, points.reshape(-1, 2), frames[..., 1::3, ::3].reshape(
        FRAMES, 2, count, -1).transpose(2, 0, 3, 1), {"channels": ["p", "q"], "period": [3.0, 0.0]}


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


MAKERS = {maker.__name__: maker for maker in (
    plate, landau, dome, cattaneo, river, ball, shear, flock, open_pipe)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
