"""Commands that are killed at random moments: nothing is damaged, nothing is left over, and resumed runs end alike.

    python tests/faults/kills.py COUNT [SEED]    # kills, over all commands; 200 are usual

Each command runs once undisturbed. Then it is started again and again, killed (SIGKILL, SIGTERM, SIGINT) at a random
moment of its usual time, and run to its end: a training by `resume`, any other command anew. What it leaves must equal
what it gave undisturbed, but for times.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from inrflow.cli import main as inrflow
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile

ERRORS, IMPORTED = "errors.txt", "imported.txt"  # of the command that ran last
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMES = ("seconds", "decode_points_per_second")  # what differs from run to run


@dataclass(frozen=True)
class Command:
    """A command line, what it writes, and how it goes on after it was stopped."""

    name: str
    arguments: tuple[str, ...]
    output: str
    again: tuple[str, ...] | None = None  # None: the same arguments


def commands(folder: Path) -> list[Command]:
    """One of each command, on a small file and run that are made in the folder."""
    few = ("data.frames=6", "recipe=reduced_order")
    short = (*few, "training.minutes=0.05")
    run(folder, "generate", "pde=heat", "dimensions=1", "trajectories=8", "frames=8", "grid=16", "output=data.h5")
    run(folder, "generate", "pde=heat", "dimensions=1", "trajectories=3", "frames=8", "grid=16", "seed=5",
        "output=later.h5")
    run(folder, "generate", "pde=heat", "dimensions=1", "trajectories=4", "environments=3", "frames=8", "grid=16",
        "parameters.diffusivity=[0.004,0.006,0.008]", "output=systems.h5")
    run(folder, "train", "data.train=data.h5", "data.test=data.h5", *short, "output=first")
    run(folder, "train", *short, "data.train=systems.h5", "output=family")  # whose contexts can be adapted
    with TrajectoryFile(folder / "data.h5") as file:
        x, u = file.read(0).x, file.read(0).u
    (folder / "seen.csv").write_text("t,x,u\n" + "".join(f"0,{a:.8g},{b:.8g}\n" for a, b in zip(x[:, 0], u[0, :, 0],
                                                                                             strict=True)))
    # What was decided by the clock is given, so that a run repeats, and an update, which keeps the settings of its run;
    # with time to spare on a busy machine.
    steps = vars(Config().training.steps)
    decided = json.loads((folder / "first" / "decisions.json").read_text())
    train = ("data.train=data.h5", "data.test=data.h5", *few, "training.minutes=2",
             *(f"training.steps.{name}={number}" for name, number in decided.items() if name in steps))
    run(folder, "train", *train, "output=run")
    return [
        Command("train", ("train", *train, "output=again"), "again", ("train", "resume=again")),
        Command("evaluate", ("evaluate", "run=run", "data.test=data.h5", "output=evaluated"), "evaluated"),
        Command("query", ("query", "run=run", "observations=seen.csv", "points=seen.csv", "to=answer.csv"),
                "answer.csv"),
        Command("convert", ("convert", "data.h5", "converted.h5"), "converted.h5"),
        Command("generate", ("generate", "pde=heat", "dimensions=1", "trajectories=8", "frames=8", "grid=16",
                             "output=generated.h5"), "generated.h5"),
        Command("plot", ("plot", "run=run", "output=plots", "animation=false"), "plots"),
        Command("adapt", ("adapt", "run=family", "data.train=later.h5", "adapt.strength=decoder",
                          "adapt.scratch_minutes=0", "output=adapted"), "adapted"),
        Command("update", ("update", "run=run", "data.train=later.h5", "minutes=0.3", "output=updated"), "updated",
                ("train", "resume=updated")),
        Command("forecast", ("forecast", "run=run", "observations=seen.csv", "until=0.1", "to=ahead.csv"), "ahead.csv"),
        Command("next", ("next", "run=run", "observations=seen.csv", "count=2", "to=next.csv"), "next.csv"),
        Command("export", ("export", "run=run", "output=exported"), "exported"),
    ]


class Told(list[str]):
    """Failures, each printed when it is found."""

    def append(self, line: str) -> None:
        print(line, flush=True)
        super().append(line)


def start(folder: Path, *arguments: str) -> ForkProcess:
    """A command in its own process."""
    process = multiprocessing.get_context("fork").Process(target=_command, args=(folder, arguments))
    process.start()
    return process


def _command(folder: Path, arguments: tuple[str, ...]) -> None:
    os.chdir(folder)
    for descriptor, name in ((1, os.devnull), (2, ERRORS)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    code = inrflow(arguments)
    Path(IMPORTED).write_text("\n".join(sys.modules))
    sys.exit(code)


def run(folder: Path, *arguments: str) -> None:
    """A command to its end. Raises RuntimeError where it fails."""
    process = start(folder, *arguments)
    process.join()
    if process.exitcode:
        errors = (folder / ERRORS).read_text()
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.exitcode}: {errors[-500:]}")
    for name in (folder / IMPORTED).read_text().splitlines():
        if name not in sys.modules:
            with suppress(Exception):  # modules that are made, not found
                import_module(name)


def content(path: Path) -> dict[str, Any]:
    """What a file or folder holds, without times and logs. Raises OSError or ValueError where a file is not whole."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    return {str(file.relative_to(path)) if file != path else path.suffix: _held(file) for file in files}


