"""A run: the problem, the judge, the budget and the log that every part of training is given; and the protocol of
recipes, ways from a run to candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from inrflow.config.schema import Config
from inrflow.training.candidate import Candidate
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
        return self.on(replace(self.problem, symmetries=self.problem.symmetries.only([])))

    def steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a training loop that fit into a share of the time, measured on a copy that is thrown away."""
        budget = self.budget
        return budget.decide(name, lambda: timed_steps(stage, budget.seconds(share), largest=largest,
                                                       timer=budget.clock))


@runtime_checkable
class Recipe(Protocol):
    """A way to candidates.

    `applies` returns None, or one line that says why the recipe is not tried, given the best candidate so far.
    `propose` yields candidates; an earlier one of the same recipe is replaced by a clearly better later one.
    Optional are `is_late(problem)`: it is tried after the others, for it takes much time and seldom finds a model of
    such data; and `is_quick(problem)`: it is tried however late it is.
    """

    name: str

    def applies(self, problem: Problem, best: Candidate | None) -> str | None: ...

    def propose(self, run: Run) -> Iterator[Candidate]: ...
