"""One thread per core for the blocks of an evaluation, each computing its own blocks with single-threaded operations.

Threads inside every small operation would meet at a barrier after each, and a core that another process takes would
stop all of them each time: measured on busy cores, five to ten times slower. Here they meet once, at the end.
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
    """A pool whose threads run torch on one core each; a forked process, whose parent's threads are gone, makes its
    own."""
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="inrflow-kernels")
    return _pools[key]


def run_shared_out(items: Sequence[Item], run: Callable[[Sequence[Item]], Result], threads: int) -> list[Result]:
    """Call `run` once per thread on consecutive parts of the items, without gradients; results in the items' order.

    The parts depend on the number of threads alone, so sums over the results are the same in every run.
    """
    workers = max(1, min(threads, len(items)))

    def quietly(part: Sequence[Item]) -> Result:
        with torch.no_grad():
            return run(part)

    if workers == 1:
        return [quietly(items)]
    bounds = [len(items) * worker // workers for worker in range(workers + 1)]
    parts = [items[low:high] for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    outside = torch.get_num_threads()

    def alone(part: Sequence[Item]) -> Result:
        torch.set_num_threads(1)  # of this thread
        return quietly(part)

    try:
        return list(_pool(workers).map(alone, parts))
    finally:
        torch.set_num_threads(outside)  # the default of threads that start later
