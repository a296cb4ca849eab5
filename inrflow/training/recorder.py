"""What a run tells of itself: metrics.jsonl, TensorBoard where it is installed, and a progress line with time left."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

CHECKPOINT_SECONDS = 30.0
_PLAIN_SECONDS = 20.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; what `resume` needs has been saved."""


class Recorder:
    """Logs of one run directory; use as a context manager.

    Ctrl-C and SIGTERM raise Interrupted at once, for what is solved in closed form is solved anew by `resume`. Only a
    loop that is `saving` goes on to the end of its step: they set `stopping`, and it saves its state and raises.
    A second signal does not wait.
    """

    def __init__(self, directory: Path, console: Console | None = None) -> None:
        self.directory = directory
        self.console = console or Console(stderr=True)
        self.stopping = False
        self._saving = False
        self._started = time.monotonic()
        self._task: TaskID | None = None
        self._tensorboard: Any = None
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>6.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._stage, self._steps, self._told = "", 0, self._started

    def __enter__(self) -> Recorder:
        self._metrics = open(self.directory / "metrics.jsonl", "a", buffering=1)  # noqa: SIM115
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.directory / "tensorboard"))
        except ImportError:
            self._tensorboard = None
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._stop)
            except ValueError:  # not the main thread: the caller handles its own signals
                pass
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping or not self._saving:
            raise Interrupted
        self.stopping = True
        self.say("stopping: saving the state of training first")

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While the body runs, which looks at `stopping` after every step, a signal only sets that."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def say(self, message: str) -> None:
        """One line for the user."""
        self.console.print(message, highlight=False, soft_wrap=True)

    def begin(self, stage: str, steps: int, done: int = 0) -> None:
        """A new stage of `steps` steps, of which `done` were done before."""
        self.end()
        self._stage, self._steps = stage, steps
        self._task = self._progress.add_task(stage, total=steps, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Show progress of the current stage."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._told > _PLAIN_SECONDS:  # no bar can be drawn: a line, sparsely
            self._told = now
            self.say(f"{self._stage}: {done} of {self._steps}{', ' + note if note else ''}")

    def end(self) -> None:
        """Take the current stage off the screen."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def log(self, stage: str, step: int, **values: float | int | str | bool | None) -> None:
        """Append a line to metrics.jsonl; numbers that are not finite become null, JSON has none."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        row = {"stage": stage, "step": step, "seconds": round(time.monotonic() - self._started, 3), **values}
        self._metrics.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            for key, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._tensorboard.add_scalar(f"{stage}/{key}", value, step)
