"""Search for dynamics that commute with translations: how many waves, and how far from an equation.

Fields are fitted wave by wave, and as an equation whose coefficients are polynomials in the wavenumber. A fit wave by
wave may depart from each. Validation chooses.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrflow.dynamics.contexts.of_waves import solve_contexts, start_contexts
from inrflow.dynamics.libraries.spectral import SpectralFit, SpectralForm
from inrflow.dynamics.libraries.symbols import SymbolFit, transitions_wanted
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.errors import UserError
from inrflow.training.margins import BETTER
from inrflow.training.recorder import Recorder

_MOST_PRODUCTS = 15_000  # of coefficients, in one field
LARGEST_SIZE = 170  # codes of fields with contexts
_GOOD_ENOUGH = 1e-9


@dataclass
class SpectralSearch:
    """Search on training codes, judged on others from frame `first` on."""

    train: CodeData
    validation: CodeData
    first: int
    labels: HarmonicLabels
    log: Recorder

    def search(self, sizes: list[int]) -> SpectralForm:
        """The best of linear and quadratic fields of all sizes."""
        linear = SpectralFit(self.train, self.labels.first(max(sizes)), products=False)
        best = self._logged(linear.search(self.validation, self.first), "linear")
        if best is None or best.score > _GOOD_ENOUGH:
            best = self._quadratic(sizes, best)
        if best is None:
            raise UserError("every field that was fitted diverges; give more trajectories or a shorter data.frames")
        self.log.say(
            f"closed-form dynamics that commute with translations, {best.kind}: {best.size} codes, "
            f"{len(best.waves.out)} products, ridges {', '.join(f'{r:g}' for r in best.ridges) or 'none'}, "
            f"validation error {best.score:.2e} of the variance"
        )
        self.log.log("spectral", 1, validation=best.score, code_size=best.size)
        return best

    def _quadratic(self, sizes: list[int], linear: SpectralForm | None) -> SpectralForm | None:
        """The best of quadratic fields and the linear one, from the largest size down."""
        best = linear
        for waves in self._affordable(sizes)[:2]:
            equation = self._equation(waves)
            found = _better(equation, self._wave_by_wave(waves, equation.operator if equation is not None else None))
            if found is None:
                continue
            if best is not None and best is not linear and found.score > best.score:
                break
            best = _better(best, found)
        return best

    def _affordable(self, sizes: list[int]) -> list[Waves]:
        """Waves of the sizes that do not have too many products, the smallest size at least, largest first."""
        found = []
        for size in sorted(set(sizes), reverse=True):
            waves = Waves(self.labels.first(size))
            if len(waves.out) <= _MOST_PRODUCTS or size == min(sizes):
                found.append(waves)
        return found

    def _equation(self, waves: Waves) -> SpectralForm | None:
        fit = SpectralFit(self.train, waves.labels, waves=waves, transitions=transitions_wanted(waves))
        return self._logged(SymbolFit(fit).search(self.validation, self.first), "equation")

    def _wave_by_wave(self, waves: Waves, prior: SpectralOperator | None = None) -> SpectralForm | None:
        fit = SpectralFit(self.train, waves.labels, prior, waves=waves)
        return self._logged(fit.search(self.validation, self.first), "free" if prior is None else "departing")

    def _logged(self, found: SpectralForm | None, kind: str) -> SpectralForm | None:
        if found is not None:
            self.log.log("spectral", 0, code_size=found.size, kind=kind, validation=found.score)
        return found


def refitted(form: SpectralForm, states: CodeData) -> SpectralForm:
    """A form fitted again, as the search has found it, to other codes."""
    if form.equation:
        fit = SpectralFit(states, form.waves.labels, waves=form.waves, transitions=transitions_wanted(form.waves))
        return SymbolFit(fit).refit(form)
    return SpectralFit(states, form.waves.labels, form.prior, waves=form.waves).refit(form)


def _better(*forms: SpectralForm | None) -> SpectralForm | None:
    return min((form for form in forms if form is not None), key=lambda form: form.score, default=None)


_ROUNDS = 12
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
    environments `validation_rows`, all of them among those of training."""

    train: CodeData
    rows: Tensor
    validation: CodeData
    validation_rows: Tensor
    log: Recorder

    def search(self, plain: SpectralForm, counts: tuple[int, ...], known: Tensor | None) -> SpectralContextForm | None:
        """The best with so many contexts, more of them and products that depend on them only where clearly better.

        `plain`: the form without contexts. `known`: (E, P) contexts to begin with, None to find them.
        """
        labels, best = plain.waves.labels, None
        for products in (False, True)[: 1 + bool(len(plain.waves.out))]:  # products may stand for contexts, badly
            fit = SpectralFit(self.train, labels, None, products, self.train.codes.new_zeros(len(self.rows), 0))
            shared: SpectralForm | None = plain
            if products != bool(len(plain.waves.out)):
                shared = fit.search(self.validation, 0)
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
            fit = SpectralFit(self.train, labels, None, products, contexts[self.rows], coupled)
            form = fit.search(self.validation, 0, 1, contexts[self.validation_rows], self._extended(fit, operator))
            if form is None or not form.score < (needed if best is None else BETTER * best.score):
                break
            best = SpectralContextForm(form, contexts)
            self.log.log(
                "spectral_contexts", 0, contexts=contexts.shape[1], coupled=coupled, validation=form.score
            )
            contexts, operator = solve_contexts(fit, form.operator, self.rows, contexts)
        return best

    def _cut_off(self, size: int) -> float:
        """Share of the variance of the held-out codes beyond the first `size`."""
        codes = self.validation.codes[self.validation.observed].square().sum(0)
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
        transitions = self.train.transitions
        if transitions < _ENOUGH * unknowns:
            self.log.say(
                f"the data do not determine the dynamics: {transitions} transitions for {unknowns} unknowns of a wave; "
                "declare symmetries or give more trajectories"
            )

    @staticmethod
    def _better(
        best: SpectralContextForm | None, found: SpectralContextForm | None
    ) -> SpectralContextForm | None:
        if found is None or (best is not None and not found.score < BETTER * best.score):
            return best
        return found
