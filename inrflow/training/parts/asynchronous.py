"""Codes of rows that each have a time of their own: knots, motion and prior found in turn.

Rows around a knot stand, to begin with, for the field at its time. From the codes that this gives follow closed-form
dynamics, which carry the decoder's basis to every row's own time; with it, codes and their prior are solved again. Each
round leaves of the error of the times what the motion was wrong by. Rounds whose forecasts validate no better are
discarded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Transformations
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedForm
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.flow.linearised import Dynamics
from inrflow.dynamics.libraries.quadratic import QuadraticForm
from inrflow.dynamics.states import CodeData
from inrflow.encoding.delayed_values import Drift
from inrflow.encoding.equivariance import CodeMotion
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.expectation_maximisation import Statistics
from inrflow.encoding.prior.modes import OutputModes
from inrflow.numerics.batched_regression import block_length
from inrflow.training.judge import MOVED_BLOCK, DriftOf
from inrflow.training.parts import loop as training_steps
from inrflow.training.parts.codes import CodeBook, make_code_book, wanted_copies
from inrflow.training.problem import TrainingSetup
from inrflow.training.recipes.reduced_order import closed_form_search, sizes_to_try

_ITERATIONS = 1


def drift_of(fit: ClosedForm, unit: float) -> DriftOf:
    """The motion of the leading codes under closed-form dynamics without memory and forcing, in the data's time: the
    same for all trajectories."""
    drift = Drift.of(fit.matrix / unit, fit.bias / unit)
    return lambda _: drift


def drift_around(field: VectorField, states: Tensor, unit: float) -> DriftOf:
    """The motion of the leading codes around states (S, K, n) of trajectories, in the data's time."""
    dynamics, size = Dynamics(field, Integrator(), torch.zeros(states.shape[-1])), states.shape[-1]

    def drift(trajectories: np.ndarray) -> Drift:
        around = dynamics.drift(states[torch.as_tensor(trajectories)].flatten(0, 1), size)
        return Drift(around.generator / unit)

    return drift


def refit_modes(
    decoder: ModulatedSiren,
    modes: OutputModes,
    source: TrajectorySource,
    trajectories: np.ndarray,
    drift: DriftOf,
    motion: CodeMotion | None,
    elements: Transformations | None,
    iterations: int = _ITERATIONS,
) -> tuple[OutputModes, DriftOf]:
    """Modes, prior and noise of codes whose values are seen with delays, by expectation maximisation within the span;
    and the drift of codes of these modes.

    `motion` and `elements` average the prior over symmetries, where that is exact.
    """
    prior = modes.prior()
    for _ in range(iterations):
        statistics = Statistics.empty(prior)
        for block in blocks_of(trajectories):
            batch, moved = source.batch(block), drift(block)
            x, u = batch.groups()
            delay = batch.delays()
            assert delay is not None
            length = block_length(u.shape[2] * u.shape[3], decoder.code_size)
            for start in range(0, len(x), length):
                part = slice(start, start + length)
                with torch.no_grad():
                    offset, basis = decoder.basis(x[part].to(decoder.output.dtype))
                offset, basis = moved.of_groups(part).carried(offset, basis, delay[part])
                statistics.add(basis.matmul, offset, u[part])
        prior = statistics.maximise(swift=True)
        if motion is not None and elements is not None:
            prior = motion.averaged(prior, elements)
    return _turned(modes, prior, drift)


def _turned(modes: OutputModes, prior: GaussianPrior, drift: DriftOf) -> tuple[OutputModes, DriftOf]:
    """Modes along the principal directions of a prior of their codes."""
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    keep = int((variances > 1e-10 * variances[0]).sum())
    mean = modes.mean + torch.einsum("z,zcf->cf", prior.mean, modes.modes)
    directions = vectors[:, :keep]
    turned: Tensor = torch.einsum("zy,zcf->ycf", directions, modes.modes)
    lost = variances[keep:].sum() / len(prior.noise)
    modes = OutputModes(mean, turned, variances[:keep], prior.noise + lost)
    return modes, lambda trajectories: drift(trajectories).turned(prior.mean, directions)


def blocks_of(indices: np.ndarray, length: int = MOVED_BLOCK) -> list[np.ndarray]:
    """Trajectories in blocks."""
    return [indices[start : start + length] for start in range(0, len(indices), length)]

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
    return drift_around(form.field(), states, setup.scale.unit)
