"""Affine decoders: the harmonics of the domain, or a trained SIREN trunk; and the POD modes of their features."""

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
from inrflow.training.margins import BETTER, HARMONICS_SUFFICE, PATTERNS_SUFFICE
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import HARMONIC_FEATURES
from inrflow.training.run import Run

_SHARE, _MODES_SHARE = 0.3, 0.15
_MODE_ITERATIONS, _FEWEST_FOR_MODES, _MOST_FOR_MODES = 6, 8, 96
_RATE = 3e-3  # of the optimiser, a third of it off periodic domains
_FEWEST_STEPS = 60  # of a trunk beside harmonics: the rate has risen for 20 of them


@dataclass(frozen=True)
class FittedDecoder:
    """An affine decoder with its POD modes set as output.

    Attributes:
        modes: all of them, of which the decoder may take the leading ones.
        interpolation_error: what it misses where no training frame has a point; None: not known.
        missed: error at held-out points, share of the variance; unseen: of a trunk that had not been trained at these.
    """

    decoder: AffineDecoder
    modes: OutputModes
    interpolation_error: InterpolationError | None
    missed: float = float("nan")
    unseen: float = float("nan")

    def leading(self, size: int) -> FittedDecoder:
        """The decoder of the leading modes."""
        modes = self.modes.truncated(size)
        self.decoder.set_output(modes.mean, modes.modes)
        return replace(self, decoder=self.decoder.float(), modes=modes)


def fit_decoder(run: Run) -> FittedDecoder:
    """The domain's harmonics where they suffice, else a trained SIREN trunk where it meets held-out points better."""
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
        run.log.say("decoder: a trunk could not be trained in the time" if trunk is None else
                    f"decoder: held-out points are missed by {harmonics.missed:.1e} of the variance without a trunk "
                    f"and {trunk.missed:.1e} with it, so it is {'kept' if better else 'left out'}")
        if trunk is not None and better:
            return trunk
    error = frames.interpolation_error(harmonics.decoder.double())
    return replace(harmonics, interpolation_error=error).leading(len(harmonics.modes.variances))


def _without_harmonics(run: Run, frames: DecoderTraining) -> FittedDecoder:
    """Components at shared points where they suffice or the time is over, else whichever of these and a trunk misses
    less at held-out points."""
    patterns = _fit_patterns(run, frames)
    if patterns is not None and (patterns.missed < PATTERNS_SUFFICE or run.budget.over or isinstance(
            run.problem.source, CompletedSource)):  # nothing between its points is left to be guessed
        run.budget.record("decoder", 0)
        return patterns
    trunk = fit_trunk(run)
    if patterns is None or not patterns.missed < trunk.unseen:
        return trunk
    run.log.say("decoder: the trunk misses more between the points and is left out")
    return patterns


def _fit_patterns(run: Run, frames: DecoderTraining) -> FittedDecoder | None:
    """Principal components at points that all frames share, and radial functions through them; None where a network is
    asked for."""
    settings, problem = run.config.decoder, run.problem
    if settings.depth or not issubclass(decoder_class(settings.name), ModulatedSiren) or problem.source.time_bins:
        return None
    found = frames.patterns(problem.embedding(harmonics=0), settings.largest_code_size)
    if found is None:
        return None
    embedding, error, missed = found
    decoder = HarmonicDecoder(embedding, len(problem.description.channels)).to(problem.device)
    modes = fit_modes(run, frames, decoder)
    run.log.say(f"decoder: {embedding.harmonics} principal components at the points leave "
                f"{float(modes.noise.mean()):.1e} of the variance, functions through them miss {missed:.1e} between")
    return FittedDecoder(decoder, modes, error, missed).leading(len(modes.variances))


def _fit_harmonics(run: Run, frames: DecoderTraining) -> FittedDecoder | None:
    """The domain's harmonics, few or many, whichever meet held-out points better; None where there are none."""
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
            f"decoder: {embedding.harmonics} harmonics of the domain leave {left:.1e} of the variance"
            + (", so no trunk is trained" if left < HARMONICS_SUFFICE else "")
        )
        fitted = FittedDecoder(decoder, modes, None, frames.held_out_error(decoder, modes))
        if left < HARMONICS_SUFFICE or best is None or fitted.missed < best.missed:
            best = fitted
        if left < HARMONICS_SUFFICE:
            break
    return best


def fit_trunk(run: Run, fewest: int = 0) -> FittedDecoder:
    """A SIREN trunk trained with its codes solved at every step (variable projection), and its POD modes.

    Raises OutOfTime where there is no time for as many steps as `fewest`, and their number is not given.
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
    """Losses and scores of a decoder on the run's trajectories."""
    problem = run.problem
    return DecoderTraining(problem.source, problem.train, problem.validation, problem.augmentation())


def fit_modes(run: Run, training: DecoderTraining, decoder: AffineDecoder) -> OutputModes:
    """Output modes of the decoder's features, from as many trajectories as the time allows."""
    largest = run.config.decoder.largest_code_size
    source, channels = run.problem.source, len(run.problem.description.channels)
    size, frames = channels * decoder.features_size, source.times.shape[1]
    values = source.points * source.fraction * channels
    designs = frames if source.moves else 1  # of a trajectory
    each = seconds_of(designs * size**2 * (2 * values + size) + frames * size * (2 * values + size))
    affordable = _MODES_SHARE * run.budget.total / (_MODE_ITERATIONS * each)
    trajectories = run.budget.decide("mode_trajectories", int(np.clip(affordable, _FEWEST_FOR_MODES, _MOST_FOR_MODES)))
    run.log.begin("modes", _MODE_ITERATIONS)
    modes = training.fit_modes(decoder.double(), largest, trajectories, _MODE_ITERATIONS, run.log.advance)
    run.log.end()
    return modes
