"""Second moments of code transitions, environment by environment: all that a linear field with contexts is fitted from.

The generator G of the affine flow on [1, s] is found from the integral form of the equation. About a current guess of
G, what the exact flow misses, pulled back to the middle of its step, is (to second order) the change of G times the
integral of the state over the step. So each environment gives normal equations G (M M^T) = (T M^T), of moments M and
targets T, summed anew for each guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fitting.linear import Transitions, transitions_of
from inrflow.dynamics.states import CodeData
from inrflow.numerics.matrix_functions import flow, slow_enough

_CORRECTIONS, _CONVERGED = 8, 0.99  # of a fit, and times the error before: further ones would gain less


@dataclass
class Moments:
    """Transitions of each environment, on [1, codes], and the step that all of them have in common, None where they
    have none."""

    transitions: list[Transitions]
    step: float | None = None

    @property
    def size(self) -> int:
        """Number of codes n."""
        return self.transitions[0].start.shape[-1] - 1

    @property
    def counts(self) -> Tensor:
        """Transitions (E,) of each environment."""
        return torch.tensor([len(pairs.start) for pairs in self.transitions])

    def truncated(self, size: int) -> Moments:
        """The first `size` codes."""
        return Moments([pairs.truncated(size + 1) for pairs in self.transitions], self.step)

    def first_guess(self) -> tuple[Tensor, Tensor]:
        """Normal equations (E, m, m) and (E, n, m) of the trapezoidal rule, which needs no guess; m = n + 1."""
        parts = [
            _products(pairs.step[:, None] * (pairs.start + pairs.end) / 2, pairs.end - pairs.start)
            for pairs in self.transitions
        ]
        return _stacked(parts)

    def about(self, generators: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normal equations (E, m, m) and (E, n, m) about generators (E, m, m), and the sum of squares (E,) of what
        their flow misses at the end of the steps."""
        parts, errors = [], []
        for pairs, generator in zip(self.transitions, generators, strict=True):
            middle = self._carried(generator, pairs.start, pairs.step, 0.5)
            predicted = self._carried(generator, middle, pairs.step, 0.5)
            missed = self._carried(generator, pairs.end - predicted, pairs.step, -0.5)
            moment = pairs.step[:, None] * (pairs.start + 4 * middle + predicted) / 6  # Simpson's rule
            gram, target = _products(moment, missed)
            parts.append((gram, target + (generator @ gram)[1:]))
            errors.append((pairs.end - predicted).square().sum())
        return *_stacked(parts), torch.stack(errors)

    def variance(self) -> Tensor:
        """Sum of squares (E,) of the change over a step: what no motion at all misses."""
        return torch.stack([(pairs.end - pairs.start).square().sum() for pairs in self.transitions])

    def _carried(self, generator: Tensor, states: Tensor, steps: Tensor, share: float) -> Tensor:
        """States (P, m) carried over a share of their steps (P,)."""
        if self.step is None:
            return flow(generator, states, share * steps)
        return states @ torch.linalg.matrix_exp(share * self.step * generator).T


def moments_of(data: CodeData, environment: Tensor, environments: int) -> Moments:
    """Moments of codes of trajectories that belong to environments (S,) numbered from 0.

    An environment without any transition has moments of zero.
    """
    every = []
    for e in range(environments):
        rows = environment == e
        pairs = transitions_of(data.codes[rows], data.t[rows], data.observed[rows]) if bool(rows.any()) else None
        if pairs is None:
            empty = data.codes.new_zeros(0, data.codes.shape[-1]).double()
            pairs = Transitions(empty, empty, empty[:, 0], empty[:, 0])
        every.append(_with_one(pairs))
    steps = torch.cat([pairs.step for pairs in every])
    common = len(steps) and bool((steps - steps[0]).abs().max() < 1e-4 * steps[0].abs())
    return Moments(every, float(steps.median()) if common else None)


def _products(moment: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return moment.T @ moment, (target.T @ moment)[1:]


def _stacked(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([gram for gram, _ in parts]), torch.stack([target for _, target in parts])


def _with_one(pairs: Transitions) -> Transitions:
    """The transitions of [1, s]."""
    start, end = (torch.nn.functional.pad(state, (1, 0), value=1.0) for state in (pairs.start, pairs.end))
    return Transitions(start, end, pairs.t, pairs.step)


def fit_irregular(transitions: Transitions, ridge: float) -> tuple[Tensor, Tensor]:
    """Matrix A (n, n) and bias b (n,) of ds/dt = A s + b from transitions over unequal steps.

    From the trapezoidal rule on, corrected by what the exact affine flow misses; exact where the data are. The ridge is
    relative to the mean square of the states and spares the bias.
    """
    moments = Moments([_with_one(transitions)])
    generator = best = torch.zeros(1, moments.size + 1, moments.size + 1, dtype=torch.float64)
    least = math.inf
    for iteration in range(_CORRECTIONS + 1):
        if iteration:
            grams, targets, errors = moments.about(generator)
            error = float(errors)
            if error < least:
                best = generator
            if not error < _CONVERGED * least:
                break
            least = error
        else:
            grams, targets = moments.first_guess()
        gram = grams[0]
        gram.diagonal()[1:].add_(ridge * gram.diagonal()[1:].mean())
        gram.diagonal()[0].add_(1e-12 * gram[0, 0])
        generator = torch.nn.functional.pad(torch.linalg.solve(gram, targets[0].T).T, (0, 0, 1, 0))[None]
    return slow_enough(best[0, 1:, 1:], best[0, 1:, 0], float(transitions.step.median()))
