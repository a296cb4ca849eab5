"""Refinement of law coefficients together with initial codes of rollouts, where codes are noisy.

Variational assimilation (4D-Var; Courtier, Thepaut & Hollingsworth 1994) by Gauss-Newton steps. Initial codes are
eliminated from the normal equations (Golub & Pereyra 1973), as each belongs to one segment. Only those that points
determine are unknown, without a prior: it would make the most probable codes too small, for which coefficients would
compensate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refinement.rollouts import Refinement, backtracked, scaled_inverse
from inrflow.numerics.effort import effort

_STEPS, _EXPECTED = 8, 2  # most Gauss-Newton steps; their number for the choice of segments
_TANGENT, TANGENTS_AT_ONCE = 1e-5, 1024  # finite differences of codes, relative to these; tangents at once
_CONVERGED = 0.1  # decrease of the misfit at convergence, in units of variances: a third of a standard error
_LEAST = 0.3  # least time left for another step, over that of the last one
_SHORTEST = 0.1  # least share of a step

Residuals = tuple[Tensor, Callable[[Tensor], Tensor]]  # residuals (R,) of a segment; map of paths to values (B, R)


class WithInitialCodes(Refinement):
    """Refinement along rollouts without corrections, with initial codes as further unknowns.

    Subclasses have the objective of rollouts, linearised at one (`_objective`), the weighted residuals of each segment
    (`_weighted_residuals`), and other information on initial codes (`_prior_of_initial_codes`).
    """

    filtered, iterations, fixed = False, _STEPS, False  # fixed: initial codes alone are fitted
    shortest, converged = _SHORTEST, _CONVERGED
    path: Tensor | None = None  # (B, M, C K) after the last step

    def _set_law(self, law: Law | None) -> Law:
        self.path = None
        return super()._set_law(law)

    def _iterated(self, law: Law) -> tuple[Law, bool] | None:
        first, path = self.data.codes[:, 0].clone(), self._path(law) if self.path is None else self.path
        objective = self._objective(path)
        before = objective(path)
        if not (math.isfinite(before) and len(self.active)):
            return None
        step, change = self._solved(law, path)

        def along(share: float) -> tuple[tuple[Law, Tensor], float]:
            trial = self._after_step(law, share * step)
            self.data.codes[:, 0] = first + share * change
            later = self._path(trial)
            return (trial, later), objective(later)

        found = backtracked(along, before, self.shortest)
        if found is None:
            self.data.codes[:, 0] = first
            return None
        _, ((law, self.path), after) = found
        return law, after > before - self.converged

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        raise NotImplementedError

    def _weighted_residuals(self, path: Tensor) -> Iterator[Residuals]:
        """Weighted residuals of each of the rollouts (B, M, C K), and their derivative as a linear map."""
        raise NotImplementedError

    def _prior_of_initial_codes(self, path: Tensor) -> tuple[Tensor, Tensor]:
        """Precisions (B, C K) of initial codes by other information, and these times the changes towards its mean."""
        raise NotImplementedError

    def _solved(self, law: Law, path: Tensor) -> tuple[np.ndarray, Tensor]:
        """Gauss-Newton step (U,) of the unknowns of the law, and change (B, C K) of initial codes."""
        design, (precision, pull) = self.design(law)[self.which], self._prior_of_initial_codes(path)
        slopes = path.new_zeros(*path.shape, design.shape[2])
        if not self.fixed:
            slopes[:, 1:] = torch.einsum("bmkp,bpu->bmku", self.slopes(law, path, torch.ones(())), design)
        eliminated, rests = [], []
        segments = zip(slopes, precision, pull, self._tangents(law, path), self._weighted_residuals(path), strict=True)
        for by_coefficients, own, asked, tangents, (left, compared) in segments:
            by_first, by_law = compared(tangents), compared(by_coefficients.permute(2, 0, 1))
            effort.add(products=by_first.numel() * len(by_first), calls=20)
            solved = torch.linalg.solve(by_first @ by_first.T + own[self.rows].diag(), torch.cat(
                [by_first @ by_law.T, (by_first @ left + asked[self.rows])[:, None]], 1))
            eliminated.append(solved)
            rests.append(by_law @ torch.cat([by_law.T, left[:, None]], 1) - (by_law @ by_first.T) @ solved)
        both, change = torch.stack(rests), torch.stack(eliminated)
        inverse = scaled_inverse(both[..., :-1].sum(0).numpy())
        step = inverse @ both[..., -1].sum(0).numpy()
        each = torch.eye(len(step), dtype=path.dtype).expand(len(both), -1, -1)
        self.covariance = self._clustered_covariance(inverse, step, each, both)
        moved = torch.zeros_like(path[:, 0])
        moved[:, self.rows] = change[..., -1] - change[..., :-1] @ torch.tensor(step)
        return step, moved

    def _tangents(self, law: Law, path: Tensor) -> Iterator[Tensor]:
        """Derivatives (U, M, C K) of each rollout (M, C K) with respect to its U unknown initial codes."""
        unit = torch.eye(path.shape[2], dtype=path.dtype)[self.rows]
        size = len(unit)
        for some in torch.arange(len(path)).split(max(TANGENTS_AT_ONCE // max(size, 1), 1)):
            length = _TANGENT * path[some, 0].norm(dim=1)[:, None, None, None] + 1e-300
            first = path[some, 0][:, None] + length[..., 0] * unit
            later = self._rollouts(law, first.flatten(0, 1), self.data.take(some.repeat_interleave(size)))
            yield from (later.unflatten(0, (-1, size)) - path[some][:, None]) / length


class Assimilation(WithInitialCodes):
    """Refinement of a law and of initial codes along segments of noisy codes."""

    min_time_left = _LEAST

    @property
    def residual_over_noise(self) -> float:
        """Mean squared residual after the last step, in units of the variance of noise."""
        if self.path is None:
            return math.inf
        return float(self._misfit(self.path, self.noise[:, None]).sum()) / (
            int(self.rows.sum()) * self.path[:, 1:, 0].numel())

    @property
    def _expected(self) -> float:
        return _EXPECTED * float(len(self.active) + int(self.rows.sum()))

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        """Weighted squares of residuals of rollouts and of initial codes."""
        variance = self._variances(path)

        def missed(later: Tensor) -> float:
            first = (later - self.target)[:, 0, self.rows].square() / self.noise[:, self.rows]
            return float(self._misfit(later, variance).sum() + first.sum())

        return missed

    def _weighted_residuals(self, path: Tensor) -> Iterator[Residuals]:
        for own, target, weight in zip(path, self.target, self._weights(self._variances(path)), strict=True):
            yield ((target - own)[1:] * weight).flatten(), lambda paths, weight=weight: (  # type: ignore[misc]
                paths[:, 1:] * weight).flatten(1)

    def _prior_of_initial_codes(self, path: Tensor) -> tuple[Tensor, Tensor]:
        return 1 / self.noise, (self.target[:, 0] - path[:, 0]) / self.noise
