"""The time budget of a run, and the decisions that were made under it, recorded so that the run repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from inrflow.training.loop import Stage, timed_steps

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
