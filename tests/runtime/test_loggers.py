"""Metrics of training reach what is registered as a logger; training does not wait, and one that fails is dropped."""

import sys
import threading
import time
import types
from importlib.machinery import ModuleSpec

import pytest
from rich.console import Console

from inrflow.config.schema import Config
from inrflow.runtime import loggers
from inrflow.training import recorder
from inrflow.training.recorder import Recorder


@pytest.fixture
def register(monkeypatch):
    """A function that registers makers of loggers by name, as entry points of an installed package would."""

    def set_makers(**makers):
        points = [types.SimpleNamespace(name=name, load=lambda maker=maker: maker) for name, maker in makers.items()]
        monkeypatch.setattr(recorder, "entry_points", lambda group: points if group == "inrflow.loggers" else [])

    return set_makers


class Kept:
    """A logger that keeps what it is given."""

    def __init__(self, directory, config):
        self.directory, self.config, self.rows, self.closed = directory, config, [], False
        self.thread = threading.current_thread()
        made.append(self)

    def __call__(self, step, name, values):
        self.rows.append((step, name, values))

    def close(self):
        self.closed = True


made: list = []


def test_metrics_go_to_registered_loggers_in_their_order(tmp_path, register):
    made.clear()
    register(kept=Kept)
    with Recorder(tmp_path, Console(quiet=True), Config(seed=7)) as log:
        log.log("fit", 1, loss=0.5, note="text", flag=True, nothing=None)
        log.log("fit", 2, loss=float("nan"), count=3)
    (kept,) = made
    assert kept.directory == tmp_path and kept.config["seed"] == 7 and kept.config["training"]["minutes"] > 0
    assert kept.rows == [(1, "fit", {"loss": 0.5}), (2, "fit", {"count": 3})] and kept.closed
    assert kept.thread is not threading.main_thread()
    with Recorder(tmp_path, Console(quiet=True)) as log:  # no run of a user: trainings from scratch, for comparison
        log.log("fit", 1, loss=0.5)
    assert len(made) == 1


def test_a_logger_that_raises_is_told_once_and_the_others_go_on(tmp_path):
    made.clear()
    calls, told = [], []

    def failing(directory, config):
        def logger(step, name, values):
            calls.append(step)
            raise ValueError("no\nconnection")

        return logger

    def refusing(directory, config):
        raise ImportError("not installed")

    makers = {"failing": failing, "refusing": refusing, "kept": Kept}
    running = loggers.Loggers({name: lambda maker=maker: maker for name, maker in makers.items()}, tmp_path, {},
                              told.append)
    for step in range(5):
        running.log(step, "fit", {"loss": 1.0})
    running.close()
    assert calls == [0] and len(made[0].rows) == 5
    assert told == [
        "the logger refusing failed and is dropped (ImportError: not installed); training continues",
        "the logger failing failed and is dropped (ValueError: no connection); training continues",
    ]


def test_training_does_not_wait_for_a_slow_logger(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "_PATIENCE", 0.05)
    monkeypatch.setattr(loggers, "_WAITING", 10)
    free, told = threading.Event(), []
    slow = {"slow": lambda: lambda directory, config: lambda step, name, values: free.wait(10)}
    running = loggers.Loggers(slow, tmp_path, {}, told.append)
    began = time.monotonic()
    for step in range(100):
        running.log(step, "fit", {"loss": 1.0})
    running.close()
    assert time.monotonic() - began < 2
    free.set()
    assert len(told) == 1 and told[0].startswith("loggers are too slow: ")


def test_no_thread_without_loggers(tmp_path, register, monkeypatch):
    register()
    monkeypatch.setattr(recorder, "find_spec", lambda name: None)
    before = set(threading.enumerate())  # of which some may end by themselves
    with Recorder(tmp_path, Console(quiet=True), Config()) as log:
        log.log("fit", 1, loss=0.5)
        assert set(threading.enumerate()) <= before


def test_tensorboard_is_a_logger_where_it_is_installed(tmp_path, register, monkeypatch):
    register()
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    package = types.ModuleType("tensorboard")
    package.__spec__ = ModuleSpec("tensorboard", None)
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with Recorder(tmp_path, Console(quiet=True), Config()) as log:
        log.log("fit", 3, loss=0.5)
    assert written == [str(tmp_path / "tensorboard"), ("fit/loss", 0.5, 3), "closed"]
