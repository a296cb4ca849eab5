"""The budget of a run: time that is left by a clock, and decisions that are made under it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from inrflow.numerics.effort import OutOfTime, effort
from inrflow.training.loop import Stage, timed_steps

Clock = Callable[[], float]
Record = Callable[[dict[str, int]], None]

_LATEST, _START = 1.1, 8.0  # of the time, and seconds after it, when searches end: the least of models takes some
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

    @property
    def _end(self) -> float:
        return _LATEST * self.total + _START

    @property
    def over(self) -> bool:
        """Whether all of the time is gone: what can be left out is."""
        return self.elapsed > self._end

    @contextmanager
    def part(
        self, share: float = math.inf, ended: Callable[[], None] = lambda: None, most: float = 1.0
    ) -> Iterator[Clock]:
        """The body is a part of training that may be left unfinished: it is abandoned where its time is over.

        `share` of the time, in effort, so that runs repeat; and as a guard, on machines that are slower or busy, the
        end of all of the time by the clock, or a share `most` of it. `ended` is called then. Gives what tells the
        seconds that are left by the clock.
        """
        start, until = effort(), min(self._end, self.elapsed + most * self.total + _START)
        try:
            with effort.limited(lambda: effort() - start > share * self.total or self.elapsed > until):
                yield lambda: until - self.elapsed
        except OutOfTime:
            ended()

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
