"""Fields on the sphere, by a pseudo-spectral solver of its own: Gauss grid, associated Legendre functions, FFT."""

from __future__ import annotations

import numpy as np
from scipy.special import sph_harm_y

from benchmarks.makers.base import FRAMES, Fields, parameters, problem, stepped
from benchmarks.makers.spectral import runge_kutta

GEOMETRY = {"geometry": "sphere"}


class Sphere:
    """Fields (..., J, I) on a Gauss grid and their coefficients (..., M, L), of orders m >= 0 and degrees l, of a
    triangular truncation; exact for products of two fields."""

    def __init__(self, degree: int):
        self.degree, self.columns = degree, 2 * (3 * degree // 2 + 1)
        z, weights = np.polynomial.legendre.leggauss(3 * degree // 2 + 1)
        self.theta, self.weights = np.arccos(z), weights / 2
        self.longitude = 2 * np.pi * np.arange(self.columns) / self.columns
        n = np.arange(degree + 1)
        self.eigenvalues = (n * (n + 1.0))[None]
        self.order = 1j * np.arange(degree + 1)[:, None]
        value, slope = sph_harm_y(n[None, :, None], n[:, None, None], self.theta, 0.0, diff_n=1)
        size = np.sqrt(4 * np.pi)
        self.p, self.south = size * value.real, size * slope[..., 0].real  # (M, L, J)
        self.sine = np.sin(self.theta)[:, None]

    def grid(self, a: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """Values of coefficients on the grid (derivatives to the south with the table `south`)."""
        rows = np.moveaxis(np.moveaxis(a, -2, 0)[..., None, :] @ (self.p if table is None else table).reshape(
            self.degree + 1, *(1,) * (a.ndim - 2), self.degree + 1, -1), 0, -1)[..., 0, :, :]
        return np.fft.irfft(rows * self.columns, self.columns)

    def coefficients(self, f: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """Projections of a field on the harmonics (on their derivatives to the south with the table `south`)."""
        rows = np.fft.rfft(f)[..., : self.degree + 1] / self.columns * self.weights[:, None]
        rows = np.moveaxis(rows, -1, 0)[..., None, :]
        part = np.swapaxes(self.p if table is None else table, 1, 2)
        return np.moveaxis((rows @ part.reshape(self.degree + 1, *(1,) * (f.ndim - 2), *part.shape[1:]))[..., 0, :],
                           0, -2)

    def gradient(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives to the east and to the north of a field of coefficients."""
        return self.grid(self.order * a) / self.sine, -self.grid(a, self.south)

    def divergence(self, east: np.ndarray, north: np.ndarray) -> np.ndarray:
        """Coefficients of the divergence of a vector field on the grid."""
        return self.order * self.coefficients(east / self.sine) + self.coefficients(north, self.south)

    def inverse(self, a: np.ndarray) -> np.ndarray:
        """Inverse Laplacian, without a mean."""
        return -a / np.where(self.eigenvalues > 0, self.eigenvalues, np.inf)

    def random(self, generator: np.random.Generator, count: int, degree: float) -> np.ndarray:
        """Coefficients (count, M, L) of smooth random fields of unit variance, mean zero."""
        shape = (count, self.degree + 1, self.degree + 1)
        a = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
        a[:, 0] = np.sqrt(2) * a[:, 0].real
        a *= np.triu(np.ones(shape[1:])) * np.exp(-self.eigenvalues / degree**2)  # l >= m
        a[:, 0, 0] = 0
        twice = np.where(np.arange(shape[1]) > 0, 2, 1)[:, None]
        return a / np.sqrt((np.abs(a) ** 2 * twice).sum((1, 2), keepdims=True))

    def at(self, a: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values (..., N) of coefficients at unit vectors (N, 3)."""
        n = np.arange(self.degree + 1)
        theta, phi = np.arccos(np.clip(x[:, 2], -1, 1)), np.arctan2(x[:, 1], x[:, 0])
        y = np.sqrt(4 * np.pi) * sph_harm_y(n[None, :, None], n[:, None, None], theta, phi)
        y[1:] *= 2
        y = y.reshape(-1, len(x))
        flat = a.reshape(*a.shape[:-2], -1)
        return flat.real @ y.real - flat.imag @ y.imag


def scattered(count: int, seed: int = 5) -> np.ndarray:
    """Random unit vectors (count, 3)."""
    x = np.random.default_rng(seed).standard_normal((count, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@problem()
def sphere_prey(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + u - u^2 - u v, v_t = .002 lap v + u v - .4 v, at 900 scattered points."""
    sphere, gap, steps = Sphere(24), 0.6, 12
    a = np.stack([0.1 * sphere.random(generator, count, 6), 0.1 * sphere.random(generator, count, 6)], 1)
    a[:, :, 0, 0] = 0.5 + 0.05 * generator.standard_normal((count, 2))
    diffusivity = np.array([0.004, 0.002])[:, None, None]

    def rate(a: np.ndarray) -> np.ndarray:
        u, v = sphere.grid(a[:, 0]), sphere.grid(a[:, 1])
        reaction = sphere.coefficients(np.stack([u * (1 - u) - u * v, u * v - 0.4 * v], 1))
        return reaction - diffusivity * sphere.eigenvalues * a

    x, frames = scattered(900), [a]
    for _ in range(FRAMES - 1):
        frames.append(runge_kutta(rate, frames[-1], gap / steps, steps))
    return np.arange(FRAMES) * gap, x, np.moveaxis(sphere.at(np.stack(frames, 1), x), 2, 3), dict(GEOMETRY)


@problem(12, 4)
def shallow_water(generator: np.random.Generator, count: int) -> Fields:
    """Height (km) and vorticity (1/h) of shallow water on the Earth, from jets (Galewsky, Scott and Polvani, 2004) with
    random vortices, balanced, after a day; 2 hours between frames. The divergence is not observed. Every second ring
    and meridian of the solver's grid."""
    sphere, step, gap = Sphere(42), 0.25, 2.0
    spin, wave, damping = 2 * 0.26252, 0.03133, 5e-8  # 2 Omega, g H / a^2 of 10 km, of lap^2; hours and radians
    latitude = np.pi / 2 - sphere.theta
    coriolis = spin * np.sin(latitude)[:, None]

    def wind(w: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (ax, ay), (bx, by) = sphere.gradient(sphere.inverse(w)), sphere.gradient(sphere.inverse(d))
        return bx - ay, by + ax

    def rate(a: np.ndarray) -> np.ndarray:
        w, d, h = a[:, 0], a[:, 1], a[:, 2]
        u, v = wind(w, d)
        spun, height = sphere.grid(w) + coriolis, sphere.grid(h)
        energy = height + (u**2 + v**2) / 2
        result = np.stack([-sphere.divergence(u * spun, v * spun),
                           sphere.divergence(v * spun, -u * spun) + sphere.eigenvalues * sphere.coefficients(energy),
                           -sphere.divergence(u * height, v * height)], 1)
        return result - damping * sphere.eigenvalues**2 * a

    def jet(low: float, speed: float) -> np.ndarray:
        inside = np.abs(latitude - np.pi / 4) < np.pi / 4 - low
        at = np.where(inside, (latitude - low) * (latitude - np.pi / 2 + low), -1.0)
        return np.where(inside, speed * np.exp(1 / at + 4 / (np.pi / 2 - 2 * low) ** 2), 0.0)

    starts = []
    for _ in range(count):
        profile = jet(generator.uniform(np.pi / 8, np.pi / 6), generator.uniform(0.034, 0.046))
        profile = profile + jet(generator.uniform(np.pi / 8, np.pi / 6), generator.uniform(0.034, 0.046))[::-1]
        zonal = np.repeat(profile[:, None], sphere.columns, 1)
        w = sphere.divergence(0 * zonal, -zonal) + 0.04 * sphere.random(generator, 1, 8)[0]
        u, v = wind(w, 0 * w)
        spun, energy = sphere.grid(w) + coriolis, sphere.coefficients((u**2 + v**2) / 2)
        balanced = sphere.inverse(sphere.divergence(v * spun, -u * spun)) - energy
        balanced[0, 0] = wave
        starts.append(np.stack([w, 0 * w, balanced]))
    frames = [runge_kutta(rate, np.stack(starts), step, round(24 / step))]
    for _ in range(FRAMES - 1):
        frames.append(runge_kutta(rate, frames[-1], step, round(gap / step)))
    a = np.stack(frames, 1)
    fields = np.stack([sphere.grid(a[:, :, 2]) * 10 / wave, sphere.grid(a[:, :, 0])], -1)[:, :, ::2, ::2]
    theta, turn = np.meshgrid(sphere.theta[::2], sphere.longitude[::2], indexing="ij")
    x = np.stack([np.sin(theta) * np.cos(turn), np.sin(theta) * np.sin(turn), np.cos(theta)], -1).reshape(-1, 3)
    return np.arange(FRAMES) * gap, x, fields.reshape(count, FRAMES, -1, 2), GEOMETRY | {"channels": ["h", "w"]}


@problem()
def sphere_phases(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .015 lap u + u - u^3 + .2 on the sphere, at 900 scattered points."""
    sphere, gap, steps = Sphere(40), 0.25, 25
    a = 0.7 * sphere.random(generator, count, 6)

    def rate(a: np.ndarray) -> np.ndarray:
        u = sphere.grid(a)
        return sphere.coefficients(u - u**3 + 0.2) - 0.015 * sphere.eigenvalues * a

    frames = [a]
    for _ in range(FRAMES - 1):
        frames.append(runge_kutta(rate, frames[-1], gap / steps, steps))
    x = scattered(900, 11)
    return np.arange(FRAMES) * gap, x, sphere.at(np.stack(frames, 1), x)[..., None], dict(GEOMETRY)


@problem()
def turning_star(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -s (1 - .5 sin(latitude)^2) du/dlongitude + .004 lap u + u - u^3 on the unit sphere, s a parameter of every
    trajectory, at 700 scattered points: pseudo-spectral."""
    s = parameters(count, [0.4, 0.7, 1.0, 1.3], [0.55, 1.15, 1.5])[:, None, None]
    sphere, gap, steps = Sphere(30), 0.25, 12
    turn = -s * (1 - 0.5 * np.cos(sphere.theta)[:, None] ** 2)

    def rate(a: np.ndarray) -> np.ndarray:
        u = sphere.grid(a)
        return np.asarray(sphere.coefficients(turn * sphere.grid(sphere.order * a) + u - u**3)
                          - 0.004 * sphere.eigenvalues * a)

    x = scattered(700)
    frames = stepped(rate, 0.6 * sphere.random(generator, count, 6), gap, steps)
    return (np.arange(FRAMES) * gap, x, sphere.at(frames.swapaxes(0, 1), x)[..., None],
            {**GEOMETRY, "parameters": s[:, 0]})
