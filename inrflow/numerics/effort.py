"""Effort: a deterministic clock that counts operations, so that decisions made by it are the same in repeated runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PRODUCTS = 1e10  # multiplications in matrix products per second of a typical core
_ELEMENTS = 1.2e9  # operations on single elements, memory included
_CALLS = 2e5  # operations on tensors, however small
_SLOWEST = 2.5  # slow-down relative to a typical core beyond which measured time counts


class OutOfTime(Exception):
    """A limit of effort or time was reached; unfinished work is abandoned."""


@dataclass
class Limit:
    """Stopping rule of computations: an amount of effort, a time of a clock, or a predicate `asked`."""

    most: float = math.inf
    until: float = math.inf
    clock: Callable[[], float] = time.perf_counter
    asked: Callable[[], bool] | None = None


class Effort:
    """Estimated run time, in seconds of a typical processor core, from operation counts passed to `add`.

    On a machine that is many times slower, the measured processor time is used instead. Long computations that call
    `add` or `check` are ended by OutOfTime once a limit is reached.
    """

    def __init__(self) -> None:
        self._spent, self._began = 0.0, time.process_time()
        self._limits: list[Limit] = []

    def add(self, products: float = 0.0, elements: float = 0.0, calls: float = 0.0, seconds: float = 0.0) -> None:
        """Count multiplications in matrix products, operations on elements, operations on whole tensors, and work that
        is known in seconds. Raises OutOfTime as `check` does."""
        self._spent += seconds + seconds_of(products, elements, calls)
        self.check()

    def check(self) -> None:
        """Raise OutOfTime if a limit is reached. Long computations call this at least once a second."""
        for limit in self._limits:
            if self() > limit.most or limit.clock() > limit.until or (limit.asked is not None and limit.asked()):
                raise OutOfTime

    @property
    def spent(self) -> float:
        """Effort added since the start, in seconds."""
        return self._spent

    def left(self) -> float:
        """Seconds that can be added before a limit is reached, a day at most."""
        return min([86_400.0, *(max(limit.most - self._spent, 0.0) for limit in self._limits)])

    @contextmanager
    def limited(self, limit: Limit) -> Iterator[None]:
        """Context manager under which computations end at a limit; the limit may be changed meanwhile."""
        self._limits.append(limit)
        try:
            yield
        finally:
            self._limits.pop()

    def restart(self) -> None:
        """Reset the count to zero."""
        self._spent, self._began = 0.0, time.process_time()

    def __call__(self) -> float:
        """Seconds since the start: the effort added, or a share of the processor time on slow machines."""
        return max(self._spent, (time.process_time() - self._began) / _SLOWEST)


def seconds_of(products: float = 0.0, elements: float = 0.0, calls: float = 0.0) -> float:
    """Estimated seconds on a typical processor core for operation counts as in `Effort.add`."""
    return products / _PRODUCTS + elements / _ELEMENTS + calls / _CALLS


effort = Effort()
