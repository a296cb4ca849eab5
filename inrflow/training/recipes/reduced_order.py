"""Which closed-form dynamics a run takes: linear or quadratic, of how many codes, and whether further modes follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from inrflow.decoders.base import Decoder
from inrflow.decoders.closure import ClosureDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fitting.linear_search import RIDGES, ClosedForm, ClosedFormSearch
from inrflow.dynamics.libraries.quadratic import QuadraticForm
from inrflow.dynamics.states import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.judge import (
    DETERMINED,
    LINEAR_SUFFICES,
    FieldSettings,
    candidate_sizes,
    closer_sizes,
    linear_field,
)
from inrflow.training.parts.quadratic import QuadraticStage
from inrflow.training.problem import CLEARLY_BETTER, CLEARLY_BETTER_ON_FEW, GOOD_ENOUGH, TrainingSetup

_QUADRATIC_SHARE = 0.2
_TOLD = 0.01  # of the variance: forecasts that err by less show that the data do determine the dynamics
_CLOSURE_MODES = 128


@dataclass(frozen=True)
class ChosenDynamics:
    """What was chosen and from what.

    Attributes:
        search, fit: linear closed form; quadratic: in its place, of the same memory, where validation prefers it.
        codes, held: of the training trajectories and their copies, originals first, and of validation ones, if any.
    """

    search: ClosedFormSearch
    fit: ClosedForm
    codes: CodeData
    held: CodeData | None
    quadratic: QuadraticForm | None = None

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.fit.candidate.size if self.quadratic is None else self.quadratic.size - self.memory

    @property
    def memory(self) -> int:
        """Number of memory dimensions."""
        return self.fit.candidate.memory

    @property
    def past(self) -> int:
        """Frames before the present one that memory looks back on."""
        return self.fit.candidate.past

    @property
    def score(self) -> float:
        """Validation error, share of the variance of the codes."""
        return self.fit.score if self.quadratic is None else self.quadratic.score


def closed_form_search(
    setup: TrainingSetup, training: CodeData, held: CodeData | None, floor: float
) -> ClosedFormSearch:
    """The search for closed-form dynamics on these codes."""
    return ClosedFormSearch(
        training,
        held,
        setup.forcing_period(),
        setup.config.dynamics.forcing_harmonics,
        originals=len(setup.training),
        floor=floor,
    )


def sizes_to_try(setup: TrainingSetup, modes: OutputModes, training: CodeData) -> list[int]:
    """Code sizes to try."""
    return candidate_sizes(modes.variances, training.transitions, setup.config.decoder.code_size)


def field_settings(setup: TrainingSetup) -> FieldSettings:
    """What the configuration says of the vector field."""
    dynamics = setup.config.dynamics
    return FieldSettings(
        setup.forcing_period(), dynamics.forcing_harmonics, dynamics.width, dynamics.depth
    )


def choose_closed_form(
    setup: TrainingSetup, search: ClosedFormSearch, sizes: list[int], codes: CodeData, held: CodeData | None
) -> ClosedForm:
    """The closed-form dynamics that validation prefers, told to the user."""
    memory = setup.config.dynamics.memory
    memories = (0.0, 0.5, 1.0) if memory is None and held is None else (0.0,)
    transitions = codes.transitions
    if held is None and not setup.config.decoder.code_size:
        sizes = closer_sizes(sizes, min(transitions, codes.codes.shape[-1]))
    if memory:
        sizes = sizes if setup.config.decoder.code_size else [max(memory, min(sizes, key=lambda z: abs(z - memory)))]
        memories = (memory / sizes[0],)
    fit = search.search(sizes, memories, RIDGES)
    chosen = fit.candidate
    setup.recorder.say(
        f"closed-form dynamics: {chosen.size} codes, {chosen.memory} memory, ridge {chosen.ridge:g}, validation "
        f"error {fit.score:.2e} of the variance (decoder alone {search.floor:.1e})"
    )
    if transitions < DETERMINED * (chosen.size + chosen.memory) and fit.score > _TOLD:
        setup.recorder.say(
            f"the data do not determine the dynamics: {transitions} transitions for {chosen.size + chosen.memory} "
            "state dimensions; declare symmetries or give more trajectories"
        )
    setup.recorder.log("closed_form", 0, validation=fit.score, code_size=chosen.size, memory=chosen.memory)
    return fit


def choose_quadratic(
    setup: TrainingSetup, fit: ClosedForm, floor: float, sizes: list[int], codes: CodeData, held: CodeData | None
) -> QuadraticForm | None:
    """Quadratic closed-form dynamics, where the linear ones leave something and validation prefers them."""
    settings = setup.config.dynamics
    if (
        settings.products == 0 or not settings.linear or fit.candidate.memory or setup.forcing_period()
        or fit.score < max(LINEAR_SUFFICES * floor, GOOD_ENOUGH)
    ):
        return None
    taught, judged, first = setup.judging(codes, held)
    stage = QuadraticStage(taught, judged, first, setup.recorder)
    count = stage.count(settings.products, 60 * setup.config.training.minutes * _QUADRATIC_SHARE)
    settings.products = count
    setup.save_config()
    found = stage.search(sizes, count) if count else None
    if found is None:
        return None
    needed, linear = CLEARLY_BETTER, fit.score
    if held is None:  # the linear dynamics were judged by frames left out, these by the last frames: both by the latter
        needed = CLEARLY_BETTER_ON_FEW
        determined = max(1, int(taught.transitions / DETERMINED))
        fewer = replace(fit.candidate, size=min(fit.candidate.size, determined))
        early = closed_form_search(setup, taught, None, floor).fit(fewer)
        linear = stage.error(linear_field(early, field_settings(setup)))
    if found.score > needed * linear:
        return None
    setup.recorder.say(
        f"quadratic closed-form dynamics: {found.size} codes, {len(found.left)} products, ridges "
        f"{', '.join(f'{r:g}' for r in found.ridges)}, validation error {found.score:.2e} of the variance"
    )
    setup.recorder.log("quadratic", 1, validation=found.score, code_size=found.size)
    return found


def choose_closure(
    setup: TrainingSetup, decoder: ModulatedSiren, modes: OutputModes, size: int, codes: CodeData
) -> tuple[Decoder, GaussianPrior] | None:
    """A decoder whose further modes follow the leading codes, where held-out frames say that it pays."""
    wide = modes.truncated(min(len(modes.variances), max(_CLOSURE_MODES, 2 * size)))
    decoder.set_output(wide.mean, wide.modes)
    closed = ClosureDecoder(decoder, size).to(setup.device)
    observed = torch.where(codes.observed[..., None], codes.codes, torch.nan)
    errors = closed.fit(observed[..., : len(wide.variances)].float(), seed=setup.config.seed)
    setup.recorder.say(
        f"closure: held-out error of the further modes {errors.without_closure:.2e} without it, "
        f"{errors.with_closure:.2e} with it" + ("" if errors.worthwhile else "; it is left out")
    )
    if not errors.worthwhile:
        return None
    prior = modes.truncated(size).prior()
    share = errors.with_closure / max(errors.without_closure, 1e-300)
    prior.noise = wide.noise.double() + share * (prior.noise - wide.noise.double()).clamp(min=0)
    return closed.eval(), prior
