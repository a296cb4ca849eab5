"""The default of `inrflow train` against alternatives to each of its choices, on five data sets.

    python benchmarks/forecasts/default_search.py [--data NAME ...] [--alternatives NAME ...] [--minutes 1] [--seed 0]
        [--wave TRAIN TEST] [--cylinder FILE] [--ostia FILE] [--out FILE] [--quick]

Waves (generated, unless files are given), Navier-Stokes and Gray-Scott (generated): 64 trajectories, trained on their
first 10 frames, and 32 others to test on. Vortex shedding on a mesh and sea-surface temperature are single
trajectories, whose files must be given: the first 80 of 101 and 43 of 54 frames train, the others test.

Every run is a process of its own with one thread. Rows are written as they come, the default of every data set first,
and rows that the JSON file already holds are not repeated. How to read the table:

- "test" is the share of the variance (mean over channels) that forecasts miss on data that the run chose nothing by:
  all frames of the test trajectories, forecast from the first (or as many as the run says it needs); for a single
  trajectory the frames after the training ones, forecast in one piece.
- "validation" is the same figure, over the frames of training, for trajectories (or last training frames) that the run
  held back and chose by, before its final refit to all data. It is what a user would have to choose by.
- At the end, for each data set: the configuration with the lowest test error, the default's error over that, and
  whether it is within 20 %; then the configuration of lowest validation error, and its test error over the lowest.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.common import Results, as_table, child_rows, data_files, environment, peak_bytes, started
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.forecast import forecast
from inrflow.training.candidate import Candidate, assemble, complete
from inrflow.training.train import train

#: Frames trained on.
FRAMES = {"wave": 10, "navier_stokes": 10, "gray_scott": 10, "cylinder": 80, "ostia": 43}
PERIODIC = ("wave", "navier_stokes", "gray_scott")
EQUATIONS = PERIODIC[1:]
SINGLE = ("cylinder", "ostia")
TRUNKS = ("wave", *SINGLE)  # where the default trains a network of the coordinates
WITHIN = 1.2
DEFAULT = "default"
HEADER = ("data", "alternative", "test", "in-t", "out-t", "validation", "codes", "dynamics", "processor s", "peak MB")


@dataclass(frozen=True)
class Alternative:
    """One departure from the default.

    Attributes:
        overrides: settings of `inrflow train`. data: where it makes a difference that can be told apart.
        codes: the code size, in units of the one that the default chose there.
    """

    name: str
    overrides: tuple[str, ...]
    data: tuple[str, ...] = tuple(FRAMES)
    codes: float | None = None

    def settings(self, chosen: int) -> list[str]:
        """The overrides, where the default chose so many codes."""
        if self.codes is None:
            return list(self.overrides)
        size = max(1, round(self.codes * chosen))
        return [*self.overrides, f"decoder.code_size={size}", f"decoder.largest_code_size={max(size, 400)}"]


_OPEN = "dynamics.equation=false"
#: In the order in which they are run. Where an equation is taken (Navier-Stokes, Gray-Scott), nothing is made of
#: symmetries, trunk, products and network, so alternatives to those leave the equation out too.
ALTERNATIVES = (
    Alternative(DEFAULT, ()),
    Alternative("no equation", (_OPEN,), PERIODIC),
    Alternative("half as many codes", (), codes=0.5),
    Alternative("twice as many codes", (), codes=2.0),
    Alternative("no memory", ("dynamics.memory=0",), SINGLE),
    Alternative("no forcing", ("dynamics.forcing=false",), SINGLE[1:]),
    Alternative("AdamW", ("training.optimiser=adamw",), TRUNKS),
    Alternative("width 64", ("decoder.width=64",), TRUNKS),
    Alternative("width 256", ("decoder.width=256",), TRUNKS),
    Alternative("w0 lower", ("decoder.w0=1",), TRUNKS),
    Alternative("w0 higher", ("decoder.w0=6",), TRUNKS),
    Alternative("3 layers", ("decoder.depth=3",), TRUNKS),
    Alternative("no symmetries", ("data.symmetries=none",), PERIODIC[:1]),
    Alternative("half the step", ("dynamics.step=0.5",), TRUNKS),
    Alternative("validation 10 %", ("data.validation=0.1",), PERIODIC),
    Alternative("validation 40 %", ("data.validation=0.4",), PERIODIC),
    Alternative("one forcing harmonic", ("dynamics.forcing_harmonics=1",), SINGLE[1:]),
    Alternative("four forcing harmonics", ("dynamics.forcing_harmonics=4",), SINGLE[1:]),
    Alternative("decoder rate 1e-2", ("training.decoder_rate=0.01",), TRUNKS),
    Alternative("no harmonics", ("decoder.harmonics=0",), TRUNKS[:2]),
    Alternative("shift and scale", ("experiment=shift_scale",)),
)
QUICK = (DEFAULT, "half as many codes", "no memory")


def validation_error(candidate: Candidate) -> float | None:
    """Share of the variance, mean over channels, that forecasts of a candidate miss of what its run held back.

    Of the surrogate before its last refit, whose dynamics have not seen those trajectories. None where one diverges.
    """
    problem, surrogate = candidate.problem, assemble(candidate)
    first = candidate.first + 1
    batch = problem.source.batch(problem.validation if len(problem.validation) else problem.train, normalised=False)
    estimate = surrogate.estimate(batch.first_frames(first), covariance=False)
    mean = surrogate.normalisation.invert(forecast(surrogate, estimate, batch, with_std=False).mean)
    squares = torch.where(torch.isfinite(batch.u), mean - batch.u, torch.nan).double()[:, first:].square()
    deviation = batch.u.double() - batch.u.double().nanmean((0, 1, 2))
    error = float((squares.nanmean((0, 1, 2)) / deviation.square().nanmean((0, 1, 2))).mean())
    return error if bool(torch.isfinite(mean).all()) and math.isfinite(error) else None


def measure(case: dict[str, Any]) -> None:
    """Train one alternative, print its row."""
    torch.set_num_threads(1)
    overrides = [f"data.train={case['train']}", f"data.frames={FRAMES[case['data']]}", f"seed={case['seed']}"]
    config: Config = resolve("train", Config, [*overrides, f"training.minutes={case['minutes']}", *case["overrides"]])
    alone = case["train"] == case["test"]
    with TrajectoryFile(case["train"]) as file, TrajectoryFile(case["test"]) as test:
        with started(config, file, quiet=not case["verbose"]) as run:
            began = time.process_time()
            with patch("inrflow.training.train.complete", wraps=complete) as completed:
                surrogate = train(run)
            spent = time.process_time() - began
        validation = validation_error(completed.call_args.args[0])
        observe = Observe(FRAMES[case["data"]] if alone else None, 1.0)
        report = evaluate(surrogate, test, observe, with_std=False).report
    nmse = {key: report["nmse"][key] for key in ("all", "in_t", "out_t")}
    row = {key: case[key] for key in ("data", "alternative", "seed", "minutes", "overrides")} | {
        "test": nmse["out_t" if alone else "all"],
        "nmse": nmse,
        "validation": validation,
        "code_size": surrogate.code_size,
        "dynamics": surrogate.training["dynamics"],
        "frames_needed": surrogate.window,
        "processor_seconds": spent,
        "peak_bytes": peak_bytes(),
        "decisions": run.budget.decisions,
    }
    print(json.dumps(row), flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows on screen."""
    lines: list[list[Any]] = []
    for row in rows:
        if "error" in row:
            lines.append([row["data"], row["alternative"], row["error"], *[""] * (len(HEADER) - 3)])
            continue
        window = f", {row['frames_needed']} frames" if row["frames_needed"] > 1 else ""
        lines.append(
            [row["data"], row["alternative"], row["test"], row["nmse"]["in_t"], row["nmse"]["out_t"], row["validation"]]
            + [row["code_size"], row["dynamics"] + window, round(row["processor_seconds"])]
            + [round(row["peak_bytes"] / 1e6)]
        )
    return as_table(HEADER, lines)


