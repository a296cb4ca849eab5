"""Transforms between coefficients of K harmonics and fields at Q quadrature points: dense matrices, separable on boxes,
and Legendre and Fourier sums on spheres."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.domains.base import HELD, Harmonics
from inrflow.domains.box import WALLED, BoxHarmonics, ends_of
from inrflow.domains.sphere import SphereHarmonics
from inrflow.numerics.separable import SeparableSum

VALUES = -1  # pseudo-axis of values; axes from 0 on are of derivatives
#: Cache of dense transforms by degree, shared by laws on the same harmonics.
_DENSE: WeakKeyDictionary[Harmonics, dict[int, DenseTransform]] = WeakKeyDictionary()
CONSTANT = 1e-10  # eigenvalues below this, relative to the largest, belong to constant functions
_NULL, _WALL = 1e-8, 10.0  # relative size of singular values that count as zero; weight of conditions at walls
_LARGE = 2**17  # numbers in a table from which on single precision saves time


class DenseTransform(nn.Module):
    """Transform by dense matrices of values (Q, K) and gradients (d, Q, K) of harmonics at points (Q, d)."""

    def __init__(self, harmonics: Harmonics, degree: int):
        super().__init__()
        rule = harmonics.quadrature(degree)
        self.points, self.count = rule.points, len(rule.points)
        self.values = torch.tensor(rule.values)
        self.slopes = torch.tensor(rule.gradients).permute(2, 0, 1).contiguous()
        self.weights = torch.tensor(rule.weights)
        self.products = self.values.numel()  # multiplications of one transform of one field
        self.on_box = isinstance(harmonics, BoxHarmonics)  # with harmonics that are exact
        self._derivatives: dict[int, Tensor] = {}
        self._seconds: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def single(self) -> SingleTransform:
        """The same transform in single precision."""
        return SingleTransform(self)

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        table = self.values if axis == VALUES else self.slopes[axis]
        return table if lead is None else table[:, :lead]

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        return codes @ self.table(axis).T

    def project(self, fields: Tensor, axis: int = VALUES, lead: int | None = None) -> Tensor:
        """Means (..., lead) of fields (..., Q) times the first harmonics (all), or times their derivatives."""
        return (fields * self.weights) @ self.table(axis, lead)

    def derive(self, codes: Tensor, *axes: int) -> Tensor:
        """Codes (..., K) of the derivative along an axis, or several, of the field of codes (..., K)."""
        for axis in axes:
            codes = codes @ self.derivative(axis).T
        return codes

    def derivative(self, axis: int, lead: int | None = None) -> Tensor:
        """The derivative along an axis, of the first harmonics (all), projected on them: (lead, lead)."""
        if axis not in self._derivatives:
            self._derivatives[axis] = (self.values * self.weights[:, None]).T @ self.table(axis)
        return self._derivatives[axis][:lead, :lead]

    def second(self, i: int, j: int) -> Tensor:
        """Matrix (K, K) of the second derivative along two axes in weak form, with natural boundary conditions."""
        if (i, j) not in self._seconds:
            flux = -self.project(self.table(i).T, j)
            self._seconds[i, j] = (flux + flux.T) / 2
        return self._seconds[i, j]


class SingleTransform(DenseTransform):
    """Dense transform in single precision: fields of codes are float32, projections float64.

    Relative errors of 1e-6 are far below those of the harmonics of a mesh, but too large for differences of 1e-5."""

    def __init__(self, exact: DenseTransform):
        nn.Module.__init__(self)
        self.exact, self.points, self.count, self.weights = exact, exact.points, exact.count, exact.weights.float()
        self.derivative, self.second = exact.derivative, exact.second  # type: ignore[method-assign]
        self._tables: dict[int, Tensor] = {}

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        if axis not in self._tables:
            self._tables[axis] = self.exact.table(axis).float()
        return self._tables[axis] if lead is None else self._tables[axis][:, :lead]

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        return codes.float() @ self.table(axis).T

    def project(self, fields: Tensor, axis: int = VALUES, lead: int | None = None) -> Tensor:
        """Means (..., lead) of fields (..., Q) times the first harmonics (all), or times their derivatives."""
        return ((fields.float() * self.weights) @ self.table(axis, lead)).double()


class SphereTransform(nn.Module):
    """Spherical harmonic transform: Legendre functions in latitude for each order, then Fourier sums in longitude.

    Axes 0 to 2 are components of the tangential gradient, 3 to 5 of x cross grad (rotations about the axes).
    """

    def __init__(self, harmonics: SphereHarmonics, degree: int):
        super().__init__()
        self.harmonics = harmonics
        theta, phi, self.points, weights = harmonics.rings(degree)
        self.count, self.weights = len(self.points), torch.tensor(weights)
        polar, south, self.place = harmonics.legendre(theta)
        self.polar, self.south = torch.tensor(polar), torch.tensor(south)  # (M, J, L)
        order = torch.tensor(harmonics.orders)  # (M,), negative for sines
        angle = torch.tensor(phi) * order[:, None].abs()
        self.waves = torch.where(order[:, None] < 0, angle.sin(), angle.cos())  # (M, I)
        self.turned = order.abs()[:, None] * torch.where(order[:, None] < 0, angle.cos(), -angle.sin())
        self.ring = 1 / torch.tensor(np.sin(theta))[:, None]
        x = torch.tensor(self.points).reshape(len(theta), len(phi), 3)
        flat = x[..., :2] * self.ring[..., None]  # cos phi, sin phi
        zero = torch.zeros_like(x[..., 0])
        self.to_south = torch.stack([x[..., 2] * flat[..., 0], x[..., 2] * flat[..., 1], -1 / self.ring + zero])
        self.to_east = torch.stack([-flat[..., 1], flat[..., 0], zero])
        self.products = self.polar.numel() + self.waves.numel() * len(theta)
        self._tables: dict[int, Tensor] = {}

    def _at(self, codes: Tensor, polar: Tensor, waves: Tensor) -> Tensor:
        full = codes.new_zeros(*codes.shape[:-1], self.polar.shape[0] * self.polar.shape[2])
        full[..., self.place] = codes
        full = full.unflatten(-1, (self.polar.shape[0], -1))
        rows = torch.einsum("...ml,mjl->...jm", full, polar.to(codes))
        return rows @ waves.to(codes)

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        if axis == VALUES:
            return self._at(codes, self.polar, self.waves).flatten(-2)
        south = self._at(codes, self.south, self.waves)
        east = self._at(codes, self.polar, self.turned) * self.ring
        j = axis % 3
        if axis == j:
            return (self.to_south[j] * south + self.to_east[j] * east).flatten(-2)
        return (self.to_east[j] * south - self.to_south[j] * east).flatten(-2)

    def project(self, fields: Tensor, axis: int = VALUES, lead: int | None = None) -> Tensor:
        """Means (..., lead) of fields (..., Q) times the first harmonics (all), or times their derivatives."""
        if axis != VALUES:
            return (fields * self.weights) @ self.table(axis, lead)
        rows = (fields * self.weights).unflatten(-1, (-1, self.waves.shape[1])) @ self.waves.T
        return torch.einsum("...jm,mjl->...ml", rows, self.polar).flatten(-2)[..., self.place[:lead]]

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        if axis not in self._tables:
            self._tables[axis] = self.fields(torch.eye(self.harmonics.count, dtype=torch.float64), axis).T.contiguous()
        return self._tables[axis][:, :lead]

    def derive(self, codes: Tensor, axis: int) -> Tensor:
        """Codes (..., K) of the derivative along an axis of the field of codes (..., K)."""
        return self.project(self.fields(codes, axis))

    def derivative(self, axis: int, lead: int | None = None) -> Tensor:
        """The derivative along an axis, of the first harmonics (all), projected on them: (lead, lead)."""
        return self.project(self.table(axis, lead).T, VALUES, lead).T


class SeparableTransform(nn.Module):
    """Separable transform on a box, whose harmonics are products of functions of one coordinate: axis by axis."""

    def __init__(self, harmonics: BoxHarmonics, degree: int):
        super().__init__()
        self.harmonics, (grids, weights) = harmonics, harmonics.rule(degree)
        self.points = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, len(grids))
        self.count = len(self.points)
        self.weights = torch.cartesian_prod(*map(torch.tensor, weights)).prod(1)
        self.tables = [(torch.tensor(values), torch.tensor(slopes))  # (n_j, m_j) each
                       for values, slopes in harmonics.tables_at(grids)]
        self.sum = SeparableSum(harmonics.modes, [values.shape[1] for values, _ in self.tables])
        self.products = self.sum.products([len(values) for values, _ in self.tables])
        self.slopes = [(values * torch.tensor(weight)[:, None]).T @ slopes  # (m_j, m_j)
                       for weight, (values, slopes) in zip(weights, self.tables, strict=True)]
        for slopes, functions in zip(self.slopes, harmonics.axes, strict=True):
            partners = functions.partners(len(slopes))
            others = partners != np.arange(len(slopes))[:, None]
            slopes[torch.tensor(others & (partners >= 0))] = 0.0  # the derivative is a multiple of one function

    def _tables(self, axis: int) -> list[Tensor]:
        return [tables[int(j == axis)] for j, tables in enumerate(self.tables)]

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        return self.fields(torch.eye(self.harmonics.count, dtype=torch.float64)[:lead], axis).T

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        return self.sum.values(codes, self._tables(axis))

    def second(self, codes: Tensor, i: int, j: int) -> Tensor:
        """Second derivatives (..., Q) along two axes of the fields of codes (..., K)."""
        if i == j:
            return self.fields(-codes * torch.tensor(self.harmonics.waves(i)[0] ** 2))
        return self.sum.values(codes, [tables[int(k in (i, j))] for k, tables in enumerate(self.tables)])

    def project(self, fields: Tensor, axis: int = VALUES, lead: int | None = None) -> Tensor:
        """Means (..., lead) of fields (..., Q) times the first harmonics (all), or times their derivatives."""
        return self.sum.sums(fields * self.weights, self._tables(axis))[..., :lead]

    def derive(self, codes: Tensor, *axes: int) -> Tensor:
        """Codes (..., K) of the derivative along an axis, or several, of the field of codes (..., K)."""
        full = self.sum.full(codes)
        for axis in axes:
            full = torch.movedim(torch.tensordot(full, self.slopes[axis], ([1 + axis], [1])), -1, 1 + axis)
        return full.reshape(*codes.shape[:-1], -1)[..., self.sum.places]

    def derivative(self, axis: int, lead: int | None = None) -> Tensor:
        """The derivative along an axis, of the first harmonics (all), projected on them: (lead, lead)."""
        modes = torch.tensor(self.harmonics.modes)[:lead]
        of_axis = self.slopes[axis][modes[:, axis, None], modes[:, axis]]
        others = modes[:, [j for j in range(modes.shape[1]) if j != axis]]
        return torch.where((others[:, None] == others).all(-1), of_axis, 0.0)


Transform = DenseTransform | SeparableTransform | SphereTransform


def pointwise(products: Sequence[Sequence[tuple[int, int]]], signs: Sequence[float],
              factors: dict[tuple[int, int], Tensor], z: Tensor, points: int) -> Tensor:
    """Sum (B, Q) of products, times their signs (1 if not given), of factors (B, Q) at Q = `points` quadrature points;
    z (B, ...) gives type and batch size of constants."""
    total: Tensor | None = None
    for product, sign in zip(products, signs or (1,) * len(products), strict=True):
        value: Tensor | None = None
        for factor in product:
            value = factors[factor] if value is None else value * factors[factor]
        value = z.new_ones(z.shape[0], points) if value is None else value
        if total is None:
            total = value if sign == 1 else sign * value
        else:
            total = torch.add(total, value, alpha=sign)
    assert total is not None
    return total


def sums_over(values: Tensor, weights: Tensor | None) -> Tensor:
    """Sums (W B / N, ...) by weights (W, N) over every N values in a row of (B, ...); the values without weights."""
    if weights is None:
        return values
    groups = values.reshape(-1, weights.shape[1], values[0].numel())
    return (weights @ groups).reshape(-1, *values.shape[1:])


def shells_of(count: int, allowed: Tensor | None = None) -> np.ndarray:
    """Indices (K,) of shells of harmonics: groups with the same channels (C, K), wider the higher they are."""
    if allowed is not None:
        _, channels = np.unique(allowed.numpy()[:, :count], axis=1, return_inverse=True)
        result = np.zeros(count, dtype=int)
        for pattern in range(channels.max() + 1):
            own = channels.ravel() == pattern
            result[own] = shells_of(int(own.sum())) + (result.max() + 1) * (pattern > 0)
        return result
    edges = [0]
    while edges[-1] < count:
        edges.append(min(count, max(edges[-1] + 3, int(edges[-1] * 1.25))))
    if len(edges) > 2 and edges[-1] - edges[-2] < 3:
        del edges[-2]
    return np.repeat(np.arange(len(edges) - 1), np.diff(edges))


def varying(eigenvalues: Tensor) -> Tensor:
    """Mask (K,) of the harmonics with eigenvalues (K,) that are not constant."""
    return eigenvalues > CONSTANT * eigenvalues.max()


def inverse_of(eigenvalues: Tensor) -> Tensor:
    """Diagonal (K,) of the inverse Laplacian on fields of mean zero, for eigenvalues (K,)."""
    waves = varying(eigenvalues)
    return torch.where(waves, -1 / torch.where(waves, eigenvalues, 1.0), 0.0)


class Pressure:
    """Projection of vector fields onto divergence-free fields (Leray projection): gradients are removed; with no-slip
    walls, the complement of the divergence-free fields that vanish there.

    first: channel of the first component; moving (C, K): mask of the harmonics of each channel, all if not given.
    """

    def __init__(self, transform: Transform, harmonics: Harmonics,
                 first: int, moving: Tensor | None):
        self.transform, self.inverse = transform, inverse_of(torch.tensor(harmonics.eigenvalues))
        self.removed: Tensor | None = None  # (R, d K), orthonormal
        ends = (harmonics.vectors or {}).get(first, ())
        if not isinstance(harmonics, BoxHarmonics) or moving is None or not any(HELD in pair for pair in ends):
            return
        own = [moving[first + j].double() for j in range(len(ends))]
        rows = [torch.cat([transform.derivative(j) * one for j, one in enumerate(own)], 1)]
        box, points = harmonics.box, np.asarray(transform.points)
        for j, end in [(j, end) for j, pair in enumerate(ends) for end in range(2)
                       if box.axes[j] == WALLED and ends_of(pair)[end] == HELD]:
            wall = points.copy()
            wall[:, j] = (box.lower, box.upper)[end][j]
            values = _WALL * torch.tensor(harmonics.values(np.unique(wall, axis=0))) * own[j]
            rows.append(torch.cat([values if i == j else 0 * values for i in range(len(ends))], 1))
        matrix, used = torch.cat(rows), torch.cat(own) > 0
        _, sizes, inner = torch.linalg.svd(matrix[matrix.abs().sum(1) > 0][:, used], full_matrices=False)
        inner = inner[sizes > _NULL * sizes[0]]
        self.removed = inner.new_zeros(len(inner), len(used))
        self.removed[:, used] = inner

    def project(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Divergence-free part of a vector field given by its components (B, K)."""
        if self.removed is None:
            total = sum(self.transform.derive(part, j) for j, part in enumerate(parts)) * self.inverse
            return [part - self.transform.derive(total, j) for j, part in enumerate(parts)]
        whole = torch.cat(list(parts), -1)
        left = whole - (whole @ self.removed.T) @ self.removed
        return list(left.unflatten(-1, (len(parts), -1)).unbind(-2))

    def block(self, row: int, column: int, lead: int) -> Tensor:
        """Block (lead, lead) of the projection from one component to another, on the first harmonics."""
        size = len(self.inverse)
        if self.removed is None:
            taken = self.transform.derivative(row, lead) @ (
                self.inverse[:lead, None] * self.transform.derivative(column, lead))
        else:
            taken = self.removed[:, row * size :][:, :lead].T @ self.removed[:, column * size :][:, :lead]
        return torch.eye(lead).double() * (row == column) - taken


def transform_of(harmonics: Harmonics, degree: int) -> Transform:
    """Fastest transform for the harmonics, exact for products of `degree` harmonics if the domain's quadrature is."""
    if isinstance(harmonics, BoxHarmonics) and harmonics.box.dimensions > 1:
        return SeparableTransform(harmonics, degree)
    if isinstance(harmonics, SphereHarmonics):
        return SphereTransform(harmonics, degree)
    made = _DENSE.setdefault(harmonics, {})
    if degree not in made:
        made[degree] = DenseTransform(harmonics, degree)
    return made[degree]


def single_precision(transform: Transform) -> Transform:
    """The transform in single precision if it is a large dense one of a mesh, else itself."""
    large = isinstance(transform, DenseTransform) and transform.products >= _LARGE and not transform.on_box
    return transform.single if large else transform  # type: ignore[union-attr, return-value]
