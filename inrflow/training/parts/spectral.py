"""Dynamics that commute with translations: how many waves, and how far from an equation or from what is known.

Fields are fitted wave by wave, and as an equation whose coefficients are polynomials in the wavenumber; what other
physics have taught is a further start. A fit wave by wave may depart from each. Validation chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.restrictions import restricted
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.libraries.pde_terms import Term
from inrflow.dynamics.libraries.spectral import SpectralFit, SpectralForm
from inrflow.dynamics.libraries.symbols import SymbolFit, product_symbols, transitions_wanted
from inrflow.dynamics.libraries.transfer import transferred_form
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.errors import UserError
from inrflow.training.problem import CLEARLY_BETTER, CLEARLY_BETTER_ON_FEW
from inrflow.training.recorder import Interrupted, Recorder

_MOST_PRODUCTS = 15_000  # of coefficients, in one field
LARGEST_SIZE = 170  # codes of fields with contexts
_GOOD_ENOUGH = 1e-9
_FIRST_WAVES = 49  # harmonics at which the search for maps begins
_GROWTH = 1.6  # of their number at a time: with more, the flow of the new ones is found wrong and may diverge
_ROUNDING = 1e-9  # share of the largest couplings of any physics below which one has none


@dataclass
class KnownPhysics:
    """What a run on other physics knows, for a new one.

    Attributes:
        names: of the physics.
        codes: names of the codes of each.
        channels: number of channels of each.
        fields: of each on its codes.
        terms: that the local equations of further physics need, by their names.
        note, scores, weights: set by the search: what was taken from them, validation errors, weights of their sum.
    """

    names: list[str]
    codes: list[list[str]]
    channels: list[int]
    fields: list[VectorField]
    terms: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    note: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)

    def operator(self, index: int, waves: Waves) -> SpectralOperator:
        """One physics on some waves; nothing where it has no codes."""
        slots = {name: i for i, name in enumerate(self.codes[index])}
        return waves.operator(restricted(self.fields[index], [slots.get(name, -1) for name in waves.labels.names()]))

    def latent(self, index: int, labels: HarmonicLabels, covered: int) -> tuple[Waves, SpectralOperator]:
        """The products of one physics, all of its channels, on the waves of a new physics' labels.

        It knows those of the first `covered` labels; beyond them it is continued by polynomials in the wavenumber.
        """
        waves = Waves(_with_channels(labels, self.channels[index]))
        if len(labels) <= covered:
            return waves, self.operator(index, waves)
        inner = Waves(_with_channels(labels.first(covered), self.channels[index]))
        known = self.operator(index, inner).products
        polynomial = torch.linalg.lstsq(product_symbols(inner).T, known.T, driver="gelsd").solution
        result = waves.nothing()
        result.products = polynomial.T @ product_symbols(waves)
        return waves, result

    def coupled(self) -> list[int]:
        """The physics that have quadratic terms."""
        largest = [_largest_coupling(field) for field in self.fields]
        return [i for i, value in enumerate(largest) if value > _ROUNDING * max(largest)]


def _largest_coupling(field: VectorField) -> float:
    couplings = field.get(Couplings)
    return 0.0 if couplings is None else float(couplings.weight.detach().abs().max())


@dataclass
class SpectralStage:
    """Search on codes of training trajectories `taught`, judged on those `judged` from frame `first` on."""

    taught: CodeData
    judged: CodeData
    first: int
    labels: HarmonicLabels
    recorder: Recorder
    known: KnownPhysics | None = None

    def search(self, sizes: list[int]) -> SpectralForm:
        """The best of linear and quadratic fields of all sizes, from nothing and from the known physics."""
        linear = SpectralFit(self.taught, self.labels.first(max(sizes)), products=False)
        best = self._logged(linear.search(self.judged, self.first), "linear")
        if best is None or best.score > _GOOD_ENOUGH:
            best = self._quadratic(sizes, best)
        if self.known is not None and self.known.names:
            best = self._from_known(self.known, best, sizes)
        if best is None:
            raise UserError("every field that was fitted diverges; give more trajectories or a shorter data.frames")
        kind = "an equation with constant coefficients" if best.equation else "fitted wave by wave"
        self.recorder.say(
            f"closed-form dynamics that commute with translations, {kind}: {best.size} codes, {len(best.waves.out)} "
            f"products, ridges {', '.join(f'{r:g}' for r in best.ridges) or 'none'}, validation error {best.score:.2e} "
            "of the variance"
        )
        self.recorder.log("spectral", 1, validation=best.score, code_size=best.size)
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
        fit = SpectralFit(self.taught, waves.labels, waves=waves, transitions=transitions_wanted(waves))
        return self._logged(SymbolFit(fit).search(self.judged, self.first), "equation")

    def _wave_by_wave(self, waves: Waves, prior: SpectralOperator | None = None) -> SpectralForm | None:
        fit = SpectralFit(self.taught, waves.labels, prior, waves=waves)
        return self._logged(fit.search(self.judged, self.first), "free" if prior is None else "departing")

    def _logged(self, found: SpectralForm | None, kind: str) -> SpectralForm | None:
        if self.recorder.stopping:
            raise Interrupted
        if found is not None:
            self.recorder.log("spectral", 0, code_size=found.size, kind=kind, validation=found.score)
        return found

    # ---- from what is known ----

    def _from_known(self, known: KnownPhysics, best: SpectralForm | None, sizes: list[int]) -> SpectralForm | None:
        """The best of `best`, a sum of the known fields, their products seen through maps, and departures from both."""
        waves = best.waves if best is not None and len(best.waves.out) else self._affordable(sizes)[-1]
        operators = [known.operator(i, waves) for i in range(len(known.names))]
        weights = SpectralFit(self.taught, waves.labels, waves=waves).weights(operators)
        known.weights = weights.tolist()
        total = waves.nothing()
        for weight, one in zip(known.weights, operators, strict=True):
            total.constant += weight * one.constant
            total.linear += weight * one.linear
            total.products += weight * one.products
        alone = SpectralFit(self.taught, waves.labels, total, waves=waves).known(self.judged, self.first)
        found: dict[str, SpectralForm | None] = {
            "from nothing": best, "sum of known physics": alone,
            "departing from their sum": self._wave_by_wave(waves, total),
        }
        for index in known.coupled():
            form = self._transferred(known, index, sizes)
            if form is not None:
                name = known.names[index]
                found[f"products of {name}"] = form
                found[f"departing from products of {name}"] = self._wave_by_wave(form.waves, form.operator)
        known.scores = {key: one.score for key, one in found.items() if one is not None and one.score < float("inf")}
        self.recorder.log("known_physics", 0, **{key.replace(" ", "_"): value for key, value in known.scores.items()})
        self.recorder.say("validation error with what is known: "
                          + ", ".join(f"{value:.2e} {key}" for key, value in known.scores.items()))
        if not known.scores:
            return None
        known.note = min(known.scores, key=known.scores.__getitem__)
        needed = CLEARLY_BETTER if self.first == 0 else CLEARLY_BETTER_ON_FEW
        if best is not None and known.scores[known.note] > needed * best.score:
            known.note = "from nothing"
        return found[known.note]

    def _transferred(self, known: KnownPhysics, index: int, sizes: list[int]) -> SpectralForm | None:
        """The products of one known physics, seen through maps of the new one's own."""
        whole = self.labels.whole_sizes()
        there = {name.split(":", 1)[1] for name in known.codes[index]}
        covered = [s for s in whole if {name.split(":", 1)[1] for name in self.labels.first(s).names()} <= there]
        if not covered:
            return None
        largest = len(self._affordable(sizes)[0].labels)
        first = min(largest, _FIRST_WAVES * (int(self.labels.channel.max()) + 1))
        rising = [min(w for w in whole if w >= first)]
        while rising[-1] < largest:
            wanted = min(largest, _GROWTH * rising[-1])
            rising.append(min(w for w in whole if w >= wanted))
        return self._logged(transferred_form(
            self.taught, self.labels, rising, lambda labels: known.latent(index, labels, covered[-1]), self.judged,
            self.first,
        ), "transferred")


def refitted(form: SpectralForm, states: CodeData) -> SpectralForm:
    """A form fitted again, as the search has found it, to other codes."""
    if form.equation:
        fit = SpectralFit(states, form.waves.labels, waves=form.waves, transitions=transitions_wanted(form.waves))
        return SymbolFit(fit).refit(form)
    return SpectralFit(states, form.waves.labels, form.prior, waves=form.waves).refit(form)


def _better(*forms: SpectralForm | None) -> SpectralForm | None:
    return min((form for form in forms if form is not None), key=lambda form: form.score, default=None)


def _with_channels(labels: HarmonicLabels, count: int) -> HarmonicLabels:
    """The waves of some labels in so many channels."""
    one = labels.of_channel(0)
    channel = torch.arange(count).repeat(len(one))
    return HarmonicLabels(one.waves.repeat_interleave(count, 0), one.sine.repeat_interleave(count), channel)
