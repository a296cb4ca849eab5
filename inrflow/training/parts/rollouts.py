"""Third stage: what the closed form leaves, trained by rollouts of growing length through the integrator, in codes;
and, where frames are seen too sparsely for codes to stand for the data, in data space last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData
from inrflow.errors import UserError
from inrflow.runtime.devices import device_of
from inrflow.training.parts.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.problem import GOOD_ENOUGH, TrainingSetup

_GROWING = 1 / 3  # share of the steps over which rollouts grow to their full length


class RolloutTraining:
    """Losses of rollouts on states (S, T, n); float32."""

    def __init__(self, states: CodeData, integrator: Integrator, batch: int, longest: int | None = None) -> None:
        self.codes, self.t, self.observed = states.codes.float(), states.t, states.observed
        self.integrator, self.batch = integrator, batch
        frames = states.codes.shape[1]
        self.longest = min(frames - 1, longest or frames - 1)
        seen = self.codes[self.observed]
        self.variance = (seen - seen.mean(0)).square().sum(1).mean()
        self.starts = self.observed.nonzero()

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error of a batch of rollouts from random frames, share of the variance."""
        length = 1 + round((self.longest - 1) * min(1.0, step / max(1.0, _GROWING * steps)))
        frames = self.codes.shape[1]
        usable = self.starts[self.starts[:, 1] + length < frames]
        if not len(usable):
            usable = self.starts[self.starts[:, 1] + 1 < frames]
        chosen = usable[torch.as_tensor(random.integers(0, len(usable), self.batch))]
        index = (chosen[:, 1:] + torch.arange(length + 1)).clamp(max=frames - 1)
        rows = chosen[:, :1]
        times, seen = self.t[rows, index], self.observed[rows, index]
        target = self.codes[rows, index]
        target, times, seen = (values.to(device_of(module)) for values in (target, times, seen))
        predicted = self.integrator(module, target[:, 0], times, check=False)[:, 1:]
        keep = seen[:, 1:] & torch.isfinite(times[:, 1:])
        error = torch.where(keep[..., None], predicted - target[:, 1:], 0.0)
        return error.square().sum() / keep.sum().clamp(min=1) / self.variance


class DataSpaceTraining:
    """Losses of rollouts decoded at observed points of the training trajectories, normalised units."""

    def __init__(
        self,
        source: TrajectorySource,
        trajectories: np.ndarray,
        states: CodeData,
        decoder: Decoder,
        integrator: Integrator,
        batch: int = 16,
        points: int = 256,
    ) -> None:
        self.source, self.trajectories, self.states = source, trajectories, states
        self.decoder, self.integrator, self.batch, self.points = decoder, integrator, batch, points

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error at random observed points along whole rollouts."""
        which = random.integers(0, len(self.trajectories), min(self.batch, len(self.trajectories)))
        batch = self.source.batch(self.trajectories[which])
        rows = torch.as_tensor(which)
        first = int(self.states.observed[rows].float().argmax(1).max())
        home = device_of(module)
        start, times = self.states.codes[rows, first].float().to(home), self.states.t[rows, first:].to(home)
        predicted = self.integrator(module, start, times, check=False)
        pick = torch.as_tensor(random.permutation(batch.u.shape[2])[: self.points])
        u = batch.u[:, first:, pick].to(home)
        x = batch.x if batch.x.shape[1] == 1 else batch.x[:, first:]
        with torch.no_grad():
            offset, basis = self.decoder.basis(x[:, :, pick].float().to(home))
        codes = predicted[..., : self.decoder.code_size]
        decoded = offset + torch.einsum("stncz,stz->stnc", basis.expand(len(u), u.shape[1], *basis.shape[2:]), codes)
        begun = self.states.observed[rows, first].to(home)  # a start that nobody saw is no start
        keep = torch.isfinite(u) & torch.isfinite(decoded) & begun[:, None, None, None]
        return torch.where(keep, decoded - torch.nan_to_num(u), 0.0).square().sum() / keep.sum().clamp(min=1)


def with_residual(
    linear: VectorField, depth: int, quadratic_rank: int, keep_linear: bool, seed: int, has_linear: bool = True
) -> VectorField:
    """A float32 field that starts as the linear one (or, without `keep_linear`, as no motion) with parts to train."""
    torch.manual_seed(seed)
    products = linear.shape.products if keep_linear else 0
    couplings = linear.shape.couplings if keep_linear else 0
    shape = replace(
        linear.shape, depth=depth, quadratic_rank=quadratic_rank, linear=has_linear, products=products,
        couplings=couplings,
    )
    field = VectorField(shape)
    if keep_linear:
        field.load_state_dict(linear.state_dict(), strict=False)
        if products:  # a closed form of very many numbers, which descent would not improve
            field.products.requires_grad_(False)
        if couplings:
            field.couplings.requires_grad_(False)
    return field

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
    stand = seen >= 2 * decoder.code_size or setup.source.time_bins is not None
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
