"""Dynamics that commute with translations and depend on contexts, as a candidate: how many, and whether products do."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrflow.dynamics.contexts.of_waves import solve_contexts, start_contexts
from inrflow.dynamics.libraries.spectral import SpectralFit, SpectralForm
from inrflow.dynamics.libraries.waves import SpectralOperator
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.training.recorder import Interrupted, Recorder

_ROUNDS = 12
_BETTER = 0.95
_CLEARLY_BETTER = 0.95
_WORSE = 1.1  # times the error before: a refit that forecasts its own data worse has failed
_ENOUGH = 1.2  # transitions for each unknown of a wave
_CUT_OFF = 1.5  # times what the number of codes cuts off: no dynamics of so many come below that


@dataclass(frozen=True)
class SpectralContextForm:
    """A form whose operator has contexts, and those (E, P) of the training environments."""

    form: SpectralForm
    contexts: Tensor

    @property
    def score(self) -> float:
        """Validation error, share of the variance of the codes."""
        return self.form.score

    def refit(self, states: CodeData, rows: Tensor) -> SpectralContextForm:
        """Coefficients solved once more from other codes, whose environments are `rows`; those there were, where the
        new ones forecast these codes worse."""
        operator, waves, contexts = self.form.operator, self.form.waves, self.contexts[rows]
        fit = SpectralFit(states, waves.labels, None, bool(len(waves.out)), contexts, operator.coupled)
        ((_, solved),) = fit.solutions(operator, [self.form.ridges[-1]])
        if solved is None:
            return self
        before, after = (fit.rollout_error(one, states, 0, contexts) for one in (operator, solved))
        if not after < _WORSE * before:
            return self
        form = SpectralForm(waves, solved, None, self.form.ridges, self.score)
        return SpectralContextForm(form, self.contexts)


@dataclass(frozen=True)
class SpectralContexts:
    """Search on codes of training trajectories whose environments are `rows` (S,), judged on held-out ones of the
    environments `held_rows`, all of them among those of training."""

    taught: CodeData
    rows: Tensor
    held: CodeData
    held_rows: Tensor
    recorder: Recorder

    def search(self, plain: SpectralForm, counts: tuple[int, ...], known: Tensor | None) -> SpectralContextForm | None:
        """The best with so many contexts, more of them and products that depend on them only where clearly better.

        `plain`: the form without contexts. `known`: (E, P) contexts to begin with, None to find them.
        """
        labels, best = plain.waves.labels, None
        for products in (False, True)[: 1 + bool(len(plain.waves.out))]:  # products may stand for contexts, badly
            fit = SpectralFit(self.taught, labels, None, products, self.taught.codes.new_zeros(len(self.rows), 0))
            shared: SpectralForm | None = plain
            if products != bool(len(plain.waves.out)):
                shared = fit.search(self.held, 0)
            if shared is not None:
                best = self._better(best, self._search(fit, shared, counts, known))
        return best

    def _search(
        self, fit: SpectralFit, plain: SpectralForm, counts: tuple[int, ...], known: Tensor | None
    ) -> SpectralContextForm | None:
        """The best of forms with the same features as `plain`, which `fit` has fitted."""
        labels, products = plain.waves.labels, bool(len(plain.waves.out))
        if products:
            self._warn(fit, max(counts))
        best: SpectralContextForm | None = None
        for count in counts:
            if best is not None and best.score < _CUT_OFF * self._cut_off(len(labels)):
                break
            begin = known if known is not None else start_contexts(fit, plain.operator, self.rows, count)
            best = self._better(best, self.fit(labels, plain.operator, begin, False))
        if best is not None and products and best.score > _CUT_OFF * self._cut_off(len(labels)):
            begin, operator = best.contexts, best.form.operator
            if known is None:
                begin = start_contexts(fit, plain.operator, self.rows, begin.shape[1], True)
                operator = plain.operator
            best = self._better(best, self.fit(labels, operator, begin, True, best.score))
        return best

    def fit(
        self, labels: HarmonicLabels, operator: SpectralOperator, contexts: Tensor, coupled: bool,
        needed: float = float("inf"),
    ) -> SpectralContextForm | None:
        """Coefficients and contexts in turn, from contexts (E, P); None where every field diverges, or where the first
        is not better than `needed`."""
        products = bool(operator.products.shape[1])
        best: SpectralContextForm | None = None
        for _ in range(_ROUNDS):
            if self.recorder.stopping:
                raise Interrupted
            fit = SpectralFit(self.taught, labels, None, products, contexts[self.rows], coupled)
            form = fit.search(self.held, 0, 1, contexts[self.held_rows], self._extended(fit, operator))
            if form is None or not form.score < (needed if best is None else _BETTER * best.score):
                break
            best = SpectralContextForm(form, contexts)
            self.recorder.log(
                "spectral_contexts", 0, contexts=contexts.shape[1], coupled=coupled, validation=form.score
            )
            contexts, operator = solve_contexts(fit, form.operator, self.rows, contexts)
        return best

    def _cut_off(self, size: int) -> float:
        """Share of the variance of the held-out codes beyond the first `size`."""
        codes = self.held.codes[self.held.observed].square().sum(0)
        return float(codes[size:].sum() / codes.sum())

    @staticmethod
    def _extended(fit: SpectralFit, operator: SpectralOperator) -> SpectralOperator:
        """The operator with as many contexts as the fit has, those that it lacks adding nothing."""
        contexts = operator.contexts if operator.coupled == fit.coupled else ()
        nothing = fit.nothing().contexts
        if operator.contexts and not contexts:
            contexts = tuple(
                SpectralOperator(one.constant, one.linear, none.products)
                for one, none in zip(operator.contexts, nothing, strict=True)
            )
        return SpectralOperator(operator.constant, operator.linear, operator.products, contexts or nothing)

    def _warn(self, fit: SpectralFit, contexts: int) -> None:
        """Say where there are fewer transitions than a wave's unknowns."""
        features = 1 + fit.waves.channels
        unknowns = max(last - first for first, last in fit.waves.ranges) + features * (1 + contexts)
        transitions = self.taught.transitions
        if transitions < _ENOUGH * unknowns:
            self.recorder.say(
                f"the data do not determine the dynamics: {transitions} transitions for {unknowns} unknowns of a wave; "
                "declare symmetries or give more trajectories"
            )

    @staticmethod
    def _better(
        best: SpectralContextForm | None, found: SpectralContextForm | None
    ) -> SpectralContextForm | None:
        if found is None or (best is not None and not found.score < _CLEARLY_BETTER * best.score):
            return best
        return found
