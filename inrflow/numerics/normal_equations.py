"""Normal equations of linear coefficients, with a constant rate of every code beside them where wanted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PRECISION = 1e-13  # of the sums, relative to the mean square of a term
_NOTHING = 1e-20
_REFRESHED = 16  # eliminations after which the inverse is formed anew


@dataclass
class NormalEquations:
    """Sums over transitions of codes: change = gap (mean rates of U terms) coefficients, and gap times a force.

    A constant rate of every code (a force that depends on the place) is taken off exactly, by projection.

    Attributes:
        gram (U, U), right (U,), square: of design and change.
        by_code (Z, U), change_by_code (Z,), gaps: sums of the gap times design and change, and of its square.
    """

    gram: Tensor
    right: Tensor
    square: float
    by_code: Tensor
    change_by_code: Tensor
    gaps: float

    @classmethod
    def empty(cls, unknowns: int, codes: int) -> NormalEquations:
        """Of no transition."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(zeros(unknowns, unknowns), zeros(unknowns), 0.0, zeros(codes, unknowns), zeros(codes), 0.0)

    def add(self, design: Tensor, change: Tensor, gap: Tensor) -> None:
        """Add transitions: design (B, Z, U), change (B, Z), gap (B,)."""
        flat = design.flatten(0, 1)
        self.gram += flat.T @ flat
        self.right += flat.T @ change.flatten()
        self.square += float(change.square().sum())
        self.by_code += torch.einsum("b,bzu->zu", gap, design)
        self.change_by_code += gap @ change
        self.gaps += float(gap.square().sum())

    @staticmethod
    def total(parts: list[NormalEquations]) -> NormalEquations:
        """Of the transitions of all parts."""
        result = NormalEquations.empty(len(parts[0].right), len(parts[0].change_by_code))
        for part in parts:
            for name, value in vars(part).items():
                setattr(result, name, getattr(result, name) + value)
        return result

    @staticmethod
    def joined(parts: list[NormalEquations], contexts: Tensor) -> NormalEquations:
        """Of coefficients that are affine in the contexts (E, P) of the parts: (1 + P) U unknowns, one force."""
        size = contexts.shape[1] + 1
        unknowns = len(parts[0].right)
        result = NormalEquations.empty(size * unknowns, len(parts[0].change_by_code))
        for part, context in zip(parts, contexts, strict=True):
            weights = torch.cat([context.new_ones(1), context])
            result.gram += torch.kron(torch.outer(weights, weights), part.gram)
            result.right += torch.kron(weights, part.right)
            result.by_code += torch.kron(weights[None], part.by_code)
            result.change_by_code += part.change_by_code
            result.square += part.square
            result.gaps += part.gaps
        return result

    def reduced(self, forced: bool) -> tuple[Tensor, Tensor, float]:
        """Gram matrix, right-hand side and square; where `forced`, with a constant rate of every code projected out."""
        if not forced or not self.gaps:
            return self.gram, self.right, self.square
        return (
            self.gram - self.by_code.T @ self.by_code / self.gaps,
            self.right - self.by_code.T @ self.change_by_code / self.gaps,
            self.square - float(self.change_by_code.square().sum()) / self.gaps,
        )

    def solve(self, kept: Tensor, forced: bool, ridge: float = 0.0) -> Tensor:
        """Coefficients (U,), 0 where not `kept`; the ridge is relative to the mean square of each term."""
        gram, right, _ = self.reduced(forced)
        places = kept.nonzero()[:, 0]
        solution = torch.zeros_like(right)
        if len(places):
            own, unit = _scaled(gram, self.gram, places)
            own = own + ridge * torch.eye(len(places), dtype=gram.dtype)
            solution[places] = torch.linalg.solve(own, right[places] / unit) / unit
        return solution

    def misfit(self, solution: Tensor, forced: bool) -> float:
        """Residual sum of squares of a solution, share of that of the change."""
        gram, right, square = self.reduced(forced)
        return max(float(square - 2 * solution @ right + solution @ gram @ solution), 0.0) / max(self.square, 1e-300)

    def force(self, solution: Tensor) -> Tensor:
        """The constant rates (Z,) that go with a solution."""
        return (self.change_by_code - self.by_code @ solution) / self.gaps

    def units(self) -> Tensor:
        """Root mean square (U,) of the terms, up to a common factor: coefficients times it are comparable."""
        return self.gram.diagonal().clamp(min=1e-300).sqrt()

    def something(self) -> Tensor:
        """Mask (U,) of the terms that are not zero throughout."""
        return self.gram.diagonal() > _NOTHING * self.gram.diagonal().max()

    def elimination(self, kept: Tensor, forced: bool) -> list[tuple[Tensor, float]]:
        """Backward elimination: masks (U,) and misfits, from those given to none, dropping the least significant."""
        gram, right, square = self.reduced(forced)
        kept = kept & self.something()
        places = kept.nonzero()[:, 0]
        eliminated: list[tuple[Tensor, float]] = []
        inverse = scaled = right.new_zeros(0)
        while len(places):
            if len(eliminated) % _REFRESHED == 0:
                own, unit = _scaled(gram, self.gram, places)
                inverse, scaled = torch.linalg.inv(own), right[places] / unit
            solution = inverse @ scaled
            misfit = max(square - float(solution @ scaled), 0.0) / max(self.square, 1e-300)
            eliminated.append((torch.zeros_like(kept).index_fill(0, places, True), misfit))
            least = int((solution.square() / inverse.diagonal()).argmin())
            others = torch.arange(len(places)) != least
            column = inverse[others, least]
            inverse = inverse[others][:, others] - torch.outer(column, column) / inverse[least, least]
            places, scaled = places[others], scaled[others]
        return eliminated

    def needed(self, kept: Tensor, forced: bool, level: float) -> Tensor:
        """Mask (U,) of the fewest of some coefficients whose misfit is at most `level` times that of all of them."""
        several = self.elimination(kept, forced)
        if not several:
            return torch.zeros_like(kept)
        return [one for one, misfit in several if misfit <= level * several[0][1] + _PRECISION][-1]


def _scaled(gram: Tensor, whole: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix of some coefficients in units of their terms' mean square, barely regular, and these units' roots.

    The units are those of the `whole` sums: of a term that a force explains nothing is left to measure it by.
    """
    unit = whole.diagonal()[places].clamp(min=1e-300).sqrt()
    own = gram[places][:, places] / unit / unit[:, None]
    return own + _PRECISION * torch.eye(len(places), dtype=gram.dtype), unit
