"""Errors of forecasts against the compute that training took: inrflow's default, DINo and CORAL side by side.

    python benchmarks/forecasts/accuracy_per_compute.py [--data wave navier_stokes] [--recipes NAME ...]
        [--minutes 1 5 10 20] [--seeds 0 1] [--train FILE --test FILE] [--out FILE] [--quick]

Every run is a process of its own with one thread on the same data; its clock is the process's own processor time. Rows
are written as they come, and rows that the JSON file already holds are not repeated, so that a benchmark that was
stopped goes on where it was. How to read the result: benchmarks/forecasts/README.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import torch

from benchmarks.baselines.symmetric_copies import fit_with_copies
from benchmarks.common import Results, as_table, child_rows, data_files, environment, peak_bytes, started
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.references.base import fit_references
from inrflow.training.problem import Problem
from inrflow.training.recipes.joint import JointStage
from inrflow.training.train import train

FRAMES = 10
#: What each recipe is told.
RECIPES: dict[str, list[str]] = {
    "inrflow": [],
    "inrflow, no symmetries": ["data.symmetries=none"],
    "dino": ["experiment=dino"],
    "coral": ["experiment=coral"],
}
#: Published sizes where they differ from those in configs/experiment.
SIZES: dict[tuple[str, str], list[str]] = {
    ("navier_stokes", "dino"): ["decoder.code_size=100", "dynamics.width=512"],
    ("navier_stokes", "coral"): ["decoder.code_size=128"],
}
QUICK = ["data.copies=2", "decoder.largest_code_size=60", "dynamics.width=32"]
REFERENCES = {"pod_dmd": "POD + DMD", "pod_dmd_symmetries": "POD + DMD, symmetries", "persistence": "persistence"}
LOOPS = ("decoder", "rollout")  # decisions that are steps of descent
HEADER = ("data", "recipe", "seed", "minutes", "processor s", "steps", "in-t MSE", "out-t MSE", "peak MB")


class Clock:
    """Processor time that DINo's iterations took: their number follows from it, and it is all that counts for DINo."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        plain = JointStage.advance

        def advance(stage: JointStage, *arguments: Any) -> float:
            began = time.process_time()
            loss = plain(stage, *arguments)
            self.seconds, self.steps = self.seconds + time.process_time() - began, self.steps + 1
            return loss

        JointStage.advance = advance  # type: ignore[method-assign]


def measure(case: dict[str, Any]) -> None:
    """Train one recipe with one seed, print a row for every budget."""
    torch.set_num_threads(1)
    joint = case["recipe"].startswith("dino")
    clock = Clock()
    per_step = None
    with TrajectoryFile(case["train"]) as file, TrajectoryFile(case["test"]) as test, TemporaryDirectory() as scratch:
        for minutes in case["minutes"]:
            config = configuration(case, f"training.minutes={minutes}", *case["overrides"])
            # DINo's rates are constant, so that a longer run goes on from the shorter one, in its folder.
            folder = Path(scratch) / ("joint" if joint else f"{minutes}")
            if joint:
                per_step = per_step or _time_of_iteration(config, file, clock)
                config.training.steps.decoder = max(2, round(60 * minutes / per_step))
            with started(config, file, folder) as run:
                surrogate = train(run)
                spent = run.budget.elapsed
            if joint:
                spent, per_step = clock.seconds, clock.seconds / clock.steps
            began = time.process_time()
            report = evaluate(surrogate, test, Observe(1, case["points"]), with_std=False).report
            row = {k: case[k] for k in ("data", "recipe", "seed", "points")} | {
                "minutes": minutes,
                "processor_seconds": spent,
                "decisions": run.budget.decisions,
                "encoding_steps": surrogate.encoder.iterations or None,
                "mse": {k: report["mse"][k] for k in ("in_t", "out_t")},
                "nmse": {k: report["nmse"][k] for k in ("in_t", "out_t")},
                "peak_bytes": peak_bytes(),
                "code_size": surrogate.code_size,
                "parameters": surrogate.parameters,
                "evaluation_seconds": time.process_time() - began,
            }
            print(json.dumps(row), flush=True)


def configuration(case: dict[str, Any], *further: str) -> Config:
    """Settings that all recipes share, and further ones."""
    common = [f"data.train={case['train']}", f"data.frames={FRAMES}", f"data.points={case['points']}"]
    config: Config = resolve("train", Config, [*common, f"seed={case['seed']}", *further])
    return config


def _time_of_iteration(config: Config, file: TrajectoryFile, clock: Clock) -> float:
    """Processor time of one iteration, from a few that are thrown away."""
    trial = copy.deepcopy(config)
    trial.training.steps.decoder, trial.encoding.iterations = 4, 1
    with started(trial, file) as run:
        train(run)
    per_step = clock.seconds / clock.steps
    clock.seconds, clock.steps = 0.0, 0
    return per_step


