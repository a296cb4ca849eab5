"""Loggers of training metrics: TensorBoard, and loggers that other packages register under the entry point group
`inrflow.loggers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

_WAITING = 100_000  # largest number of queued rows
_PATIENCE = 20.0  # seconds to wait for queued rows at the end

#: Called with a step, the name of its stage and measured values; its `close`, if any, is called at the end.
Logger = Callable[[int, str, dict[str, float]], Any]


class TensorBoard:
    """Logger that writes scalars to the folder tensorboard of a run."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory / "tensorboard"))
        self.close = self._writer.close

    def __call__(self, step: int, name: str, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(f"{name}/{key}", value, step)


class Loggers:
    """All loggers of one run, created from its directory and configuration, and called in a separate thread, so that
    training does not wait. A logger that raises an exception is reported once, by `say`, and not called again.

    registered: functions that load the factories of loggers, by name.
    """

    def __init__(self, registered: Mapping[str, Callable[[], Any]], directory: Path, config: Mapping[str, Any],
                 say: Callable[[str], None]) -> None:
        self._say, self._lost = say, 0
        self._rows: SimpleQueue[tuple[int, str, dict[str, float]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, args=(registered, directory, config), daemon=True)
        self._thread.start()

    def log(self, step: int, name: str, values: Mapping[str, Any]) -> None:
        """Queue the numbers among the values of a step."""
        if self._rows.qsize() < _WAITING:
            self._rows.put((step, name, {key: value for key, value in values.items()
                                         if isinstance(value, int | float) and not isinstance(value, bool)}))
        else:
            self._lost += 1

    def close(self) -> None:
        """Wait for the loggers for a limited time, and report rows that were not logged."""
        self._rows.put(None)
        self._thread.join(_PATIENCE)
        lost = self._lost + (self._rows.qsize() if self._thread.is_alive() else 0)
        if lost or self._thread.is_alive():
            self._say(f"loggers are too slow: {lost} rows of metrics were not waited for; metrics.jsonl has them")

    def _work(self, registered: Mapping[str, Callable[[], Any]], directory: Path, config: Mapping[str, Any]) -> None:
        loggers: dict[str, Logger] = {}

        def attempt(name: str, call: Callable[..., Any], *given: Any) -> Any:
            try:
                return call(*given)
            except Exception as error:
                loggers.pop(name, None)
                why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self._say(f"the logger {name} failed and is dropped ({why}); training continues")

        for name, load in registered.items():
            maker = attempt(name, load)
            logger = maker and attempt(name, maker, directory, config)
            if logger is not None:
                loggers[name] = logger
        while (row := self._rows.get()) is not None:
            for name, logger in list(loggers.items()):
                attempt(name, logger, *row)
        for name, logger in list(loggers.items()):
            attempt(name, getattr(logger, "close", lambda: None))
