"""Processes of a job, forked from that of the tests, which has imported everything already."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

from inrflow.numerics.effort import effort


class Forked:
    """A process that ends with the code that `work` returns or exits with; its output and errors go to files."""

    def __init__(self, work: Callable[[], Any], environment: dict[str, str]) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            self._run(work, environment)

    def _run(self, work: Callable[[], Any], environment: dict[str, str]) -> None:
        code: Any = 1
        try:
            os.environ.update(environment)
            for own, file in zip((1, 2), self._files, strict=True):
                os.dup2(file.fileno(), own)
            sys.stdout, sys.stderr = (open(own, "w", closefd=False) for own in (1, 2))
            effort.restart()
            try:
                code = work()
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code or 0)

    def kill(self) -> None:
        """Kill the process."""
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Output and errors, once the process has ended; it is killed after `timeout` seconds."""
        until = time.monotonic() + timeout
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                self.kill()
            time.sleep(0.01)
        self.returncode = os.waitstatus_to_exitcode(found[1])
        texts = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        return texts[0], texts[1]


def job(size: int, work: Callable[[], Any]) -> list[Forked]:
    """A process of each rank of a job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    return [Forked(work, {**(place if size > 1 else {}), "RANK": str(rank)}) for rank in range(size)]


def ended(processes: list[Forked]) -> tuple[list[int | None], list[str], list[str]]:
    """Exit codes, outputs and errors of processes."""
    told = [one.communicate() for one in processes]
    return [one.returncode for one in processes], [out for out, _ in told], [err for _, err in told]