def verdicts(rows: Sequence[dict[str, Any]]) -> str:
    """For each data set, how far the default is from the best."""
    lines: list[list[Any]] = []
    for name in dict.fromkeys(row["data"] for row in rows):
        good = [row for row in rows if row["data"] == name and isinstance(row.get("test"), float)]  # not "inf"
        default = next((row for row in good if row["alternative"] == DEFAULT), None)
        if default is None:
            continue
        best = min(good, key=lambda row: row["test"])
        judged = [row for row in good if row["validation"] is not None]
        chosen = min(judged, key=lambda row: row["validation"]) if judged else default
        ratio = default["test"] / best["test"]
        within = "yes" if ratio <= WITHIN else "no"
        lines.append(
            [name, best["alternative"], best["test"], default["test"], ratio, within if len(good) > 1 else "not known"]
            + [chosen["alternative"], chosen["test"] / best["test"], len(good)]
        )
    header = ("data", "best", "its error", "default", "default / best", "within 20 %", "lowest validation", "it / best")
    return as_table((*header, "runs"), lines)


def data_sets(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Training and test file of every data set that was asked for and is there; those left out are told."""
    given = {"cylinder": options.cylinder, "ostia": options.ostia}
    found: dict[str, tuple[Path, Path]] = {}
    for name in options.data:
        if name in SINGLE:
            path = given[name]
            if path is None or not path.exists():
                print(f"{name} is left out: " + (f"{path} does not exist" if path else f"give its file, --{name} FILE"))
                continue
            found[name] = (path, path)
        elif name == "wave" and options.wave:
            found[name] = tuple(options.wave)
        else:
            sizes, small = ((12, 4), {"grid": 16, "frames": 14}) if options.quick else ((64, 32), {})
            found[name] = data_files(name, *sizes, **small)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [alternative.name for alternative in ALTERNATIVES]
    parser.add_argument("--data", nargs="+", default=list(FRAMES), choices=list(FRAMES))
    parser.add_argument("--alternatives", nargs="+", default=None, choices=names, help="beside the default")
    parser.add_argument("--minutes", type=float, default=1.0, help="training.minutes of every run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wave", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="files, not generated ones")
    parser.add_argument("--cylinder", type=Path, help="file of a single trajectory of 101 frames")
    parser.add_argument("--ostia", type=Path, help="file of a single trajectory of 54 frames")
    parser.add_argument("--out", type=Path, default=Path("default_search.json"), help="JSON file")
    parser.add_argument("--verbose", action="store_true", help="show what the runs say")
    parser.add_argument("--quick", action="store_true", help="small data, seconds of training, four runs: a check")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        measure(json.loads(options.case))
        return
    if options.quick:
        options.minutes = 0.02
    wanted = {DEFAULT, *(options.alternatives or (QUICK if options.quick else names))}

    def mine(row: dict[str, Any]) -> bool:
        return (row["seed"], row["minutes"]) == (options.seed, options.minutes)

    def known(name: str, alternative: str) -> dict[str, Any] | None:
        """The row that is there already."""
        same = (row for row in results.rows if mine(row) and (row["data"], row["alternative"]) == (name, alternative))
        return next((row for row in same if "error" not in row), None)

    files = data_sets(options)
    results = Results(options.out, table, fresh=options.quick)
    for alternative in ALTERNATIVES:
        for name, paths in files.items():
            default = known(name, DEFAULT)
            if alternative.name not in wanted or name not in alternative.data or known(name, alternative.name):
                continue
            if alternative.codes is not None and default is None:  # it failed
                continue
            settings = alternative.settings(default["code_size"] if default else 0)
            case = {"data": name, "train": str(paths[0]), "test": str(paths[1]), "alternative": alternative.name}
            asked = {"seed": options.seed, "minutes": options.minutes, "verbose": options.verbose}
            for row in child_rows(__file__, case | asked | {"overrides": settings}):
                results.keep(row)
    shown = [row for row in results.rows if mine(row) and row["data"] in files]
    shown.sort(key=lambda row: (list(FRAMES).index(row["data"]), names.index(row["alternative"])))
    print(f"\n{environment() | {'threads': 1}}\n\n{table(shown)}\n\n{verdicts(shown)}\n\nwritten to {options.out}")


if __name__ == "__main__":
    main()
