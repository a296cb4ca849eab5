"""Adaptation to new environments in the protocol of CoDA: one table, one JSON file, one picture.

    python benchmarks/forecasts/adaptation.py [--out DIR] [--quick | --full] [--seeds N] [--seconds S]
        [--problems NAME ...]

Environments of Gray-Scott (feed and kill rate) and of Navier-Stokes (viscosity) at 32 x 32; the training environments,
the new ones, horizon and time steps are those of Kirchmeyer et al. (2022). The decoder is fitted once; the published
methods then see the same codes (declared symmetries included), the same integrator and the same processor time; ours is
`inrflow train` on the file, told nothing but that there are environments. Each method adapts to each new environment
from one trajectory of it. How to read the result: benchmarks/forecasts/FAMILIES.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.baselines.environment_networks import METHODS, Leads, NetworkShape
from benchmarks.baselines.training import BaselineSettings, adapt, fit
from benchmarks.common import as_table, environment, quiet_log, started
from benchmarks.forecasts.adaptation_data import PROBLEMS, SIZES, Prepared, Problem, Size, prepare
from inrflow.adaptation.context import adapt_context
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.evaluation.forecast import forecast
from inrflow.model.state_prior import ContextPrior
from inrflow.runtime.atomic_files import write_text
from inrflow.training.train import train


@dataclass
class Row:
    """What one method gave on one problem and seed: mean squared errors in data units over all frames."""

    problem: str
    method: str
    seed: int
    in_domain: float
    adapted: float
    mean_context: float
    adapted_numbers: int
    adaptation_seconds: float
    training_seconds: float


def baseline(
    method: str, problem: Problem, prepared: Prepared, size: Size, seed: int, folder: Path
) -> Row:
    """Train one of the published methods and adapt it to each new environment."""
    torch.manual_seed(seed)
    shape = NetworkShape(prepared.training.data.codes.shape[-1], size.width)
    penalty = problem.leads if METHODS[method] is Leads else ()
    network = METHODS[method](shape, problem.environments, *penalty)
    settings = BaselineSettings(adaptation_steps=size.adaptation_steps, seed=seed)
    integrator = prepared.integrator
    began = time.process_time()
    with quiet_log(folder / method) as log:
        fit(network, prepared.training, prepared.held, integrator, settings, log, size.seconds)
    trained, fields = time.process_time(), []
    for e, data in enumerate(prepared.adaptation):
        with quiet_log(folder / method / f"environment_{e}") as log:
            fields.append(adapt(network, data, integrator, settings, log))
    adapted = time.process_time()
    return Row(
        problem.name,
        method,
        seed,
        mean_of([test.error(network.of(e), integrator) for e, test in enumerate(prepared.tests)]),
        mean_of([test.error(field, integrator) for field, test in zip(fields, prepared.new_tests, strict=True)]),
        mean_of([test.error(network.mean(), integrator) for test in prepared.new_tests]),
        network.adapted_numbers,
        (adapted - trained) / len(fields),
        trained - began,
    )


def mean_of(values: list[float]) -> float:
    return float(np.mean(values))


def ours(problem: Problem, prepared: Prepared, size: Size, seed: int) -> Row:
    """What `inrflow train` makes of the training file and `inrflow adapt` of one trajectory of each new environment."""
    began = time.process_time()
    file, new = prepared.files["training"].file, prepared.files["new"]
    settings = [f"data.train={file.path}", "dynamics.context=environment", f"seed={seed}"]
    config = resolve("train", Config, [*settings, f"training.minutes={size.minutes}"])
    with started(config, file, quiet=False) as run:
        surrogate = train(run)
    contexts, numbers = surrogate.contexts, surrogate.context_size
    trained = time.process_time()
    found = []
    for e in range(problem.new_environments):
        estimate = None
        if contexts is not None:  # else training has said that they do not help: there is nothing to adapt
            estimate = adapt_context(surrogate, [new.batch(np.array([e]), normalised=False)]).estimate
        found.append(torch.zeros(0) if estimate is None else estimate.mean)
    adapted = time.process_time()

    def judge(name: str, values: list[Tensor], first: int) -> float:
        """Mean squared error of forecasts from the first frame, environment by environment."""
        source, errors = prepared.files[name], []
        for e, value in enumerate(values):
            batch = source.batch(np.arange(len(source))[first * len(values) + e :: len(values)], normalised=False)
            known = None
            if numbers:
                known = ContextPrior(value.expand(len(batch), -1), 1e-12 * torch.eye(numbers, dtype=torch.float64))
            start = surrogate.estimate(batch.first_frames(1), covariance=False, context=known)
            mean = surrogate.normalisation.invert(forecast(surrogate, start, batch, with_std=False).mean)
            errors.append(float((mean - batch.u).square().mean()))
        return float("inf") if any(error != error for error in errors) else mean_of(errors)

    values = [torch.zeros(0)] * problem.environments
    if contexts is not None:
        number = {int(label): i for i, label in enumerate(contexts.labels)}
        values = [contexts.values[number[int(file.environment[e])]] for e in range(problem.environments)]
    average = torch.stack(values).mean(0)
    return Row(
        problem.name, "ours", seed, judge("tests", values, 0), judge("new", found, 1),
        judge("new", [average] * len(found), 1), numbers, (adapted - trained) / len(found), trained - began,
    )


def run(
    problem: Problem, size: Size, seed: int, folder: Path, methods: list[str], console: Console,
    save: Callable[[Row], None],
) -> dict:
    """All methods on one problem and seed, each row saved as it comes; returns the error of the decoder alone."""
    prepared = prepare(problem, size, seed, folder)
    Z = prepared.training.data.codes.shape[-1]
    console.print(
        f"{problem.name}, seed {seed}: {Z} codes, {len(prepared.training.data.codes)} training trajectories with "
        f"copies, decoder alone {prepared.floor:.2e} / {prepared.new_floor:.2e} (training / new environments), "
        f"{prepared.seconds:.0f} s",
        highlight=False,
    )
    for method in methods:
        if method == "ours":
            row = ours(problem, prepared, size, seed)
        else:
            row = baseline(method, problem, prepared, size, seed, folder)
        console.print(table([row]).splitlines()[-1], highlight=False)
        save(row)
    return dict(
        problem=problem.name,
        seed=seed,
        codes=Z,
        training_environments=prepared.floor,
        new_environments=prepared.new_floor,
        preparation_seconds=prepared.seconds,
    )


EVERY = [*METHODS, "ours"]
HEADER = ("problem", "method", "seed", "in domain", "adapted", "mean context", "numbers", "adapt s", "train s")


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    return as_table(HEADER, [
        [row.problem, row.method, row.seed, row.in_domain, row.adapted, row.mean_context, f"{row.adapted_numbers:,}"]
        + [row.adaptation_seconds, round(row.training_seconds)]
        for row in rows
    ])


def over_seeds(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds, as a Markdown table."""
    lines = []
    for problem, method in dict.fromkeys((row.problem, row.method) for row in rows):
        own = [row for row in rows if (row.problem, row.method) == (problem, method)]
        columns = (np.array([getattr(row, key) for row in own]) for key in ("in_domain", "adapted", "mean_context"))
        lines.append([problem, method, *(f"{values.mean():.2e} ({values.std():.1e})" for values in columns)])
    return as_table(("problem", "method", "in domain", "adapted", "mean context"), lines)


