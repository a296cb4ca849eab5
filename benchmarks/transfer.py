"""Transfer between physics: samples-to-target curves and joint training, tables on screen, one JSON file, one plot.

    python benchmarks/transfer.py [--out transfer.json] [--quick | --full] [--symmetries none declared]

A model of wave, heat, advection, Burgers and Gray-Scott meets Navier-Stokes, of which it sees 1, 2, 4, ...
trajectories, clean, noisy, or at few points. It is compared with models from scratch, and with one that has also seen
another flow. Data are generated. How to read the result: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import environment, started
from inrflow.adaptation.new_physics import add_physics, known_physics
from rich.console import Console
from rich.table import Table

from inrflow.commands.train_several import part_of, train_physics
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.model.family import Family
from inrflow.model.surrogate import Surrogate
from inrflow.pdes.generate import generate
from inrflow.training.parts.spectral import KnownPhysics
from inrflow.training.train import train

PHYSICS = ("wave", "heat", "advection", "burgers", "gray_scott")
TARGET, FLOW = "navier_stokes", "another_flow"
VARIANCE, WAVES = "scratch, variance codes", "scratch, wave by wave"
SCRATCH, PRETRAINED, RELATED = "scratch, default", "pretrained", "pretrained, a flow among them"
LABELS = {VARIANCE: "o:", WAVES: "v:", SCRATCH: "s-", PRETRAINED: "^--", RELATED: "x:"}
COPIES = 8  # symmetry copies of models from variance codes, so that a run takes a minute
VISCOSITY = 5e-3  # of the other flow, five times that of the target


@dataclass(frozen=True)
class Condition:
    """How the target's training trajectories are seen."""

    name: str
    noise: float = 0.0
    points: float = 1.0
    labels: tuple[str, ...] = (SCRATCH, PRETRAINED, RELATED)


CONDITIONS = (
    Condition("clean", labels=(VARIANCE, WAVES, SCRATCH, PRETRAINED, RELATED)),
    Condition("5 % noise", noise=0.05),
    Condition("10 % of the points", points=0.1),
)


@dataclass(frozen=True)
class Size:
    """What is measured: trajectories of each physics and of the test, grid, frames, target trajectories, minutes of a
    model from variance codes, largest wavenumber of harmonic codes (None: what the points support)."""

    trajectories: int
    tests: int
    grid: int
    frames: int
    counts: tuple[int, ...]
    minutes: float
    harmonics: int | None = None
    singles: bool = True


QUICK = Size(4, 2, 12, 6, (1, 2), 0.02, singles=False)
REDUCED = Size(16, 8, 32, 20, (1, 2, 4), 0.5)
FULL = Size(32, 32, 32, 20, (1, 2, 4, 8, 16, 32, 64), 2.0)


def make_data(size: Size, folder: Path) -> dict[str, tuple[str, str]]:
    """Training and test files of every physics, and noisy training files of the target."""
    settings: dict[str, Any] = {"frames": size.frames, "grid": size.grid, "dimensions": 2}
    files = {}
    for name in (*PHYSICS, TARGET, FLOW):
        count = max(size.counts) if name == TARGET else size.trajectories
        pde = TARGET if name == FLOW else name
        further: dict[str, Any] = {"parameters": {"viscosity": VISCOSITY}} if name == FLOW else {}
        train, test = folder / f"{name}_train.h5", folder / f"{name}_test.h5"
        generate(pde, train, trajectories=count, seed=2 if name == FLOW else 0, **settings, **further)
        generate(pde, test, trajectories=size.tests, seed=1, **settings, **further)
        files[name] = (str(train), str(test))
    for condition in CONDITIONS:
        if condition.noise:
            noisy = folder / f"{TARGET}_{condition.noise}.h5"
            generate(TARGET, noisy, trajectories=max(size.counts), seed=0, noise=condition.noise, **settings)
            files[condition.name] = (str(noisy), files[TARGET][1])
    return files


def error(surrogate: Surrogate, path: str) -> float:
    """NMSE of forecasts from the first whole frame of the test trajectories, infinite where one diverges."""
    with TrajectoryFile(path, check=False) as file:
        found = evaluate(surrogate, file, Observe(points=1.0), with_std=False).report["nmse"]["all"]
    return float("inf") if found is None else float(found)