def _held(file: Path) -> Any:
    if file.name == "evaluation.json":
        return _untimed(json.loads(file.read_text()))
    if file.suffix in (".csv", ".safetensors"):
        return file.read_bytes()
    if file.suffix == ".h5":
        with h5py.File(file) as data:
            return {name: repr(np.asarray(data[name]).tolist()) for name in data}
    if file.suffix == ".json":  # of choices, with times
        return sorted(json.loads(file.read_text()))
    if file.suffix == ".png":
        with Image.open(file) as picture:
            return np.asarray(picture).shape
    return None  # logs and programs hold dates: that they are there is compared


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if not any(word in key for word in TIMES)}
    return value


def leftovers(folder: Path) -> list[str]:
    """Temporary and lock files."""
    return [str(path) for path in folder.rglob("*") if ".partial" in path.name or path.name == ".lock"]


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main() -> int:
    """Kill, go on, compare; returns the number of failures."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    random, landed, failures = np.random.default_rng(seed), Counter[str](), Told()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known: dict[str, tuple[dict[str, Any], float]] = {}
        every = commands(folder)
        while sum(landed.values()) < count:
            command = every[int(random.integers(len(every)))]
            target = folder / command.output
            if command.name not in known:
                run(folder, *command.arguments)  # which imports what it needs
                remove(target)
                began = time.monotonic()
                run(folder, *command.arguments)
                known[command.name] = content(target), time.monotonic() - began
                remove(target)
            expected, seconds = known[command.name]
            began, process = time.monotonic(), start(folder, *command.arguments)
            process.join(float(random.uniform(0, seconds)))
            if process.exitcode is not None:  # sooner than undisturbed: a busy machine
                known[command.name] = expected, time.monotonic() - began
            else:
                os.kill(process.pid, SIGNALS[int(random.integers(len(SIGNALS)))])
                landed[command.name] += 1
            process.join()
            try:
                if command.again is not None and (target / "config.yaml").exists():
                    run(folder, *command.again)
                elif process.exitcode:
                    last = ("config.yaml", "README.md")  # of a run, of an export: written last, then it must be whole
                    whole = target.is_file() or any((target / name).exists() for name in last)
                    if not whole:
                        run(folder, *command.arguments)
                found = content(target)
                differ = [key for key in expected if found.get(key, "") != expected[key]]
                if differ:
                    failures.append(f"{command.name}: {', '.join(differ)} differ")
                if left := leftovers(folder):
                    failures.append(f"{command.name}: left over: {', '.join(left)}")
                    for path in left:
                        Path(path).unlink(missing_ok=True)
            except (RuntimeError, OSError, ValueError) as error:
                failures.append(f"{command.name}: {error}")
            remove(target)
            if sum(landed.values()) % 20 == 0 or sum(landed.values()) >= count:
                told = ", ".join(f"{name} {number}" for name, number in landed.items())
                print(f"{sum(landed.values())} kills ({told}), {len(failures)} failures", flush=True)
    return len(failures)


if __name__ == "__main__":
    sys.exit(bool(main()))
