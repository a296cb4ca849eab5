"""Refinement of laws along single steps of their flow, for trajectories of coarse frames.

Where fields change too much between frames, splines resolve their motion poorly. The flow of the law that they give may
resolve it better (`rollout_regression`); where it does not, single steps do: from the codes of each frame to those of
the next, with all terms of a family, by Levenberg-Marquardt, then with fewer. Residuals are weighted as for a Cauchy
distribution (iteratively reweighted least squares): steps that the first coefficients predict badly count little until
others have corrected these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.families import Families
from inrflow.dynamics.laws.law import Law, integrable
from inrflow.dynamics.laws.refinement.rollouts import Refinement, scaled_inverse
from inrflow.dynamics.laws.setting import EncodedData
from inrflow.numerics.effort import effort
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent

_ITERATIONS = 25
_CONVERGED = 1e-3  # relative decrease of the misfit at convergence
_DAMPING, _LEAST_DAMPING, _TRIALS = 1e-4, 1e-14, 8  # first and least, relative to the normal matrix
_FAR = 1e3  # largest residual, also of divergent steps, in units of the channels' deviations
_ROUGHLY = 1e-3  # error of the integrator at the first coefficients, which are inaccurate
_STEEP = 1e6  # derivative above which a step is left out
_PLANNED = 0.75  # share of the time for descents
_INCREASES, _LEVELS = (0.05, 3.0), 4  # of the misfit, up to which terms are dropped: of a step, of a row; their number

Shot = tuple[Law, Tensor, Tensor]  # a law, its steps (B, 2, C K), and their residuals (B, C K)


class SingleStepRefinement(Refinement):
    """Refinement along single steps with a Cauchy likelihood; `gram` is the normal matrix of the last law."""

    filtered, iterations = False, _ITERATIONS
    gram = np.zeros((0, 0))

    @property
    def _expected(self) -> float:
        return float(self.iterations * max(len(self.active), 1))

    def run(self, law: Law | None = None) -> Law:
        """Law with coefficients fitted to the steps."""
        unit = torch.ones(())  # squared scale of residuals, at the last linearisation

        def shot(one: Law) -> Shot:
            path = self._path(one)
            error = torch.where(self.rows, path[:, 1] - self.target[:, 1], 0.0)
            return one, path, torch.nan_to_num(error, nan=_FAR).clamp(-_FAR, _FAR)

        def misfit(at: Shot) -> float:
            return float(torch.log1p(at[2].square().sum(1) / unit).sum())

        def linearise(at: Shot) -> Linearisation[Shot] | None:
            nonlocal unit
            if len(self.gram) and effort() > self.deadline:
                return None
            one, path, error = at
            squares = error.square().sum(1)
            unit = squares.median() + 1e-20
            slopes = self.slopes(one, path, self.rows.double())[:, 0]
            flat = (slopes.abs() < _STEEP).flatten(1).all(1)
            weight, slopes = flat / (1 + squares / unit) / unit, torch.where(flat[:, None, None], slopes, 0.0)
            gram = self.gram = torch.einsum("b,brp,brq->pq", weight, slopes, slopes).numpy()
            pull = -torch.einsum("b,brp,br->p", weight, slopes, error).numpy()
            size = np.sqrt(np.maximum(np.diag(gram), 1e-300))

            def propose(damping: float) -> Shot:
                damped = gram / size / size[:, None] + (damping + _LEAST_DAMPING) * np.eye(len(size))
                return shot(self._after_step(one, np.linalg.solve(damped, pull / size) / size))

            return Linearisation(misfit(at), propose)

        (found, *_), _ = damped_descent(
            shot(self._set_law(law)), linearise, misfit, steps=self.iterations, tries=_TRIALS, damping=_DAMPING,
            least=0.0, settled=1 - _CONVERGED,
        )
        return self._with_errors(found, np.linalg.pinv(self.gram, hermitian=True))

    def sparser(self, law: Law) -> Iterator[Law]:
        """Iterate over ever smaller laws without terms whose removal raises the misfit little (normal matrix), then
        more: of each step, which adds about one, and of all of its rows."""
        self._set_law(law)
        covariance, size = scaled_inverse(self.gram), law.size
        for increase in np.geomspace(_INCREASES[0], _INCREASES[1] * max(int(self.rows.sum()), 1), _LEVELS):
            fewer = self._significant(covariance, math.sqrt(increase * len(self.data.codes)))
            if fewer.size < size:
                size = fewer.size
                yield fewer


def along_single_steps(encoded: EncodedData, families: Families, deadline: float) -> Iterator[Law]:
    """Laws fitted along single steps, for each combination of families, of all terms and of fewer. deadline: of effort,
    with forecasts."""
    deadline = effort() + _PLANNED * (deadline - effort())
    terms, t, states = families.all_terms, encoded.train.t, encoded.states
    (equations,) = encoded.equations(terms)
    for active in families.active if effort() < deadline else ():
        theta, _ = equations.solved([active] * states.shape[2], len(terms))
        law = integrable(encoded.law(terms, theta, np.zeros_like(theta)), t, states, _ROUGHLY)
        if law is not None:
            steps = SingleStepRefinement.along(law, encoded, encoded.known, 1, deadline - effort())
            every = steps.run()
            refined = (integrable(one, t, states) for one in (every, *steps.sparser(every)))
            for i, one in enumerate(refined):
                if one is not None and one.size:  # elimination may have left no term
                    yield SingleStepRefinement.along(one, encoded, encoded.known, 1,
                                                     deadline - effort()).run() if i else one
        if effort() > deadline:
            break
