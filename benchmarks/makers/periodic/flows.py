"""Incompressible flows on tori, and what they carry: tracers, buoyancy, magnetic fields, polymers, phases."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.fft import irfft2, rfft2

from benchmarks.makers.base import FRAMES, Fields, problem
from benchmarks.makers.spectral import etd, flow_and_scalar, on_torus, on_unit_torus, real, red_field, torus


@problem(48, 8)
def turbulence(generator: np.random.Generator, count: int, viscosity: float = 1e-4) -> Fields:
    """Vorticity of a forced flow on a torus of side 1, 64 x 64 points, pseudo-spectral, with an integrating factor.

    The force is 0.1 (sin s + cos s), s = 2 pi (x + y). Fields start from deviation 1; the first frame is at time 5.
    """
    n, h, every, burn = 64, 0.01, 50, 500
    k = 2 * np.pi * np.stack(np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2, mask = (k**2).sum(0), (np.abs(k) < 2 * np.pi * n / 3).all(0) * 1.0
    inverse, half = 1 / np.where(k2 > 0, k2, np.inf), np.exp(-viscosity * k2 * h / 2)
    x = np.stack(np.meshgrid(*[np.arange(n) / n] * 2, indexing="ij"), -1)
    force = rfft2(0.1 * np.sqrt(2) * np.cos(2 * np.pi * x.sum(-1) - np.pi / 4))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = irfft2(1j * k[1] * inverse * w), irfft2(-1j * k[0] * inverse * w)
        return force - mask * rfft2(u * irfft2(1j * k[0] * w) + v * irfft2(1j * k[1] * w))

    w = rfft2(generator.standard_normal((count, n, n))) * (k2 + 49) ** -1.25 * mask * (k2 > 0)
    w, frames = w / irfft2(w).std(), []
    for index in range(burn + (FRAMES - 1) * every + 1):
        if index >= burn and (index - burn) % every == 0:
            frames.append(irfft2(w).reshape(count, -1))
        a = rate(w)
        b = rate(half * (w + h / 2 * a))
        c = rate(half * w + h / 2 * b)
        last = rate(half**2 * w + h * half * c)
        w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + last)
    return (np.arange(FRAMES) * every * h, x.reshape(-1, 2), np.stack(frames, 1)[..., None],
            {"period": [1.0, 1.0], "channels": ["w"]})


@problem()
def filtered_turbulence(generator: np.random.Generator, count: int, n: int = 128) -> Fields:
    """Vorticity of decaying flow on a torus of side 2 pi, viscosity 5e-4, cut off at wavenumber 15; 32 x 32 points."""
    t, step = np.arange(FRAMES) * 0.2, 0.01
    k = np.stack(np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2 = (k**2).sum(0)
    inverse, mask = 1 / np.where(k2 > 0, k2, 1), (np.abs(k) < n / 3).all(0)
    half, frames = np.exp(-5e-4 * k2 * step / 2), []
    w = np.fft.rfft2(generator.standard_normal((count, n, n))) * np.sqrt(k2) * np.exp(-((np.sqrt(k2) - 5) ** 2) / 8)
    w *= 3 / np.fft.irfft2(w, (n, n)).std()

    def rate(w: np.ndarray) -> np.ndarray:
        u, v, wx, wy = (np.fft.irfft2(1j * f, (n, n)) for f in (
            k[1] * inverse * w, -k[0] * inverse * w, k[0] * w, k[1] * w))
        return -1.0 * mask * np.fft.rfft2(u * wx + v * wy)

    low = np.ix_(range(count), np.r_[0:16, n - 16 : n], range(17))
    keep = (np.sqrt(k2) < 15.5)
    for index in range(round(t[-1] / step) + 1):
        if index % round(t[1] / step) == 0:
            frames.append(np.fft.irfft2((w * keep)[low], (32, 32)) * (32 / n) ** 2)
        a = rate(w)
        b = rate(half * (w + step / 2 * a))
        c = rate(half * w + step / 2 * b)
        last = rate(half**2 * w + step * half * c)
        w = half**2 * w + step / 6 * (half**2 * a + 2 * half * (b + c) + last)
    g = np.arange(32) * 2 * np.pi / 32
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)
    return t, x, np.stack(frames, 1).reshape(count, FRAMES, -1, 1), {"period": [2 * np.pi] * 2, "channels": ["w"]}


@problem()
def flow_3d(generator: np.random.Generator, count: int, fine: int = 2, viscosity: float = 0.1) -> Fields:
    """Decaying incompressible flow on a torus of side 2 pi, 16^3 of the points of a pseudo-spectral solver."""
    n, t = 16 * fine, np.arange(FRAMES) * 0.1
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 2, np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2 = (k**2).sum(0)
    mask, inverse = (np.abs(k) < n / 3).all(0), 1 / np.where(k2 > 0, k2, 1)

    def project(w: np.ndarray) -> np.ndarray:
        return w - k * ((k * w).sum(0) * inverse)

    def transport(w: np.ndarray) -> np.ndarray:  # -P curl(u) x u
        u, curl = (np.fft.irfftn(f, (n,) * 3, (1, 2, 3)) for f in (w, np.cross(1j * k, w, axis=0)))
        return project(np.fft.rfftn(np.cross(u, curl, axis=0), axes=(1, 2, 3)) * mask)

    def run() -> np.ndarray:
        w = project(np.fft.rfftn(generator.standard_normal((3, n, n, n)), axes=(1, 2, 3)) * (k2 > 0)
                    * np.exp(-k2 / 5))
        w /= np.sqrt((np.fft.irfftn(w, (n,) * 3, (1, 2, 3)) ** 2).mean())
        h, frames = 0.025, []
        half = np.exp(-viscosity * k2 * h / 2)
        for index in range(round(t[-1] / h) + 1):
            if index % round(t[1] / h) == 0:
                frames.append(np.fft.irfftn(w, (n,) * 3, (1, 2, 3))[:, ::fine, ::fine, ::fine])
            a = transport(w)
            b = transport(half * (w + h / 2 * a))
            c = transport(half * w + h / 2 * b)
            last = transport(half**2 * w + h * half * c)
            w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + last)
        return np.stack(frames)

    g = np.arange(16) * 2 * np.pi / 16
    x = np.stack(np.meshgrid(g, g, g, indexing="ij"), -1).reshape(-1, 3)
    u = np.stack([np.moveaxis(run(), 1, -1).reshape(FRAMES, -1, 3) for _ in range(count)])
    return t, x, u, {"period": [2 * np.pi] * 3}


@problem()
def planetary(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(psi, w) - 8 psi_x + .01 lap w, w = lap psi, on a torus of length 2 pi: vorticity on a beta plane."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        psi = -w / np.where(kx**2 + ky**2 > 0, kx**2 + ky**2, np.inf)
        return real(1j * ky * psi) * real(1j * kx * w) - real(1j * kx * psi) * real(1j * ky * w)

    def linear(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        k2 = kx**2 + ky**2
        return -0.01 * k2 + 8j * kx / np.where(k2 > 0, k2, np.inf)

    return on_torus(generator, count, 64, 2 * np.pi, 0.15, 20, linear, rate, lambda: 3 * red_field(generator, 64, 2, 5))


@problem()
def quasigeostrophic(generator: np.random.Generator, count: int) -> Fields:
    """b_t = -J(psi, b) - .05 (-lap)^.5 b, psi = -(-lap)^-.5 b on a torus of length 2 pi: surface temperature."""
    kx, ky, k2, _, _, _ = (part / (2 * np.pi) ** power for part, power in zip(
        torus(64)[:3] + (np.ones(1),) * 3, (1, 1, 2, 0, 0, 0), strict=True))
    root = np.sqrt(k2)
    inverse = 1 / np.where(root > 0, root, np.inf)

    def rate(w: np.ndarray) -> np.ndarray:
        psi = -inverse * w[:, 0]
        return -np.fft.fft2(real(-1j * ky * psi) * real(1j * kx * w[:, 0])
                            + real(1j * kx * psi) * real(1j * ky * w[:, 0]))[:, None]

    start = np.stack([[red_field(generator, 64, 2, 5)] for _ in range(count)])
    return on_unit_torus(start, -0.05 * root[None], rate, 0.15, 20, 2 * np.pi, channels=("b",))


@problem()
def two_layers(generator: np.random.Generator, count: int) -> Fields:
    """q_t = -J(p, q) - U q_x - (1 + 4 (U - U')) p_x + .02 lap q in each of two layers, q = lap p + 4 (p' - p), that
    move at U = 1 and 0: potential vorticities of a baroclinic ocean (Phillips 1954), periodic along x over 2 pi,
    between walls pi apart where p = 0: images on 64 x 32, read at 32 x 16 centres."""
    n, gap, steps = 64, 0.25, 25
    k, m = np.fft.rfftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n)
    ky, kx = np.meshgrid(m, k, indexing="ij")
    k2, keep = kx**2 + ky**2, (kx < n / 3) & (abs(ky) < n / 3)
    det = np.where(k2 > 0, k2 * (k2 + 8), np.inf)
    mean, slope = np.array([1.0, 0.0])[:, None, None], np.array([1 + 4.0, 1 - 4.0])[:, None, None]

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        p = -((k2 + 4) * w + 4 * w[:, ::-1]) / det
        turn = back(1j * kx * p) * back(1j * ky * w) - back(1j * ky * p) * back(1j * kx * w)
        return keep * (-np.fft.rfft2(turn) - 1j * kx * (mean * w + slope * p))

    y, x = np.meshgrid((np.arange(n) + 0.5) / n * 2 * np.pi, (np.arange(n) + 0.5) / n * 2 * np.pi, indexing="ij")
    q = sum(generator.standard_normal((count, 2, 1, 1)) / (i + j) * 3 * np.sin(j * y) * np.cos(
        i * x + generator.uniform(0, 7, (count, 2, 1, 1))) for i in range(4) for j in (1, 2, 3))
    w, frames = np.fft.rfft2(q), []
    for frame in range(FRAMES):
        w = etd(-0.02 * k2, rate, w, gap / steps, steps) if frame else w
        frames.append(back(w)[..., : n // 2 : 2, ::2])
    points = np.stack([x, y], -1)[: n // 2 : 2, ::2].reshape(-1, 2)
    return np.arange(FRAMES) * gap, points, np.stack(frames, 1).reshape(count, FRAMES, 2, -1).swapaxes(2, 3), {
        "channels": ["q1", "q2"], "period": [2 * np.pi, 0.0]}


@problem()
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
    w = etd(linear, rate, w, gap / steps, 20 * steps)
    frames = [w]
    for _ in range(FRAMES - 1):
        frames.append(etd(linear, rate, frames[-1], gap / steps, steps))
    u = real(np.stack(frames))[..., ::2, ::2].transpose(2, 0, 3, 4, 1).reshape(count, FRAMES, -1, 2)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, u, {"channels": ["z", "n"], "period": [length] * 2}


def _carried(generator: np.random.Generator, count: int, buoyancy: float) -> Fields:
    """A scalar in an incompressible flow on a torus of length 1: scalar and velocities at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.05, 10
    kx, ky, k2, keep, inverse, x = torus(n)

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, scalar
        u, v = real(1j * ky * inverse * w[:, 0]), real(-1j * kx * inverse * w[:, 0])
        along = [-1.0 * keep * np.fft.fft2(u * real(1j * kx * f) + v * real(1j * ky * f)) for f in (w[:, 0], w[:, 1])]
        return np.stack([along[0] + buoyancy * 1j * kx * w[:, 1],
                         along[1] - buoyancy * np.fft.fft2(v)], 1)

    start = np.stack([np.stack([4 * red_field(generator, n, 2, 4), 0.3 * red_field(generator, n, 2, 4)])
                      for _ in range(count)])
    return flow_and_scalar(start, np.stack([-0.002 * k2, -0.003 * k2]), rate, gap, steps, "s")


@problem()
def tracer(generator: np.random.Generator, count: int) -> Fields:
    """A passive tracer."""
    return _carried(generator, count, 0.0)


@problem()
def stratified(generator: np.random.Generator, count: int) -> Fields:
    """A buoyancy b in a stratified fluid: v_t = ... + 2 b e_y, b_t = -v . grad b - 2 v_y + .003 lap b."""
    return _carried(generator, count, 2.0)


@problem()
def tracer_pressure(generator: np.random.Generator, count: int) -> Fields:
    """A passive tracer, velocities and their pressure."""
    return _with_pressure(tracer(generator, count), 0.0)


@problem()
def stratified_pressure(generator: np.random.Generator, count: int) -> Fields:
    """A buoyancy in a stratified fluid, velocities and their pressure."""
    return _with_pressure(stratified(generator, count), 2.0)


def _with_pressure(fields: Fields, buoyancy: float) -> Fields:
    """A scalar b, velocities and the pressure, lap p = -div(v . grad v) + buoyancy db/dy, from twice the points."""
    t, x, u, attributes = fields
    n = round(u.shape[2] ** 0.5)
    w = np.fft.fftshift(np.fft.fft2(np.moveaxis(u, 3, 2).reshape(*u.shape[:2], 3, n, n)), axes=(-2, -1))
    w = 4 * np.fft.ifftshift(np.pad(w, [(0, 0)] * 3 + [(n // 2, n // 2)] * 2), axes=(-2, -1))
    kx, ky, _, _, inverse, _ = torus(2 * n)
    xx, xy, yx, yy = (real(1j * k * w[:, :, j]) for j in (1, 2) for k in (kx, ky))
    source = np.fft.fft2(xx**2 + 2 * xy * yx + yy**2) - buoyancy * 1j * ky * w[:, :, 0]
    pressure = real(inverse * source)[..., ::2, ::2].reshape(*u.shape[:3], 1)
    channels = [*attributes["channels"], "p"]
    return t, x, np.concatenate([u, pressure], -1), {**attributes, "channels": channels}


@problem()
def magnetic(generator: np.random.Generator, count: int) -> Fields:
    """Incompressible flow with a magnetic field on a torus of length 1: velocities and field at 32 x 32 of 64 x 64."""
    n, gap, steps = 64, 0.03, 6
    kx, ky, k2, keep, inverse, x = torus(n)

    def jacobian(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return keep * np.fft.fft2(real(1j * kx * a) * real(1j * ky * b) - real(1j * ky * a) * real(1j * kx * b))

    def rate(w: np.ndarray) -> np.ndarray:  # stream function and flux function; vorticity is -lap psi
        psi, a = w[:, 0], w[:, 1]
        return np.stack([inverse * (jacobian(psi, k2 * psi) - jacobian(a, k2 * a)), jacobian(psi, a)], 1)

    start = np.stack([np.stack([0.06 * red_field(generator, n, 2, 3), 0.06 * red_field(generator, n, 2, 3)])
                      for _ in range(count)])
    w, frames, linear = keep * np.fft.fft2(start), [], np.stack([-0.01 * k2, -0.01 * k2])
    for _ in range(FRAMES):
        parts = [real(1j * ky * w[:, i]) if j == 0 else real(-1j * kx * w[:, i]) for i in range(2) for j in range(2)]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 4, -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": ["vx", "vy", "bx", "by"]}


@problem()
def viscoelastic(generator: np.random.Generator, count: int) -> Fields:
    """An Oldroyd-B fluid on a torus of length 1: velocities and conformation (xx, xy, yy) at 32 x 32 of 64 x 64.
    C_t = -v . grad C + G C + C G' - (C - I) / .5 + .004 lap C, v_t = ... + .01 lap v + .1 div C."""
    n, gap, steps = 64, 0.04, 10
    kx, ky, k2, keep, inverse, x = torus(n)

    def velocities(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1j * ky * inverse * w, -1j * kx * inverse * w

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, conformation less the identity
        vx, vy = velocities(w[:, 0])
        u, v = real(vx), real(vy)
        g = [[real(1j * k * f) for k in (kx, ky)] for f in (vx, vy)]
        a, b, c = (real(w[:, i]) for i in (1, 2, 3))
        turn = [2 * (g[0][0] * (a + 1) + g[0][1] * b),
                g[0][0] * b + g[0][1] * (c + 1) + (a + 1) * g[1][0] + b * g[1][1],
                2 * (g[1][0] * b + g[1][1] * (c + 1))]
        along = [-(u * real(1j * kx * f) + v * real(1j * ky * f)) for f in (w[:, 0], *(w[:, i] for i in (1, 2, 3)))]
        force = -kx * ky * w[:, 3] - kx**2 * w[:, 2] + kx * ky * w[:, 1] + ky**2 * w[:, 2]  # curl of the divergence
        parts = [along[0], *(p + q for p, q in zip(along[1:], turn, strict=True))]
        total = np.stack([keep * np.fft.fft2(part) for part in parts], 1)
        total[:, 0] += 0.1 * keep * force
        return total

    start = np.zeros((count, 4, n, n))
    for i in range(count):
        start[i, 0] = 6 * red_field(generator, n, 2, 3)
        start[i, 1:] = 0.1 * np.stack([red_field(generator, n, 2, 3) for _ in range(3)])
    w, frames = keep * np.fft.fft2(start), []
    linear = np.stack([-0.01 * k2, *[-0.004 * k2 - 2.0] * 3])
    for _ in range(FRAMES):
        vx, vy = velocities(w[:, 0])
        one = np.array([1.0, 0, 1.0])[:, None, None]
        frames.append(np.concatenate([np.stack([real(vx), real(vy)], 1), real(w[:, 1:]) + one], 1)[..., ::2, ::2])
        w = etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 5, -1), 2, 3)
    return (np.arange(FRAMES) * gap, x, u,
            {"period": [1.0, 1.0], "channels": ["vx", "vy", "cxx", "cxy", "cyy"]})


@problem()
def emulsion(generator: np.random.Generator, count: int) -> Fields:
    """Cahn-Hilliard and Navier-Stokes on a torus of length 1: phase and velocities at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.04, 40
    kx, ky, k2, keep, inverse, x = torus(n)
    mobility, width = 0.01, 0.03

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, phase
        u, v = real(1j * ky * inverse * w[:, 0]), real(-1j * kx * inverse * w[:, 0])
        phase = real(w[:, 1])
        potential = keep * np.fft.fft2(phase**3 - phase) + width**2 * k2 * w[:, 1]
        along = [-(u * real(1j * kx * f) + v * real(1j * ky * f)) for f in (w[:, 0], w[:, 1])]
        pull = (real(1j * kx * potential) * real(1j * ky * w[:, 1])
                - real(1j * ky * potential) * real(1j * kx * w[:, 1]))  # curl of potential grad phase
        cubic = np.fft.fft2(phase**3 - 3 * phase)
        return np.stack([keep * np.fft.fft2(along[0] + 10 * pull),
                         keep * (np.fft.fft2(along[1]) - mobility * k2 * cubic)], 1)

    start = np.stack([np.stack([5 * red_field(generator, n, 2, 3), 0.5 * red_field(generator, n, 2, 5)])
                      for _ in range(count)])
    linear = np.stack([-0.01 * k2, -mobility * (2 * k2 + width**2 * k2**2)])
    return flow_and_scalar(start, linear, rate, gap, steps, "phase")


problem(48, 8, "turbulence_thin")(partial(turbulence, viscosity=1e-5))
problem(name="flow_3d_fine")(partial(flow_3d, viscosity=0.03))
