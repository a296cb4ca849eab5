"""Rows with times of their own in a run: rounds of codes and motion, the best of which validation keeps."""

from __future__ import annotations

import copy
import time

import numpy as np

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.modes import OutputModes
from inrflow.training.codes_run import make_code_book, wanted_copies
from inrflow.training.codes_stage import CodeBook
from inrflow.training.dynamics_choice import closed_form_search, sizes_to_try
from inrflow.training.scattered_stage import blocks_of, drift_of, refit_modes
from inrflow.training.setup import TrainingSetup

_ROUNDS = 3  # of codes and motion in turn
_COPIES_SHARE = 0.1


def resolve_times(
    setup: TrainingSetup, decoder: ModulatedSiren, modes: OutputModes, book: CodeBook
) -> tuple[ModulatedSiren, OutputModes, CodeBook]:
    """Codes at the knots of scattered rows, with the motion between each row's time and its knot."""
    augmentation = setup.augmentation(setup.symmetries)
    elements = augmentation.sample(np.random.default_rng([31]), 32) if augmentation else None
    best, steps = float("inf"), setup.config.training.steps
    if steps.scattered_copies is None:
        steps.scattered_copies = book.affordable(min(wanted_copies(setup), 16), setup.seconds(_COPIES_SHARE))
        setup.save_config()
    copies = steps.scattered_copies
    spent = 0.0
    kept = decoder, modes, book
    rounds = _ROUNDS if steps.scattered is None else steps.scattered
    for number in range(rounds + 1):
        began = time.monotonic()
        codes = book.with_copies(setup.training, augmentation, copies, setup.config.seed)
        search = closed_form_search(setup, codes, book.held, float(modes.noise.mean()))
        fit = search.search(sizes_to_try(setup, modes, codes), ridges=(1e-8, 1e-6, 1e-4, 1e-2, 1.0))
        error = fit.score + float(modes.noise.mean())
        setup.recorder.log("scattered", number, validation=fit.score, noise=float(modes.noise.mean()))
        if error < best:
            best, kept = error, (decoder, modes, book)
        if steps.scattered is None and number == 1:  # the first one tells how many leave time for the rest
            rounds = min(_ROUNDS, number + int(setup.seconds(1.0) / (2 * max(spent, 1e-6))))
            steps.scattered = rounds
            setup.save_config()
        if number == rounds:
            break
        drift = drift_of(fit, setup.scale.unit)

        def batches() -> list[TrajectoryBatch]:
            return [setup.source.batch(block) for block in blocks_of(setup.training)]

        modes, drift = refit_modes(decoder, modes, batches, drift, book.motion, elements)
        decoder = copy.deepcopy(decoder)
        decoder.set_output(modes.mean, modes.modes)
        book = make_code_book(setup, decoder, modes.prior(), setup.training, setup.validation, drift)
        spent = time.monotonic() - began
    return kept
