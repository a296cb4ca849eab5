"""GridDesign: harmonics of a box on a grid of points where they are orthogonal, evaluated axis by axis.

Cosines between walls are orthogonal on even points between the walls, and on even points from wall to wall if those at
the walls have half the weight of others (the trapezoidal rule).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch

from inrflow.decoders.domain_harmonics import GridSum
from inrflow.domains import Harmonics
from inrflow.domains.box import WALLED, BoxHarmonics, grid_of

Rows = Callable[[np.ndarray], np.ndarray]
_SLANT = 1e-12  # length of a harmonic at the points that counts as zero, relative to the largest
_ROUNDED = 2e-7  # rounding of single precision, relative to the largest coordinate, about


class GridDesign:
    """Design matrix of harmonics that are orthogonal on a grid of N points, without a table of them. Weights (n_j,) of
    the coordinates of each axis have mean 1; squares (K,) are the weighted squared norms of harmonics at the points."""

    def __init__(self, at: GridSum, weights: list[np.ndarray], squares: np.ndarray):
        self.at, self.shape, self.products = at, (len(at.order), len(squares)), at.products
        self.root = np.sqrt(reduce(np.multiply.outer, weights).ravel())[at.back.numpy()]
        self.lengths = np.sqrt(squares * (squares > _SLANT**2 * squares.max()))
        self.inverse = np.divide(1.0, self.lengths, where=self.lengths > 0, out=np.zeros_like(squares))

    def fields(self, codes: np.ndarray) -> np.ndarray:
        """Values (..., N) of codes (..., K)."""
        return self.at.values(torch.tensor(codes * (self.lengths > 0))[..., None, :])[..., 0].numpy()

    def solved(self, values: np.ndarray) -> np.ndarray | None:
        """Least squares codes (K, B) of values (B, N); None where harmonics are not independent at the points."""
        return (self._unit(self.weighted(values)) * self.inverse).T if self.inverse.all() else None

    def factors(self, root: np.ndarray) -> tuple[Rows, np.ndarray, Rows, Rows]:
        """Factors of the whitened design, as `TableDesign.factors`."""
        return self._unit, self.lengths * root, lambda rows: rows, lambda rows: rows

    def weighted(self, values: np.ndarray) -> np.ndarray:
        """Values (B, N) times square roots of quadrature weights of the points, as `factors` take them."""
        return values * self.root

    def _unit(self, values: np.ndarray) -> np.ndarray:
        return self.at.sums(torch.tensor(values * self.root)).numpy() * self.inverse

    @property
    def table(self) -> np.ndarray:
        """Values (N, K) of the harmonics at the points."""
        return self.at.table[:, 0].numpy()


def grid_design(harmonics: Harmonics, x: np.ndarray) -> GridDesign | None:
    """The design of harmonics at points (N, d) of a grid of two or three axes, None where they are not orthogonal."""
    if not isinstance(harmonics, BoxHarmonics) or x.shape[1] == 1 or (grid := grid_of(x)) is None:
        return None
    box = harmonics.box
    axes, weights = zip(*(_even(own, *limits) for own, *limits in zip(grid[0], box.lower, box.upper, box.axes,
                                                                      strict=True)), strict=True)
    at = GridSum(harmonics, list(axes), grid[1], torch.float64)
    return None if (squares := at.squares(weights)) is None else GridDesign(at, list(weights), squares)


def _even(levels: np.ndarray, lower: float, upper: float, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n,) of an axis, replaced by exact ones of an even grid where they differ by rounding to single
    precision alone, and their quadrature weights: half at walls."""
    weights, nodes = np.ones(len(levels)), np.linspace(lower, upper, len(levels))
    rounded, length = _ROUNDED * np.abs([*levels, upper - lower]).max(), upper - lower
    if axis == WALLED and len(levels) > 2 and np.abs(levels - nodes).max() <= rounded:
        weights[[0, -1]] = 0.5
        return nodes, weights / weights.mean()
    exact = levels.mean() + (np.arange(len(levels)) - (len(levels) - 1) / 2) * length / len(levels)
    return exact if np.abs(levels - exact).max() <= rounded else levels, weights
