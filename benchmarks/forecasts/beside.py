"""inrflow, DINo, CORAL and the neural path side by side on data files, with the reference forecasts of the report.

    python benchmarks/forecasts/beside.py FOLDER NAME ... [--recipes default dino coral neural]
        [--minutes 3] [--seeds 0]

reads FOLDER/NAME_train.h5 and NAME_test.h5; 10 frames are trained on, one is observed of each test trajectory. Every
row is a training in a process of its own with one thread, whose budget is of processor time. NMSE: mean over channels,
in units of the channel's variance in those frames.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import as_table, quiet_log, run_cases
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.references.base import fit_references
from inrflow.training.problem import Problem
from inrflow.training.train import start_run, train

SETTINGS = {"default": [], "dino": ["experiment=dino"], "coral": ["experiment=coral"], "neural": ["recipe=neural"]}
HEADER = ("data", "recipe", "seed", "processor s", "NMSE in-t", "NMSE out-t", "90 % hold", "+-",
          "least of persistence, POD + DMD, mean: in-t", "out-t")


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One training and the errors of its forecasts and of the references."""
    torch.set_num_threads(1)
    paths = [Path(case["folder"]) / f"{case['data']}_{part}.h5" for part in ("train", "test")]
    settings = [f"data.train={paths[0]}", "data.frames=10", f"training.minutes={case['minutes']}",
                f"seed={case['seed']}", *SETTINGS[case["recipe"]]]
    with tempfile.TemporaryDirectory() as folder, TrajectoryFile(paths[0]) as file, quiet_log(Path(folder)) as log:
        problem = Problem.of(resolve("train", Config, settings), file)
        surrogate = train(start_run(problem, log, time.process_time), None)
        seconds = time.process_time()
        held = problem.source.batch(problem.validation, normalised=False) if len(problem.validation) else None
        references = fit_references(problem.source.batch(problem.train, normalised=False), held, file.description)
    with TrajectoryFile(paths[1]) as file:
        report = evaluate(surrogate, file, Observe(1, 1.0), references).report
    others = [one["nmse"] for one in report["references"].values()]
    return case | {"seconds": seconds, "coverage": report["coverage_90"],
                   "coverage_error": report["coverage_90_error"],
                   **{name: report["nmse"][name] for name in ("in_t", "out_t")},
                   **{f"least_{name}": min(one[name] for one in others) for name in ("in_t", "out_t")}}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    names = ("data", "recipe", "seed", "seconds", "in_t", "out_t", "coverage", "coverage_error", "least_in_t",
             "least_out_t")
    return as_table(HEADER, [[row["data"], row["recipe"], row["seed"], row["error"], *[""] * 6] if "error" in row else
                             [row[name] for name in names] for row in rows])


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every recipe on every data set, by seeds."""
    for name, seed, recipe in itertools.product(arguments.names, arguments.seeds, arguments.recipes):
        yield {"folder": str(arguments.folder), "data": name, "recipe": recipe, "seed": seed,
               "minutes": arguments.minutes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--recipes", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    run_cases(parser, __file__, "beside.json", measure, table, cases)


if __name__ == "__main__":
    main()
