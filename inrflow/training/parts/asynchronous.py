"""Codes of rows that each have a time of their own: frame times, motion and prior solved in turn.

Rows around a frame's time stand, to begin with, for the field at that time. From the codes that this gives follow
closed-form dynamics, which carry the decoder's basis to every row's own time; with it, codes and their prior are solved
again. Each round leaves of the error of the times what the motion was wrong by. Rounds whose forecasts validate no
better are discarded.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Transformations
from inrflow.decoders.base import AffineDecoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedForm
from inrflow.dynamics.fitting.quadratic import QuadraticForm
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.flow.linearised import Dynamics
from inrflow.dynamics.states import CodeData
from inrflow.encoding.delayed_values import AffineMotion
from inrflow.encoding.equivariance import CodeAction
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.modes import OutputModes, Statistics
from inrflow.numerics.batched_regression import block_length
from inrflow.training.parts.codes import (
    MotionOf,
    TrainingCodes,
    affordable_copies,
    blocks_of,
    encode_all,
    wanted_copies,
)
from inrflow.training.parts.decoder import FittedDecoder
from inrflow.training.parts.linear import ChosenDynamics, linear_search, sizes_to_try
from inrflow.training.parts.quadratic import choose_quadratic
from inrflow.training.run import Run

_ROUNDS = 3  # of codes and motion in turn
_ROUNDS_SHARE = 0.25  # of the time: quadratic dynamics and their rounds come after
_COPIES_SHARE = 0.1
_RIDGES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)


def motion_of(fit: ClosedForm, unit: float) -> MotionOf:
    """The motion of the leading codes under closed-form dynamics without memory and forcing, in the data's time: the
    same for all trajectories."""
    motion = AffineMotion.of(fit.matrix / unit, fit.bias / unit)
    return lambda _: motion


def motion_around(field: VectorField, states: Tensor, unit: float) -> MotionOf:
    """The motion of the leading codes around states (S, K, n) of trajectories, in the data's time."""
    dynamics, size = Dynamics(field, Integrator(), torch.zeros(states.shape[-1])), states.shape[-1]

    def motion(trajectories: np.ndarray) -> AffineMotion:
        around = dynamics.motion(states[torch.as_tensor(trajectories)].flatten(0, 1), size)
        return AffineMotion(around.generator / unit)

    return motion


def refit_modes(
    decoder: AffineDecoder,
    modes: OutputModes,
    source: TrajectorySource,
    trajectories: np.ndarray,
    motion: MotionOf,
    action: CodeAction | None,
    elements: Transformations | None,
) -> tuple[OutputModes, MotionOf]:
    """Modes, prior and noise of codes whose values are seen with delays, by a step of expectation maximisation within
    the span; and the motion of codes of these modes.

    `action` and `elements` average the prior over symmetries, where that is exact.
    """
    prior = modes.prior()
    statistics = Statistics.empty(prior)
    for block in blocks_of(trajectories):
        batch, moved = source.batch(block), motion(block)
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
    if action is not None and elements is not None:
        prior = action.averaged(prior, elements)
    return _turned(modes, prior, motion)


def _turned(modes: OutputModes, prior: GaussianPrior, motion: MotionOf) -> tuple[OutputModes, MotionOf]:
    """Modes along the principal directions of a prior of their codes."""
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    keep = int((variances > 1e-10 * variances[0]).sum())
    mean = modes.mean + torch.einsum("z,zcf->cf", prior.mean, modes.modes)
    directions = vectors[:, :keep]
    turned: Tensor = torch.einsum("zy,zcf->ycf", directions, modes.modes)
    lost = variances[keep:].sum() / len(prior.noise)
    modes = OutputModes(mean, turned, variances[:keep], prior.noise + lost)
    return modes, lambda trajectories: motion(trajectories).turned(prior.mean, directions)


def resolve_times(run: Run, fitted: FittedDecoder, codes: TrainingCodes) -> tuple[FittedDecoder, TrainingCodes]:
    """Codes at the frame times of asynchronous rows, with the motion between each row's time and its frame's."""
    augmentation, budget = run.problem.augmentation(), run.budget
    copies = affordable_copies(run, codes, "scattered_copies", min(wanted_copies(run), 16), _COPIES_SHARE)
    best, spent, number = float("inf"), 0.0, 0
    kept = fitted, codes
    rounds = budget.known("scattered")
    while True:
        began, noise = budget.elapsed, float(fitted.modes.noise.mean())
        copied = codes.with_copies(run.problem.train, augmentation, copies, run.config.seed)
        search = linear_search(run, copied, codes.validation, noise)
        fit = search.search(sizes_to_try(run, fitted.modes, copied), ridges=_RIDGES)
        run.log.log("asynchronous", number, validation=fit.score, noise=noise)
        if fit.least + noise < best:
            best, kept = fit.least + noise, (fitted, codes)
        if rounds is None and number == 1:  # the first round tells how many there is time for

            def affordable(spent: float = spent) -> int:
                return min(_ROUNDS, 1 + int(budget.seconds(_ROUNDS_SHARE) / max(spent, 1e-6)))

            rounds = budget.decide("scattered", affordable)
        if number == (_ROUNDS if rounds is None else rounds):
            return kept
        fitted, codes = _moved(run, fitted, codes, motion_of(fit, run.problem.scale.unit), number)
        spent, number = budget.elapsed - began, number + 1


