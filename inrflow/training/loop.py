"""The training loop: a fixed number of descent steps, validated, checkpointed, resumable, with the best state kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.numerics.effort import OutOfTime, effort
from inrflow.numerics.team import Compute, Lost, team, trained
from inrflow.runtime.tensor_files import load_tensors, save_tensors, to_cpu
from inrflow.training.recorder import CHECKPOINT_SECONDS, Interrupted, Recorder

WARM_UP, _CLIP = 20, 1.0  # steps; largest norm of gradients
_FEWEST_STEPS = 20
_TIMED_AT = (900, 600, 250, 150, 50)  # steps that are timed, of 1000
_TIMED_SHARE = 0.02  # share of the time spent on timing, so that long steps are timed less often


@dataclass(frozen=True)
class OptimiserSettings:
    """An optimiser by name: soap (Vyas et al. 2024; the best known setting), adamw or adam."""

    name: str = "soap"
    rate: float = 1e-3
    weight_decay: float = 0.0

    def make(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser for parameters, or for parameter groups with their own learning rates."""
        if self.name == "soap":
            from pytorch_optimizer import SOAP

            return SOAP(parameters, lr=self.rate, weight_decay=self.weight_decay, precondition_frequency=10)
        if self.name == "adam":
            return torch.optim.Adam(parameters, lr=self.rate)
        return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.weight_decay, betas=(0.9, 0.99))


def learning_rate(step: int, steps: int) -> float:
    """Learning rate at a step relative to the full one: linear warm-up, then cosine decay to 1 %."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * (0.99 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1))) + 0.01)


def step_random(seed: int, stage: str, step: int) -> np.random.Generator:
    """Random generator of one step, a function of seed, stage and step alone, so that resumed runs repeat it."""
    return np.random.default_rng([seed, step, *stage.encode()])


def timed_steps(
    stage: Stage, seconds: float, largest: int = 100_000, timer: Callable[[], float] = time.perf_counter
) -> int:
    """Number of steps that fit into `seconds`, estimated by timing a few on a copy of the module that is discarded.

    Late steps of the stage are timed first, since growing rollouts make them longer.
    """
    if seconds <= 0:
        return 0
    trial = copy.deepcopy(stage.module)
    optimiser = stage.make_optimiser(trial)
    durations: list[float] = []
    started = timer()
    for number, step in enumerate((0, 1, *_TIMED_AT)):
        began = timer()
        stage.advance(trial, optimiser, step, 1000)
        durations.append(timer() - began)
        if number > 1 and timer() - started > _TIMED_SHARE * seconds:
            break
    duration = sum(durations[2:]) / len(durations[2:])
    return int(min(max(seconds / max(duration, 1e-6), _FEWEST_STEPS), largest))


@dataclass
class Stage:
    """One stage of training.

    Attributes:
        name: of its checkpoint and its random numbers.
        module: trained in place.
        loss: (module, step, steps, random) -> scalar tensor; if `shared`, (..., part) -> the contribution of a part of
            the batch, a slice, and the parts are computed by a team of processes.
        validate: module -> error, smaller is better; None to keep the last state.
        patience: stop once this share of the steps has passed without a better validation error; 1 for never.
        tolerance: keep the latest state with a validation error within this factor of the best.
        title: its name in the log; by default `name`.
    """

    name: str
    module: nn.Module
    loss: Callable[..., Tensor]
    validate: Callable[[nn.Module], float] | None = None
    optimiser: OptimiserSettings = OptimiserSettings()
    seed: int = 0
    patience: float = 1.0
    tolerance: float = 1.0
    validations: int = 25
    title: str = ""
    shared: bool = False

    def make_optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the trained parameters."""
        return self.optimiser.make(trained(module))

    def advance(self, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, steps: int) -> float:
        """One step; returns its loss."""
        for group in optimiser.param_groups:
            group["lr"] = self.optimiser.rate * learning_rate(step, steps)
        optimiser.zero_grad(set_to_none=True)
        (loss,) = self.gradients(_Descent(self.loss), module, step, steps)
        norm = torch.nn.utils.clip_grad_norm_(trained(module), _CLIP)
        if bool(torch.isfinite(norm)):
            optimiser.step()
        return loss

    def gradients(self, compute: Compute, module: nn.Module, step: int, *further: int) -> tuple[float, ...]:
        """Add the gradients of a step, computed by the team if `shared`; returns the values of `compute`."""
        random = step_random(self.seed, self.name, step)
        if not self.shared:
            return compute(module, step, *further, random)
        return team.gradients((self.name, compute), compute, module, step, *further, random)


