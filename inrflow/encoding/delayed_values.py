"""Values observed a little before or after the time of a frame, as linear observations of the code at that time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1e-6  # of the series, relative to its largest entry: below the noise of observations
_MAX_TERMS = 40


@dataclass(frozen=True)
class AffineMotion:
    """Affine vector field of codes, d[1, z]/dt = G [1, z], valid around the times of frames.

    Attributes:
        generator: (n + 1, n + 1), or (G, n + 1, n + 1) for groups that each have their own; per unit of the delays.
            Codes beyond the first n are constant.
    """

    generator: Tensor

    @classmethod
    def of(cls, matrix: Tensor, bias: Tensor) -> AffineMotion:
        """The field dz/dt = matrix (..., n, n) z + bias (..., n)."""
        size = bias.shape[-1]
        generator = torch.zeros(*bias.shape[:-1], size + 1, size + 1, dtype=torch.float64)
        generator[..., 1:, 1:], generator[..., 1:, 0] = matrix.detach().double(), bias.detach().double()
        return cls(generator)

    def of_groups(self, rows: slice) -> AffineMotion:
        """The motion of a slice of the groups."""
        return self if self.generator.dim() == 2 else AffineMotion(self.generator[rows])

    def carried(self, offset: Tensor, basis: Tensor, delay: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (G, N, C) and basis (G, N, C, Z), float64, of values observed `delay` (G, N) after the codes' time.

        The value offset + basis z(t + delay) is the row [offset, basis] exp(G delay) applied to [1, z(t)]; the
        exponential is summed as its power series.
        """
        size = self.generator.shape[-1] - 1
        rows = torch.cat([offset[..., None], basis[..., :size]], -1).double()
        # The change is a small correction: single precision halves the time of its products.
        term, generator = rows.float(), self.generator.float()
        generator = generator if generator.dim() == 2 else generator[:, None]
        total, delay = torch.zeros_like(term), delay.float()[..., None, None]
        smallest = _TOLERANCE * float(rows.abs().max())
        for order in range(1, _MAX_TERMS):
            term = (term @ generator) * (delay / order)
            total += term
            if float(term.abs().max()) < smallest:
                break
        rows += total
        return rows[..., 0], torch.cat([rows[..., 1:], basis[..., size:].double()], -1)
