"""Records of a run (metrics.jsonl, candidates.json, external loggers, progress), and its budget: remaining time and the
decisions made under it (decisions.json)."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from inrflow.config.train_schema import Config
from inrflow.errors import UserError
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.runtime.atomic_files import read_json, write_json
from inrflow.runtime.loggers import Loggers, TensorBoard
from inrflow.runtime.run_files import CANDIDATES_FILE, METRICS_FILE

Clock = Callable[[], float]

DECISIONS_FILE = "decisions.json"
LOGGERS = "inrflow.loggers"  # entry points
CHECKPOINT_SECONDS = 30.0
_PLAIN_SECONDS = 20.0
_LATEST, _START = 1.1, 8.0  # share of the budget, and seconds added, after which searches end
_SPENDABLE = 0.8  # share of the remaining time that a part may use


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was received; everything that `resume` needs has been saved."""


@dataclass
class Tried:
    """One row of candidates.json: a fitted model, its error on held-out data, and why it was not chosen.

    Attributes:
        recipe, candidate: the recipe that proposed it, and a short description.
        code_size, memory, contexts: dimensions of a state; unknowns: number of fitted parameters of its dynamics.
        seconds: since the row before.
        validation_error, floor: of rollouts and of the decoder alone, relative to the variance; None if not finite.
        taken: whether it became the surrogate; why: else, the reason against it.
    """

    recipe: str
    candidate: str
    code_size: int
    validation_error: float | None
    floor: float | None = None
    unknowns: int | None = None
    memory: int = 0
    contexts: int = 0
    seconds: float = 0.0
    taken: bool = False
    why: str = ""


