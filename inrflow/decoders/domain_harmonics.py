"""Decoder with the Laplacian eigenfunctions (harmonics) of any domain as basis, with one code per channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder, on_own_device, register_decoder
from inrflow.domains import Domain, Harmonics, from_state, plain
from inrflow.domains.box import BoxHarmonics, grid_of
from inrflow.numerics.separable import SeparableSum

_MANY, _SORTED = 1000, 1_000_000  # code size above which, and number of points up to which, grids are detected
_SLICES = 65_536  # grid points decoded at once, at most
_KEPT = 8  # sets of points that are cached
_SLANT = 1e-12  # relative size of inner products below which functions of an axis count as orthogonal


@register_decoder("domain_harmonics")
class DomainHarmonicDecoder(Decoder):
    """Spectral decoder u_c(x; z) = offset_c + sum_k z_ck psi_k(x), with psi_k eigenfunctions of the domain's Laplacian.

    Args:
        domain: `state()` of the domain, as plain values; boundary: boundary condition of the harmonics.
        count: approximate number K of harmonics.
        channels: C; codes have C K numbers, first channel first (K numbers for both components of a flow).
    Attributes:
        offset: (C,) values at the zero code.
    """

    affine = True

    def __init__(
        self, domain: Mapping[str, Any] | Domain, boundary: str, count: int, channels: int, code_size: int = 0
    ) -> None:
        super().__init__()
        self.domain, self.boundary, self.channels = plain(domain), boundary, channels
        self.place = from_state(self.domain)
        self.harmonics = self.place.harmonics(count, boundary)
        self.count, each = self.harmonics.count, self.harmonics.components
        self.code_size, self.code_per_channel = channels * self.count // each, each == 1
        self.offset = nn.Parameter(torch.zeros(channels))
        self._sums: dict[tuple[bytes, torch.dtype], TableSum | GridSum] = {}

    def structure(self) -> dict[str, Any]:
        return {"domain": {"state": self.domain}, "boundary": self.boundary, "count": self.count,
                "channels": self.channels, "code_size": self.code_size}

    def sum_at(self, points: Tensor, dtype: torch.dtype | None = None) -> TableSum | GridSum:
        """Evaluator of sums over harmonics at points (N, d), cached for the latest sets of points."""
        x = points.detach().cpu().double().numpy()
        key = x.tobytes(), dtype or points.dtype
        if key not in self._sums:
            self._sums = {**dict(list(self._sums.items())[1 - _KEPT:]), key: _sum_of(self.harmonics, x, key[1])}
        return self._sums[key]

    @on_own_device
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        codes = z.unflatten(-1, (-1, self.count))
        if x.shape[:-2].numel() == 1:
            fields = self.sum_at(x.reshape(-1, x.shape[-1]), z.dtype).values(codes).to(z.device)
            batch = torch.broadcast_shapes(x.shape[:-2], z.shape[:-1])
            return fields.reshape(*batch, *fields.shape[-2:]) + self.offset
        tables = self._tables(x, z)  # (..., N, E, K)
        parts = [tables[..., j, :] @ codes.mT for j in range(tables.shape[-2])]
        return torch.stack(parts, -1).flatten(-2) + self.offset

    def together(self, x: Tensor, most: int) -> int:
        """Best number of points to decode at once: for large codes whole slices of a grid, possibly above `most`."""
        grid = grid_of(x.numpy()) if self.code_size > _MANY and most < len(x) <= _SORTED else None
        if grid is None or not np.array_equal(grid[1], np.arange(len(x))):
            return most
        slices, more = np.cumprod([len(axis) for axis in grid[0][::-1]]), max(most, min(_SLICES, _SLICES // 64 * most))
        size = int(slices[slices <= more].max(initial=1))
        return more // size * size

    @on_own_device
    def tail(self, z: Tensor) -> Tensor:
        """Mean squares (..., C) of the part of the highest eighth of the harmonics."""
        sums = []
        for c, codes in enumerate(z.unflatten(-1, (-1, self.count)).unbind(-2)):
            moving = self.harmonics.own(c, moving=True)
            sums.append(codes[..., moving[-(len(moving) // 8 + 1) :]].square().sum(-1))
        return torch.stack(sums, -1).repeat_interleave(self.harmonics.components, -1)

    @on_own_device
    def basis(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tables, each, count = self._tables(x, x), self.harmonics.components, self.count
        basis = x.new_zeros(*x.shape[:-1], self.channels, self.code_size)
        for channel in range(self.channels):
            start = channel // each * count
            basis[..., channel, start : start + count] = tables[..., channel % each, :]
        return self.offset + x.new_zeros(*x.shape[:-1], self.channels), basis

    def _tables(self, x: Tensor, like: Tensor) -> Tensor:
        """Values (..., N, E, K) of the harmonics' E components at points (..., N, d)."""
        table = self.sum_at(x.reshape(-1, x.shape[-1]), like.dtype).table
        return table.to(like.device).reshape(*x.shape[:-1], *table.shape[1:])

    @on_own_device
    def slopes(self, x: Tensor, z: Tensor) -> Tensor:
        """Derivatives du/dx (..., N, C, d) in closed form."""
        flat, each = x.detach().reshape(-1, x.shape[-1]).cpu().double().numpy(), self.harmonics.components
        slopes = torch.as_tensor(self.harmonics.gradients(flat)).to(z)
        slopes = slopes.reshape(*x.shape[:-1], each, self.count, x.shape[-1])
        codes = z.unflatten(-1, (-1, self.count))[..., None, :, :]  # (..., 1, C / E, K)
        return torch.stack([codes @ slopes[..., j, :, :] for j in range(each)], -2).flatten(-3, -2)


