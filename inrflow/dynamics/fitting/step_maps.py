"""What goes with the map of a step: the generator that moves states between steps, and the map of a step back.

The logarithm of a map may be far from the flow between its frames, which nobody saw: eigenvalues near the negative axis
have no smooth root, and where eigenvectors are nearly parallel their roots do not cancel any more. Logarithms of maps
with stronger ridges, down to none at all, are compared by halves of doubled steps, where the frame between is known.
The inverse of a map blows up what it damps: the map of a step back is a regression of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fitting.linear import LinearFit, Transitions, affine_rollout, transitions_of
from inrflow.dynamics.states import CodeData, SeasonalMean
from inrflow.numerics.effort import effort
from inrflow.numerics.matrix_functions import SHORTEST, generator_of

_BETWEEN = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, math.inf)  # ridges of generators: 0 as the map's own, inf for none
_BACK = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_LOGARITHM = 60  # products of n^3


@dataclass(frozen=True)
class StepMaps:
    """Affine maps on [1, s] of the states around a mean, a step on and a step back.

    Attributes:
        maps, generators: (2, n + 1, n + 1).
        step: internal time.
        mean: what states move around.
        ridges: of the map back, and of both generators.
        between: (n,) mean squares of what half way through doubled steps is missed, an upper bound for single ones.
    """

    maps: Tensor
    generators: Tensor
    step: float
    mean: SeasonalMean
    ridges: tuple[float, float, float]
    between: Tensor

    def term(self) -> AutoregressionTerm:
        """The term that moves states so, float64."""
        size, half = self.maps.shape[-1] - 1, len(self.mean.coefficients) // 2
        term = AutoregressionTerm(
            size, 1, self.step, flows=True, season=self.mean.period, season_harmonics=half
        ).double()
        term.set_flow(self.maps, self.generators, self.mean.coefficients, self.between)
        return term


def step_maps(
    fit: LinearFit, forward: Tensor, mean: SeasonalMean, held: CodeData | None,
    like: StepMaps | None,
) -> StepMaps:
    """The maps that go with one of a step (n + 1, n + 1).

    Args:
        fit: of what it was fitted to.
        held: states around the mean, (S, T, n), by which ridges are chosen, where they are not those of `like`.
    """
    n, pairs = len(forward) - 1, fit.transitions.truncated(len(forward) - 1)
    returning = LinearFit(Transitions(pairs.end, pairs.start, pairs.step))
    unit = float(pairs.step.median())
    if like is not None:
        ridges, between = like.ridges, like.between[:n]
        between = torch.cat([between, between[-1:].expand(n - len(between))])
    else:
        assert held is not None
        effort.add(4 * _LOGARITHM * len(_BETWEEN) * n**3, calls=1e3)
        seen = transitions_of(held)
        errors = {ridge: _error_back(returning.step_map(n, ridge), held, unit) for ridge in _BACK}
        back = min(errors, key=lambda ridge: errors[ridge])
        ahead, between = _best_between(fit, forward, seen.start, seen.end)
        behind, _ = _best_between(returning, returning.step_map(n, back), seen.end, seen.start)
        ridges = back, ahead, behind
    maps = torch.stack([forward, returning.step_map(n, ridges[0])])
    generators = [_generator(one, step, ridge) for one, step, ridge in
                  zip((fit, returning), maps, ridges[1:], strict=True)]
    return StepMaps(maps, torch.stack(generators) / unit, unit, mean, ridges, between)


def _error_back(step: Tensor, held: CodeData, unit: float) -> float:
    """Mean squared error of states from the last one of each trajectory back to the first."""
    states = torch.nn.functional.pad(held.codes.flip(1), (1, 0), value=1.0)
    path, seen = affine_rollout(states, held.observed.flip(1), -held.t.flip(1), unit, step,
                                lambda state, _: state @ step.T)
    return _mean_square((path - states[:, 1:])[seen])


def _best_between(fit: LinearFit, step: Tensor, start: Tensor, end: Tensor) -> tuple[float, Tensor]:
    """The ridge whose generator meets `end` (P, n) best half way through doubled steps from `start`, and the mean
    squares (n,) of what it misses."""
    doubled, errors = step @ step, {}
    states = torch.nn.functional.pad(start, (1, 0), value=1.0)
    term = AutoregressionTerm(len(step) - 1, 1, 2.0, flows=True).double()
    for ridge in _BETWEEN:
        generator = _generator(fit, step, ridge, 2) / 2
        term.set_flow(torch.stack([doubled, doubled]), torch.stack([generator, generator]), torch.zeros(1, 1))
        half = term.path(states[:, 1:], torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(len(states), 2))[:, 1]
        errors[ridge] = _mean_square(half - end), (half - end).square().mean(0)
    best = min(errors, key=lambda ridge: errors[ridge][0])
    return best, errors[best][1].nan_to_num(0.0, 0.0)


def _generator(fit: LinearFit, step: Tensor, ridge: float, times: int = 1) -> Tensor:
    """Generator (n + 1, n + 1) of so many steps of the map with a ridge: 0 for that of `step`, inf for none."""
    result = torch.zeros_like(step)
    if math.isfinite(ridge):
        one = fit.step_map(len(step) - 1, ridge) if ridge else step
        result[1:, 1:], result[1:, 0] = generator_of(torch.linalg.matrix_power(one, times), 1.0, SHORTEST)
    return result


def _mean_square(missed: Tensor) -> float:
    """Infinite where it is no number."""
    value = float(missed.square().mean())
    return value if value == value else math.inf
