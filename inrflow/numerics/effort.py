"""Effort: a clock that advances with the work that is done. What is decided by it repeats, unlike what time decides."""

from __future__ import annotations

import time

_PRODUCTS = 1e10  # multiplications of matrices' entries in a second of a usual core
_ELEMENTS = 4e8  # operations on single elements, memory included
_CALLS = 2e5  # operations on tensors, however small
_SLOWEST = 2.5  # times slower than a usual core: beyond, time counts after all, so that budgets hold


class Effort:
    """Seconds of a usual core that computations take by their sizes, as far as these are added.

    On a machine that is many times slower, seconds of the processor since the start stand in for them.
    """

    def __init__(self) -> None:
        self._spent, self._began = 0.0, time.process_time()

    def add(self, products: float = 0.0, elements: float = 0.0, calls: float = 0.0, seconds: float = 0.0) -> None:
        """Count multiplications in products of matrices, operations on elements, operations on whole tensors, and what
        is known in seconds."""
        self._spent += seconds + products / _PRODUCTS + elements / _ELEMENTS + calls / _CALLS

    def restart(self) -> None:
        """Begin to count anew."""
        self._spent, self._began = 0.0, time.process_time()

    def __call__(self) -> float:
        """Seconds since the start."""
        return max(self._spent, (time.process_time() - self._began) / _SLOWEST)


effort = Effort()
