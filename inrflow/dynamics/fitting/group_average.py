"""Linear operators averaged over symmetries, which removes the part of a regression that breaks them.

Where a transformation g moves codes as [1, s] -> M_g [1, s], dynamics that commute with it have generators with
M_g^-1 G M_g = G. The mean of M_g^-1 G M_g over the group is the nearest such generator; over a few random elements it
is nearly so, and repeated it converges geometrically. On a torus that leaves two by two numbers a wavenumber of n x n.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 4
_INVARIANT = 1e-4


class OperatorAverage:
    """The mean of operators over transformations that move [1, codes] by matrices `moves` (K, 1 + n, 1 + n)."""

    def __init__(self, moves: Tensor) -> None:
        self.moves = moves

    def keeps(self, size: int) -> bool:
        """Whether the transformations map the span of the first `size` codes to itself.

        There they represent a compact group, so that their determinants have modulus 1 in whatever metric the codes are
        orthonormal; where they lead out of the span, what remains in it is less.
        """
        if not 0 < size < self.moves.shape[-1]:
            return False
        volumes = torch.linalg.slogdet(self.moves[:, 1 : size + 1, 1 : size + 1]).logabsdet
        return bool(volumes.abs().max() < _INVARIANT)

    def __call__(self, operators: Tensor) -> Tensor:
        """The mean of operators (..., n, 1 + n), [bias, matrix], on a span that is kept."""
        m = operators.shape[-1]
        moves = self.moves[:, :m, :m]
        back = torch.linalg.inv(moves)
        generators = torch.nn.functional.pad(operators, (0, 0, 1, 0)).reshape(-1, m, m)
        for _ in range(_ROUNDS):
            generators = torch.stack([(back @ one @ moves).mean(0) for one in generators])
        return generators.reshape(*operators.shape[:-2], m, m)[..., 1:, :]
