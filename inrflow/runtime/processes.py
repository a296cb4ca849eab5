"""Processes of one job, started by torchrun or SLURM's srun, and their communication by torch.distributed: gloo on
CPUs and, if every process has its own GPU, nccl for tensors there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from inrflow.errors import UserError

_PATIENCE = timedelta(days=7)  # timeout: one process may finish long before another
_PORTS = 20_000
_NAMES = ("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")  # the latter are set by srun only
RANKS = frozenset(rank for rank, _ in _NAMES)  # a process without any of these in its environment is single


@dataclass(frozen=True)
class Processes:
    """Process number `rank` (this one) among the `size` processes of a job."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Processes:
        """Processes according to the environment, by default a single one. Raises UserError for invalid values."""
        for rank, size in _NAMES:
            if rank in environment and size in environment:
                try:
                    result = cls(int(environment[rank]), int(environment[size]))
                except ValueError:
                    result = cls(-1, 0)
                if not 0 <= result.rank < result.size:
                    raise UserError(f"{rank}={environment[rank]} and {size}={environment[size]} in the environment are "
                                    "no process of a job; start with torchrun or srun, or unset both")
                return result
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process is the first, which writes common results."""
        return self.rank == 0

    @contextmanager
    def joined(self) -> Iterator[Any]:
        """Context manager of communication between the processes; yields the device of fastest exchange.

        Raises UserError if they cannot find each other."""
        import torch

        device = torch.device("cpu")
        if self.size == 1:
            yield device
            return
        import torch.distributed as distributed

        _set_rendezvous_address()
        backend, own = "gloo", self._gpu()
        if own is not None:
            torch.cuda.set_device(own)
            backend, device = "cpu:gloo,cuda:nccl", torch.device("cuda", own)
        try:
            distributed.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the processes of this job cannot find each other ({str(error).splitlines()[0]}); start "
                            "with torchrun, or set MASTER_ADDR and MASTER_PORT") from error
        try:
            yield device
        finally:
            distributed.destroy_process_group()

    def _gpu(self) -> int | None:
        """Number of this process's own GPU; None if a machine has more processes than GPUs."""
        import torch

        def told(names: tuple[str, ...], otherwise: int) -> int:
            text = next((os.environ[name] for name in names if name in os.environ), "")
            return int((re.match(r"\d+", text) or [otherwise])[0])  # SLURM writes 4(x2) for two machines of 4

        number = told(("LOCAL_RANK", "SLURM_LOCALID"), self.rank)
        together = told(("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"), self.size)
        return number if torch.cuda.is_available() and together <= torch.cuda.device_count() else None

    def agreed(self, value: Any) -> Any:
        """Value of the first process, broadcast to all."""
        if self.size == 1:
            return value
        import torch.distributed as distributed

        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """Values of all processes by rank, gathered in each of them. Raises UserError if one has ended."""
        if self.size == 1:
            return [value]
        import torch.distributed as distributed

        values: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:
            raise UserError("another process of this job has ended; give the same command with the same output=DIR, "
                            "and what is finished is kept") from error
        return values


def _set_rendezvous_address() -> None:
    """Set the address and port of the processes of a job on one machine. Raises UserError for several machines without
    MASTER_ADDR."""
    if "MASTER_ADDR" not in os.environ:
        if int(os.environ.get("SLURM_NNODES", "1")) > 1:
            raise UserError("the job has several machines; set MASTER_ADDR to the name of the first, for instance "
                            '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -1)')
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_PORTS + int(os.environ.get("SLURM_JOB_ID", "0")) % _PORTS)