@dataclass(frozen=True)
class _Descent:
    """Gradients of a scalar loss."""

    loss: Callable[..., Tensor]

    def __call__(self, module: nn.Module, *arguments: Any) -> tuple[float]:
        loss = self.loss(module, *arguments)
        if loss.requires_grad:  # a part of a batch may be empty
            loss.backward()
        return (float(loss.detach()),)


def _error(stage: Stage, module: nn.Module) -> float:
    """Validation error; infinite instead of NaN."""
    assert stage.validate is not None
    error = stage.validate(module)
    return error if error == error else float("inf")


def run_stage(stage: Stage, steps: int, log: Recorder) -> float:
    """Run a stage to its end, from its checkpoint if one exists; the module ends in its best state.

    It ends early if a limit of effort is reached. Returns the best validation error. Raises Interrupted, after saving,
    if the log is stopping.
    """
    module, checkpoint = stage.module, log.directory / "checkpoints" / f"{stage.name}.safetensors"
    optimiser, title = stage.make_optimiser(module), stage.title or stage.name
    now: dict[str, Any] = {"step": 0, "best": math.inf, "best_state": to_cpu(module.state_dict()), "best_step": 0,
                           "lowest": math.inf}
    if checkpoint.exists():
        now, _ = load_tensors(checkpoint)
        module.load_state_dict(now.pop("module"))
        optimiser.load_state_dict(now.pop("optimiser"))
    elif stage.validate is not None:
        now["best"] = now["lowest"] = _error(stage, module)
        log.log(title, 0, validation=now["best"])
    first = now["step"]
    every = max(1, steps // stage.validations)
    saved = time.monotonic()
    log.begin(title, steps, first)
    running: float | None = None

    def save(step: int) -> None:
        now["step"] = step
        save_tensors(checkpoint, {"module": module.state_dict(), "optimiser": optimiser.state_dict(), **now})

    with log.saving():
        for step in range(first, steps):
            try:
                effort.check()
                loss = stage.advance(module, optimiser, step, steps)
            except OutOfTime:
                break
            except Lost:
                save(step)
                raise
            running = loss if running is None else 0.95 * running + 0.05 * loss
            done = step + 1
            if done % every == 0 or done == steps:
                row: dict[str, float] = {"loss": running}
                if stage.validate is not None:
                    error = _error(stage, module)
                    row["validation"] = error
                    now["lowest"] = min(now["lowest"], error)
                    if error <= stage.tolerance * now["lowest"] and (stage.tolerance > 1.0 or error < now["best"]):
                        now.update(best=error, best_state=to_cpu(module.state_dict()), best_step=done)
                log.log(title, done, **row)
                log.advance(done, "  ".join(f"{k} {v:.2e}" for k, v in row.items()))
                if stage.validate is not None and done - now["best_step"] > stage.patience * steps:
                    break
            elif done % 10 == 0:
                log.advance(done, f"loss {running:.2e}")
            if log.stopping:
                save(done)
                raise Interrupted
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save(done)
                saved = time.monotonic()
    log.end()
    optimiser.zero_grad(set_to_none=True)  # else a user's own gradients would be added to these
    if first < steps:
        save(steps)
    if log.stopping:  # a signal after the last check in the loop
        raise Interrupted
    if stage.validate is not None:
        module.load_state_dict(now["best_state"])
    return now["best"]
