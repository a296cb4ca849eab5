"""Transfer between physics: samples-to-target curves and joint training, one table on screen, one JSON file, one plot.

    python benchmarks/transfer.py [--out transfer.json] [--quick | --full] [--symmetries none declared]

A model of wave, heat, advection, Burgers and Gray-Scott meets Navier-Stokes, of which it sees 1, 2, 4, ...
trajectories. It is compared with models from scratch: codes of most variance (the default of `inrflow train`), and
codes on harmonics with dynamics that commute with translations, which all of them do. Data are generated.
How to read the result: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from inrflow.adaptation.new_physics import known_physics
from inrflow.commands.train_several import part_of, train_physics
from inrflow.config import Config
from inrflow.data.trajectories import TrajectoryFile
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.family import Family
from inrflow.pdes.generate import generate
from inrflow.surrogate import Surrogate
from inrflow.training.harmonic_training import HarmonicTraining
from inrflow.training.recorder import Recorder
from inrflow.training.train import Training

PHYSICS = ("wave", "heat", "advection", "burgers", "gray_scott")
TARGET = "navier_stokes"
VARIANCE, HARMONICS, PRETRAINED = "scratch, variance codes", "scratch, harmonic codes", "pretrained"
COPIES = 8  # symmetry copies of the default training, so that a run takes a minute


@dataclass(frozen=True)
class Size:
    """What is measured: trajectories of each physics and of the test, grid, frames, target trajectories, minutes of a
    model from scratch, largest wavenumber of harmonic codes (None: what the grid supports)."""

    trajectories: int
    tests: int
    grid: int
    frames: int
    counts: tuple[int, ...]
    minutes: float
    harmonics: int | None = None
    singles: bool = True


QUICK = Size(4, 2, 12, 6, (1, 2), 0.02, singles=False)
REDUCED = Size(16, 8, 32, 20, (1, 2, 4, 16), 0.5)
FULL = Size(32, 32, 32, 20, (1, 2, 4, 8, 16, 32, 64), 2.0)


def make_data(size: Size, folder: Path) -> dict[str, tuple[str, str]]:
    """Training and test files of every physics."""
    files = {}
    for name in (*PHYSICS, TARGET):
        count = max(size.counts) if name == TARGET else size.trajectories
        pair = []
        for part, number, seed in (("train", count, 0), ("test", size.tests, 1)):
            path = folder / f"{name}_{part}.h5"
            generate(name, path, trajectories=number, frames=size.frames, grid=size.grid, dimensions=2, seed=seed)
            pair.append(str(path))
        files[name] = (pair[0], pair[1])
    return files


def error(surrogate: Surrogate, path: str) -> float:
    """NMSE of forecasts from the first frame of the test trajectories, infinite where one diverges."""
    with TrajectoryFile(path, check=False) as file:
        found = evaluate(surrogate, file, Observe(), with_std=False).report["nmse"]["all"]
    return float("inf") if found is None else float(found)


class Bench:
    """Runs models and collects rows; the JSON is written after each."""

    def __init__(
        self, size: Size, files: dict[str, tuple[str, str]], out: Path, folder: Path, console: Console
    ) -> None:
        self.size, self.files, self.out, self.folder, self.console = size, files, out, folder, console
        self.result: dict[str, Any] = {
            "size": asdict(size), "cpu": platform.processor() or platform.machine(), "torch": torch.__version__,
            "threads": torch.get_num_threads(), "curves": [], "joint": [],
        }

    def config(self, path: str, symmetries: str) -> Config:
        """Closed forms, the same budget for every model."""
        config = Config()
        config.data.train, config.data.symmetries, config.data.copies = path, symmetries, COPIES
        config.dynamics.depth, config.dynamics.context = 0, "none"
        config.training.minutes = self.size.minutes
        return config

    def harmonic_config(self, path: str, symmetries: str) -> Config:
        """The same with as many harmonics as the size says."""
        config = self.config(path, symmetries)
        config.decoder.harmonics = self.size.harmonics
        return config

    def scratch(self, name: str, symmetries: str, count: int | None = None) -> Surrogate:
        """Codes of most variance, as `inrflow train` does by default, without a residual network."""
        config, quiet = self.config(self.files[name][0], symmetries), Console(quiet=True)
        directory = Path(tempfile.mkdtemp(dir=self.folder))
        path = self.files[name][0]
        if count is not None:
            path = self.first(path, count)
        with TrajectoryFile(path) as file, Recorder(directory, quiet) as recorder:
            return Training(config, file, directory, recorder, lambda: None).run()

    def first(self, path: str, count: int) -> str:
        """A file of the first trajectories of another."""
        from inrflow.data.trajectories import write_trajectories

        target = self.folder / f"first_{count}.h5"
        with TrajectoryFile(path) as file:
            frames = [file.read(i) for i in range(count)]
            write_trajectories(target, file.times()[0], frames[0].x, torch.stack(
                [torch.as_tensor(part.u) for part in frames]).numpy(), file.description, overwrite=True)
        return str(target)

    def pretrain(self, symmetries: str) -> Family:
        """All physics but the target."""
        members = {}
        for index, name in enumerate(PHYSICS):
            config = self.harmonic_config("", symmetries)
            config.data.train = [self.files[one][0] for one in PHYSICS]  # type: ignore[assignment]
            config.training.minutes = self.size.minutes * len(PHYSICS)
            began = time.process_time()
            members[name] = train_physics(part_of(config, index, len(PHYSICS)), self.folder / name, Console(quiet=True))
            self.console.print(f"pretrained on {name} ({symmetries} symmetries): {time.process_time() - began:.0f} s",
                               highlight=False)
        return Family.of(members)

    def curve(self, symmetries: str, family: Family, labels: tuple[str, ...]) -> None:
        """Errors on the target for each number of its trajectories."""
        path, test = self.files[TARGET]
        quiet = Console(quiet=True)
        for count in self.size.counts:
            for label in labels:
                known = known_physics(family) if label == PRETRAINED else None
                began = time.process_time()
                try:
                    if label == VARIANCE:
                        model = self.scratch(TARGET, symmetries, count)
                    else:
                        directory = Path(tempfile.mkdtemp(dir=self.folder))
                        with TrajectoryFile(path) as file, Recorder(directory, quiet) as recorder:
                            model = HarmonicTraining(self.harmonic_config(path, symmetries), file, directory, recorder,
                                                     lambda: None, known, count).run()
                    spent, value = time.process_time() - began, error(model, test)
                except UserError as problem:
                    self.console.print(f"{label}, {count} trajectories: {problem}", highlight=False)
                    continue
                self.add("curves", {"symmetries": symmetries, "trajectories": count, "model": label, "nmse": value,
                                    "seconds": spent, "from": known.note if known is not None else "",
                                    "validation": known.scores if known is not None else ""})

    def joint(self, symmetries: str, family: Family) -> None:
        """Every physics in the joint model against its own model at the same time."""
        for name in PHYSICS:
            began = time.process_time()
            single = error(self.scratch(name, symmetries), self.files[name][1])
            spent = time.process_time() - began
            shared = error(family.surrogate(name), self.files[name][1])
            self.add("joint", {"physics": name, "symmetries": symmetries, "single": single, "joint": shared,
                               "ratio": shared / single, "single_seconds": spent})

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep and show a row."""
        self.result[part].append(row)
        self.out.write_text(json.dumps(self.result, indent=2) + "\n")
        self.console.print(", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                                     for key, value in row.items() if value != ""), highlight=False)


def show(result: dict[str, Any], console: Console) -> None:
    """Tables, and in plain words whether pretraining helps."""
    table = Table(title="Navier-Stokes: NMSE by number of its trajectories")
    labels = (VARIANCE, HARMONICS, PRETRAINED)
    for title in ("symmetries", "trajectories", *labels):
        table.add_column(title, justify="right")
    cells = {(r["symmetries"], r["trajectories"], r["model"]): r["nmse"] for r in result["curves"]}
    for symmetries, count in dict.fromkeys(key[:2] for key in cells):
        values = [cells.get((symmetries, count, label)) for label in labels]
        table.add_row(symmetries, str(count), *("-" if v is None else f"{v:.2e}" for v in values))
    console.print(table)
    for symmetries, count in dict.fromkeys(key[:2] for key in cells):
        plain, structured, known = (cells.get((symmetries, count, label)) for label in labels)
        if count == 4 and structured is not None and known is not None:
            line = f"4 trajectories, {symmetries} symmetries: "
            if plain is not None:
                line += f"pretrained is {plain / known:.3g} times better than from scratch on variance codes, "
            helps = f"{structured / known:.3g} times better" if known < structured else "no better"
            console.print(line + f"and {helps} than from scratch on harmonic codes", highlight=False)
    if result["joint"]:
        table = Table(title="Joint model against single-physics models: NMSE")
        for title in ("symmetries", "physics", "single", "joint", "ratio"):
            table.add_column(title, justify="right")
        for row in result["joint"]:
            table.add_row(row["symmetries"], row["physics"],
                          *(f"{row[key]:.2e}" for key in ("single", "joint", "ratio")))
        console.print(table)


def draw(result: dict[str, Any], path: Path) -> None:
    """The curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = list(dict.fromkeys(row["symmetries"] for row in result["curves"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.6), sharey=True, squeeze=False)
    for axis, symmetries in zip(axes[0], kinds, strict=True):
        for label, style in ((VARIANCE, "o-"), (HARMONICS, "s-"), (PRETRAINED, "^--")):
            rows = [r for r in result["curves"] if r["symmetries"] == symmetries and r["model"] == label]
            axis.plot([r["trajectories"] for r in rows], [r["nmse"] for r in rows], style, label=label)
        axis.set(xscale="log", yscale="log", xlabel="trajectories of Navier-Stokes", title=f"symmetries: {symmetries}")
        axis.set_xticks(result["size"]["counts"], [str(c) for c in result["size"]["counts"]])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("error, share of the variance")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path("transfer.json"))
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny problems: a check that everything runs")
    sizes.add_argument("--full", action="store_true", help="1 to 64 trajectories: hours")
    parser.add_argument("--symmetries", nargs="+", choices=("none", "declared"), default=("none", "declared"))
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL if arguments.full else REDUCED
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(size, make_data(size, folder), arguments.out, folder, console)
        for symmetries in arguments.symmetries:
            family = bench.pretrain(symmetries)
            bench.curve(symmetries, family, (HARMONICS, PRETRAINED))
            if size.singles:
                bench.joint(symmetries, family)
            bench.curve(symmetries, family, (VARIANCE,))
    if any(bench.result[part] for part in ("curves", "joint")):
        show(bench.result, console)
        draw(bench.result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
