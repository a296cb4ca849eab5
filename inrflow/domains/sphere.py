"""Sphere: unit sphere with points as unit vectors, and spherical harmonics (scipy)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import sph_legendre_p_all

from inrflow.domains.base import NATURAL, Domain, Harmonics, Quadrature


class Sphere(Domain):
    """The unit sphere in three dimensions; eigenvalues are l (l + 1)."""

    kind, dimensions, curved = "sphere", 3, True

    def harmonics(self, count: int, boundary: str = NATURAL) -> SphereHarmonics:
        """Real spherical harmonics of all orders up to the degree L with (L + 1)^2 <= count."""
        return SphereHarmonics(max(math.isqrt(count) - 1, 0))

    spacing, bounded = 0.02, False

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances (N,) of points (N, 3) to the sphere."""
        return np.abs(np.linalg.norm(self._check(x), axis=1) - 1)

    def state(self) -> dict[str, Any]:
        """Kind alone."""
        return {"kind": self.kind}


class SphereHarmonics(Harmonics):
    """Real spherical harmonics up to a degree L, of mean square one; gradients are tangential vectors (N, K, 3)."""

    def __init__(self, degree: int):
        self.degree = degree
        self._l = np.concatenate([np.full(2 * degree_ + 1, degree_) for degree_ in range(degree + 1)])
        self.eigenvalues = (self._l * (self._l + 1)).astype(np.float64)
        self.count = len(self.eigenvalues)

    def _angles(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = Sphere()._check(x)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.arccos(np.clip(x[:, 2], -1, 1)), np.arctan2(x[:, 1], x[:, 0])

    def _tables(self, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Values and derivatives by colatitude and longitude: (3, N, K)."""
        polar, south, place = self.legendre(theta)
        m, degree = np.divmod(place, self.degree + 1)
        order = self.orders[m]
        angle = np.abs(order) * phi[:, None]
        wave = np.where(order < 0, np.sin(angle), np.cos(angle))
        turned = np.abs(order) * np.where(order < 0, np.cos(angle), -np.sin(angle))
        polar = polar[m, :, degree].T
        return np.stack([polar * wave, south[m, :, degree].T * wave, polar * turned])

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values psi_k (N, K) at unit vectors (N, 3)."""
        return self._tables(*self._angles(x))[0]

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Tangential gradients (N, K, 3) at unit vectors (N, 3)."""
        theta, phi = self._angles(x)
        theta = np.clip(theta, 1e-6, np.pi - 1e-6)  # coordinates are singular at the poles, the gradient is not
        tables = self._tables(theta, phi)
        south = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), -np.sin(theta)], -1)
        east = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], -1)
        return tables[1][..., None] * south[:, None] + (tables[2] / np.sin(theta)[:, None])[..., None] * east[:, None]

    def lowest(self, count: int) -> SphereHarmonics:
        """Spherical harmonics of the lowest degrees."""
        return Sphere().harmonics(count)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Gauss-Legendre rule in latitude times the rectangle rule in longitude, exact for degree + 1 factors."""
        _, _, points, weights = self.rings(degree)
        return Quadrature(points, weights, self.values(points), self.gradients(points))

    def rings(self, degree: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Colatitudes (J,) and longitudes (I,) of a quadrature, its points (J I, 3) and weights (J I,)."""
        total = (degree + 1) * self.degree
        z, weights = np.polynomial.legendre.leggauss(total // 2 + 1)
        phi = 2 * np.pi * np.arange(total + 1) / (total + 1)
        ring = np.sqrt(1 - z**2)[:, None]
        height = np.broadcast_to(z[:, None], (len(z), len(phi)))
        points = np.stack([ring * np.cos(phi), ring * np.sin(phi), height], -1).reshape(-1, 3)
        return np.arccos(z), phi, points, np.repeat(weights / 2 / len(phi), len(phi))

    @property
    def orders(self) -> np.ndarray:
        """Orders (M,) of the Fourier functions in longitude: 0, then each as cosine (positive) and sine (negative)."""
        every = np.arange(1, self.degree + 1)
        return np.concatenate([[0], np.stack([every, -every], 1).ravel()])

    def legendre(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normalised Legendre functions (M, J, L) of each order and degree at colatitudes (J,), their derivatives by
        colatitude, and the index (K,) of each harmonic among the M L pairs of order and degree."""
        orders, degrees = self.orders, range(self.degree + 1)
        size = math.sqrt(4 * math.pi) * np.where(orders == 0, 1.0, math.sqrt(2))[:, None, None]
        parts = sph_legendre_p_all(self.degree, self.degree, theta, diff_n=1)[:, :, np.abs(orders)]  # (2, L, M, J)
        value, slope = np.moveaxis(parts, 1, -1) * size
        place = [m * len(degrees) + degree for degree in degrees for m in range(2 * degree + 1)]
        return value, slope, np.array(place)
