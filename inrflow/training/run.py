"""A training run: problem, judge, budget and log, which all parts of training share; and the protocol of recipes, which
propose candidates."""

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
        problem: the learning problem.
        judge: of the problem as it was posed.
        budget: remaining time and recorded decisions; log: messages and records of the run.
        config: settings of the problem.
    """

    problem: Problem
    judge: Judge
    budget: Budget
    log: Recorder
    config: Config

    def on(self, problem: Problem) -> Run:
        """The run with a variant of its problem and the same judge."""
        return replace(self, problem=problem)

    def without_symmetries(self) -> Run:
        """The run without symmetries, for codes that are parameters of single training frames."""
        if len(self.problem.symmetries):
            self.log.say("symmetries are not used: these codes belong to single training frames")
        return self.on(replace(self.problem, symmetries=self.problem.symmetries.only([])))

    def steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Number of steps of a training loop that fit into a share of the budget, timed on a copy that is discarded."""
        budget = self.budget
        return budget.decide(name, lambda: timed_steps(stage, budget.seconds(share), largest=largest,
                                                       timer=budget.clock))


@runtime_checkable
class Recipe(Protocol):
    """A method that proposes candidates.

    `applies` returns None, or one line with the reason why the recipe is not tried, given the best candidate so far.
    `propose` yields candidates; an earlier one of the same recipe is replaced by a clearly better later one. Optional
    methods: `is_late(problem)`, whether it is tried after the others, since it takes much time and seldom succeeds on
    such data; `is_quick(problem)`, whether it is tried even after the time budget is spent.
    """

    name: str

    def applies(self, problem: Problem, best: Candidate | None) -> str | None: ...

    def propose(self, run: Run) -> Iterator[Candidate]: ...
