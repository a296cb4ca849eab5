"""Affine decoders: harmonics of the domain or a trained SIREN trunk, and the POD modes of their features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.decoders.base import AffineDecoder, decoder_class
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.encoding.prior.modes import OutputModes
from inrflow.numerics.effort import OutOfTime, seconds_of
from inrflow.training.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.margins import BETTER, HARMONICS_SUFFICE, PATTERNS_SUFFICE, TRUNK_PAYS
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import HARMONIC_FEATURES
from inrflow.training.run import Run

_SHARE, _MODES_SHARE = 0.3, 0.15
_MODE_ITERATIONS, _FEWEST_FOR_MODES, _MOST_FOR_MODES = 6, 8, 96
_RATE = 3e-3  # learning rate, a third of it on domains that are not periodic
_FEWEST_STEPS = 60  # least number for a trunk beside harmonics, 20 of them warm-up


@dataclass(frozen=True)
class FittedDecoder:
    """An affine decoder with its POD modes as output layer.

    Attributes:
        modes: all of them; the decoder may use the leading ones.
        interpolation_error: error away from the points of the training frames; None if unknown.
        missed: error at held-out points, relative to the variance; unseen: that of a trunk before it was trained on
            these."""

    decoder: AffineDecoder
    modes: OutputModes
    interpolation_error: InterpolationError | None
    missed: float = float("nan")
    unseen: float = float("nan")

    def leading(self, size: int) -> FittedDecoder:
        """The decoder with the leading modes."""
        modes = self.modes.truncated(size)
        self.decoder.set_output(modes.mean, modes.modes)
        return replace(self, decoder=self.decoder.float(), modes=modes)


def fit_decoder(run: Run) -> FittedDecoder:
    """Harmonics of the domain if they suffice, else a trained SIREN trunk if it has a smaller held-out error."""
    frames = decoder_training(run)
    harmonics = None if run.config.decoder.depth else _fit_harmonics(run, frames)
    if harmonics is None:
        return _without_harmonics(run, frames)
    if float(harmonics.modes.noise.mean()) < HARMONICS_SUFFICE:
        run.budget.record("decoder", 0)
    else:
        trunk: FittedDecoder | None = None
        with run.budget.part(_SHARE + _MODES_SHARE):
            trunk = fit_trunk(run, _FEWEST_STEPS)
        better = trunk is not None and trunk.missed < BETTER * harmonics.missed
        run.log.say("decoder: no time to train a SIREN trunk" if trunk is None else
                    f"decoder: SIREN trunk {'used' if better else 'not used'}, error at held-out points "
                    f"{trunk.missed:.1e} of the variance with it, {harmonics.missed:.1e} without")
        if trunk is not None and better:
            return trunk
    error = frames.interpolation_error(harmonics.decoder.double())
    return replace(harmonics, interpolation_error=error).leading(len(harmonics.modes.variances))


def _without_harmonics(run: Run, frames: DecoderTraining) -> FittedDecoder:
    """Principal components at shared points if they suffice or the time is spent, else a trunk if its error at held-out
    points is clearly smaller, since its error at the points themselves is larger."""
    patterns = _fit_patterns(run, frames)
    if patterns is not None and (patterns.missed < PATTERNS_SUFFICE or run.budget.over or isinstance(
            run.problem.source, CompletedSource)):  # which has no gaps between points
        run.budget.record("decoder", 0)
        return patterns
    trunk = fit_trunk(run)
    if patterns is None or trunk.unseen < TRUNK_PAYS * patterns.missed:
        return trunk
    run.log.say("decoder: SIREN trunk not used, its error between the points is not clearly smaller")
    return patterns


def _fit_patterns(run: Run, frames: DecoderTraining) -> FittedDecoder | None:
    """Principal components at points shared by all frames, with radial functions through them; None if a network is
    configured."""
    settings, problem = run.config.decoder, run.problem
    if settings.depth or not issubclass(decoder_class(settings.name), ModulatedSiren) or problem.source.time_bins:
        return None
    found = frames.patterns(problem.embedding(harmonics=0), settings.largest_code_size)
    if found is None:
        return None
    embedding, error, missed = found
    decoder = HarmonicDecoder(embedding, len(problem.description.channels)).to(problem.device)
    modes = fit_modes(run, frames, decoder)
    run.log.say(f"decoder: {embedding.harmonics} principal components, residual {float(modes.noise.mean()):.1e} of the "
                f"variance at the points, error {missed:.1e} of their interpolation between the points")
    return FittedDecoder(decoder, modes, error, missed).leading(len(modes.variances))


def _fit_harmonics(run: Run, frames: DecoderTraining) -> FittedDecoder | None:
    """Harmonics of the domain, in the number with the smaller error at held-out points; None if there are none."""
    problem, best, known = run.problem, None, -1
    for features in HARMONIC_FEATURES:
        if best is not None and run.budget.over:
            break
        embedding = problem.embedding(features)
        if not embedding.harmonics or embedding.harmonics == known:
            break
        known = embedding.harmonics
        decoder: AffineDecoder = HarmonicDecoder(embedding, len(problem.description.channels)).to(problem.device)
        modes = fit_modes(run, frames, decoder)
        left = float(modes.noise.mean())
        run.log.say(
            f"decoder: {embedding.harmonics} harmonics of the domain, residual {left:.1e} of the variance"
            + (", small enough without a SIREN trunk" if left < HARMONICS_SUFFICE else "")
        )
        fitted = FittedDecoder(decoder, modes, None, frames.held_out_error(decoder, modes))
        if left < HARMONICS_SUFFICE or best is None or fitted.missed < best.missed:
            best = fitted
        if left < HARMONICS_SUFFICE:
            break
    return best


def fit_trunk(run: Run, fewest: int = 0) -> FittedDecoder:
    """A SIREN trunk trained with its codes solved at every step (variable projection), and its POD modes.

    Raises OutOfTime if the budget allows fewer steps than `fewest` and their number is not configured.
    """
    problem, settings = run.problem, run.config.decoder
    frames, channels = decoder_training(run), len(problem.description.channels)
    periodic = problem.description.period is not None and any(p > 0 for p in problem.description.period)
    depth = settings.depth or (2 if periodic else 6)
    w0 = settings.w0 or (2.0 if periodic else 3.0)
    torch.manual_seed(run.config.seed)
    size = int(min(32 * channels, 96, max(4, problem.source.times.numel())))
    embedding = problem.embedding(HARMONIC_FEATURES[0] if settings.depth else HARMONIC_FEATURES[-1])
    own = decoder_class(settings.name)
    assert issubclass(own, AffineDecoder)
    network = (settings.width, depth, w0) if issubclass(own, ModulatedSiren) else ()
    decoder = own(embedding, channels, size, *network).to(problem.device)
    training = run.config.training
    rate = training.decoder_rate or (_RATE if periodic else _RATE / 3)
    stage = Stage(
        "decoder", decoder, frames.loss, frames.score, seed=run.config.seed, tolerance=2.0, patience=0.5,
        optimiser=OptimiserSettings(training.optimiser, rate, training.weight_decay), title="SIREN trunk", shared=True,
    )
    given = run.budget.decisions.get("decoder")
    steps = run.steps("decoder", stage, _SHARE / 2, 3000)
    if fewest and steps < (fewest if given is None else 1):
        run.budget.record("decoder", 0)
        raise OutOfTime
    error = run_stage(stage, steps, run.log)
    run.log.say(f"SIREN trunk: {steps} steps, error at held-out points {error:.2e} of the variance")
    interpolation_error = frames.interpolation_error(decoder.double())
    decoder = decoder.float()
    frames.all_points = True
    run_stage(replace(stage, name="decoder_all_points", validate=None, title="SIREN trunk, all points"), steps, run.log)
    modes = fit_modes(run, frames, decoder)
    missed = frames.held_out_error(decoder, modes)
    return FittedDecoder(decoder, modes, interpolation_error, missed, error).leading(len(modes.variances))


def decoder_training(run: Run) -> DecoderTraining:
    """Loss and scores of a decoder for the trajectories of a run."""
    problem = run.problem
    return DecoderTraining(problem.source, problem.train, problem.validation, problem.augmentation())


def fit_modes(run: Run, training: DecoderTraining, decoder: AffineDecoder) -> OutputModes:
    """Output modes of the features of a decoder, from as many trajectories as the budget allows."""
    largest = run.config.decoder.largest_code_size
    source, channels = run.problem.source, len(run.problem.description.channels)
    size, frames = channels * decoder.features_size, source.times.shape[1]
    values = source.points * source.fraction * channels
    designs = frames if source.moves else 1  # of a trajectory
    each = seconds_of(designs * size**2 * (2 * values + size) + frames * size * (2 * values + size))
    affordable = _MODES_SHARE * run.budget.total / (_MODE_ITERATIONS * each)
    trajectories = run.budget.decide("mode_trajectories", int(np.clip(affordable, _FEWEST_FOR_MODES, _MOST_FOR_MODES)))
    run.log.begin("POD modes", _MODE_ITERATIONS)
    modes = training.fit_modes(decoder.double(), largest, trajectories, _MODE_ITERATIONS, run.log.advance)
    run.log.end()
    return modes
