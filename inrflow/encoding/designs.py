"""Design: values of a domain's harmonics at observed points, as tables, or axis by axis where points fill a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
import torch

from inrflow.decoders.domain_harmonics import GridSum
from inrflow.domains import Harmonics
from inrflow.domains.box import BoxHarmonics, grid_of
from inrflow.numerics.components import groups_of, turned
from inrflow.numerics.effort import effort

_Rows = Callable[[np.ndarray], np.ndarray]
_MANY = 300  # harmonics whose values at points are not orthogonal, from which on groups of them are looked for
_ALIKE = 1e-10  # cosine of an angle between columns that counts as none
_PROBES, _SLANT = 4, 1e-12  # sums of columns looked at, and means of products of two columns that count as none
_SVD = 8  # times a matrix with itself: products this takes
_KEPT = 4  # choices of points that are kept
_NOTHING = 1e-14  # a length that counts as none
_ROUNDED = 2e-7  # of the largest coordinate: what single precision loses, about
_NO_RANK = 1e-6  # ratio of singular values of harmonics that points do not tell apart


class TableDesign:
    """Values (N, K) of harmonics at points, 0 of those that vanish; lengths (K,) of orthogonal columns, of grids."""

    def __init__(self, table: np.ndarray):
        self.table = table = table * ((size := np.sqrt((table**2).sum(0))) > _SLANT * size.max(initial=0.0))
        self.shape, self.products, self.dense = table.shape, table.size, self
        self.lengths: np.ndarray | None = np.sqrt((table**2).sum(0))
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (table.shape[1], _PROBES))
        slant = table.T @ (table @ signs) - self.lengths[:, None] ** 2 * signs  # sums of products of other columns
        if table.shape[0] < table.shape[1] or np.abs(slant).max() > _SLANT * len(table) * np.sqrt(table.shape[1]):
            self.lengths = None
        self.blocks = _coupled(table) if self.lengths is None and table.shape[1] > _MANY else None
        tall = self.lengths is None and self.blocks is None and len(table) > 2 * table.shape[1]
        self.q: np.ndarray | None
        self.q, self.r = np.linalg.qr(table) if tall else (None, table)
        self._rows: dict[bytes, TableDesign] = {}

    def rows(self, seen: np.ndarray) -> TableDesign:
        """The same at some of the points; for the last few choices of these from memory."""
        if len(seen) == len(self.table):
            return self
        if (key := seen.tobytes()) not in self._rows:
            self._rows = {**dict(list(self._rows.items())[1 - _KEPT :]), key: TableDesign(self.table[seen])}
        return self._rows[key]

    def fields(self, codes: np.ndarray) -> np.ndarray:
        """Values (..., N) of codes (..., K)."""
        return codes @ self.table.T

    def solved(self, values: np.ndarray) -> np.ndarray | None:
        """Codes (K, B) of least squares of values (B, N); None where points do not tell harmonics apart."""
        z, _, rank, _ = np.linalg.lstsq(self.table, values.T, rcond=_NO_RANK)
        return z if rank == self.table.shape[1] else None

    def factors(self, root: np.ndarray) -> tuple[_Rows, np.ndarray, _Rows, _Rows]:
        """Those of `svd`, with the map u^T of rows (..., N) to (..., R) for u."""
        u, s, once, twice = self.svd(root)
        return partial(onto, u), s, once, twice

    def svd(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Rows, _Rows]:
        """u (N, R), s (R,), and the maps v and v^2 of rows (..., R) to (..., K), of table diag(root) = u diag(s) v."""
        if self.lengths is not None:
            return self.unit, self.lengths * root, _same, _same
        if self.blocks is not None:
            effort.add(products=_SVD * sum(len(self.r) * len(own) ** 2 for own in self.blocks))
            parts = [np.linalg.svd(self.r[:, own] * root[own], full_matrices=False) for own in self.blocks]
            told = ((u * (s > _SLANT * s.max()), s) for u, s, _ in parts)  # others lie in other blocks' spans
            u, s = (np.concatenate(each, -1) for each in zip(*told, strict=True))
            once, twice = (partial(turned, self.blocks, [v**n for _, _, v in parts]) for n in (1, 2))
            return u, s, once, twice
        effort.add(products=_SVD * self.r.size * min(self.r.shape))
        u, s, v = np.linalg.svd(self.r * root, full_matrices=False)
        return u if self.q is None else self.q @ u, s, partial(onto, v), partial(onto, v**2)

    @cached_property
    def unit(self) -> np.ndarray:
        """Orthonormal columns, but of harmonics that vanish."""
        assert self.lengths is not None
        return self.table / np.maximum(self.lengths, _NOTHING)


class GridDesign:
    """Harmonics that are orthogonal on a grid of N points, of which no table is made; squares (K,): sums of their
    squares at the points."""

    def __init__(self, at: GridSum, squares: np.ndarray):
        self.at, self.shape, self.products = at, (len(at.order), len(squares)), at.products
        self.lengths = np.sqrt(squares * (squares > _SLANT**2 * squares.max()))
        self.inverse = np.divide(1.0, self.lengths, where=self.lengths > 0, out=np.zeros_like(squares))

    def rows(self, seen: np.ndarray) -> Design:
        """The same at some of the points."""
        return self if len(seen) == self.shape[0] else self.dense.rows(seen)

    def fields(self, codes: np.ndarray) -> np.ndarray:
        """Values (..., N) of codes (..., K)."""
        return self.at.values(torch.tensor(codes * (self.lengths > 0))[..., None, :])[..., 0].numpy()

    def solved(self, values: np.ndarray) -> np.ndarray | None:
        """Codes (K, B) of least squares of values (B, N); None where points do not tell harmonics apart."""
        return (self._unit(values) * self.inverse).T if self.inverse.all() else None

    def factors(self, root: np.ndarray) -> tuple[_Rows, np.ndarray, _Rows, _Rows]:
        """As those of a table."""
        return self._unit, self.lengths * root, _same, _same

    def _unit(self, values: np.ndarray) -> np.ndarray:
        return self.at.sums(torch.tensor(values)).numpy() * self.inverse

    @cached_property
    def dense(self) -> TableDesign:
        """The same as a table."""
        return TableDesign(self.at.table[:, 0].numpy())


Design: TypeAlias = TableDesign | GridDesign


def grid_design(harmonics: Harmonics, x: np.ndarray) -> GridDesign | None:
    """Harmonics at points (N, d) that fill a grid of two or three axes on which they are orthogonal; else None."""
    if not isinstance(harmonics, BoxHarmonics) or x.shape[1] == 1 or (grid := grid_of(x)) is None:
        return None
    axes = [_even(own, length) for own, length in zip(grid[0], harmonics.box.lengths, strict=True)]
    at = GridSum(harmonics, axes, grid[1], torch.float64)
    return None if (squares := at.squares()) is None else GridDesign(at, squares)


def design_of(harmonics: Harmonics, x: np.ndarray, own: np.ndarray | None = None) -> Design:
    """Harmonics, all or some, at points (N, d)."""
    if own is None and (design := grid_design(harmonics, x)) is not None:
        return design
    table = harmonics.values(x)
    return TableDesign(table if own is None else table[:, own])


def _even(levels: np.ndarray, length: float) -> np.ndarray:
    """Coordinates (n,) of an axis as parts of its length where rounding to single precision alone moved them."""
    exact = levels.mean() + (np.arange(len(levels)) - (len(levels) - 1) / 2) * length / len(levels)
    return exact if np.abs(levels - exact).max() <= _ROUNDED * np.abs([*levels, length]).max() else levels


def onto(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows (..., N) times a matrix (N, R)."""
    return rows @ columns


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


def _coupled(table: np.ndarray) -> list[np.ndarray] | None:
    """Columns of a table (N, K) in groups that are orthogonal to each other, as orders are on rings; None: one group,
    or more columns than rows."""
    effort.add(products=table.size * table.shape[1])
    gram = table.T @ table
    size = np.sqrt(np.diag(gram))
    groups = groups_of(np.abs(gram) > _ALIKE * size * size[:, None])
    return groups if len(groups) > 1 and table.shape[1] <= len(table) else None
