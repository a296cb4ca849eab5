"""Training of network vector fields by descent on rollouts through the integrator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.decoders.base import Decoder, device_of
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import with_memory
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.training.candidate import Candidate, Score
from inrflow.training.judge import rollout_error
from inrflow.training.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.run import Run

_SHARE = 0.55  # share of the time budget
_GROWING = 1 / 3  # share of the steps over which rollouts grow to their full length


class RolloutTraining:
    """Loss of rollouts of states (S, T, n); float32."""

    def __init__(self, states: CodeData, integrator: Integrator, batch: int) -> None:
        self.states, self.integrator, self.batch = replace(states, codes=states.codes.float()), integrator, batch
        self.starts = states.observed.nonzero()

    def loss(
        self, module: nn.Module, step: int, steps: int, random: np.random.Generator, part: slice = slice(None)
    ) -> Tensor:
        """Mean squared error of a batch of rollouts from random frames, relative to the variance."""
        frames = self.states.codes.shape[1]
        length = 1 + round((frames - 2) * min(1.0, step / max(1.0, _GROWING * steps)))
        usable = self.starts[self.starts[:, 1] + length < frames]
        if not len(usable):
            usable = self.starts[self.starts[:, 1] + 1 < frames]
        chosen = usable[torch.as_tensor(random.integers(0, len(usable), self.batch))]
        index = (chosen[:, 1:] + torch.arange(length + 1)).clamp(max=frames - 1)
        rows = chosen[:, :1]
        some = self.states.at((rows, index))
        keep = (some.observed & torch.isfinite(some.t))[:, 1:]
        count, home = int(keep.sum().clamp(min=1)), device_of(module)
        target, times, keep = (values[part].to(home) for values in (some.codes, some.t, keep))
        predicted = self.integrator(module, target[:, 0], times, check=False)[:, 1:]
        error = torch.where(keep[..., None], predicted - target[:, 1:], 0.0)
        return error.square().sum() / count / self.states.variance


def network_candidate(
    run: Run, recipe: str, decoder: Decoder, prior: GaussianPrior, train: CodeData, validation: CodeData | None,
    interpolation_error: InterpolationError | None = None, field: VectorField | None = None,
) -> Candidate:
    """A candidate with a vector field trained by descent alone, without a closed form.

    Args:
        train: codes of training trajectories, originals first, and of copies; validation: of held-out ones.
        field: to be trained; by default a network of the configured depth and width.
    """
    problem, settings, size = run.problem, run.config.dynamics, decoder.code_size
    fitted, judged, first = problem.judging(train, validation)
    states, judged_states = with_memory(fitted, size, None), with_memory(judged, size, None)
    integrator = problem.integrator()
    floor = float(prior.noise.mean())

    def error(one: nn.Module) -> float:
        assert isinstance(one, VectorField)
        return rollout_error(one, integrator, judged_states, judged, first, size)

    if field is None:
        torch.manual_seed(run.config.seed)
        field = VectorField.of(
            size, linear=False, width=settings.width, depth=max(1, settings.depth),
            forcing_period=problem.forcing_period, forcing_harmonics=settings.forcing_harmonics,
        )
    config = run.config.training
    stage = Stage("rollout", field.to(problem.device), RolloutTraining(states, integrator, config.batch).loss, error,
                  OptimiserSettings(config.optimiser, config.rollout_rate, config.weight_decay),
                  seed=run.config.seed, patience=0.4, title="network field", shared=True)
    run_stage(stage, max(20, run.steps("rollout", stage, _SHARE, 20_000)), run.log)
    field = field.cpu().double()
    score = Score(error(field), floor, sum(p.numel() for p in field.parameters()))
    run.log.say(f"network field: validation error {score.error:.2e} of the variance")
    return Candidate(
        problem, recipe, "trained network", decoder, prior, field, integrator, states, judged_states, first, score,
        interpolation_error=interpolation_error,
    )
