"""Thread pool for the blocks of an evaluation: one thread per core, single-threaded operations within each.

Multithreaded operations would synchronise all threads after every small operation, and one busy core would then delay
them all: measured 5 to 10 times slower on busy cores. Here the threads synchronise once, at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(workers: int) -> ThreadPoolExecutor:
    """Pool of this process; a forked process needs its own, since threads do not survive a fork."""
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="inrflow-kernels")
    return _pools[key]


def run_in_parallel(items: Sequence[Item], run: Callable[[Sequence[Item]], Result], threads: int) -> list[Result]:
    """Results of `run`, without gradients, on consecutive parts of the items, one part per thread, in order.

    The partition depends only on the number of threads, so sums over the results are reproducible.
    """
    workers = max(1, min(threads, len(items)))

    def without_gradients(part: Sequence[Item]) -> Result:
        with torch.no_grad():
            return run(part)

    if workers == 1:
        return [without_gradients(items)]
    bounds = [len(items) * worker // workers for worker in range(workers + 1)]
    parts = [items[low:high] for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    outside = torch.get_num_threads()

    def single_threaded(part: Sequence[Item]) -> Result:
        torch.set_num_threads(1)  # applies to this thread
        return without_gradients(part)

    try:
        return list(_pool(workers).map(single_threaded, parts))
    finally:
        torch.set_num_threads(outside)  # also the default of threads started later
