"""The end of a run: a residual where it helps, priors and calibration, the choice refitted to all trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inrflow.decoders.base import Decoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, frames_needed, memory_directions, with_memory
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import UnseenVariance
from inrflow.encoding.prior.modes import OutputModes
from inrflow.evaluation.calibration import calibrate
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training import judge as dynamics_stage
from inrflow.training.parts.codes import make_code_book
from inrflow.training.parts.decoder import fit_modes
from inrflow.training.parts.quadratic import QuadraticStage
from inrflow.training.parts.rollouts import train_residual
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import CLEARLY_BETTER, CLEARLY_BETTER_ON_FEW, TrainingSetup
from inrflow.training.recipes.reduced_order import ChosenDynamics, field_settings
from inrflow.training.refit import Refit


def finish(
    setup: TrainingSetup,
    decoder: Decoder,
    code_prior: GaussianPrior,
    chosen: ChosenDynamics,
    unseen: UnseenVariance | None,
    modes: OutputModes | None = None,
) -> Surrogate:
    """Residual training where it helps, then priors; the surrogate. With the `modes`, of which the decoder has the
    leading ones, they are fitted anew to all trajectories in the end."""
    search, fit, quadratic, training, held = chosen.search, chosen.fit, chosen.quadratic, chosen.codes, chosen.held
    dynamics, size = setup.config.dynamics, decoder.code_size
    settings = field_settings(setup)
    taught, judged, first = setup.judging(training, held)
    every = training if held is None else CodeData.join([training, held])
    early, full = fit, fit
    if quadratic is not None:
        linear = quadratic.field(dynamics.width)
    else:
        if held is None:
            early = search.fit(fit.candidate, data=taught)
        full = search.fit(fit.candidate, fit.scores, data=every)
        linear = dynamics_stage.linear_field(early, settings)
    if held is not None:  # forecasts are judged from the window that tells a state
        first = min(frames_needed(size, chosen.memory) - 1, judged.codes.shape[1] - 2)
    first = max(first, chosen.past)
    directions = early.directions
    states = with_memory(taught, size, directions)
    judged_states = with_memory(judged, size, directions)
    floor = float(code_prior.noise.mean())
    step = dynamics_stage.integration_step(linear, states.since(chosen.past), chosen.score + floor, dynamics.step)
    integrator = Integrator(dynamics.method, step, dynamics.rtol, dynamics.atol, dynamics.adjoint)

    def error(field: VectorField) -> float:
        return dynamics_stage.rollout_error(field, integrator, judged_states, judged, first, size)

    start_error = error(linear)
    field, note = linear, "closed form"
    trained = train_residual(setup, linear, states, integrator, error, start_error, floor, decoder)
    needed = CLEARLY_BETTER_ON_FEW if held is None else CLEARLY_BETTER
    if trained is not None and (not dynamics.linear or error(trained) < needed * start_error):
        field = trained.cpu().double()
        note = "closed form and trained residual" if dynamics.linear else "trained network"
    setup.recorder.say(f"dynamics: {note}, validation error {error(field):.2e} of the variance")
    final, final_states = field, states
    if field is linear:
        if quadratic is not None:  # refitted on all trajectories
            final = QuadraticStage.refit(quadratic, with_memory(every, size, directions)).field(dynamics.width)
        else:
            final = dynamics_stage.linear_field(full, settings)
        final_states = with_memory(training, size, full.directions)
    surrogate = assemble(
        setup, decoder, code_prior, field, final, integrator, final_states, judged_states.since(first), first, note,
        unseen,
    )
    setup.judged = replace(surrogate, field=field.double().eval())
    if field is not linear or modes is None or held is None or setup.source.time_bins is not None:
        return surrogate
    every = CodeData.join([setup.originals(training), held])
    before = dynamics_stage.rollout_error(
        final, integrator, with_memory(every, size, full.directions), every, first, size
    )
    return _on_all_trajectories(setup, surrogate, modes, chosen, first, before)


def assemble(
    setup: TrainingSetup,
    decoder: Decoder,
    code_prior: GaussianPrior,
    field: VectorField,
    final: VectorField,
    integrator: Integrator,
    states: CodeData,
    judged: CodeData,
    first: int,
    note: str,
    unseen: UnseenVariance | None,
) -> Surrogate:
    """The surrogate of the `final` field, with priors of its states and the errors that `field`, which has not
    seen the `judged` states, makes on them and on validation trajectories from frame `first` on.

    `unseen`: what the decoder misses where no training frame has a point.
    """
    size = decoder.code_size
    process = dynamics_stage.calibrated_process_noise(field, integrator, judged)
    mean, covariance = dynamics_stage.fit_state_prior(states, code_prior, size)
    prior = StatePrior(
        mean, covariance, code_prior.noise.double(), process, torch.ones(len(setup.description.channels)).double(),
        unseen,
    )
    memory = states.codes.shape[-1] - size
    surrogate = setup.surrogate(decoder, field, integrator, prior, note, memory)
    judging = setup.validation[:16] if len(setup.validation) else setup.training
    prior.farthest = max(prior.reach(data, size) for data in (states, judged))
    prior.spread = calibrate(surrogate, setup.source.batch(judging, normalised=False), first + 1)
    setup.recorder.log("calibration", 0, **{f"spread_{i}": float(v) for i, v in enumerate(prior.spread)})
    surrogate.field = final.double().eval()
    return surrogate


def _on_all_trajectories(
    setup: TrainingSetup, surrogate: Surrogate, modes: OutputModes, chosen: ChosenDynamics, first: int, before: float
) -> Surrogate:
    """A surrogate of closed-form dynamics fitted anew, with its modes, to the trajectories of validation too.

    `before`: error of rollouts of all trajectories from frame `first`.
    """
    search, fit, quadratic = chosen.search, chosen.fit, chosen.quadratic
    integrator, settings = surrogate.integrator, field_settings(setup)
    whole = np.arange(len(setup.source))
    augmentation = setup.augmentation(setup.symmetries)

    def codes_of_all(refitted: ModulatedSiren, new: OutputModes) -> CodeData:
        book = make_code_book(setup, refitted, new.prior(), whole, whole[:0])
        return book.with_copies(whole, augmentation, setup.config.training.steps.copies or 1, setup.config.seed)

    def memory_of(codes: CodeData) -> int:
        return round(chosen.memory / chosen.size * codes.codes.shape[-1])

    def states_of(codes: CodeData) -> CodeData:
        size, memory = codes.codes.shape[-1], memory_of(codes)
        return with_memory(codes, size, memory_directions(codes, size, memory) if memory else None)

    def field_of(codes: CodeData) -> VectorField:
        if quadratic is not None:
            states = states_of(codes)
            return QuadraticStage.refit(quadratic, states, states.codes.shape[-1]).field(settings.width)
        candidate = replace(fit.candidate, size=codes.codes.shape[-1], memory=memory_of(codes))
        return dynamics_stage.linear_field(search.fit(candidate, data=codes), settings)

    def error_on(refitted: VectorField, codes: CodeData) -> float:
        originals, states = codes.first(len(whole)), states_of(codes).first(len(whole))
        return dynamics_stage.rollout_error(
            refitted, integrator, states, originals, first, originals.codes.shape[-1]
        )

    refit = Refit(
        lambda d: fit_modes(setup, DecoderTraining(setup.source, whole, whole[:0], augmentation), d),
        codes_of_all, field_of, error_on, states_of,
    )
    surrogate, after = refit(surrogate, modes, before)
    setup.recorder.log("refit", 0, before=before, after=after, code_size=surrogate.code_size)
    return surrogate
