"""One tiny trained run, shared by the tests of all that works on a run."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from inrflow.cli import main
from inrflow.pdes.generate import generate


@dataclass(frozen=True)
class TinyRun:
    """A run directory and the files it was trained and tested on (wave equation, 8 x 8 points)."""

    run: Path
    train: Path
    test: Path


@dataclass(frozen=True)
class Outcome:
    """What a command gave: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def command(*arguments: object) -> Outcome:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def inrflow_command():
    """The command line as a function of its arguments that returns an Outcome."""
    return command


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Training and test file."""
    folder = tmp_path_factory.mktemp("data")
    settings = {"grid": 8, "resolution": 16}
    train = generate("wave", folder / "train.h5", trajectories=12, frames=8, seed=0, **settings)
    return train, generate("wave", folder / "test.h5", trajectories=3, frames=10, seed=9, **settings)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: tuple[Path, Path]) -> TinyRun:
    """A run trained in seconds; its forecasts are poor, its files are those of any run."""
    train, test = tiny_data
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    threads = torch.get_num_threads()
    outcome = command("train", f"data.train={train}", f"data.test={test}", f"output={folder}", *QUICK)
    torch.set_num_threads(threads)
    assert outcome.code == 0, outcome.err
    return TinyRun(folder, train, test)


QUICK = (
    "data.frames=5", "data.symmetries=none", "data.copies=1", "training.minutes=0.02", "decoder.harmonics=24",
    "decoder.width=24", "decoder.largest_code_size=12", "dynamics.memory=0", "dynamics.width=16",
    "training.optimiser=adamw",  # SOAP would spend half of the time on eigenvectors; tests/training has its own
)


@pytest.fixture(scope="session")
def quick_settings() -> tuple[str, ...]:
    """Overrides with which a tiny data set trains in seconds."""
    return QUICK


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(os.getcwd())