class TableSum:
    """Sums over harmonics by a dense table (N, E, K) of their E components at points."""

    def __init__(self, harmonics: Harmonics, x: np.ndarray, dtype: torch.dtype) -> None:
        self.table = torch.as_tensor(harmonics.values(x)).to(dtype).reshape(len(x), -1, harmonics.count)

    def values(self, codes: Tensor) -> Tensor:
        """Fields (..., N, C) of codes (..., C / E, K)."""
        parts = [self.table[:, j].to(codes.device) @ codes.mT for j in range(self.table.shape[1])]
        return torch.stack(parts, -1).flatten(-2)

    def sums(self, fields: Tensor) -> Tensor:
        """Sums (..., K) over the points of fields (..., N) times the harmonics, of one component."""
        return fields @ self.table[:, 0]

    def rows(self, seen: Tensor) -> Tensor:
        """Values (n, K) of harmonics with one component at the points selected by a mask (N,)."""
        return self.table[seen, 0]


class GridSum:
    """Sums over harmonics of a box on a full grid, axis by axis; order (N,): index of the point at each grid node."""

    def __init__(self, harmonics: BoxHarmonics, axes: list[np.ndarray], order: np.ndarray, dtype: torch.dtype) -> None:
        self.harmonics, self.axes, self.dtype = harmonics, axes, dtype
        tables = harmonics.tables_at(axes)
        self._tables = [torch.tensor(values, dtype=dtype) for values, _ in tables]
        self._sum = SeparableSum(harmonics.modes, [values.shape[1] for values, _ in tables])
        self.order = torch.tensor(order)
        self.back = self.order.argsort()
        self.products = self._sum.products([len(values) for values in self._tables])

    def squares(self, weights: Sequence[np.ndarray]) -> np.ndarray | None:
        """Weighted sums (K,) of squares of each harmonic over the grid, with weights (n_j,) per axis; None if harmonics
        are not orthogonal with respect to them."""
        weighted = [values * torch.tensor(own)[:, None] for own, values in zip(weights, self._tables, strict=True)]
        grams = [(values.T @ one).double() for values, one in zip(self._tables, weighted, strict=True)]
        for gram in grams:
            if bool(((gram - gram.diagonal().diag()).abs() > _SLANT * gram.diagonal().max()).any()):
                return None
        parts = [gram.diagonal()[self.harmonics.modes[:, j]] for j, gram in enumerate(grams)]
        return torch.stack(parts).prod(0).numpy()

    @cached_property
    def table(self) -> Tensor:
        """Values (N, 1, K)."""
        return self.rows(torch.ones(len(self.order), dtype=torch.bool))[:, None]

    def rows(self, seen: Tensor) -> Tensor:
        """Values (n, K) of the harmonics at the points selected by a mask (N,)."""
        x = np.stack(np.meshgrid(*self.axes, indexing="ij"), -1).reshape(-1, len(self.axes))[self.back.numpy()]
        return torch.as_tensor(self.harmonics.values(x[seen.numpy()])).to(self.dtype)

    def values(self, codes: Tensor) -> Tensor:
        """Fields (..., N, C) of codes (..., C, K)."""
        return self._sum.values(codes.cpu(), self._tables)[..., self.back].mT

    def sums(self, fields: Tensor) -> Tensor:
        """Sums (..., K) over the points of fields (..., N) times the harmonics."""
        return self._sum.sums(fields[..., self.order], self._tables)


def _sum_of(harmonics: Harmonics, x: np.ndarray, dtype: torch.dtype) -> TableSum | GridSum:
    if isinstance(harmonics, BoxHarmonics) and x.shape[1] > 1 and (grid := grid_of(x)) is not None:
        return GridSum(harmonics, *grid, dtype)
    return TableSum(harmonics, x, dtype)
