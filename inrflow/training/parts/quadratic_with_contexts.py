"""Quadratic closed-form dynamics with contexts as a candidate: coefficients and contexts in turn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrflow.dynamics.contexts.alternate import moved_contexts
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.quadratic import QuadraticFit, QuadraticForm
from inrflow.dynamics.states import CodeData, with_contexts
from inrflow.numerics.principal_components import standardised
from inrflow.training.judge import rollout_error
from inrflow.training.recorder import Interrupted, Recorder

_STEP = 0.5
_LARGEST_SIZE, _SIZES = 200, 3
_ROUNDS = 3
_BETTER = 0.98
_DAMPING = 1e-6
_CLEARLY_BETTER = 0.95


@dataclass(frozen=True)
class ContextForm:
    """A quadratic form with the contexts (E, P) of its environments, and whether products depend on them too."""

    form: QuadraticForm
    contexts: Tensor
    coupled: bool

    @property
    def score(self) -> float:
        """Validation error, share of the variance of the codes."""
        return self.form.score


@dataclass(frozen=True)
class ContextQuadratic:
    """Search on codes of training trajectories and copies whose environments are `rows`, judged on held-out
    trajectories of the environments `held_rows`, all of them among those of training."""

    taught: CodeData
    rows: Tensor
    held: CodeData
    held_rows: Tensor
    recorder: Recorder

    def search(self, sizes: list[int], count: int, start: Tensor) -> ContextForm | None:
        """The best of all sizes from contexts (E, P), with at most so many products; None where each diverges."""
        best: ContextForm | None = None
        for size in sorted({min(size, _LARGEST_SIZE) for size in sizes}, reverse=True)[:_SIZES]:
            found = self.fit(size, count, start, False)
            if found is None:
                continue
            self.recorder.log("quadratic_contexts", 0, code_size=size, validation=found.score)
            if best is not None and not found.score < best.score:
                break
            best = found
        if best is None:
            return None
        coupled = self.fit(best.form.size, count // (1 + start.shape[1]), best.contexts, True)
        return coupled if coupled is not None and coupled.score < _CLEARLY_BETTER * best.score else best

    def fit(self, size: int, count: int, contexts: Tensor, coupled: bool) -> ContextForm | None:
        """Coefficients and contexts in turn, from contexts (E, P); None where every field diverges."""
        fit = self._fit_at(contexts, size, count, coupled)
        form = fit.search(lambda field: self.error(field, contexts))
        if form is None:
            return None
        best = ContextForm(form, contexts, coupled)
        for _ in range(_ROUNDS):
            if self.recorder.stopping:
                raise Interrupted
            theta = fit.coefficients(best.form)
            moved = moved_contexts(fit.context_effects(theta), self.rows, best.contexts, _DAMPING)
            contexts = standardised(moved)[0]
            fit = self._fit_at(contexts, size, count, coupled)
            form = fit.refit(best.form.ridges)
            found = ContextForm(form.scored(self.error(form.field(), contexts)), contexts, coupled)
            if not found.score < _BETTER * best.score:
                break
            best = found
        return best

    def error(self, field: VectorField, contexts: Tensor) -> float:
        """Validation error, share of the variance of the codes: what the size cuts off counts."""
        size = field.shape.state_size
        states = with_contexts(self.held, size, contexts[self.held_rows])
        return rollout_error(field, Integrator(step=_STEP), states, self.held, 0, size)

    def _fit_at(self, contexts: Tensor, size: int, count: int, coupled: bool) -> QuadraticFit:
        return QuadraticFit(with_contexts(self.taught, size, contexts[self.rows]), count, contexts.shape[1], coupled)


def refitted(found: ContextForm, states: CodeData, rows: Tensor) -> ContextForm:
    """The form fitted anew, with its ridges and contexts, to codes whose environments are `rows`."""
    data = with_contexts(states, found.form.size, found.contexts[rows])
    fit = QuadraticFit(data, len(found.form.left), found.contexts.shape[1], found.coupled)
    return ContextForm(fit.refit(found.form.ridges), found.contexts, found.coupled)