class Bench:
    """Runs models and collects rows; the JSON is written after each."""

    def __init__(
        self, size: Size, files: dict[str, tuple[str, str]], out: Path, folder: Path, console: Console
    ) -> None:
        self.size, self.files, self.out, self.folder, self.console = size, files, out, folder, console
        self.quiet = Console(quiet=True)
        self.result: dict[str, Any] = {
            "size": asdict(size), "environment": environment(), "curves": [], "joint": [],
        }

    def config(self, path: str, symmetries: str, points: float = 1.0) -> Config:
        """Closed forms, the same budget for every model."""
        config = Config()
        config.data.train, config.data.symmetries, config.data.copies = path, symmetries, COPIES
        config.data.points = points
        config.dynamics.depth, config.dynamics.context = 0, "none"
        config.training.minutes = self.size.minutes
        return config

    def trained(self, config: Config, known: KnownPhysics | None = None) -> Surrogate:
        """What `inrflow train` does, or with other physics known what `inrflow adapt` does."""
        with TrajectoryFile(config.data.train) as file, started(config, file, pretrained=known) as run:
            return train(run)

    def first(self, path: str, count: int) -> str:
        """A file of the first trajectories of another."""
        target = self.folder / f"first_{count}_of_{Path(path).name}"
        with TrajectoryFile(path) as file:
            frames = [file.read(i) for i in range(count)]
            write_trajectories(target, file.times()[0], frames[0].x, torch.stack(
                [torch.as_tensor(part.u) for part in frames]).numpy(), file.description, overwrite=True)
        return str(target)

    def pretrain(self, symmetries: str, names: tuple[str, ...] = PHYSICS) -> dict[str, Surrogate]:
        """Some physics, each with its share of the time, and the seconds that each took."""
        members = {}
        for index, name in enumerate(names):
            config = self.config("", symmetries)
            config.decoder.harmonics = self.size.harmonics
            config.data.train = [self.files[one][0] for one in names]  # type: ignore[assignment]
            config.training.minutes = self.size.minutes * len(names)
            began = time.process_time()
            members[name] = train_physics(part_of(config, index, len(names)), self.folder / name, self.quiet)
            spent = time.process_time() - began
            members[name].training["seconds"] = spent
            self.console.print(f"pretrained on {name} ({symmetries} symmetries): {spent:.0f} s", highlight=False)
        return members

    def curve(self, symmetries: str, condition: Condition, known: dict[str, Family]) -> None:
        """Errors on the target for each number of its trajectories."""
        path, test = self.files.get(condition.name, self.files[TARGET])
        for count in self.size.counts:
            for label in condition.labels:
                began = time.process_time()
                config = self.config(self.first(path, count), symmetries, condition.points)
                config.dynamics.equation = label not in (VARIANCE, WAVES)
                physics = known_physics(known[label]) if label in known else None
                if label not in (VARIANCE, SCRATCH):
                    config.decoder.codes, config.decoder.harmonics = "harmonics", self.size.harmonics
                try:
                    model = self.trained(config, physics)
                    spent, value = time.process_time() - began, error(model, test)
                except UserError as problem:
                    self.console.print(f"{label}, {count} trajectories: {problem}", highlight=False)
                    continue
                self.add("curves", {
                    "symmetries": symmetries, "condition": condition.name, "trajectories": count, "model": label,
                    "nmse": value, "seconds": spent, "dynamics": model.training["dynamics"],
                    "transfer": model.training.get("transfer", ""),
                    "equation": model.training.get("equation", ""),
                })

    def joint(self, symmetries: str, family: Family) -> None:
        """Every physics in the joint model against its own model, the default of `inrflow train`, at the same time."""
        for name in family.names:
            began = time.process_time()
            single = error(self.trained(self.config(self.files[name][0], symmetries)), self.files[name][1])
            spent = time.process_time() - began
            shared = error(family.surrogate(name), self.files[name][1])
            self.add("joint", {
                "physics": name, "symmetries": symmetries, "single": single, "joint": shared,
                "ratio": shared / single, "single_seconds": spent,
                "joint_seconds": family.members[name].training["seconds"], "lost": family.lost[name],
            })

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep and show a row."""
        self.result[part].append(row)
        self.out.write_text(json.dumps(self.result, indent=2) + "\n")  # with infinities, of what diverges
        self.console.print(", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                                     for key, value in row.items() if value != ""), highlight=False)


def show(result: dict[str, Any], console: Console) -> None:
    """Tables, and in plain words whether pretraining helps."""
    table = Table(title="Navier-Stokes: NMSE by number of its trajectories")
    for title in ("symmetries", "seen", "trajectories", *LABELS):
        table.add_column(title, justify="right")
    cells = {(r["symmetries"], r["condition"], r["trajectories"], r["model"]): r["nmse"] for r in result["curves"]}
    rows = list(dict.fromkeys(key[:3] for key in cells))
    for row in rows:
        values = [cells.get((*row, label)) for label in LABELS]
        table.add_row(row[0], row[1], str(row[2]), *("-" if v is None else f"{v:.2e}" for v in values))
    console.print(table)
    for row in rows:
        plain = cells.get((*row, SCRATCH))
        for label in (PRETRAINED, RELATED):
            known = cells.get((*row, label))
            if plain is not None and known is not None:
                helps = f"{plain / known:.3g} times better" if known < 0.95 * plain else (
                    f"no better ({known / plain:.3g} times the error)")
                console.print(f"{row[1]}, {row[2]} trajectories, {row[0]} symmetries: {label} is {helps} than from "
                              "scratch", highlight=False)
    if result["joint"]:
        table = Table(title="Joint model against single-physics models: NMSE and seconds")
        for title in ("symmetries", "physics", "single", "joint", "ratio", "single s", "joint s"):
            table.add_column(title, justify="right")
        for row in result["joint"]:
            table.add_row(row["symmetries"], row["physics"], f"{row['single']:.2e}", f"{row['joint']:.2e}",
                          *(f"{row[key]:.3g}" for key in ("ratio", "single_seconds", "joint_seconds")))
        console.print(table)


def draw(result: dict[str, Any], path: Path) -> None:
    """The curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = list(dict.fromkeys((row["symmetries"], row["condition"]) for row in result["curves"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(3.9 * len(kinds), 3.8), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for label, style in LABELS.items():
            rows = [r for r in result["curves"] if (r["symmetries"], r["condition"]) == kind and r["model"] == label]
            ends = [r for r in rows if r["nmse"] < float("inf")]
            axis.plot([r["trajectories"] for r in ends], [r["nmse"] for r in ends], style, label=label, markersize=6)
            for row in rows:
                if row not in ends and label != RELATED:
                    axis.annotate(f"{label} diverges", (row["trajectories"], 0.82), fontsize=7,
                                  xycoords=("data", "axes fraction"))
        symmetries = "" if kind[0] == "none" else f", {kind[0]} symmetries"
        axis.set(xscale="log", yscale="log", xlabel="trajectories of Navier-Stokes", title=kind[1] + symmetries)
        axis.set_xticks(result["size"]["counts"], [str(c) for c in result["size"]["counts"]])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("error, share of the variance")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.legend(handles, names, loc="lower center", ncols=len(names), fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path("transfer.json"))
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny problems: a check that everything runs")
    sizes.add_argument("--full", action="store_true", help="1 to 64 trajectories: hours")
    parser.add_argument("--symmetries", nargs="+", choices=("none", "declared"), default=("none",))
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL if arguments.full else REDUCED
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(size, make_data(size, folder), arguments.out, folder, console)
        for symmetries in arguments.symmetries:
            family = Family.of(bench.pretrain(symmetries))
            console.print(f"shared: {family.about}", highlight=False)
            flow = bench.pretrain(symmetries, (FLOW,))[FLOW]
            known = {PRETRAINED: family, RELATED: add_physics(family, FLOW, flow)}
            for condition in CONDITIONS:
                bench.curve(symmetries, condition, known)
            if size.singles:
                bench.joint(symmetries, family)
    if any(bench.result[part] for part in ("curves", "joint")):
        show(bench.result, console)
        draw(bench.result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
