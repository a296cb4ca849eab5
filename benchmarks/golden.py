"""Golden runs: small trainings whose errors, processor time and memory later versions are compared with.

    python benchmarks/golden.py record [--rounding] [--cases a,b] [--files DIR] [--work DIR] [--code DIR]
    python benchmarks/golden.py check [--cases a,b] [--files DIR] [--work DIR] [--code DIR] [--out FILE]

Only the command line of inrflow is used, so that the same script measures any version: that in `--code`. Steps and
sizes that a run would choose by the clock are given, so that it repeats. `record` writes golden/baseline.json; a second
one adds a second run: whether errors are the same, and the lesser of the times. `record --rounding` adds a run on data
of which one value in a thousand is moved by one unit in the last place, to show how far rounding alone moves errors.
`check` prints a table of ratios and ends with 1 where something is worse. Data and runs are kept in `--work`; `--files`
holds cylinder_mesh.h5 and ostia_tropics.h5, whose cases are skipped where they are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BASELINE = Path(__file__).resolve().parent / "golden" / "baseline.json"
Row = tuple[str, Any, Any, float, bool]  # figure, before, now, ratio, whether it is worse
MEASURES = ("cpu", "memory")  # of the machine, not of the result
TOLERANCES = {"cpu": 0.1, "memory": 0.1, "code_size": 0.0, "parameters": 0.0}
ERROR_TOLERANCE = 0.01
COVERAGE = 0.01  # by which the share of values within 90 % intervals may lie farther from 0.9
SENSITIVE = 2.0  # times the change by rounding alone, where that is more than the tolerance
# Share of the variance below which an error is that of single precision (6e-8 of a value, squared, some hundred times):
# the order of sums decides about it, so that less than a factor says nothing.
ROUNDING, ROUNDING_FACTOR = 1e-12, 2.0
RETRIES = 2  # of a case whose processor time alone is too long, on a machine that others use

#: What a run would choose by the clock, in every case that does not say otherwise.
BUDGET = "training.minutes=60 " + " ".join(f"training.steps.{word}" for word in (
    "decoder=40", "rollout=4", "mode_trajectories=8", "check_copies=2", "copies=4"))
#: Files made by `inrflow generate`: the arguments for both, training trajectories, test trajectories.
PAIRS = {
    "wave": ("pde=wave protocol=dino grid=16", 24, 6),
    "flow": ("pde=navier_stokes protocol=dino grid=20 parameters.viscosity=1e-3", 12, 4),
    "reaction": ("pde=gray_scott dimensions=1 grid=64", 16, 4),
    "burgers": ("pde=burgers dimensions=1 grid=48", 32, 6),
    "small": ("pde=wave grid=12 resolution=24", 12, 4),
    "heat": ("pde=heat grid=20", 12, 4),
}
_BURGERS = PAIRS["burgers"][0]
DATA = {
    "family": f"{_BURGERS} trajectories=24 environments=4 frames=12 parameters.viscosity=[0.02,0.03,0.04,0.06]",
    "new": f"{_BURGERS} trajectories=1 frames=12 parameters.viscosity=0.035 seed=77",
    "new_test": f"{_BURGERS} trajectories=4 frames=16 parameters.viscosity=0.035 seed=78",
}
for _name, (_arguments, _train, _test) in PAIRS.items():
    DATA[f"{_name}_train"] = f"{_arguments} trajectories={_train} seed=0"
    DATA[f"{_name}_test"] = f"{_arguments} trajectories={_test} seed=999"


@dataclass(frozen=True)
class Case:
    """A run of `train` and `further` commands; `{name}` stands for a data file, `{run}` for the trained run."""

    arguments: str
    further: tuple[str, ...] = ()
    given: str | None = None  # the file of --files that it needs


def _on(name: str, arguments: str = "") -> str:
    return f"data.train={{{name}_train}} data.test={{{name}_test}} data.frames=10 {arguments}"


_FAMILY = "data.train={family} dynamics.context=environment"
_ADAPT = "adapt run={run} data.train={new} data.test={new_test} adapt.scratch_minutes=0"
_MESH = "data.train={cylinder_mesh}"
_SPARSE = "evaluate run={run} observe.points=0.1 observe.noise=0.01"
_NARROW = "decoder.width=32 dynamics.width=64 training.steps.decoder=150"
CASES = {
    "burgers": Case(_on("burgers")),
    "scattered": Case("data.train={rows_train} data.test={rows_test} decoder.harmonics=3"),
    "family": Case(_FAMILY, (_ADAPT,)),
    "two_physics": Case("data.train=[{small_train},{heat_train}] data.test=[{small_test},{heat_test}] data.frames=10"),
    "dino": Case(_on("small", f"experiment=dino {_NARROW} encoding.iterations=150")),
    "coral": Case(_on("small", f"experiment=coral {_NARROW} training.steps.rollout=40")),
    "wave_symmetries": Case(_on("wave")),
    "wave_plain": Case(_on("wave", "data.symmetries=none")),
    "wave_quarter": Case(_on("wave", "data.points=0.25 decoder.harmonics=5"), (_SPARSE,)),
    "navier_stokes": Case(_on("flow")),
    "gray_scott": Case(_on("reaction", "data.symmetries=none")),
    "cylinder": Case(f"{_MESH} data.frames=60", given="cylinder_mesh"),
    "cylinder_half": Case(f"{_MESH} data.frames=16 data.points=0.5 dynamics.depth=0", given="cylinder_mesh"),
    "ostia": Case("data.train={ostia_tropics} data.frames=43 dynamics.memory=0", given="ostia_tropics"),
    "embedded": Case(""),
}


class Runner:
    """Data files and commands in a folder, by the version of inrflow in `code`.

    `exact`: the runner whose data this one moves by rounding; None: data as they are.
    """

    def __init__(self, work: Path, code: Path, files: Path | None, exact: Runner | None = None) -> None:
        self.work, self.files, self.exact = work, files, exact
        self.data = work / ("data" if exact is None else "data_perturbed")
        self.data.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(code), str(code / "kernels")])
        cache = {"INRFLOW_CACHE": str(self.data)}  # where inrflow keeps the data that it brings along
        self.environment = {**os.environ, **cache, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def file(self, name: str) -> str:
        """The path of a data file, made when it is first asked for."""
        if (path := self.data / f"{name}.h5").exists():
            return str(path)
        if self.exact is not None:
            perturb(Path(self.exact.file(name)), path)
        elif name in DATA:
            self.command(["generate", *DATA[name].split(), f"output={path}"], self.work / "generate.log")
        elif name.startswith("rows"):
            write_rows(path, first=0 if name == "rows_train" else 100)
        elif self.files is not None:
            shutil.copyfile(self.files / f"{name}.h5", path)
        return str(path)

    def command(self, arguments: list[str], log: Path) -> dict[str, Any]:
        """Exit code, processor seconds and peak memory (MB) of `inrflow ARGUMENTS`; its text goes to `log`."""
        with log.open("a") as text:
            child = subprocess.Popen([sys.executable, "-m", "inrflow", *arguments], stdout=text, stderr=text,
                                     env=self.environment, cwd=self.work)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        return {"exit_code": child.returncode, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}

    def run(self, name: str) -> dict[str, Any]:
        """The figures of a case: those of the machine for all of its commands, of errors for each."""
        case, folder = CASES[name], self.work / "runs" / name
        trained = str(folder / "1")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        figures: dict[str, Any] = {"exit_code": 0, "cpu": 0.0, "memory": 0.0}
        given = dict(word.split("=", 1) for word in f"{BUDGET} {case.arguments}".split())
        train = ["train", *(f"{key}={value}" for key, value in given.items())]
        for number, words in enumerate([train, *(text.split() for text in case.further)], 1):
            output = folder / str(number)
            filled = [re.sub(r"{(\w+)}", lambda m: trained if m[1] == "run" else self.file(m[1]), w) for w in words]
            used = self.command([*filled, f"output={output}"], folder / "log.txt")
            figures["exit_code"] = max(figures["exit_code"], abs(used["exit_code"]))
            figures["cpu"] += used["cpu"]
            figures["memory"] = max(figures["memory"], used["memory"])
            if (output / "evaluation.json").exists():
                report = json.loads((output / "evaluation.json").read_text())
                for label, one in report.get("physics", {"": report}).items():
                    prefix = f"{number} {words[0]} {label}".rstrip()
                    figures |= {f"{prefix} {key}": value for key, value in report_figures(one).items()}
        return figures


def report_figures(report: dict[str, Any]) -> dict[str, float]:
    """What is compared of an evaluation.json, by name."""
    errors = [(kind, group) for kind in ("mse", "nmse") for group in ("in_t", "out_t", "all")]
    figures = {f"{kind}.{group}": report[kind].get(group) for kind, group in errors}
    figures |= {key: report.get(key) for key in ("coverage_90", "crps", "code_size", "parameters")}
    return {key: value for key, value in figures.items() if value is not None}


def perturb(source: Path, target: Path) -> None:
    """A copy of a data file in which one value of u in a thousand is the next larger number of single precision."""
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        u = file["u"][()]
        chosen = np.random.default_rng(0).random(u.shape) < 1e-3
        u[chosen] = np.nextafter(u[chosen], np.float32(np.inf))
        file["u"][...] = u


def write_rows(path: Path, first: int, trajectories: int = 12, count: int = 400) -> None:
    """Observations of two travelling waves and their rate of change, each with a time and place of its own."""
    parts = []
    for number in range(first, first + trajectories):
        random = np.random.default_rng(number)
        amplitude, phase = random.normal(size=(2, 2))
        t, x, waves = np.sort(random.random(count)), random.random(count), np.array([1.0, 2.0])
        angle = 2 * np.pi * waves * (x - t)[:, None] + 3 * phase
        u = np.stack([(amplitude / waves * np.sin(angle)).sum(1), -(amplitude * np.cos(angle)).sum(1)], 1)
        parts.append((np.full(count, number), t, x[:, None], u.astype(np.float32)))
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": "waves", "period": [1.0]})
        file.attrs.update({"channels": ["u", "v"], "coordinates": ["x"]})
        for name, values in zip(("trajectory", "t", "x", "u"), zip(*parts, strict=True), strict=True):
            file[name] = np.concatenate(values)


def _ratio(now: float, before: float) -> float:
    return now / before if before else (1.0 if now == before else float("inf"))


def compare(old: dict[str, Any], new: dict[str, Any], moved: dict[str, float]) -> list[Row]:
    """The figures of `old` beside those of `new`; `moved`: the share by which rounding alone moves each.

    A figure that is missing is worse; one that is new is not compared.
    """
    rows = []
    for key, before in old.items():
        now, name = new.get(key), key.split()[-1]
        if now is None:
            rows.append((key, before, None, float("nan"), True))
            continue
        ratio, chance = _ratio(now, before), SENSITIVE * moved.get(key, 0.0)
        if name == "exit_code":
            worse = now != before
        elif name == "coverage_90":
            worse = abs(now - 0.9) > abs(before - 0.9) + max(COVERAGE, chance * before)
        elif name in TOLERANCES:
            worse = ratio > 1 + TOLERANCES[name]
        else:
            share = old.get(f"{key.removesuffix(name)}nmse.{name.partition('.')[2] or 'all'}", 1.0)
            limit = 1 + max(ERROR_TOLERANCE, chance)
            worse = not ratio <= (max(limit, ROUNDING_FACTOR) if share < ROUNDING else limit)
        rows.append((key, before, now, ratio, worse))
    return rows


def record(names: list[str], runner: Runner) -> int:
    """One more run of every case; written after each."""
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    for name in names:
        new = runner.run(name)
        known = baseline.setdefault(name, {"figures": dict(new), "cpu": [], "repeats": None, "moved_by_rounding": {}})
        figures, errors = known["figures"], [key for key in new if key not in MEASURES]
        changes = {key: change for key in errors if (change := abs(_ratio(new[key], figures.get(key, 0.0)) - 1))}
        if runner.exact is not None:
            known["moved_by_rounding"] = changes
        elif known["cpu"]:
            known["repeats"] = known["repeats"] is not False and not changes
            figures |= {key: min(figures[key], new[key]) for key in MEASURES}
        known["cpu"].append(round(new["cpu"], 2))
        BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")
        print(f"{name:16s} cpu {known['cpu']} s, {new['memory']:.0f} MB, exit code {new['exit_code']}, repeats: "
              f"{known['repeats']}, largest change {max(changes.values(), default=0):.2g}", flush=True)
    return 0


def check(names: list[str], runner: Runner, out: Path | None) -> int:
    """One run of every case beside the baseline; 1 where something is worse."""
    baseline, result, failed = json.loads(BASELINE.read_text()), {}, []
    for name in names:
        for _ in range(1 + RETRIES):
            result[name] = runner.run(name)
            rows = compare(baseline[name]["figures"], result[name], baseline[name]["moved_by_rounding"])
            if [key for key, *_, worse in rows if worse] != ["cpu"]:
                break
        for key, before, now, ratio, worse in rows:
            after = "missing" if now is None else f"{now:.4g}"
            print(f"{name:16s} {key:32s} {before:11.4g} {after:>11s} {ratio:8.3f}{'  WORSE' * worse}", flush=True)
        failed += [f"{name}: {key}" for key, *_, worse in rows if worse]
        if out is not None:
            out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"worse: {'; '.join(failed)}" if failed else f"{len(names)} cases, nothing is worse")
    return int(bool(failed))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("--cases", default=",".join(CASES), help="names with commas between them (default: all)")
    parser.add_argument("--files", type=Path, help="folder of cylinder_mesh.h5 and ostia_tropics.h5")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "inrflow_golden")
    parser.add_argument("--code", type=Path, default=Path(__file__).resolve().parents[1], help="checkout to measure")
    parser.add_argument("--out", type=Path, help="file for the new figures (check)")
    parser.add_argument("--rounding", action="store_true", help="on data moved by rounding (record)")
    options = parser.parse_args()
    names = options.cases.split(",")
    if unknown := sorted(set(names) - set(CASES)):
        parser.error(f"unknown cases {', '.join(unknown)}; choose from {', '.join(CASES)}")
    files = {path.stem for path in options.files.glob("*.h5")} if options.files else set()
    for name in (skipped := [name for name in names if CASES[name].given not in {None, *files}]):
        print(f"{name}: skipped, --files has no {CASES[name].given}.h5")
    names = [name for name in names if name not in skipped]
    places = options.work.resolve(), options.code.resolve(), options.files
    runner = Runner(*places)
    if options.what == "check":
        return check(names, runner, options.out)
    return record(names, Runner(*places, runner) if options.rounding else runner)


if __name__ == "__main__":
    sys.exit(main())
