"""Model selection for linear fields with contexts, A(c) = A_0 + sum_k c_k A_k: code size, context size and ridge.

Candidates are scored by rollouts of held-out trajectories of the same environments. The context of a trajectory from a
new environment (if every trajectory has its own, for example) is estimated from its own transitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from inrflow.dynamics.fitting.linear import (
    ROUNDING,
    ContextFit,
    Moments,
    affine_rollout,
    contexts_of,
    moments_of,
    refine,
    solve_operators,
    transitions_of,
)
from inrflow.dynamics.states import evenly_spread
from inrflow.encoding.encode import CodeData
from inrflow.numerics.matrix_functions import flow
from inrflow.numerics.principal_components import standardised
from inrflow.numerics.ridge import ridge_grid

_FIRST_RIDGE = 1e-8
_RIDGES = (1e-16, *(ridge for ridge in ridge_grid(-12, -2) if ridge != _FIRST_RIDGE))
_CLEARLY_BETTER, _FAR_BETTER = 0.95, 0.1
_ENOUGH = 1.2  # transitions required for each unknown of a row of the operators
_MOMENT_VALUES = 1.2e8
_SMALL = 48  # codes used for the initial fit of contexts
_ROUNDS, _REFINED = 40, 6


class ContextSearch:
    """Fitting and validation of linear fields with contexts.

    Args:
        training, environment: codes (S, T, n) of training trajectories and copies, and the number (S,) of the
            environment of each, from 0 to `environments` - 1.
        held, held_environment: the same for held-out trajectories; -1 for environments not in the training data.
        floor: error of the decoder alone, relative to the variance.
        given: candidate contexts (E, P) computed from known parameters; contexts from these are not fitted.
    """

    def __init__(
        self, training: CodeData, environment: Tensor, environments: int, held: CodeData, held_environment: Tensor,
        floor: float = 0.0, given: Sequence[Tensor] = ()
    ) -> None:
        self.training, self.held, self.held_environment = training, held, held_environment
        self.moments = moments_of(training, environment, environments)
        pairs = transitions_of(training)
        self.step = float(pairs.step.median()) if pairs.uniform else None
        self.floor, self.given = floor, given
        self.transitions = int(self.moments.counts.sum())
        self.new = (held_environment < 0).nonzero()[:, 0]
        self.new_moments: Moments | None = None
        if len(self.new):
            self.new_moments = moments_of(held.at(self.new), torch.arange(len(self.new)), len(self.new))

    def determined(self, size: int, contexts: int) -> bool:
        """Whether there are more transitions than unknowns, by a factor of 1.2."""
        return self.transitions >= _ENOUGH * (1 + contexts) * (1 + size)

    def fit(
        self, size: int, contexts: Tensor, ridge: float, given: bool = False,
        data: tuple[CodeData, Tensor] | None = None,
    ) -> ContextFit:
        """A field for the first `size` codes, with contexts fixed (`given`) or refitted; from the training data or from
        `data`, codes and the number (S,) of the environment of each."""
        moments = self.moments if data is None else moments_of(*data, len(self.moments.counts))
        return refine(moments.truncated(size), contexts, ridge, _REFINED, given=given)

    def held_contexts(self, fit: ContextFit) -> Tensor:
        """Contexts (S, P) of the held-out trajectories for a fitted field."""
        contexts = fit.contexts[self.held_environment]  # of new environments, -1, replaced below
        if self.new_moments is not None:
            contexts[self.new] = contexts_of(self.new_moments.truncated(fit.size), fit.operators)
        return contexts

    def score(self, fit: ContextFit) -> float:
        """Mean squared error of rollouts of the held-out trajectories, from their first observed frames, relative to
        the variance of the codes; codes beyond the size of the field count as errors."""
        held, step, size = self.held, self.step, fit.size
        distinct, which = torch.unique(self.held_contexts(fit), dim=0, return_inverse=True)
        generators = fit.generators(distinct)

        def move(state: Tensor, gap: Tensor) -> Tensor:
            moved = torch.empty_like(state)
            for index, generator in enumerate(generators):
                rows = which == index
                moved[rows] = flow(generator, state[rows], gap[rows])
            return moved

        maps = torch.linalg.matrix_exp(generators * step)[which] if step else None
        forecast, seen = affine_rollout(replace(held, codes=held.codes[..., :size]), step, maps, move)
        error = held.codes[:, 1:].double().clone()
        error[..., :size] -= forecast
        value = float(error[seen].square().sum(1).mean()) if bool(seen.any()) else math.inf
        return value / self.training.variance if value == value else math.inf

    def search(self, sizes: Sequence[int], counts: Sequence[int]) -> tuple[ContextFit, float]:
        """The field of the best sizes and ridge, and its validation error relative to the variance of the codes. Larger
        fields must be clearly better than smaller ones, fitted contexts far better than known ones."""
        tried: dict[tuple[bool, int, int, float], tuple[ContextFit, float]] = {}
        limit = int((_MOMENT_VALUES / max(1, len(self.moments.counts))) ** 0.5)

        def fitted(size: int, start: Tensor, ridge: float, given: bool) -> None:
            key = not given, start.shape[1], size, -ridge
            if key not in tried:
                fit = self.fit(size, start, ridge, given)
                tried[key] = fit, self.score(fit)

        def of_sizes(start: Tensor, given: bool) -> None:
            possible = [size for size in sizes if self.determined(size, start.shape[1]) and size <= limit]
            possible = sorted(set(possible)) or [min(sizes)]
            wanted = set(evenly_spread(len(possible), 6).tolist())
            if tried and (size := best()[0].size) in possible:
                wanted |= {possible.index(size) + step for step in (-1, 0, 1)} & set(range(len(possible)))
            for i in sorted(wanted):
                fitted(possible[i], start, _FIRST_RIDGE, given)

        def best() -> tuple[ContextFit, float]:
            fit, error = tried[min(tried)]
            for key in sorted(tried):
                enough = _FAR_BETTER if fit.given and key[0] else _CLEARLY_BETTER
                if tried[key][1] + self.floor < enough * (error + self.floor):
                    fit, error = tried[key]
            return fit, error

        starts = [fit_contexts(self.moments, count, _FIRST_RIDGE) for count in counts]
        for start in (*starts, *starts[:-1]):  # smaller contexts again, with code sizes near the best
            of_sizes(start, False)
        if self.given:
            of_sizes(best_given(self.moments, best()[0], self.given), True)
        fit, _ = best()
        for ridge in _RIDGES:
            fitted(fit.size, fit.contexts, ridge, fit.given)
        return best()


def best_given(moments: Moments, fit: ContextFit, forms: Sequence[Tensor]) -> Tensor:
    """The best of several candidate contexts (E, P) by leave-one-out cross-validation over environments.

    Errors are differences of operators in the metric of the moments, linearised about a fit. Contexts of more numbers
    must be far better: their small coefficients can make flows unstable for parameters outside the training range.
    """
    gram, target, _ = moments.truncated(fit.size).about(fit.generators())
    own = torch.cat([solve_operators(gram[e : e + 1], target[e : e + 1], gram.new_zeros(1, 0), fit.ridge)
                     for e in range(len(gram))])
    weights = gram / torch.einsum("eni,eij,enj->e", own, gram, own)[:, None, None]  # relative to each field
    least, best = math.inf, forms[0]
    for form in forms:
        missed, bound = 0.0, (_CLEARLY_BETTER if form.shape[1] == best.shape[1] else _FAR_BETTER) * least
        for e in range(len(form)):
            rest = torch.arange(len(form)) != e
            operators = solve_operators(gram[rest], target[rest], form[rest], fit.ridge)
            apart = own[e] - torch.einsum("k,kni->ni", pad(form[e], (1, 0), value=1.0), operators)
            missed += float(torch.einsum("ni,ij,nj->", apart, weights[e], apart))
            if not missed < bound:  # the sum can only increase
                break
        else:
            least, best = missed, form
    return best


def fit_contexts(moments: Moments, context_size: int, ridge: float) -> Tensor:
    """Standardised contexts (E, P) of the environments without prior knowledge; P is at most E - 1.

    The initial guess is the principal components of the deviations of single environments' operators from the pooled
    one."""
    size = min(context_size, len(moments.counts) - 1)
    small = moments.truncated(min(_SMALL, moments.size))
    gram, target = small.first_guess()
    every = gram.mean(0) + ROUNDING * gram.mean(0).diagonal().max() * torch.eye(gram.shape[-1], dtype=gram.dtype)
    pooled = torch.linalg.solve(every, target.mean(0).T).T
    apart = torch.linalg.solve(gram + every, (target - pooled @ gram).mT)  # (E, m, n)
    table = (torch.linalg.cholesky(every).T @ apart).flatten(1)  # in the metric of their effect on rates
    values, sizes, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return refine(small, standardised((values * sizes)[:, :size])[0], ridge, _ROUNDS).contexts
