"""A run: the problem, the judge, the budget and the log that every part of training is given.

The budget is of time; decisions that are made under it are recorded, so that the run repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from inrflow.config.schema import Config
from inrflow.training.budget import Budget
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
