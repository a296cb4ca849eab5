"""What the benchmarks share: data from `generate`, the device they ran on, child processes, fits, tables, JSON."""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from inrflow.cli import keep_freed_memory
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.pdes.generate import generate
from inrflow.runtime.atomic_files import write_json
from inrflow.training.problem import Problem
from inrflow.training.recorder import Recorder
from inrflow.training.run import Run
from inrflow.training.train import start_run

keep_freed_memory()  # as the commands do

#: Data sets on 32 x 32 points, waves and Navier-Stokes those of the DINo protocols, by the arguments of `generate`.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "wave": {"pde": "wave", "protocol": "dino", "grid": 32, "dt": 0.25},
    "navier_stokes": {"pde": "navier_stokes", "protocol": "dino", "grid": 32, "parameters": {"viscosity": 1e-3}},
    "gray_scott": {"pde": "gray_scott", "grid": 32},
}
TRAIN_SEED, TEST_SEED = 0, 999


def cache_folder() -> Path:
    """Where generated data are kept between benchmarks."""
    return Path(tempfile.gettempdir()) / "inrflow_benchmarks"


def data_files(name: str, train: int = 64, test: int = 32, **changes: Any) -> tuple[Path, Path]:
    """Training and test file of a protocol with so many trajectories, made on the first call and kept."""
    settings = PROTOCOLS[name] | changes
    label = "_".join(str(v) for v in (name, *(f"{k}{v}" for k, v in sorted(changes.items()))))
    paths = []
    for kind, trajectories, seed in (("train", train, TRAIN_SEED), ("test", test, TEST_SEED)):
        path = cache_folder() / f"{label}_{kind}{trajectories}.h5"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            print(f"making {path}", flush=True)
            generate(output=path, trajectories=trajectories, seed=seed, **settings)
        paths.append(path)
    return paths[0], paths[1]


@contextmanager
def started(
    config: Config, file: TrajectoryFile, folder: Path | None = None, quiet: bool = True
) -> Iterator[Run]:
    """A run on an open file, whose budget is processor time, logged to a folder or to one that is deleted."""
    with tempfile.TemporaryDirectory() as scratch:
        with quiet_log(folder or Path(scratch), quiet) as log:
            yield start_run(Problem.of(config, file), log, time.process_time)


@contextmanager
def quiet_log(folder: Path, quiet: bool = True) -> Iterator[Recorder]:
    """The log of one training in a folder, which is made; it prints nothing, or else to the standard error."""
    folder.mkdir(parents=True, exist_ok=True)
    with Recorder(folder, Console(stderr=True, quiet=quiet)) as log:
        yield log


def trained_by_command(run: Path, title: str, *settings: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Report and taken candidate of `inrflow train` with some settings into a folder, its log beside it; None, and a
    row that says so under a title, where it fails."""
    done = subprocess.run([sys.executable, "-m", "inrflow", "train", f"output={run}", *settings], capture_output=True,
                          text=True)
    run.with_name(f"{run.name}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        print(f"| {title} | failed: {done.stderr.splitlines()[-1]} |", flush=True)
        return None
    report = json.loads((run / "evaluation.json").read_text())
    taken = next(one for one in json.loads((run / "candidates.json").read_text())["candidates"] if one["taken"])
    return report, taken


def environment() -> dict[str, Any]:
    """What a figure depends on: device, threads, versions."""
    return {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def process_seconds(function: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Median processor time of calls after one that warms up, and what the last call returned."""
    result = function()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        result = function()
        seconds.append(time.process_time() - began)
    return sorted(seconds)[len(seconds) // 2], result


def child_rows(script: str, case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows that `script --case` prints as lines of JSON, as they come, from a process of its own with one thread.

    A case that fails gives a row that says why.
    """
    command = [sys.executable, script, "--case", json.dumps(case)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if child.wait():
            errors.seek(0)
            reason = errors.read().strip().splitlines()[-1:] or [f"ended with status {child.returncode}"]
            yield case | {"error": reason[0][:200]}


def run_cases(
    parser: argparse.ArgumentParser, script: str, out: str, measure: Callable[[dict[str, Any]], dict[str, Any]],
    table: Callable[[list[dict[str, Any]]], str], cases: Callable[[argparse.Namespace], Iterator[dict[str, Any]]],
) -> None:
    """The main program of a script whose every case is measured in a process of its own: rows to a file and the screen.
    """
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--fresh", action="store_true", help="forget the rows of an earlier call")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(json.loads(arguments.case))), flush=True)
        return
    results = Results(arguments.out, table, arguments.fresh)
    for case in cases(arguments):
        for row in child_rows(script, case):
            results.keep(row)


class Results:
    """Rows of a benchmark, written to its JSON file and printed as they come.

    Args:
        path: the JSON file; one that exists is gone on from, unless `fresh`.
        table: makes a table of rows.
    """

    def __init__(self, path: Path, table: Callable[[list[dict[str, Any]]], str], fresh: bool = False) -> None:
        self.path, self.table = path, table
        self.rows: list[dict[str, Any]] = []
        if path.exists() and not fresh:
            self.rows = json.loads(path.read_text())["rows"]
        print(table([]), flush=True)

    def keep(self, row: dict[str, Any]) -> None:
        """Add a row, write the file, print the row."""
        self.rows.append(row)
        self.write()
        print(self.table([row]).splitlines()[-1], flush=True)

    def write(self, **further: Any) -> None:
        """Write the file, with further entries."""
        write_json(self.path, {"environment": environment() | {"threads": 1}, "rows": self.rows, **further})


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost against log size by least squares; NaN for fewer than two points."""
    points = [(math.log(s), math.log(c)) for s, c in zip(sizes, costs, strict=True) if c > 0]
    if len(points) < 2:
        return float("nan")
    x, y = zip(*points, strict=True)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((v - mean_x) ** 2 for v in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in points) / spread if spread else float("nan")


def as_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as a Markdown table; numbers with three digits."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])
