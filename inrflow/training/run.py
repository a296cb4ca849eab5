"""A run: the problem, the judge, the budget and the log that every part of training is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inrflow.config.schema import Config
from inrflow.training.judge import Judge
from inrflow.training.loop import Stage, timed_steps
from inrflow.training.problem import Problem
from inrflow.training.recorder import Budget, Recorder


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

    def without_symmetries(self) -> Run:
        """The run without symmetries, which codes of single training frames cannot use."""
        if len(self.problem.symmetries):
            self.log.say("symmetries are not used: these codes belong to single training frames")
        return self.on(self.problem.with_symmetries(self.problem.symmetries.only([])))

    def steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a training loop that fit into a share of the time, measured on a copy that is thrown away."""
        budget = self.budget
        return budget.decide(name, lambda: timed_steps(stage, budget.seconds(share), largest=largest,
                                                       timer=budget.clock))
