"""How many files a reader of one command's code walks through, and how many different calls lead from file to file.

Counted are calls of functions of the package and its kernels; neither class bodies nor what runs while modules are
imported. The limits are what was reached; they are to go down. Training is walked up to the saved model, without the
report on it, whose files are those of `inrflow evaluate`.
"""

from __future__ import annotations

import csv
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import inrflow_kernels
import numpy as np
import pytest

import inrflow.commands.train
from inrflow.cli import main
from inrflow.pdes.generate import generate
from tests.conftest import without_report

ROOTS = [Path(package.__file__).parent for package in (inrflow, inrflow_kernels)]


TraceFunction = Callable[[FrameType, str, Any], Any]


class Walk(NamedTuple):
    """Files that were visited, and pairs (calling file, called file)."""

    files: set[str]
    calls: set[tuple[str, str]]


def walk(run: Callable[[], int]) -> Walk:
    """The walk of a command, which must succeed."""
    known: dict[str, str | None] = {}
    result, importing = Walk(set(), set()), 0

    def file_of(code: CodeType) -> str | None:
        name = code.co_filename
        if name not in known:
            own = [root for root in ROOTS if Path(name).is_relative_to(root)]
            known[name] = str(Path(name).relative_to(own[0].parent)) if own else None
        return known[name]

    def note(frame: FrameType, event: str, _: Any) -> TraceFunction | None:
        nonlocal importing
        code = frame.f_code
        here = file_of(code)
        if here is None:
            return None
        if code.co_name == "<module>":
            importing += 1
            frame.f_trace_lines = False
            return imported
        if not importing and code.co_flags & inspect.CO_OPTIMIZED:  # no class body
            result.files.add(here)
            back = frame.f_back
            while back is not None and file_of(back.f_code) is None:
                back = back.f_back
            if back is not None and (caller := file_of(back.f_code)) not in (None, here):
                result.calls.add((str(caller), here))
        return None

    def imported(frame: FrameType, event: str, _: Any) -> None:
        nonlocal importing
        importing -= event == "return"

    sys.settrace(note)  # which sees calls of Python's functions alone
    try:
        code = run()
    finally:
        sys.settrace(None)
    assert code == 0
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Walk]]:
    """A run on Burgers' equation on a line, whose three terms are found, and the walk of its training."""
    folder = tmp_path_factory.mktemp("walk")
    data = generate("burgers", folder / "train.h5", trajectories=6, seed=0, dimensions=1, grid=24, dt=0.05, frames=8)
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        yield folder, walk(lambda: main(["train", f"data.train={data}", f"output={folder / 'run'}",
                                         "training.minutes=1"]))


def test_training_visits_few_files_by_few_different_calls(trained):
    files, calls = trained[1]
    assert len(files) <= 50, (len(files), sorted(files))
    assert len(calls) <= 143, (len(calls), sorted(calls))


def test_a_query_visits_few_files_by_few_different_calls(trained, tmp_path):
    for name, columns, rows in [("seen", "txu", [(0.0, x, np.sin(6.28 * x)) for x in np.arange(12) / 12]),
                                ("asked", "tx", [(t, x) for t in (0.0, 0.2) for x in (0.1, 0.5)])]:
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    files, calls = walk(lambda: main(["query", f"run={trained[0] / 'run'}", f"observations={tmp_path / 'seen.csv'}",
                                      f"points={tmp_path / 'asked.csv'}", f"to={tmp_path / 'answers.csv'}",
                                      "std=true", "derivatives=true"]))
    assert (tmp_path / "answers.csv").exists()
    assert len(files) <= 35, (len(files), sorted(files))
    assert len(calls) <= 72, (len(calls), sorted(calls))  # of a law: its domain says which points lie inside
