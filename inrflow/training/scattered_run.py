"""Rows with times of their own in a run: rounds of codes and motion, the best of which validation keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.quadratic_fit import QuadraticForm
from inrflow.dynamics.states import CodeData
from inrflow.encoding.modes import OutputModes
from inrflow.training import steps as training_steps
from inrflow.training.codes_run import make_code_book, wanted_copies
from inrflow.training.codes_stage import CodeBook
from inrflow.training.dynamics_choice import closed_form_search, sizes_to_try
from inrflow.training.dynamics_stage import DriftOf
from inrflow.training.scattered_stage import drift_around, drift_of, refit_modes
from inrflow.training.setup import TrainingSetup

_ROUNDS = 3  # of codes and motion in turn
_ROUNDS_SHARE = 0.25  # quadratic dynamics and their rounds come after
_COPIES_SHARE = 0.1


def resolve_times(
    setup: TrainingSetup, decoder: ModulatedSiren, modes: OutputModes, book: CodeBook
) -> tuple[ModulatedSiren, OutputModes, CodeBook]:
    """Codes at the knots of scattered rows, with the motion between each row's time and its knot."""
    augmentation = setup.augmentation(setup.symmetries)
    best, steps = float("inf"), setup.config.training.steps
    if steps.scattered_copies is None:
        steps.scattered_copies = book.affordable(min(wanted_copies(setup), 16), setup.seconds(_COPIES_SHARE))
        setup.save_config()
    copies = steps.scattered_copies
    spent = 0.0
    kept = decoder, modes, book
    rounds = _ROUNDS if steps.scattered is None else steps.scattered
    for number in range(rounds + 1):
        began = training_steps.clock()
        codes = book.with_copies(setup.training, augmentation, copies, setup.config.seed)
        search = closed_form_search(setup, codes, book.held, float(modes.noise.mean()))
        fit = search.search(sizes_to_try(setup, modes, codes), ridges=(1e-8, 1e-6, 1e-4, 1e-2, 1.0))
        error = fit.least + float(modes.noise.mean())
        setup.recorder.log("scattered", number, validation=fit.score, noise=float(modes.noise.mean()))
        if error < best:
            best, kept = error, (decoder, modes, book)
        if steps.scattered is None and number == 1:  # the first one tells how many leave time for the rest
            rounds = min(_ROUNDS, number + int(setup.seconds(_ROUNDS_SHARE) / max(spent, 1e-6)))
            steps.scattered = rounds
            setup.save_config()
        if number == rounds:
            break
        decoder, modes, book = _moved(setup, decoder, modes, book, drift_of(fit, setup.scale.unit), number)
        spent = training_steps.clock() - began
    return kept


def _moved(
    setup: TrainingSetup, decoder: ModulatedSiren, modes: OutputModes, book: CodeBook, drift: DriftOf, number: int
) -> tuple[ModulatedSiren, OutputModes, CodeBook]:
    """Modes and codes anew, rows carried to their knots by a motion; `number` of the round: each averages over other
    symmetries."""
    augmentation = setup.augmentation(setup.symmetries)
    elements = augmentation.sample(np.random.default_rng([31, number]), 32) if augmentation else None
    modes, drift = refit_modes(decoder, modes, setup.source, setup.training, drift, book.motion, elements)
    decoder = copy.deepcopy(decoder)
    decoder.set_output(modes.mean, modes.modes)
    return decoder, modes, make_code_book(setup, decoder, modes.prior(), setup.training, setup.validation, drift)


@dataclass(frozen=True)
class QuadraticCodes:
    """Quadratic dynamics with the codes they were found on, copies included, and what decodes these."""

    quadratic: QuadraticForm
    codes: CodeData
    held: CodeData | None
    decoder: ModulatedSiren
    modes: OutputModes
    book: CodeBook

    @property
    def error(self) -> float:
        """Of held-out forecasts and of decoding, share of the variance."""
        return self.quadratic.score + float(self.modes.noise.mean())


def follow_quadratic_motion(
    setup: TrainingSetup,
    found: QuadraticCodes,
    copies: int,
    search: Callable[[OutputModes, CodeData, CodeData | None, int], QuadraticForm | None],
) -> QuadraticCodes:
    """Codes of scattered rows that quadratic dynamics carry to their knots, each along the motion around its own
    state, and those dynamics anew; as often as validation gains by it and the time allows.

    The first round is what makes the motion right to second order, and gains most: it is made whatever the clock says,
    and tells how many more there is time for. `search` finds quadratic dynamics of codes, of about so many. Nothing is
    done where copies under symmetries would have to be solved anew: their states are not known.
    """
    augmentation = setup.augmentation(setup.symmetries)
    if augmentation and found.book.motion is None:
        return found
    known, done = setup.config.training.steps.quadratic_rounds, 0
    while done < (1 if known is None else known):
        began = training_steps.clock()
        drift = _motion_of(setup, found.quadratic, found.codes, found.held)
        # Codes of rows carried wrongly are wrong themselves: solved once more before modes are fitted to them.
        book = make_code_book(setup, found.decoder, found.modes.prior(), setup.training, setup.validation, drift)
        drift = _motion_of(setup, found.quadratic, book.training, book.held)
        decoder, modes, book = _moved(setup, found.decoder, found.modes, book, drift, _ROUNDS + done)
        codes = book.with_copies(setup.training, augmentation, copies, setup.config.seed)
        form = search(modes, codes, book.held, found.quadratic.size)
        if form is None:
            break
        again = QuadraticCodes(form, codes, book.held, decoder, modes, book)
        setup.recorder.log("scattered_quadratic", done, validation=form.score, noise=float(modes.noise.mean()))
        if again.error >= found.error:
            break
        found, done = again, done + 1
        if known is None:
            further = setup.seconds(1.0) / max(training_steps.clock() - began, 1e-3)
            known = setup.config.training.steps.quadratic_rounds = 1 + int(min(further, _ROUNDS - 1))
            setup.save_config()
    return found


def sizes_near(sizes: list[int], size: int) -> list[int]:
    """Of the code sizes to try the one next to a size that was good, and the next larger one."""
    place = min(range(len(sizes)), key=lambda i: abs(sizes[i] - size))
    return sizes[place : place + 2]


def _motion_of(setup: TrainingSetup, form: QuadraticForm, codes: CodeData, held: CodeData | None) -> DriftOf:
    """The motion of quadratic dynamics around the codes of training trajectories, originals first, and validation."""
    states = torch.zeros(len(setup.source), codes.codes.shape[1], form.size, dtype=torch.float64)
    states[torch.as_tensor(setup.training)] = codes.codes[: len(setup.training), :, : form.size]
    if held is not None:
        states[torch.as_tensor(setup.validation)] = held.codes[..., : form.size]
    return drift_around(form.field(setup.config.dynamics.width), states, setup.scale.unit)
