"""A run: the problem, the judge, the budget and the log that every part of training is given.

The budget is of time; decisions that are made under it are recorded, so that the run repeats.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

from inrflow.config.schema import Config
from inrflow.training.budget import Budget, Clock
from inrflow.training.judge import Judge
from inrflow.training.problem import Problem
from inrflow.training.recorder import Recorder


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        problem: what is to be learned.
        judge: of the problem as it was posed.
        budget: time that is left and decisions; log: what the run tells and records.
        config: settings of the problem.
    """

    problem: Problem
    judge: Judge
    budget: Budget
    log: Recorder
    config: Config

    def on(self, problem: Problem) -> Run:
        """The run on a variant of its problem; the judge stays."""
        return replace(self, problem=problem)


def start_run(problem: Problem, log: Recorder, clock: Clock = time.perf_counter) -> Run:
    """A run with the configured budget, and the decisions of the configuration and of a run that was stopped."""
    training = problem.config.training
    decisions = {**log.read_decisions(), **{k: v for k, v in asdict(training.steps).items() if v is not None}}
    if decisions:
        log.save_decisions(decisions)
    budget = Budget(training.minutes, decisions, clock, log.save_decisions)
    return Run(problem, Judge(problem), budget, log, problem.config)