def references(case: dict[str, Any]) -> None:
    """Print a row for each reference forecast; rank and ridge of POD + DMD are chosen on validation trajectories."""
    torch.set_num_threads(1)
    with TrajectoryFile(case["train"]) as file, TrajectoryFile(case["test"]) as test:
        problem = Problem.of(configuration(case), file)
        began = time.process_time()
        fitted = problem.source.batch(problem.train, normalised=False)
        held = problem.source.batch(problem.validation, normalised=False)
        models = fit_references(fitted, held, file.description)
        moved = fit_with_copies(fitted, held, file.description, case["copies"], case["seed"])
        if moved is not None:
            models.fitted["pod_dmd_symmetries"] = moved
        spent = time.process_time() - began
        errors: dict[str, list[torch.Tensor]] = {}
        every = TrajectorySource(test)
        batch = every.batch(range(len(every)), normalised=False)
        horizon = int(problem.source.times.shape[1])
        for name, forecast in models.forecast(batch.t, batch.x, batch.u[:, :1]).items():
            squares = (forecast - batch.u).square()
            errors[name] = [squares[:, :horizon].mean(), squares[:, horizon:].mean()]
    for name, (early, late) in errors.items():
        if name in REFERENCES:
            row = {k: case[k] for k in ("data", "seed", "points")} | {"recipe": REFERENCES[name], "minutes": None}
            row |= {"processor_seconds": spent, "mse": {"in_t": float(early), "out_t": float(late)}}
            print(json.dumps(row), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows on screen."""
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["data"], row["recipe"], row["seed"], "", row["error"], "", "", "", ""])
            continue
        count = sum(row.get("decisions", {}).get(name, 0) for name in LOOPS) or None
        peak = round(row["peak_bytes"] / 1e6) if "peak_bytes" in row else None
        lines.append(
            [row["data"], row["recipe"], row["seed"], row["minutes"], round(row["processor_seconds"], 1), count]
            + [row["mse"]["in_t"], row["mse"]["out_t"], peak]
        )
    return as_table(HEADER, lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """In-t and out-t errors against processor time, log-log, a row of panels for each data set."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    good = [row for row in rows if "error" not in row]
    names = list(dict.fromkeys(row["data"] for row in good))
    recipes = list(RECIPES)
    figure, axes = plt.subplots(
        len(names), 2, figsize=(9.5, 3.9 * len(names)), squeeze=False, sharex=True, sharey="row", layout="constrained"
    )
    for panels, name in zip(axes, names, strict=True):
        for axis, key, title in zip(panels, ("in_t", "out_t"), ("inside", "beyond"), strict=True):
            chosen = [row for row in good if row["data"] == name]
            for index, recipe in enumerate(recipes):
                for seed in sorted({row["seed"] for row in chosen}):
                    curve = [r for r in chosen if r["recipe"] == recipe and r["seed"] == seed]
                    curve.sort(key=lambda row: row["processor_seconds"])
                    axis.plot(
                        [r["processor_seconds"] / 60 for r in curve], [r["mse"][key] for r in curve], f"C{index}o-",
                        markersize=4, label=recipe if curve and seed == min(r["seed"] for r in chosen) else None,
                    )
            for style, label in zip(("--", "-.", ":"), REFERENCES.values(), strict=True):
                found = [r["mse"][key] for r in chosen if r["recipe"] == label]
                if found:
                    axis.axhline(sum(found) / len(found), color="0.4", linestyle=style, linewidth=1, label=label)
            axis.set(xscale="log", yscale="log", title=f"{name}: {title} the training horizon")
            axis.grid(alpha=0.3, which="both")
            if name == names[-1]:
                axis.set_xlabel("minutes of one core")
        panels[0].set_ylabel("mean squared error")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["wave", "navier_stokes"], help="wave, navier_stokes, or a name")
    parser.add_argument("--train", type=Path, help="training file, instead of generated data; --data names it")
    parser.add_argument("--test", type=Path, help="test file")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 5.0, 10.0, 20.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--points", type=float, default=1.0, help="fraction of the points that are observed")
    parser.add_argument("--out", type=Path, default=Path("accuracy_per_compute.json"), help="JSON file; PNG beside it")
    parser.add_argument("--quick", action="store_true", help="small data and seconds of training: a check")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = json.loads(options.case)
        references(case) if case["recipe"] == "references" else measure(case)
        return
    if options.train and not options.test:
        parser.error("--train needs --test")
    if options.quick:
        options.minutes, options.seeds = [0.02, 0.04], options.seeds[:1]
    results = Results(options.out, table, fresh=options.quick)
    rows = results.rows

    def known(name: str, recipe: str, seed: int, minutes: float | None = None) -> bool:
        """Whether a row is there already."""
        return any(
            (r["data"], r["recipe"], r["seed"]) == (name, recipe, seed) and minutes in (None, r.get("minutes"))
            for r in rows
            if "error" not in r and r.get("points") == options.points
        )

    for name in options.data[:1] if options.train else options.data:
        small = {"grid": 16, "frames": 14} if options.quick else {}
        generated = () if options.train else data_files(name, *((12, 4) if options.quick else (64, 32)), **small)
        train, test = (options.train, options.test) if options.train else generated
        base = {"data": name, "train": str(train), "test": str(test), "points": options.points}
        for seed in options.seeds:
            if options.points == 1 and not known(name, REFERENCES["persistence"], seed):
                for row in child_rows(__file__, base | {"recipe": "references", "seed": seed, "copies": 15}):
                    results.keep(row)
            for recipe in options.recipes:
                missing = sorted(m for m in options.minutes if not known(name, recipe, seed, m))
                sizes = SIZES.get((name, recipe.partition(",")[0]), [])
                if missing:
                    case = base | {"recipe": recipe, "seed": seed, "minutes": missing}
                    quick = QUICK if options.quick else []
                    for row in child_rows(__file__, case | {"overrides": [*RECIPES[recipe], *sizes, *quick]}):
                        results.keep(row)
    plot(rows, options.out.with_suffix(".png"))
    print(f"\n{environment()}\n\n{table(rows)}\n\nwritten to {options.out} and {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
