"""A run: the problem, the judge, the budget and the log that every part of training is given.

The budget is of time; decisions that are made under it are recorded, so that the run repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from inrflow.config.schema import Config
from inrflow.training.judge import Judge
from inrflow.training.loop import Stage, timed_steps
from inrflow.training.problem import Problem
from inrflow.training.recorder import Recorder

Clock = Callable[[], float]
Record = Callable[[dict[str, int]], None]

_SPENDABLE = 0.8  # of what is left: no part may use up all of it


class Budget:
    """Seconds that are left by an injected clock, and decisions: numbers of steps, copies and rounds.

    Args:
        minutes: time for all of training.
        decisions: those of an earlier run or of the configuration, which are repeated. None is open.
        clock: seconds; processor time on a machine that is shared.
        record: called with all decisions whenever one is added.
    """

    def __init__(
        self, minutes: float, decisions: Mapping[str, int | None] | None = None, clock: Clock = time.perf_counter,
        record: Record = lambda decisions: None,
    ) -> None:
        self.total, self.clock, self._record = 60 * minutes, clock, record
        self.decisions = {name: value for name, value in (decisions or {}).items() if value is not None}
        self.started = clock()

    def seconds(self, share: float) -> float:
        """A share of the budget, less where little of it is left."""
        return min(share * self.total, max(_SPENDABLE * (self.total - self.elapsed), 0.0))

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def known(self, name: str) -> int | None:
        """A decision that has been made, None for an open one."""
        return self.decisions.get(name)

    def decide(self, name: str, choose: Callable[[], int]) -> int:
        """The recorded decision, or else what `choose` says, then recorded."""
        if name not in self.decisions:
            self.record(name, choose())
        return self.decisions[name]

    def record(self, name: str, value: int) -> None:
        """Record a decision that follows from others."""
        if self.decisions.get(name) != value:
            self.decisions[name] = value
            self._record(dict(self.decisions))

    def steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a training loop that fit into a share of the time, measured on a copy that is thrown away."""
        return self.decide(name, lambda: timed_steps(stage, self.seconds(share), largest=largest, timer=self.clock))


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        problem: what is to be learned.
        judge: of the problem as it was posed.
        budget: time that is left and decisions; log: what the run tells and records.
    """

    problem: Problem
    judge: Judge
    budget: Budget
    log: Recorder

    @property
    def config(self) -> Config:
        """Settings of the run."""
        return self.problem.config

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
    return Run(problem, Judge(problem), budget, log)
