"""The affine decoder of a run: harmonics of the domain where they suffice, else a trained trunk; then output modes."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.prior.interpolation_error import UnseenVariance
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.parts.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import CLEARLY_BETTER, HARMONIC_FEATURES, TrainingSetup
from inrflow.training.recorder import Interrupted

_SHARE, _MODES_SHARE = 0.3, 0.15
_MODE_ITERATIONS, _FEWEST_FOR_MODES, _MOST_FOR_MODES = 6, 8, 96
_DENSE_W0 = 30.0  # where the points are dense enough to show all that a field has
_HARMONICS_SUFFICE, _SUFFICE_BETWEEN_KNOTS = 1e-5, 1e-2


def fit_decoder(setup: TrainingSetup) -> tuple[ModulatedSiren, OutputModes, UnseenVariance | None]:
    """Trunk and output modes of an affine decoder, set as its output, and what it misses where no frame has a point."""
    config = setup.config.decoder
    channels = len(setup.description.channels)
    training = DecoderTraining(
        setup.source, setup.training, setup.validation, setup.augmentation(setup.symmetries)
    )
    embedding = setup.embedding()
    plain: tuple[ModulatedSiren, OutputModes, float] | None = None
    for features in HARMONIC_FEATURES if not config.depth else ():
        wider = setup.embedding(features)
        if not wider.harmonics or (features > HARMONIC_FEATURES[0] and wider.harmonics == embedding.harmonics):
            break
        embedding = wider
        decoder = ModulatedSiren(embedding, channels, 1, 0, 0).to(setup.device)
        modes = fit_modes(setup, training, decoder)
        left = float(modes.noise.mean())
        # Before the motion between knots is known, its share of the residual is no matter for a trunk.
        enough = left < (_HARMONICS_SUFFICE if setup.source.time_bins is None else _SUFFICE_BETWEEN_KNOTS)
        setup.recorder.say(
            f"decoder: {embedding.harmonics} harmonics of the domain leave {left:.1e} of the variance"
            + (", so no trunk is trained" if enough else "")
        )
        missed = training.held_out_error(decoder, modes)
        if plain is None or missed < plain[2]:
            plain = decoder, modes, missed
        if enough:
            setup.config.training.steps.decoder = 0
            setup.save_config()
            unseen = training.unseen_variance(decoder)
            return *_with_modes(decoder, modes), unseen
    periodic = setup.description.period is not None and any(p > 0 for p in setup.description.period)
    dense = isinstance(setup.source, CompletedSource)  # nothing between its points is left to be guessed
    depth = config.depth or (2 if periodic else 6)
    w0 = config.w0 or (2.0 if periodic else _DENSE_W0 if dense else 3.0)
    torch.manual_seed(setup.config.seed)
    size = int(min(32 * channels, 96, max(4, setup.source.times.numel())))
    decoder = ModulatedSiren(embedding, channels, size, config.width, depth, w0).to(setup.device)
    rate = setup.config.training.decoder_rate if periodic else setup.config.training.decoder_rate / 3
    settings = OptimiserSettings(setup.config.training.optimiser, rate, setup.config.training.weight_decay)
    stage = Stage(
        "decoder", decoder, training.loss, training.score, optimiser=settings, seed=setup.config.seed,
        tolerance=2.0, patience=0.5,
    )
    steps = setup.steps("decoder", stage, _SHARE if dense else _SHARE / 2, 3000)
    unseen, mends = None, dense  # where all points are known, nothing between them is asked
    if not dense:
        error = run_stage(stage, steps, setup.recorder, setup.checkpoints)
        setup.recorder.say(f"decoder: {steps} steps, error at held-out points {error:.2e} of the variance")
        unseen = training.unseen_variance(decoder.double())
        mends = training.mends_at_nodes(decoder)
        decoder = decoder.float()
    training.all_points = True
    final = replace(stage, name="decoder_all_points", validate=None)
    run_stage(final, steps, setup.recorder, setup.checkpoints)
    if mends:
        training.mend_at_nodes(decoder.double())
    modes = fit_modes(setup, training, decoder)
    if plain is not None:
        error = training.held_out_error(decoder, modes)
        better = error < CLEARLY_BETTER * plain[2]
        setup.recorder.say(
            f"decoder: held-out points are missed by {plain[2]:.1e} of the variance without a trunk and "
            f"{error:.1e} with it, so it is {'kept' if better else 'left out'}"
        )
        if not better:
            unseen = training.unseen_variance(plain[0].double())
            return *_with_modes(*plain[:2]), unseen
    return *_with_modes(decoder, modes), unseen


def fit_modes(setup: TrainingSetup, training: DecoderTraining, decoder: ModulatedSiren) -> OutputModes:
    """Output modes of the decoder's features, from as many trajectories as the time allows."""
    largest = setup.config.decoder.largest_code_size

    def affordable() -> int:
        began = time.perf_counter()
        training.fit_modes(decoder.double(), largest, trajectories=4, iterations=1)
        each = (time.perf_counter() - began) / 4
        trajectories = setup.seconds(_MODES_SHARE) / (_MODE_ITERATIONS * max(each, 1e-6))
        return int(np.clip(trajectories, _FEWEST_FOR_MODES, _MOST_FOR_MODES))

    trajectories = setup.decided("mode_trajectories", affordable)
    setup.recorder.begin("modes", _MODE_ITERATIONS)
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        setup.recorder.advance(done)
        if setup.recorder.stopping:  # nothing to save: the modes follow from the decoder
            raise Interrupted

    modes = training.fit_modes(decoder.double(), largest, trajectories, _MODE_ITERATIONS, progress)
    setup.recorder.end()
    return modes


def _with_modes(decoder: ModulatedSiren, modes: OutputModes) -> tuple[ModulatedSiren, OutputModes]:
    decoder.set_output(modes.mean, modes.modes)
    return decoder.float(), modes
