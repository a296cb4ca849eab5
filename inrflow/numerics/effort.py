"""Effort: a clock that advances with the work that is done. What is decided by it repeats, unlike what time decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PRODUCTS = 1e10  # multiplications of matrices' entries in a second of a usual core
_ELEMENTS = 1.2e9  # operations on single elements, memory included
_CALLS = 2e5  # operations on tensors, however small
_SLOWEST = 2.5  # times slower than a usual core: beyond, time counts after all, so that budgets hold


class OutOfTime(Exception):
    """The time of a computation is over; what it has not finished is abandoned."""


@dataclass
class Limit:
    """Where computations end: at so much effort, at a time of a clock, or where what is `asked` says so."""

    most: float = math.inf
    until: float = math.inf
    clock: Callable[[], float] = time.perf_counter
    asked: Callable[[], bool] | None = None


class Effort:
    """Seconds of a usual core that computations take by their sizes, as far as these are added.

    On a machine that is many times slower, seconds of the processor since the start stand in for them. Long
    computations that add to it, or `check` it, end where a limit has been reached.
    """

    def __init__(self) -> None:
        self._spent, self._began = 0.0, time.process_time()
        self._limits: list[Limit] = []

    def add(self, products: float = 0.0, elements: float = 0.0, calls: float = 0.0, seconds: float = 0.0) -> None:
        """Count multiplications in products of matrices, operations on elements, operations on whole tensors, and what
        is known in seconds."""
        self._spent += seconds + seconds_of(products, elements, calls)
        self.check()

    def check(self) -> None:
        """Raise OutOfTime where a limit has been reached: once in a second, or more often."""
        for limit in self._limits:
            if self() > limit.most or limit.clock() > limit.until or (limit.asked is not None and limit.asked()):
                raise OutOfTime

    @property
    def spent(self) -> float:
        """What was added since the start."""
        return self._spent

    def left(self) -> float:
        """Seconds that can be added before a limit is reached, a day at most."""
        return min([86_400.0, *(max(limit.most - self._spent, 0.0) for limit in self._limits)])

    @contextmanager
    def limited(self, limit: Limit) -> Iterator[None]:
        """While the body runs, computations end at a limit, which may be changed meanwhile."""
        self._limits.append(limit)
        try:
            yield
        finally:
            self._limits.pop()

    def restart(self) -> None:
        """Begin to count anew."""
        self._spent, self._began = 0.0, time.process_time()

    def __call__(self) -> float:
        """Seconds since the start."""
        return max(self._spent, (time.process_time() - self._began) / _SLOWEST)


def seconds_of(products: float = 0.0, elements: float = 0.0, calls: float = 0.0) -> float:
    """Seconds of a usual core for operations as they are added to an `Effort`."""
    return products / _PRODUCTS + elements / _ELEMENTS + calls / _CALLS


effort = Effort()
