"""Refinement of a law's coefficients and of first codes of flights together, where codes are noisy.

Incremental variational assimilation (4D-Var; Courtier, Thepaut & Hollingsworth 1994): steps of Gauss and Newton whose
normal equations are solved by conjugate gradients, each of which asks for a flight beside this one, a tangent, and for
the adjoint of the flow. Coefficients, which are few, have all their tangents. First codes that points tell have no
prior: with one the most probable codes are too small, and coefficients make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.law import Flights, Law
from inrflow.dynamics.laws.refinement.flights import Refinement, scaled_inverse, shortened
from inrflow.numerics.conjugate_gradients import conjugate_gradients
from inrflow.numerics.effort import effort

_STEPS, _ITERATIONS, _FEWEST = 8, 40, 6  # of Gauss and Newton; of conjugate gradients in each, at most, and at least
_EXPECTED = 2, 15  # of these, as far as flights are chosen by them
_SOLVED = 1e-2  # of the first residual of normal equations, that is left
_TANGENT = 1e-5  # length of tangents, relative to codes
_ADJOINT = 4.0  # times a flight: the flight and its adjoint
_COARSER, _NEAR = (8, 4, 2), 0.3  # times longer steps of tangents, whose paths differ by no more in units of noise
_VALUES = 2**26  # of flights whose adjoints are held at a time
_CONVERGED = 0.1  # change of the misfit, which is in units of variances: a third of a standard error
_LEAST = 0.3  # share of the last step's time that a further one needs
_SHORTEST = 0.1  # of a step that is halved


class WithFirstCodes(Refinement):
    """That of flights, not corrected, whose first codes are unknown as well.

    A subclass says what paths are to have the least of, seen from one (`_objective`), and which step of coefficients
    and change of first codes lead there (`_solved`).
    """

    filtered, iterations = False, _STEPS
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

    def _solved(self, law: Law, path: Tensor) -> tuple[np.ndarray, Tensor]:
        """Step (U,) of the unknowns and change (B, C K) of first codes."""
        raise NotImplementedError


class Assimilation(WithFirstCodes):
    """That of noisy flights."""

    needed = _LEAST

    def __init__(self, law: Law, data: Flights, known: np.ndarray, seconds: float):
        super().__init__(law, data, known, seconds, uncertain=True)
        self.rows = torch.tensor(known.ravel() > 0)  # many codes tell together what none does alone
        self._fill(self.data)
        self.step = self.longest  # of tangents

    @property
    def left(self) -> float:
        """What flights miss after the last step, in units of noise."""
        if self.path is None:
            return math.inf
        return float(self._misfit(self.path, self.noise[:, None]).sum()) / (
            int(self.rows.sum()) * self.path[:, 1:, 0].numel())

    @property
    def _expected(self) -> float:
        return _EXPECTED[0] * (len(self.active) + _EXPECTED[1] * (1 + _ADJOINT))

    @cached_property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        """Precisions of first codes by points (B, C K), and by the prior, of those that points do not tell (C K,)."""
        points = torch.where(self.rows, 1 / self.noise, 0.0)
        return points, torch.where(self.rows, 0.0, 1 / (self.prior + 1e-12 * self.prior.max()))

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        """Weighted squares of what flights and first codes miss, and of what these differ from their mean by."""
        variance, (points, prior) = self._variances(path), self._inverse

        def missed(later: Tensor) -> float:
            first = points * (later[:, 0] - self.target[:, 0]).square() + prior * (later[:, 0] - self.mean).square()
            return float(self._misfit(later, variance).sum() + first.sum())

        return missed

    def _solved(self, law: Law, path: Tensor) -> tuple[np.ndarray, Tensor]:
        """By preconditioned conjugate gradients."""
        weight, (points, prior) = self._weights(self._variances(path)), self._inverse
        slopes = torch.einsum("bmkp,bpu->bmku", self.slopes(law, path, weight), self.design(law)[self.which])
        inverse = torch.tensor(scaled_inverse(torch.einsum("bmku,bmkv->uv", slopes, slopes).numpy()))
        linearised, diagonal = self._coarse(law, path), points + prior
        felt = self._felt(law, linearised, weight, diagonal)

        def parts(both: Tensor) -> tuple[Tensor, Tensor]:
            return both[: len(inverse)], both[len(inverse) :].view_as(diagonal)

        def joined(step: Tensor, change: Tensor) -> Tensor:
            return torch.cat([step, change.flatten()])

        def adjoint(missed: Tensor, change: Tensor) -> Tensor:
            return joined(torch.einsum("bmku,bmk->u", slopes, missed), self._adjoint(law, weight * missed) + change)

        def normal(both: Tensor) -> Tensor:
            step, change = parts(both)
            missed = slopes @ step + self._tangent(law, linearised, change) * weight
            return adjoint(missed, diagonal * change)

        def conditioned(both: Tensor) -> Tensor:
            step, change = parts(both)
            return joined(inverse @ step, change / (diagonal * (1 + felt)))

        first = points * (self.target[:, 0] - path[:, 0]) + prior * (self.mean - path[:, 0])
        right = adjoint((self.target - path)[:, 1:] * weight, first)
        step, change = parts(conjugate_gradients(normal, right, _SOLVED, _ITERATIONS, conditioned,
                                                 lambda count: count > _FEWEST and effort() > self.deadline))
        return step.numpy(), change

    def _coarse(self, law: Law, path: Tensor) -> Tensor:
        """The path (B, M, C K) of tangents and adjoints: in longer steps, as far as it is nearly the same."""
        for times in _COARSER:
            self.step = times * self.longest
            coarse = self._fly(self._at(law), self.data.codes[:, 0], self.data, self.step)
            if float(((coarse - path) * self._weights(self.noise[:, None])).square().mean()) < _NEAR**2:
                return coarse
        self.step = self.longest
        return path

    def _felt(self, law: Law, path: Tensor, weight: Tensor, diagonal: Tensor) -> Tensor:
        """Mean squares (C K) of what a standard error of each first code changes in later ones, by shells."""
        signs = torch.randint(0, 2, diagonal.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        squares = (self._tangent(law, path, signs / diagonal.sqrt()) * weight).square().sum(1).mean(0)
        return self._by_shell(squares[None])[0, self.shell]

    def _tangent(self, law: Law, path: Tensor, change: Tensor) -> Tensor:
        """Change (B, M, C K) of codes along flights with a change (B, C K) of first ones, to first order."""
        length = _TANGENT * path[:, 0].norm(dim=1, keepdim=True) / change.norm(dim=1, keepdim=True).clamp_min(1e-300)
        later = self._fly(self._at(law), path[:, 0] + length * change, self.data, self.step)
        return (later - path)[:, 1:] / length[..., None]

    def _adjoint(self, law: Law, weights: Tensor) -> Tensor:
        """Derivatives (B, C K) by first codes of the sum of codes along flights, so weighted (B, M, C K)."""
        field = self.fields[0]
        steps = float((self.data.dt[0] / self.step).ceil().sum())
        each = steps * 50 * field.library.points * field.channels
        result = torch.empty_like(weights[:, 0])
        for part in torch.arange(len(weights)).split(max(int(_VALUES / each), 1)):
            began, data = effort(), self.data.take(part)
            first = data.codes[:, 0].requires_grad_()
            path = self._fly(self._at(law), first, data, self.step)
            (result[part],) = torch.autograd.grad(path[:, 1:], first, weights[part])
            effort.add(seconds=(_ADJOINT - 1) * (effort() - began))
        return result
