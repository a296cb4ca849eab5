"""The training loop: a fixed number of steps of descent, validated, checkpointed, resumable, best state kept."""

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

WARM_UP = 20
_FEWEST_STEPS = 20
_TIMED_AT = (900, 600, 250, 150, 50)  # of 1000
_TIMED_SHARE = 0.02  # of the time that there is: long steps are timed less often


@dataclass(frozen=True)
class OptimiserSettings:
    """An optimiser by name: soap (Vyas et al. 2024; the best known setting), adamw or adam."""

    name: str = "soap"
    rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 1.0

    def make(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of some parameters, or of groups of them with rates of their own."""
        if self.name == "soap":
            from pytorch_optimizer import SOAP

            return SOAP(parameters, lr=self.rate, weight_decay=self.weight_decay, precondition_frequency=10)
        if self.name == "adam":
            return torch.optim.Adam(parameters, lr=self.rate)
        return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.weight_decay, betas=(0.9, 0.99))


def learning_rate(step: int, steps: int) -> float:
    """Share of the full rate at a step: linear warm-up, then a cosine down to 1 %."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * (0.99 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1))) + 0.01)


def step_random(seed: int, stage: str, step: int) -> np.random.Generator:
    """The random numbers of one step, a function of seed, stage and step alone, so that a resumed run repeats them."""
    return np.random.default_rng([seed, step, *stage.encode()])


def timed_steps(
    stage: Stage, seconds: float, largest: int = 100_000, timer: Callable[[], float] = time.perf_counter
) -> int:
    """How many steps fit into `seconds` of the timer from timing a few on a copy thrown away.

    They are taken from all over the stage, late ones first: rollouts that grow make later steps longer.
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
        name: names its checkpoint and its random numbers.
        module: what is trained, in place.
        loss: (module, step, steps, random) -> scalar tensor; where it is `shared`, (..., part) -> what a part of the
            batch, a slice, adds to it, and a team of processes computes the parts.
        validate: module -> error, smaller is better; None to keep the last state.
        patience: stop when this share of the steps has passed without a better validation error; 1 for never.
        tolerance: keep the latest state whose validation error is within this factor of the best.
        title: what the log calls it; by default its name.
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
        norm = torch.nn.utils.clip_grad_norm_(trained(module), self.optimiser.clip)
        if bool(torch.isfinite(norm)):
            optimiser.step()
        return loss

    def gradients(self, compute: Compute, module: nn.Module, step: int, *further: int) -> tuple[float, ...]:
        """Add the gradients of a step, by the team where they are shared; the values that `compute` returns."""
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
        if loss.requires_grad:  # a part may be empty
            loss.backward()
        return (float(loss.detach()),)


def _error(stage: Stage, module: nn.Module) -> float:
    """Validation error; infinite where it is no number, which nothing would be better than."""
    assert stage.validate is not None
    error = stage.validate(module)
    return error if error == error else float("inf")


def run_stage(stage: Stage, steps: int, log: Recorder) -> float:
    """Run a stage to its end, from its checkpoint where one exists; the module ends in its best state.

    Where the time is over it ends early. Returns the best validation error.
    Raises Interrupted after saving, when the log is told to stop.
    """
    module, checkpoint = stage.module, log.directory / "checkpoints" / f"{stage.name}.safetensors"
    optimiser = stage.make_optimiser(module)
    title = stage.title or stage.name
    first, best, best_state, best_step = 0, float("inf"), to_cpu(module.state_dict()), 0
    lowest = float("inf")
    if checkpoint.exists():
        state, _ = load_tensors(checkpoint)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        first, best, best_state, best_step = state["step"], state["best"], state["best_state"], state["best_step"]
        lowest = state["lowest"]
    elif stage.validate is not None:
        best = lowest = _error(stage, module)
        log.log(title, 0, validation=best)
    every = max(1, steps // stage.validations)
    saved = time.monotonic()
    log.begin(title, steps, first)
    running: float | None = None

    def save(step: int) -> None:
        state = {
            "module": module.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "best": best,
            "best_state": best_state, "best_step": best_step, "lowest": lowest,
        }
        save_tensors(checkpoint, state)

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
                    lowest = min(lowest, error)
                    if error <= stage.tolerance * lowest and (stage.tolerance > 1.0 or error < best):
                        best, best_state, best_step = error, to_cpu(module.state_dict()), done
                log.log(title, done, **row)
                note = "  ".join(f"{k} {v:.2e}" for k, v in row.items())
                log.advance(done, note)
                if stage.validate is not None and done - best_step > stage.patience * steps:
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
    optimiser.zero_grad(set_to_none=True)  # a user's own gradients would be added to them
    if first < steps:
        save(steps)
    if log.stopping:  # a signal between the last look at it and the end of the loop
        raise Interrupted
    if stage.validate is not None:
        module.load_state_dict(best_state)
    return best
