"""Constants of functions in a law's terms, which refinement along rollouts changes with the law's coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.numerics.kinetics import changed

_STEP = 1e-4  # of finite differences, of logarithms of constants


def with_constants(law: Law, changes: Sequence[float] | np.ndarray) -> Law:
    """The law after changes (F,) of the logarithms of constants of its functions."""
    by = dict(zip(law.functions, changes, strict=True))
    return law.with_functions(lambda c, number: changed(number, by[c, number]))


class WithConstants(Refinement):
    """Refinement whose last unknowns are logarithms of the constants of the law's functions."""

    def _after_step(self, law: Law, step: np.ndarray) -> Law:
        step, changes = np.split(step, [len(step) - len(law.functions)])
        return with_constants(super()._after_step(law, step), changes)

    def slopes(self, law: Law, path: Tensor, weight: Tensor) -> Tensor:
        slopes = [super().slopes(law, path, weight)]
        for changes in _STEP * np.eye(len(law.functions)):
            later = self._rollouts(with_constants(law, changes), self.data.codes[:, 0], self.data)
            slopes.append(((later - path)[:, 1:] * weight / _STEP)[..., None])
        return torch.cat(slopes, -1)

    def design(self, law: Law) -> Tensor:
        own = torch.eye(len(law.functions), dtype=torch.float64)
        return torch.stack([torch.block_diag(one, own) for one in super().design(law)])

    def _significant(self, covariance: np.ndarray, errors: float) -> Law:
        fewer, here = super()._significant(covariance, errors), tuple(self.active.T)
        values, functions = self.law.theta[here], len(self.law.functions)
        dropped = ((fewer.theta[here] == 0) & (values != 0)).nonzero()[0]  # others vary around zero with contexts
        own = covariance[np.ix_(dropped, dropped)]  # conditional means, given that these coefficients are zero
        return with_constants(fewer, -covariance[len(covariance) - functions :, dropped] @ np.linalg.solve(
            own, values[dropped]))


class AssimilationWithConstants(WithConstants, Assimilation):
    """Refinement of coefficients, constants and initial codes along segments of noisy codes."""
