"""Completion of the map of a step: the generator that moves states between steps, and the map of a backward step.

The generator is the logarithm of the map, unless states half a step later differ from a cubic interpolation by more
than half the change over a step: transport out of a domain has no logarithm, and an approximate one amplifies states
between steps. The inverse of a map amplifies what it damps: the backward map is a regression of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.fitting.linear import LinearFit, Transitions, affine_rollout, transitions_of
from inrflow.dynamics.states import SeasonalMean
from inrflow.encoding.encode import CodeData
from inrflow.numerics.effort import effort
from inrflow.numerics.matrix_functions import SHORTEST, generator_of

_BACK = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_LOGARITHM = 60  # cost of a matrix logarithm in products, times n^3
_APART = 0.25  # squared ratio of that difference to the change over a step; a rotation by 2.6 radians


def step_maps(fit: LinearFit, forward: Tensor, mean: SeasonalMean, held: CodeData | None,
              like: tuple[StepMapTerm, float] | None) -> tuple[StepMapTerm, float]:
    """The term of the map of a step (n + 1, n + 1) of states around a mean, float64, and the ridge of the backward map.

    Args:
        fit: normal equations from which the forward map was fitted.
        held: held-out states around the mean, (S, T, n), by which the ridge is chosen, unless taken from `like`.
        like: an earlier term and its ridge, whose choices are kept."""
    n, pairs = len(forward) - 1, fit.transitions.truncated(len(forward) - 1)
    returning = LinearFit(Transitions(pairs.end, pairs.start, pairs.step))
    unit = float(pairs.step.median())
    if like is not None:
        before, ridge = like
        between, moves = before.between[:n], bool(before.generators.any())
        between = torch.cat([between, between[-1:].expand(n - len(between))])
    else:
        assert held is not None
        errors = {one: _backward_error(returning.step_map(n, one), held, unit) for one in _BACK}
        ridge = min(errors, key=lambda one: errors[one])
        seen = transitions_of(held)
        straight, bent = (_half_a_step_later(forward, seen.start, moves) for moves in (False, True))
        apart, change = (bent - straight).square().sum(), (seen.end - seen.start).square().sum()
        moves = bool(apart <= _APART * change)  # not where it is NaN
        halves = (_half_a_step_later(forward @ forward, seen.start, one) for one in (False, True)[: 1 + moves])
        between = min(((half - seen.end).square().mean(0) for half in halves), key=torch.sum)
    maps = torch.stack([forward, returning.step_map(n, ridge)])
    term = StepMapTerm(n, unit, mean.period, len(mean.coefficients) // 2).double()
    term.set(maps, torch.stack([_generator(step, unit, moves) for step in maps]), mean.coefficients, between)
    return term, ridge


def _generator(step: Tensor, unit: float, moves: bool) -> Tensor:
    """Generator (n + 1, n + 1) of the map of a step; 0 unless `moves`."""
    result = torch.zeros_like(step)
    if moves:
        effort.add(_LOGARITHM * len(step) ** 3)
        result[1:, 1:], result[1:, 0] = generator_of(step, unit, SHORTEST)
    return result


def _half_a_step_later(step: Tensor, states: Tensor, moves: bool) -> Tensor:
    """States (P, n) half a step after `states` for a map (n + 1, n + 1), with or without a generator."""
    term = StepMapTerm(len(step) - 1, 1.0).double()
    term.set(step.expand(2, -1, -1), _generator(step, 1.0, moves).expand(2, -1, -1), torch.zeros(1, 1))
    return term.path(states, torch.tensor([[0.0, 0.5]], dtype=torch.float64).expand(len(states), 2))[:, 1]


def _backward_error(step: Tensor, held: CodeData, unit: float) -> float:
    """Mean squared error of backward rollouts from the last state of each trajectory to the first; infinite if they
    diverge."""
    back = CodeData(held.codes.flip(1), -held.t.flip(1), held.observed.flip(1))
    path, seen = affine_rollout(back, unit, step, lambda state, _: state @ step.T)
    value = float((path - back.codes[:, 1:])[seen].square().mean())
    return value if value == value else math.inf