def draw(rows: list[Row], floors: list[dict], path: Path) -> None:
    """In-domain, adapted and mean-context error of every method, seeds averaged; the decoder's floor as a line."""
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(row.problem for row in rows))
    figure = Figure(figsize=(6 * len(problems), 4), layout="constrained")
    for index, problem in enumerate(problems):
        axes = figure.add_subplot(1, len(problems), index + 1)
        methods = list(dict.fromkeys(row.method for row in rows if row.problem == problem))
        for shift, key in enumerate(("in_domain", "adapted", "mean_context")):
            heights = [
                mean_of([getattr(row, key) for row in rows if (row.problem, row.method) == (problem, method)])
                for method in methods
            ]
            axes.bar(np.arange(len(methods)) + 0.27 * (shift - 1), heights, 0.25, label=key.replace("_", " "))
        floor = mean_of([entry["new_environments"] for entry in floors if entry["problem"] == problem])
        axes.axhline(floor, color="black", linestyle=":", label="codes of the networks alone")
        axes.set(title=problem.replace("_", " "), ylabel="mean squared error", yscale="log")
        axes.set_xticks(np.arange(len(methods)), methods)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("adaptation"), help="folder for table, JSON and picture")
    parser.add_argument("--quick", action="store_true", help="a check that everything runs, no measurement")
    parser.add_argument("--full", action="store_true", help="three seeds, all test trajectories, wide networks")
    parser.add_argument("--seeds", type=int, help="how many seeds")
    parser.add_argument("--seconds", type=float, help="of training for each method")
    parser.add_argument("--problems", nargs="+", choices=sorted(PROBLEMS), default=sorted(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=EVERY, default=EVERY)
    options = parser.parse_args()
    size = SIZES["quick" if options.quick else "full" if options.full else "reduced"]
    size = replace(size, seeds=options.seeds or size.seeds)
    if options.seconds:
        size = replace(size, seconds=options.seconds, minutes=options.seconds / 60)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=200)
    report: dict = {"environment": environment(), "size": asdict(size), "floors": [], "rows": []}
    rows: list[Row] = []

    def write_report() -> None:  # with infinities, of forecasts that diverge
        write_text(options.out / "adaptation.json", json.dumps(report, indent=1))

    def save(row: Row) -> None:
        rows.append(row)
        report["rows"].append(asdict(row))
        write_report()

    for seed in range(size.seeds):
        for name in options.problems:
            with tempfile.TemporaryDirectory() as folder:
                floors = run(PROBLEMS[name], size, seed, Path(folder), options.methods, console, save)
            report["floors"].append(floors)
            write_report()
    text = table(rows) if size.seeds == 1 else table(rows) + "\n\n" + over_seeds(rows)
    (options.out / "adaptation.md").write_text(text + "\n")
    draw(rows, report["floors"], options.out / "adaptation.png")
    print(f"\n{report['environment']}\n\n{text}")


if __name__ == "__main__":
    main()
