"""Dynamics that commute with translations: how many waves, and how far from what other physics have taught."""

from __future__ import annotations

from dataclasses import dataclass, field

from inrflow.dynamics.quadratic_fields import combined, restricted
from inrflow.dynamics.spectral_fit import SpectralFit, SpectralForm
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.vector_field import VectorField
from inrflow.encoding.harmonic_codes import HarmonicLabels
from inrflow.errors import UserError
from inrflow.training.recorder import Interrupted, Recorder

LARGEST_SIZE = 170
_GOOD_ENOUGH = 1e-9


@dataclass
class KnownPhysics:
    """What a run on other physics knows, for a new one.

    Attributes:
        names: of the physics.
        codes: names of the slots of the shared latent space.
        fields: of each physics on all of the slots.
        note, scores, weights: set by the search: what was taken from them, validation errors, weights of their sum.
    """

    names: list[str]
    codes: list[str]
    fields: list[VectorField]
    note: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)


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
        best = linear.search(self.judged, self.first)
        if best is not None:
            self.recorder.log("spectral", 0, code_size=best.size, products=False, validation=best.score)
        if best is None or best.score > _GOOD_ENOUGH:
            best = self._quadratic(sizes, best)
        if self.known is not None:
            best = self._from_known(best, best.size if best is not None else min(sizes))
        if best is None:
            raise UserError("every field that was fitted diverges; give more trajectories or a shorter data.frames")
        self.recorder.say(
            f"closed-form dynamics that commute with translations: {best.size} codes, {len(best.waves.out)} products, "
            f"ridges {', '.join(f'{r:g}' for r in best.ridges)}, validation error {best.score:.2e} of the variance"
        )
        self.recorder.log("spectral", 1, validation=best.score, code_size=best.size)
        return best

    def _quadratic(self, sizes: list[int], linear: SpectralForm | None) -> SpectralForm | None:
        """The best of quadratic fields and the linear one, from the largest size down."""
        sizes = sorted({size for size in sizes if size <= LARGEST_SIZE} or {min(sizes)}, reverse=True)[:2]
        best = linear
        for size in sizes:
            found = SpectralFit(self.taught, self.labels.first(size)).search(self.judged, self.first)
            if self.recorder.stopping:
                raise Interrupted
            if found is None:
                continue
            self.recorder.log("spectral", 0, code_size=size, validation=found.score)
            if best is not None and best is not linear and found.score > best.score:
                break
            if best is None or found.score < best.score:
                best = found
        return best

    def _from_known(self, best: SpectralForm | None, size: int) -> SpectralForm | None:
        """The better of `best` and fits that depart from a sum of the known fields, whose weights are solved."""
        known = self.known
        assert known is not None
        labels = self.labels.first(size)
        slots = {name: i for i, name in enumerate(known.codes)}
        places = [slots.get(name, -1) for name in labels.names()]
        fields = [restricted(one, places) for one in known.fields]
        weights = SpectralFit(self.taught, labels).weights(fields)
        base = combined(fields, weights)
        fit = SpectralFit(self.taught, labels, base)
        alone = fit.rollout_error(fit.nothing(), self.judged, self.first)
        found = fit.search(self.judged, self.first)
        parts = ", ".join(f"{w:.2g} {name}" for w, name in zip(weights.tolist(), known.names, strict=True))
        scores = {"from nothing": best.score if best is not None else float("inf"), "known physics alone": alone,
                  "departing from known physics": found.score if found is not None else float("inf")}
        self.recorder.log("known_physics", 0, **{key.replace(" ", "_"): value for key, value in scores.items()
                                                 if value < float("inf")})
        known.scores = {key: value for key, value in scores.items() if value < float("inf")}
        known.weights = weights.tolist()
        chosen = min(scores, key=scores.__getitem__)
        known.note = f"{chosen} ({parts})" if chosen != "from nothing" else chosen
        self.recorder.say(
            f"shared dynamics: {parts}; validation error "
            + ", ".join(f"{value:.2e} {key}" for key, value in scores.items())
        )
        if chosen == "from nothing":
            return best
        return found if chosen != "known physics alone" else SpectralForm(fit.waves, fit.nothing(), base, (), alone)
