"""How the network baselines learn several environments and adapt to a new one: by descent on rollouts of codes.

Both are stages of the engine's own loop (fixed or timed steps, validation, checkpoints); every batch holds as many
rollouts of each environment. An adaptation moves only what an environment owns.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baselines.environment_networks import BoundField, EnvironmentNetwork
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.training.loop import OptimiserSettings, Stage, run_stage, timed_steps
from inrflow.training.recorder import Recorder

_GROWING = 1 / 3  # share of the steps over which rollouts grow to their full length


@dataclass
class EnvironmentCodes:
    """Codes of trajectories and which environment (S,), counted from 0, each belongs to."""

    data: CodeData
    environment: Tensor

    def __len__(self) -> int:
        """The number of environments."""
        return int(self.environment.max()) + 1

    def only(self, environment: int) -> CodeData:
        """The trajectories of one environment."""
        rows = self.environment == environment
        return CodeData(self.data.codes[rows], self.data.t[rows], self.data.observed[rows])


class EnvironmentRollouts:
    """Losses of rollouts on codes, float32; `batch` rollouts of every environment."""

    def __init__(self, codes: EnvironmentCodes, integrator: Integrator, batch: int) -> None:
        self.data, self.integrator, self.batch = codes.data, integrator, batch
        self.codes = codes.data.codes.float()
        self.variance = variance_of(codes.data)
        starts = codes.data.observed.nonzero()
        self.starts = [starts[codes.environment[starts[:, 0]] == e] for e in range(len(codes))]

    def loss(self, module: nn.Module, step: int, steps: int, random: np.random.Generator) -> Tensor:
        """Mean squared error of rollouts from random frames, share of the variance, and the method's penalty."""
        assert isinstance(module, EnvironmentNetwork)
        frames = self.codes.shape[1]
        longest = frames - 1
        length = 1 + round((longest - 1) * min(1.0, step / max(1.0, _GROWING * steps)))
        chosen = []
        for starts in self.starts:
            usable = starts[starts[:, 1] + length < frames]
            usable = usable if len(usable) else starts[starts[:, 1] + 1 < frames]
            chosen.append(usable[torch.as_tensor(random.integers(0, len(usable), self.batch))])
        rows, first = torch.cat(chosen).T
        index = (first[:, None] + torch.arange(length + 1)).clamp(max=frames - 1)
        times, seen = self.data.t[rows[:, None], index], self.data.observed[rows[:, None], index]
        target = self.codes[rows[:, None], index]
        environment = dict(module.environment.items())
        predicted = self.integrator(module.bind(environment), target[:, 0], times, check=False)[:, 1:]
        keep = seen[:, 1:] & torch.isfinite(times[:, 1:])
        error = torch.where(keep[..., None], predicted - target[:, 1:], 0.0)
        penalty = module.penalty(environment, target[:, 0].unflatten(0, (len(self.starts), -1)))
        return error.square().sum() / keep.sum().clamp(min=1) / self.variance + penalty


def variance_of(data: CodeData) -> float:
    """Mean squared distance of observed codes from their mean."""
    seen = data.codes[data.observed]
    return float((seen - seen.mean(0)).square().sum(1).mean())


def forecast_error(field: nn.Module, data: CodeData, integrator: Integrator, variance: float) -> float:
    """Mean squared error of rollouts from the first frame, share of `variance`; infinite where one diverges."""
    with torch.no_grad():
        codes = data.codes.float()
        error = integrator(field, codes[:, 0], data.t, check=False) - codes
    seen = data.observed.clone()
    seen[:, 0] = False
    value = float(error[seen].square().sum(1).mean()) / variance
    return value if value == value else float("inf")


@dataclass(frozen=True)
class BaselineSettings:
    """How a baseline is trained.

    Attributes:
        batch: rollouts of each environment in a step.
        optimiser: of the training.
        adaptation: of the adaptation.
        adaptation_steps: how many.
        seed: of batches.
    """

    batch: int = 16
    optimiser: OptimiserSettings = OptimiserSettings("soap", 2e-3)
    adaptation: OptimiserSettings = OptimiserSettings("adamw", 1e-2)
    adaptation_steps: int = 100
    seed: int = 0


def fit(
    network: EnvironmentNetwork,
    training: EnvironmentCodes,
    held: EnvironmentCodes,
    integrator: Integrator,
    settings: BaselineSettings,
    recorder: Recorder,
    seconds: float = 60.0,
    steps: int | None = None,
) -> float:
    """Train a network on all environments, in place; the best state on held-out trajectories is kept.

    As many steps as `steps` says, or as fit into `seconds` of processor time. Returns the error on the held-out
    trajectories, share of the variance. Its checkpoint is in the recorder's folder, which no other training may share.
    """
    variance = variance_of(training.data)
    parts = [held.only(e) for e in range(len(held))]

    def validate(module: nn.Module) -> float:
        assert isinstance(module, EnvironmentNetwork)
        with torch.no_grad():
            errors = [forecast_error(module.of(e), part, integrator, variance) for e, part in enumerate(parts)]
        return sum(errors) / len(errors)

    rollouts = EnvironmentRollouts(training, integrator, settings.batch)
    stage = Stage(
        "environments", network, rollouts.loss, validate, optimiser=settings.optimiser, seed=settings.seed, patience=0.5
    )
    steps = timed_steps(stage, seconds, timer=time.process_time) if steps is None else steps
    return run_stage(stage, steps, recorder)


def adapt(
    network: EnvironmentNetwork,
    data: CodeData,
    integrator: Integrator,
    settings: BaselineSettings,
    recorder: Recorder,
) -> BoundField:
    """The field of a new environment, from trajectories of it: only what an environment owns is trained.

    The network itself stays as it is. The state that reproduces the given trajectories best is kept. The recorder's
    folder is of this adaptation alone.
    """
    adapted = copy.deepcopy(network)
    adapted.environment = nn.ParameterDict(network.start())
    if not adapted.adapted_numbers:
        return adapted.of(0)
    adapted.requires_grad_(False)
    adapted.environment.requires_grad_(True)
    codes = EnvironmentCodes(data, torch.zeros(len(data.codes), dtype=torch.long))
    rollouts = EnvironmentRollouts(codes, integrator, settings.batch)

    def validate(module: nn.Module) -> float:
        assert isinstance(module, EnvironmentNetwork)
        return forecast_error(module.of(0), data, integrator, rollouts.variance)

    stage = Stage(
        "adaptation",
        adapted,
        rollouts.loss,
        validate,
        optimiser=settings.adaptation,
        seed=settings.seed,
        validations=10,
    )
    run_stage(stage, settings.adaptation_steps, recorder)
    return adapted.requires_grad_(False).of(0)
