"""The trained part of a run's dynamics: a residual on the closed form, where that leaves something to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from inrflow.decoders.base import Decoder
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.vector_field import VectorField
from inrflow.errors import UserError
from inrflow.training.rollout_stage import DataSpaceTraining, RolloutTraining, with_residual
from inrflow.training.setup import GOOD_ENOUGH, TrainingSetup
from inrflow.training.steps import OptimiserSettings, Stage, run_stage

_SHARE, _DATA_SHARE = 0.45, 0.1
_RACE = 0.15  # share of the steps in which two starts compete


def train_residual(
    setup: TrainingSetup, linear: VectorField, states: CodeData, integrator: Integrator,
    error: Callable[..., float], start_error: float, floor: float, decoder: Decoder,
) -> VectorField | None:
    """The field with trained parts, or None where the closed form leaves nothing to train."""
    config = setup.config.training
    parts = setup.config.dynamics
    if not (parts.depth or parts.quadratic_rank):
        return None
    if (parts.linear and start_error < max(floor, GOOD_ENOUGH)) or setup.config.training.steps.rollout == 0:
        setup.config.training.steps.rollout = 0
        setup.save_config()
        setup.recorder.say("the closed form leaves nothing to train")
        return None
    rollouts = RolloutTraining(states, integrator, config.batch)
    optimiser = OptimiserSettings(config.optimiser, config.rollout_rate, config.weight_decay)

    def stage(name: str, start: bool) -> Stage:
        field = with_residual(
            linear, parts.depth, parts.quadratic_rank, start and parts.linear, setup.config.seed, parts.linear
        )
        field = field.to(setup.device)
        return Stage(name, field, rollouts.loss, error, optimiser=optimiser, seed=setup.config.seed, patience=0.4)

    starts = {"auto": (True, False), "least_squares": (True,), "zero": (False,)}
    if parts.start not in starts:
        raise UserError(f"dynamics.start={parts.start!r}; choose from {', '.join(starts)}")
    main = stage("rollout", parts.start != "zero" and parts.linear)
    steps = setup.steps("rollout", main, _SHARE, 20_000)
    wanted = starts[parts.start] if parts.linear else (False,)
    if linear.shape.products and True in wanted:  # it has won already
        wanted = (True,)
    races = [stage("race_least_squares" if s else "race_zero", s) for s in wanted]
    if len(races) > 1:
        errors = [run_stage(race, max(20, int(_RACE * steps)), setup.recorder, setup.checkpoints) for race in races]
        best = int(np.argmin(errors))
        setup.recorder.say(
            f"start of the field: {'least squares' if best == 0 else 'zero'} "
            f"(validation {errors[0]:.2e} against {errors[1]:.2e})"
        )
        main = replace(main, module=races[best].module)
    error_after = run_stage(main, max(20, steps - int(_RACE * steps) * len(races)), setup.recorder, setup.checkpoints)
    field = main.module
    assert isinstance(field, VectorField)
    values = setup.source.batch(setup.training[:1]).u
    seen = float(torch.isfinite(values).flatten(2).sum(-1).float().mean())
    stand = seen >= 2 * decoder.code_size or setup.source.knots is not None
    if decoder.affine and not stand:  # codes alone do not stand for the data
        original = setup.originals(states)
        data = DataSpaceTraining(setup.source, setup.training, original, decoder, integrator)
        last = Stage(
            "data", field, data.loss, error, optimiser=replace(optimiser, rate=optimiser.rate / 5),
            seed=setup.config.seed,
        )
        steps = setup.steps("data", last, _DATA_SHARE, 5000)
        error_after = run_stage(last, steps, setup.recorder, setup.checkpoints)
    setup.recorder.log("rollout_final", steps, validation=error_after)
    return field
