"""Sparse regression of a local equation: which terms, of what strength, and how they depend on contexts.

Coefficients are a fixed point: those that explain the transitions along their own flow, found with Anderson
acceleration (1965). In every round the terms that the data do not support are eliminated, the least significant first,
so that the equation holds beyond the training data; the next round starts from all terms again. Held-out trajectories
give the validation error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.pde_terms import Term
from inrflow.dynamics.fitting.alternate import alternate, departures, leading_contexts
from inrflow.dynamics.fitting.transitions_of_pde import EquationFit, refinable
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData
from inrflow.numerics.normal_equations import NormalEquations

#: Validation error, share of the variance, of an equation with the contexts (E, P) of the training environments.
Judge = Callable[[LocalEquation, Tensor], float]

_ROUNDS, _REFINING = 40, 10  # rounds at most, and for fewer terms
_SHARED = 6  # rounds for all systems together, before each has contexts
_PATIENCE = 3  # rounds without a gain
_HISTORY = 5
_RIDGE = 1e-12
_FIRST_RIDGES = (1e-12, 1e-6, 1e-4, 1e-3, 1e-2)
_FORCED = 0.5  # share of the misfit that a force must take off
_LEVELS = (1.2, 2.0, 4.0)  # times the misfit with all terms, to which terms are struck out
_SIMPLER = 1.05  # times the error: an equation of fewer terms is taken up to here
_SETTLED = 0.97
_ROUGH = 0.02  # share of the change: paths that leave more are too wrong to say which terms are needed
_POOR, _DIVERGED = 0.5, 2.0  # share of the variance
_NEAR, _SLOW = 0.02, 0.5  # share of the variance from which rounds must gain this much
_HOPELESS = 0.5  # share of the change that polynomials through frames leave: so much is not explained by these terms


@dataclass(frozen=True)
class FoundEquation:
    """An equation, the contexts (E, P) of its training environments, its validation error, the misfit of a step.

    along: the windows of its refinement (`along_trajectories`), empty without one.
    """

    equation: LocalEquation
    contexts: Tensor
    score: float
    misfit: float
    along: str = ""


@dataclass
class EquationSearch:
    """Search on codes of training trajectories.

    Attributes:
        basis, states: of the codes.
        judge: the validation error.
        environment: (S,) numbers from 0; None for one system.
        known: (E, P) contexts that are known; None to find them.
        more: called before every round but the first of a library; False ends the search with the best so far.
        enough: whether an error is so small that only eliminations remain. Above it, a list short enough to be refined
            along the exact flow is left to the refinement as soon as rounds gain little.
    """

    basis: LocalBasis
    states: CodeData
    judge: Judge
    environment: Tensor | None = None
    known: Tensor | None = None
    more: Callable[[], bool] = lambda: True
    enough: Callable[[float], bool] = lambda error: True

    def __post_init__(self) -> None:
        self.closest: FoundEquation  # of the last rounds, the one whose steps miss least

    def search(self, terms: Sequence[Term], count: int = 0) -> FoundEquation | None:
        """The best equation of these terms with `count` contexts; None where none can be integrated."""
        fit = EquationFit(self.basis, self.states, terms, self.environment)
        parts = fit.gathered(None)
        total = NormalEquations.total(parts)
        kept = total.something()
        forced = self._forced(total, kept)
        pooled = total.solve(kept, forced, _RIDGE)
        if total.misfit(pooled, forced) > _HOPELESS:
            return None
        nothing = torch.zeros(fit.environments, 0, dtype=torch.float64)
        best = self._rounds(fit, parts, nothing, forced, _LEVELS[0], _ROUNDS if not count else _SHARED)
        if best is None:
            return None
        if count:
            parts = self._gathered(fit, best.equation, nothing)
            contexts = self.known
            if contexts is None:
                total = NormalEquations.total(parts)
                pooled = best.equation.weights.flatten()
                contexts = leading_contexts(departures(parts, pooled, total.something()), total.gram, count)
            best = self._rounds(fit, parts, contexts, forced, _LEVELS[0], _ROUNDS)
        if best is None or best.score > _POOR or self._left(fit, best.score):
            return best
        tried = best.equation.coefficients
        for level in _LEVELS[1:] if self.more() else ():
            parts = self._gathered(fit, self.closest.equation, self.closest.contexts)
            joined = NormalEquations.joined(parts, self.closest.contexts)
            fewer = int(joined.needed(joined.something(), forced, level).sum())
            if fewer >= tried:
                continue
            tried = fewer
            simpler = self._rounds(fit, parts, self.closest.contexts, forced, level, _REFINING)
            if (
                simpler is not None and simpler.score < _SIMPLER * best.score
                and simpler.equation.coefficients < best.equation.coefficients
            ):
                best = simpler
        return best

    def refit(self, fitted: FoundEquation, rows: Tensor | None = None) -> FoundEquation:
        """The same terms fitted once more, along the equation's flow, to the codes of this search.

        rows: (S,) numbers of their environments among those of the equation.
        """
        if rows is None:
            rows = torch.zeros(len(self.states.codes), dtype=torch.int64)
        contexts = fitted.contexts[: int(rows.max()) + 1]
        fit = EquationFit(self.basis, self.states, fitted.equation.terms, rows, contexts=contexts)
        ((_, equation),) = fit.solutions(fitted.equation, [_RIDGE])
        return replace(fitted, equation=equation, along="")

    def _rounds(
        self, fit: EquationFit, parts: list[NormalEquations], contexts: Tensor, forced: bool, level: float, most: int
    ) -> FoundEquation | None:
        """The best iterate towards the fixed point, with the fewest terms whose misfit is `level` times the least."""
        fixed = self.known is not None or not contexts.shape[1]
        every = NormalEquations.total(parts).something().repeat(1 + contexts.shape[1])
        units = NormalEquations.total(parts).units().repeat(1 + contexts.shape[1])
        best: FoundEquation | None = None
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        before: tuple[Tensor, Tensor] | None = None  # coefficients that were needed, and their values in units
        unchanged, rough, least, last = 0, level == _LEVELS[0], float("inf"), float("inf")
        for round_ in range(most):
            if round_ and not self.more():
                break
            if not fixed:
                contexts = alternate(parts, contexts, every if before is None else before[0], forced, False, _RIDGE)[1]
            joined = NormalEquations.joined(parts, contexts)
            needed = every if rough else joined.needed(every, forced, level)
            ridge = self._safe_ridge(fit, joined, contexts, needed, forced) if round_ == 0 and rough else _RIDGE
            flat = joined.solve(needed, forced, ridge)
            misfit, state = joined.misfit(flat, forced), flat * units
            rough = rough and misfit > _ROUGH
            if before is not None and fixed and torch.equal(needed, before[0]):
                inputs, outputs = [*inputs, before[1]][-_HISTORY:], [*outputs, state][-_HISTORY:]
                state = accelerated(inputs, outputs)
            else:
                inputs, outputs = [], []
            before = needed, state
            equation = fit.equation(joined, state / units, forced)
            score = self.judge(equation, contexts)
            unchanged = 0 if best is None or score < _SETTLED * best.score else unchanged + 1
            if best is None or score < best.score:
                best = FoundEquation(equation, contexts, score, misfit)
            if misfit < least or round_ == 0:
                self.closest = FoundEquation(equation, contexts, score, misfit)
            if misfit < _SETTLED * least:
                least, unchanged = misfit, min(unchanged, _PATIENCE)
            slow = score > _SLOW * last and best.score < _NEAR and self._left(fit, best.score)
            last = score
            hopeless = round_ >= _PATIENCE and not best.score < _DIVERGED and least > _HOPELESS
            if slow or hopeless or unchanged > _PATIENCE:
                break
            parts = self._gathered(fit, equation, contexts)
        return best if best is not None and best.score < float("inf") else None

    def _left(self, fit: EquationFit, error: float) -> bool:
        """Whether the remaining error is left to the refinement."""
        return bool(fit.products) and refinable(fit.terms, self.basis.channels) and not self.enough(error)

    def _safe_ridge(
        self, fit: EquationFit, joined: NormalEquations, contexts: Tensor, needed: Tensor, forced: bool
    ) -> float:
        """The ridge of a first guess whose flow misses least: fits along polynomials may diverge."""

        def missed(ridge: float) -> float:
            equation = fit.equation(joined, joined.solve(needed, forced, ridge), forced)
            return fit.missed(equation, contexts if contexts.shape[1] else None)

        return min(_FIRST_RIDGES, key=missed)

    def _forced(self, total: NormalEquations, kept: Tensor) -> bool:
        with_, without = (total.misfit(total.solve(kept, one, _RIDGE), one) for one in (True, False))
        return with_ < _FORCED * without

    def _gathered(self, fit: EquationFit, equation: LocalEquation | None, contexts: Tensor) -> list[NormalEquations]:
        if equation is None:
            return fit.gathered(None)
        return fit.gathered(equation, contexts if len(equation.several) > 1 else None)


def accelerated(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """The next input of a fixed-point iteration from the last ones and what came out (Anderson 1965)."""
    if len(inputs) < 2:
        return outputs[-1]
    missed = torch.stack([(out - one).flatten() for one, out in zip(inputs, outputs, strict=True)])
    moved = torch.stack([out.flatten() for out in outputs])
    steps = (missed[1:] - missed[:-1]).T
    share = torch.linalg.lstsq(steps, missed[-1:].T, driver="gelsd").solution[:, 0]
    return outputs[-1] - ((moved[1:] - moved[:-1]).T @ share).reshape(outputs[-1].shape)