class Recorder:
    """Logs of one run directory; used as a context manager.

    Ctrl-C and SIGTERM raise Interrupted at once, since closed-form solves are simply repeated by `resume`. Only a loop
    under `saving` completes its step: the signal sets `stopping`, and the loop saves its state and raises. A second
    signal is immediate. If a configuration is given, metrics are also sent to registered loggers.
    """

    def __init__(self, directory: Path, console: Console | None = None, config: Config | None = None) -> None:
        self.directory = directory
        self.console = console or Console(stderr=True, markup=False)
        self.stopping = False
        self._saving = False
        self._started = time.monotonic()
        self._config = config
        self._loggers: Loggers | None = None
        self._progress = Progress(
            TextColumn("{task.description:<22}"), BarColumn(bar_width=24),
            TextColumn("{task.completed:>6.0f}/{task.total:.0f}"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self.console, disable=not self.console.is_terminal,
        )
        self._told = self._started
        self.candidates: list[Tried] = []
        self.not_applied: list[dict[str, str]] = []
        self._decisions: dict[str, int] = {}
        self._last_tried = self._started

    def __enter__(self) -> Recorder:
        self._metrics = open(self.directory / METRICS_FILE, "a", buffering=1)  # noqa: SIM115
        if self._config is not None:
            registered: dict[str, Callable[[], Any]] = {one.name: one.load for one in entry_points(group=LOGGERS)}
            if find_spec("tensorboard") is not None:
                registered["tensorboard"] = lambda: TensorBoard
            if registered:
                self._loggers = Loggers(registered, self.directory, asdict(self._config), self.say)
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not the main thread: the caller handles its own signals
                self._previous[number] = signal.signal(number, self._stop)
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._metrics.close()
        if self._loggers is not None:
            self._loggers.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping or not self._saving:
            raise Interrupted
        self.stopping = True
        self.say("stopping: saving the state of training first")

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Context manager for a loop that checks `stopping` after every step: a signal only sets this attribute."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def tried(self, row: Tried) -> Tried:
        """Add a row to candidates.json and return it; it may be changed until the run ends."""
        now = time.monotonic()
        row.seconds, self._last_tried = round(now - self._last_tried, 3), now
        for key in ("validation_error", "floor"):
            value = getattr(row, key)
            setattr(row, key, None if value is None or not math.isfinite(value) else float(value))
        self.candidates.append(row)
        self.save_candidates()
        return row

    def skip(self, recipe: str, why: str) -> None:
        """Record why a recipe was not tried."""
        self.not_applied.append({"recipe": recipe, "why": why})
        self.save_candidates()

    def save_candidates(self) -> None:
        """Write candidates.json."""
        rows = [asdict(row) for row in self.candidates]
        chosen = next((i for i, row in enumerate(self.candidates) if row.taken), None)
        write_json(self.directory / CANDIDATES_FILE, {
            "chosen": chosen, "candidates": rows, "not_applied": self.not_applied, "decisions": self._decisions,
        })

    def read_decisions(self) -> dict[str, int]:
        """Decisions of a run that was stopped in this directory, empty if there was none. Raises UserError if they
        cannot be read."""
        decisions = read_json(path := self.directory / DECISIONS_FILE) or {}
        if not all(type(value) is int for value in decisions.values()):
            raise UserError(f"{path} holds other values than whole numbers; remove it to make the decisions again")
        return decisions

    def save_decisions(self, decisions: Mapping[str, int]) -> None:
        """Write decisions.json, from which a resumed run repeats the same choices."""
        self._decisions = dict(decisions)
        write_json(self.directory / DECISIONS_FILE, self._decisions)

    def say(self, message: str) -> None:
        """Print one line for the user."""
        self.console.print(message, highlight=False, soft_wrap=True)

    def begin(self, stage: str, steps: int, done: int = 0) -> None:
        """Start a stage of `steps` steps, of which `done` were completed before."""
        self.end()
        self._progress.add_task(stage, total=steps, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Show progress of the current stage."""
        now = time.monotonic()
        for task in self._progress.tasks:  # one, or none
            self._progress.update(task.id, completed=done, note=note)
            if not self.console.is_terminal and now - self._told > _PLAIN_SECONDS:  # no terminal: a line now and then
                self._told = now
                self.say(f"{task.description}: {done} of {task.total:.0f}{', ' + note if note else ''}")

    def end(self) -> None:
        """Remove the progress bar of the current stage."""
        for task in self._progress.tasks:
            self._progress.remove_task(task.id)

    def log(self, stage: str, step: int, **values: float | int | str | bool | None) -> None:
        """Append a line to metrics.jsonl; non-finite numbers become null."""
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        row = {"stage": stage, "step": step, "seconds": round(time.monotonic() - self._started, 3), **values}
        self._metrics.write(json.dumps(row) + "\n")
        if self._loggers is not None:
            self._loggers.log(step, stage, values)

    def notes(self, stage: str) -> Callable[[str], None]:
        """Function that appends lines of text to metrics.jsonl as notes of a stage."""
        return lambda line: self.log(stage, 0, note=line)


class Budget:
    """Remaining seconds by an injected clock, and decisions under the budget: numbers of steps, copies and rounds.

    Args:
        minutes: time for all of training.
        decisions: of an earlier run or of the configuration, which are repeated; None values are undecided.
        clock: seconds; processor time on a shared machine.
        record: called with all decisions whenever one is added.
    """

    def __init__(
        self, minutes: float, decisions: Mapping[str, int | None] | None = None, clock: Clock = time.perf_counter,
        record: Callable[[dict[str, int]], None] = lambda decisions: None,
    ) -> None:
        self.total, self.clock, self._record = 60 * minutes, clock, record
        self.decisions = {name: value for name, value in (decisions or {}).items() if value is not None}
        self.started = clock()

    def seconds(self, share: float, least: float = 0.0) -> float:
        """A share of the budget, limited by the remaining time, but at least the share `least`."""
        return max(min(share * self.total, _SPENDABLE * (self.total - self.elapsed)), least * self.total)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def _end(self) -> float:
        return _LATEST * self.total + _START

    @property
    def over(self) -> bool:
        """Whether the time is spent, so that optional work is skipped."""
        return self.elapsed > self._end

    @contextmanager
    def part(
        self, share: float = math.inf, ended: Callable[[], None] = lambda: None, most: float = 1.0,
        least: float = -math.inf,
    ) -> Iterator[Clock]:
        """Context manager for optional work, which is abandoned once its limit is reached; `ended` is then called.

        The limit is a `share` of the budget in effort, so that runs repeat, and, as a safeguard on slow or busy
        machines, the end of the budget by the clock or a share `most` of it, but not before a share `least` from now.
        Yields a function that returns the remaining seconds by the clock.
        """
        now = self.elapsed
        until = max(min(self._end, now + most * self.total + _START), now + least * self.total)
        try:
            with effort.limited(Limit(effort() + share * self.total, self.started + until, self.clock)):
                yield lambda: until - self.elapsed
        except OutOfTime:
            ended()

    def decide(self, name: str, value: int | Callable[[], int]) -> int:
        """The recorded decision, or else a value (or the result of a costly function), which is then recorded."""
        if name not in self.decisions:
            self.record(name, value() if callable(value) else value)
        return self.decisions[name]

    def record(self, name: str, value: int) -> None:
        """Record a decision that follows from others."""
        if self.decisions.get(name) != value:
            self.decisions[name] = value
            self._record(dict(self.decisions))
