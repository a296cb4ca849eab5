"""What tests of several folders share: one tiny trained run, one thread, coarse pictures, registries put back."""

from __future__ import annotations

import gc
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import written

from inrflow.cli import keep_freed_memory, main


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


written.watch()
_CACHES = tuple(os.path.expanduser(f"~/{folder}/matplotlib") for folder in (".cache", ".config"))


def pytest_collectstart() -> None:
    """Imports leave no garbage to look for."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Modules and tests stay: garbage is looked for among what comes later."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def nothing_is_written_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests write in their temporary folders alone. What Python writes in the system's is gone afterwards, but for that
    of libraries and conversions that are kept until the process ends."""
    yield
    own, temporary = str(tmp_path_factory.getbasetemp()), os.path.realpath(tempfile.gettempdir())
    kept = tuple(os.path.join(temporary, name) for name in ("torchinductor_", ".inrflow.", "pytest-of-"))
    changed = {path for path in written.written if not path.startswith((own, "/dev/", *_CACHES, *kept))
               and not own.startswith(path)
               and not {"__pycache__", ".hypothesis", ".pytest_cache"} & set(path.split(os.sep))}
    written.written.clear()
    assert not [path for path in changed if not path.startswith(temporary) or os.path.lexists(path)]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small problems: more threads cost more than they give. Freed memory is kept from the start, as by commands."""
    import torch  # not by the process that hands out tests, which begins sooner without

    torch.set_num_threads(1)
    keep_freed_memory()


@pytest.fixture(autouse=True, scope="session")
def blank_pictures() -> Iterator[None]:
    """Pictures of reports are made and written, but blank: drawing takes half of the time of a tiny training. Those of
    `inrflow plot` and of tests/plotting are drawn as they are."""
    from inrflow.commands import report

    whole = report.draw

    def draw(*given: Any, **named: Any) -> list[Path]:
        from inrflow.plotting import style

        class Blank(style.FigureCanvasAgg):
            def print_png(self, *file: Any, **options: Any) -> None:
                self.figure.clear()
                self.figure.set_dpi(20)
                super().print_png(*file, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(style, "FigureCanvasAgg", Blank)
            return whole(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", draw)
        yield


def without_report(patch: pytest.MonkeyPatch) -> None:
    """Trainings without the report on the saved model, which takes longer for small data."""
    patch.setattr("inrflow.commands.train._report", lambda *_: None)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings end with the saved model."""
    without_report(monkeypatch)


def with_persistence_alone(patch: pytest.MonkeyPatch) -> None:
    """Reports with persistence alone beside the model: fitting the other references takes a third of a tiny training.
    These have tests in tests/evaluation and tests/properties."""
    from inrflow.evaluation.references import REFERENCES

    for name in REFERENCES.keys() - {"persistence"}:
        patch.delitem(REFERENCES, name)


@pytest.fixture
def few_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Persistence alone in reports."""
    with_persistence_alone(monkeypatch)


@pytest.fixture
def registries() -> Iterator[None]:
    """Whatever is registered meanwhile is forgotten afterwards."""
    from inrflow.data.formats import builtin  # noqa: F401
    from inrflow.data.formats import registry as formats
    from inrflow.decoders import base as decoders
    from inrflow.dynamics.fields import base as fields
    from inrflow.evaluation.metrics.base import METRICS
    from inrflow.evaluation.references.base import REFERENCES
    from inrflow.pdes import NAMES
    from inrflow.pdes.equations import EQUATIONS
    from inrflow.training import train as recipes

    tables = (decoders._CLASSES, fields.TERMS, METRICS, REFERENCES, EQUATIONS)
    lists = (formats.FORMATS, recipes.RECIPES, NAMES)
    kept = [dict(table) for table in tables], [list(one) for one in lists]
    yield
    for table, before in zip(tables, kept[0], strict=True):
        table.clear()
        table.update(before)
    for one, items in zip(lists, kept[1], strict=True):
        one[:] = items


@pytest.fixture(scope="session")
def inrflow_command():
    """The command line as a function of its arguments that returns an Outcome."""
    return command


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Training and test file."""
    from inrflow.pdes.generate import generate

    folder = tmp_path_factory.mktemp("data")
    settings = {"grid": 8, "resolution": 16}
    train = generate("wave", folder / "train.h5", trajectories=12, frames=8, seed=0, **settings)
    return train, generate("wave", folder / "test.h5", trajectories=3, frames=10, seed=9, **settings)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: tuple[Path, Path]) -> TinyRun:
    """A run trained in seconds; its forecasts are poor, its files are those of any run."""
    train, test = tiny_data
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    outcome = command("train", f"data.train={train}", f"data.test={test}", f"output={folder}", "recipe=reduced_order",
                      *QUICK)
    assert outcome.code == 0, outcome.err
    return TinyRun(folder, train, test)


QUICK = (
    "data.frames=5", "data.symmetries=none", "data.copies=1", "training.minutes=0.02", "decoder.harmonics=4",
    "decoder.width=24", "decoder.largest_code_size=12", "dynamics.memory=0", "dynamics.width=16",
    "training.residual_field=off",  # looked for or not by the time that is left; tests/training/parts has its own
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
