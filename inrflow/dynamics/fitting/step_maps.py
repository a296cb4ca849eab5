"""What goes with the map of a step: the generator that moves states between steps, and the map of a step back.

The generator is the logarithm of the map. The inverse of a map blows up what it damps: the map of a step back is a
regression of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fitting.linear import LinearFit, Transitions, affine_rollout
from inrflow.dynamics.states import CodeData, SeasonalMean
from inrflow.numerics.effort import effort
from inrflow.numerics.matrix_functions import SHORTEST, generator_of

_BACK = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_LOGARITHM = 60  # products of n^3


@dataclass(frozen=True)
class StepMaps:
    """Affine maps on [1, s] of the states around a mean, a step on and a step back.

    Attributes:
        maps, generators: (2, n + 1, n + 1).
        step: internal time.
        mean: what states move around.
        ridge: of the map back.
    """

    maps: Tensor
    generators: Tensor
    step: float
    mean: SeasonalMean
    ridge: float

    def term(self) -> AutoregressionTerm:
        """The term that moves states so, float64."""
        size, half = self.maps.shape[-1] - 1, len(self.mean.coefficients) // 2
        term = AutoregressionTerm(
            size, 1, self.step, flows=True, season=self.mean.period, season_harmonics=half
        ).double()
        term.set_flow(self.maps, self.generators, self.mean.coefficients)
        return term


def step_maps(fit: LinearFit, forward: Tensor, mean: SeasonalMean, held: CodeData | None, like: StepMaps | None
              ) -> StepMaps:
    """The maps that go with one of a step (n + 1, n + 1).

    Args:
        fit: of what it was fitted to.
        held: states around the mean, (S, T, n), by which the ridge is chosen, where it is not that of `like`.
    """
    n, pairs = len(forward) - 1, fit.transitions.truncated(len(forward) - 1)
    returning = LinearFit(Transitions(pairs.end, pairs.start, pairs.step))
    unit = float(pairs.step.median())
    if like is not None:
        ridge = like.ridge
    else:
        assert held is not None
        errors = {one: _error_back(returning.step_map(n, one), held, unit) for one in _BACK}
        ridge = min(errors, key=lambda one: errors[one])
    maps = torch.stack([forward, returning.step_map(n, ridge)])
    generators = torch.zeros_like(maps)
    effort.add(2 * _LOGARITHM * n**3)
    for step, generator in zip(maps, generators, strict=True):
        generator[1:, 1:], generator[1:, 0] = generator_of(step, unit, SHORTEST)
    return StepMaps(maps, generators, unit, mean, ridge)


def _error_back(step: Tensor, held: CodeData, unit: float) -> float:
    """Mean squared error of states from the last one of each trajectory back to the first; infinite where they
    diverge."""
    states = torch.nn.functional.pad(held.codes.flip(1), (1, 0), value=1.0)
    path, seen = affine_rollout(states, held.observed.flip(1), -held.t.flip(1), unit, step,
                                lambda state, _: state @ step.T)
    value = float((path - states[:, 1:])[seen].square().mean())
    return value if value == value else math.inf
