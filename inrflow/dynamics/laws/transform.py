"""Transforms between codes on K harmonics and fields at Q quadrature points: dense tables, or axis by axis on boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.domains import Harmonics
from inrflow.domains.box import BoxHarmonics
from inrflow.domains.sphere import SphereHarmonics

VALUES = -1  # "axis" of values; others are of derivatives


class DenseTransform(nn.Module):
    """Values (Q, K) and gradients (d, Q, K) of harmonics as they are; on a sphere their derivatives by turns as well.

    points (Q, d); project (K, Q): of fields on harmonics.
    """

    def __init__(self, harmonics: Harmonics, degree: int):
        super().__init__()
        rule = harmonics.quadrature(degree)
        self.points, self.count = rule.points, len(rule.points)
        self.values = torch.tensor(rule.values)
        self.slopes = torch.tensor(rule.gradients).permute(2, 0, 1).contiguous()
        if isinstance(harmonics, SphereHarmonics):
            points = torch.tensor(rule.points).T[:, :, None].expand_as(self.slopes)
            turned = torch.linalg.cross(points, self.slopes, dim=0)
            self.slopes = torch.cat([self.slopes, turned])
        self.weights = torch.tensor(rule.weights)
        self.products = self.values.numel()  # of one transform of one field

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        return (self.values if axis == VALUES else self.slopes[axis])[:, :lead]

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        return codes @ self.table(axis).T

    def project(self, fields: Tensor, axis: int = VALUES) -> Tensor:
        """Means (..., K) over the domain of fields (..., Q) times harmonics, or times their derivatives."""
        return (fields * self.weights) @ self.table(axis)

    def derivative(self, axis: int) -> Tensor:
        """The derivative along an axis, projected on harmonics: (K, K)."""
        return (self.values * self.weights[:, None]).T @ self.table(axis)


class SeparableTransform(nn.Module):
    """The same on a box, whose harmonics are products of functions of one coordinate: sums along one axis at a time."""

    def __init__(self, harmonics: BoxHarmonics, degree: int):
        super().__init__()
        self.harmonics, self.points, tables = harmonics, *harmonics.axis_tables(degree)
        self.count = len(self.points)
        self.weights = torch.full((self.count,), 1 / self.count, dtype=torch.float64)
        self.tables = [(torch.tensor(values), torch.tensor(slopes)) for values, slopes in tables]  # (n_j, m_j) each
        self.shape = [len(values) for values, _ in self.tables]
        self.modes = [values.shape[1] for values, _ in self.tables]
        self.places = torch.tensor(np.ravel_multi_index(tuple(harmonics.modes.T), self.modes))
        self.products = sum(int(np.prod([*self.shape[: j + 1], *self.modes[j:]])) for j in range(len(self.shape)))

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all), or their derivatives along an axis, at the points: (Q, lead)."""
        codes = torch.eye(len(self.places), dtype=torch.float64)[:lead]
        return self.fields(codes, axis).T

    def fields(self, codes: Tensor, axis: int = VALUES) -> Tensor:
        """Fields (..., Q), or their derivatives along an axis, of codes (..., K)."""
        flat = codes.reshape(-1, codes.shape[-1])
        full = flat.new_zeros(len(flat), int(np.prod(self.modes)))
        full[:, self.places] = flat
        full = full.reshape(-1, *self.modes)
        for j, tables in enumerate(self.tables):
            full = torch.tensordot(full, tables[int(j == axis)], ([1], [1]))
        return full.reshape(*codes.shape[:-1], self.count)

    def project(self, fields: Tensor, axis: int = VALUES) -> Tensor:
        """Means (..., K) over the domain of fields (..., Q) times harmonics, or times their derivatives."""
        full = fields.reshape(-1, *self.shape) / self.count
        for j, tables in enumerate(self.tables):
            full = torch.tensordot(full, tables[int(j == axis)], ([1], [0]))
        return full.reshape(*fields.shape[:-1], -1)[..., self.places]

    def derivative(self, axis: int) -> Tensor:
        """The derivative along an axis, projected on harmonics: (K, K)."""
        values, slopes = self.tables[axis]
        modes = torch.tensor(self.harmonics.modes)
        of_axis = (values.T @ slopes / len(values))[modes[:, axis, None], modes[:, axis]]
        others = modes[:, [j for j in range(modes.shape[1]) if j != axis]]
        return torch.where((others[:, None] == others).all(-1), of_axis, 0.0)


def transform_of(harmonics: Harmonics, degree: int) -> DenseTransform | SeparableTransform:
    """The faster transform, exact for products of `degree` harmonics where the domain's quadrature is."""
    if isinstance(harmonics, BoxHarmonics) and harmonics.box.dimensions > 1:
        return SeparableTransform(harmonics, degree)
    return DenseTransform(harmonics, degree)