def _moved(
    run: Run, fitted: FittedDecoder, codes: TrainingCodes, motion: MotionOf, number: int
) -> tuple[FittedDecoder, TrainingCodes]:
    """Modes and codes anew, rows carried to their frames' times by a motion; each round averages over other
    symmetries."""
    augmentation = run.problem.augmentation()
    elements = augmentation.sample(np.random.default_rng([31, number]), 32) if augmentation else None
    modes, motion = refit_modes(
        fitted.decoder, fitted.modes, run.problem.source, run.problem.train, motion, codes.action, elements
    )
    decoder = copy.deepcopy(fitted.decoder)
    decoder.set_output(modes.mean, modes.modes)
    return replace(fitted, decoder=decoder, modes=modes), encode_all(run, decoder, modes.prior(), motion)


def follow_quadratic_motion(
    run: Run, fitted: FittedDecoder, codes: TrainingCodes, chosen: ChosenDynamics, copies: int
) -> tuple[FittedDecoder, ChosenDynamics]:
    """Codes of asynchronous rows that quadratic dynamics carry to their frames' times, and those dynamics anew.

    Each row moves along the motion around its own state; as often as validation gains by it and the time allows. The
    first round is what makes the motion right to second order, and gains most: it is always made. Nothing is done
    where copies under symmetries would have to be solved anew: their states are not known.
    """
    augmentation = run.problem.augmentation()
    if chosen.quadratic is None or (augmentation and codes.action is None):
        return fitted, chosen
    done, noise = 0, float(fitted.modes.noise.mean())
    while done < _known(run):
        began = run.budget.elapsed
        assert chosen.quadratic is not None
        motion = _motion_of(run, chosen.quadratic, chosen.train, chosen.validation)
        # Codes of rows carried wrongly are wrong themselves: solved once more before modes are fitted to them.
        again = encode_all(run, fitted.decoder, fitted.modes.prior(), motion)
        motion = _motion_of(run, chosen.quadratic, again.train, again.validation)
        moved, again = _moved(run, fitted, again, motion, _ROUNDS + done)
        copied = again.with_copies(run.problem.train, augmentation, copies, run.config.seed)
        left = float(moved.modes.noise.mean())
        near = sizes_near(sizes_to_try(run, moved.modes, copied), chosen.quadratic.size)
        linear = replace(chosen, quadratic=None, train=copied, validation=again.validation)
        trial = choose_quadratic(run, linear, left, near)
        if trial.quadratic is None:
            break
        run.log.log("asynchronous_quadratic", done, validation=trial.quadratic.score, noise=left)
        if trial.quadratic.score + left >= chosen.quadratic.score + noise:
            trial.row.why = "a further round of motion does not lower the validation error"
            break
        chosen.row.why = "a further round of motion lowers the validation error"
        fitted, chosen, noise, done = moved, trial, left, done + 1
        spent = run.budget.elapsed - began
        if run.budget.known("quadratic_rounds") is None:
            further = run.budget.seconds(1.0) / max(spent, 1e-3)
            run.budget.record("quadratic_rounds", 1 + int(min(further, _ROUNDS - 1)))
    return fitted, chosen


def _known(run: Run) -> int:
    rounds = run.budget.known("quadratic_rounds")
    return 1 if rounds is None else rounds


def sizes_near(sizes: list[int], size: int) -> list[int]:
    """Of some code sizes the one next to a given one, and the next larger one."""
    place = min(range(len(sizes)), key=lambda i: abs(sizes[i] - size))
    return sizes[place : place + 2]


def _motion_of(run: Run, form: QuadraticForm, train: CodeData, validation: CodeData | None) -> MotionOf:
    """The motion of quadratic dynamics around the codes of training trajectories, originals first, and validation."""
    problem = run.problem
    states = torch.zeros(len(problem.source), train.codes.shape[1], form.size, dtype=torch.float64)
    states[torch.as_tensor(problem.train)] = train.codes[: len(problem.train), :, : form.size]
    if validation is not None:
        states[torch.as_tensor(problem.validation)] = validation.codes[..., : form.size]
    return motion_around(form.field(), states, problem.scale.unit)
