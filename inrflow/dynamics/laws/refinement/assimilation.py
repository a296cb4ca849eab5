"""Refinement of a law's coefficients and of first codes of flights together, where codes are noisy.

Variational assimilation (4D-Var; Courtier, Thepaut & Hollingsworth 1994) by steps of Gauss and Newton. First codes are
eliminated (Golub & Pereyra 1973): what is seen of a flight tells no others. Those that points tell have no prior: with
one the most probable codes are too small, and coefficients make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.law import Flights, Law
from inrflow.dynamics.laws.refinement.flights import Refinement, scaled_inverse, shortened
from inrflow.numerics.effort import effort

_STEPS, _EXPECTED = 8, 2  # of Gauss and Newton, at most, and as far as flights are chosen by them
_TANGENT, TOGETHER = 1e-5, 1024  # length of tangents, relative to codes; so many at once
_CONVERGED = 0.1  # change of the misfit, which is in units of variances: a third of a standard error
_LEAST = 0.3  # share of the last step's time that a further one needs
_SHORTEST = 0.1  # of a step that is halved

Compared = tuple[Tensor, Callable[[Tensor], Tensor]]  # what (R,) a flight misses, and its change (B, R) by paths


class WithFirstCodes(Refinement):
    """That of flights, not corrected, whose first codes are unknown as well.

    A subclass says what paths are to have the least of, seen from one (`_objective`), what is compared of each flight,
    over its deviations (`_compared`), and what else is known of first codes (`_of_first`).
    """

    filtered, iterations, fixed = False, _STEPS, False  # fixed: first codes alone are sought
    shortest, converged = _SHORTEST, _CONVERGED
    path: Tensor | None = None  # (B, M, C K) after the last step

    def _of(self, law: Law | None) -> Law:
        self.path = None
        return super()._of(law)

    def _advanced(self, law: Law) -> tuple[Law, bool] | None:
        first, path = self.data.codes[:, 0].clone(), self._path(law) if self.path is None else self.path
        objective = self._objective(path)
        before = objective(path)
        if not (math.isfinite(before) and len(self.active)):
            return None
        step, change = self._solved(law, path)

        def along(share: float) -> tuple[tuple[Law, Tensor], float]:
            trial = self._moved(law, share * step)
            self.data.codes[:, 0] = first + share * change
            later = self._path(trial)
            return (trial, later), objective(later)

        found = shortened(along, before, self.shortest)
        if found is None:
            self.data.codes[:, 0] = first
            return None
        _, ((law, self.path), after) = found
        return law, after > before - self.converged

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        raise NotImplementedError

    def _compared(self, path: Tensor) -> Iterator[Compared]:
        """Of each of the paths (B, M, C K)."""
        raise NotImplementedError

    def _of_first(self, path: Tensor) -> tuple[Tensor, Tensor]:
        """Precisions of first codes, and these times what they are to change by: (B, C K)."""
        raise NotImplementedError

    def _solved(self, law: Law, path: Tensor) -> tuple[np.ndarray, Tensor]:
        """Step (U,) of the unknowns and change (B, C K) of first codes."""
        design, (precision, pull) = self.design(law)[self.which], self._of_first(path)
        slopes = path.new_zeros(*path.shape, design.shape[2])
        if not self.fixed:
            slopes[:, 1:] = torch.einsum("bmkp,bpu->bmku", self.slopes(law, path, torch.ones(())), design)
        eliminated, rests = [], []
        flights = zip(slopes, precision, pull, self._tangents(law, path), self._compared(path), strict=True)
        for by_coefficients, own, asked, tangents, (left, compared) in flights:
            by_first, by_law = compared(tangents), compared(by_coefficients.permute(2, 0, 1))
            effort.add(products=by_first.numel() * len(by_first), calls=20)
            solved = torch.linalg.solve(by_first @ by_first.T + own.diag(), torch.cat(
                [by_first @ by_law.T, (by_first @ left + asked)[:, None]], 1))
            eliminated.append(solved)
            rests.append(by_law @ torch.cat([by_law.T, left[:, None]], 1) - (by_law @ by_first.T) @ solved)
        both, change = torch.stack(rests), torch.stack(eliminated)
        inverse = scaled_inverse(both[..., :-1].sum(0).numpy())
        step = inverse @ both[..., -1].sum(0).numpy()
        each = torch.eye(len(step), dtype=path.dtype).expand(len(both), -1, -1)
        self.covariance = self._robust(inverse, step, each, both)
        return step, change[..., -1] - change[..., :-1] @ torch.tensor(step)

    def _tangents(self, law: Law, path: Tensor) -> Iterator[Tensor]:
        """Derivatives (C K, M, C K) of the path (M, C K) of each flight by its first codes."""
        size, at = path.shape[2], self._at(law)
        unit = torch.eye(size, dtype=path.dtype)
        for some in torch.arange(len(path)).split(max(TOGETHER // size, 1)):
            length = _TANGENT * path[some, 0].norm(dim=1)[:, None, None, None] + 1e-300
            first = path[some, 0][:, None] + length[..., 0] * unit
            later = self._fly(at, first.flatten(0, 1), self.data.take(some.repeat_interleave(size)))
            yield from (later.unflatten(0, (-1, size)) - path[some][:, None]) / length


class Assimilation(WithFirstCodes):
    """That of noisy flights."""

    needed = _LEAST

    def __init__(self, law: Law, data: Flights, known: np.ndarray, seconds: float):
        super().__init__(law, data, known, seconds, uncertain=True)
        self.rows = torch.tensor(known.ravel() > 0)  # many codes tell together what none does alone
        self._fill(self.data)
        # precisions of first codes by points (B, C K), and by the prior, of those that points do not tell (C K,)
        self.points = torch.where(self.rows, 1 / self.noise, 0.0)
        self.others = torch.where(self.rows, 0.0, 1 / (self.prior + 1e-12 * self.prior.max()))

    @property
    def left(self) -> float:
        """What flights miss after the last step, in units of noise."""
        if self.path is None:
            return math.inf
        return float(self._misfit(self.path, self.noise[:, None]).sum()) / (
            int(self.rows.sum()) * self.path[:, 1:, 0].numel())

    @property
    def _expected(self) -> float:
        return _EXPECTED * float(len(self.active) + len(self.prior))

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        """Weighted squares of what flights and first codes miss, and of what these differ from their mean by."""
        variance = self._variances(path)

        def missed(later: Tensor) -> float:
            first = self.points * (later[:, 0] - self.target[:, 0]).square()
            first = first + self.others * (later[:, 0] - self.mean).square()
            return float(self._misfit(later, variance).sum() + first.sum())

        return missed

    def _compared(self, path: Tensor) -> Iterator[Compared]:
        for own, target, weight in zip(path, self.target, self._weights(self._variances(path)), strict=True):
            yield ((target - own)[1:] * weight).flatten(), lambda paths, weight=weight: (  # type: ignore[misc]
                paths[:, 1:] * weight).flatten(1)

    def _of_first(self, path: Tensor) -> tuple[Tensor, Tensor]:
        pull = self.points * (self.target[:, 0] - path[:, 0]) + self.others * (self.mean - path[:, 0])
        return self.points + self.others, pull
