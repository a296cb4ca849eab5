"""How the compute to a fixed error grows with the number of trajectories, the points of a frame and the code size.

    python benchmarks/cost/scaling.py [--axes trajectories points codes] [--out FILE] [--quick]

Waves, no symmetries. For every size the parts of training run until the error is reached that is fixed beforehand: the
trunk of the decoder to a held-out error, then its modes, the codes of all frames and the closed-form dynamics, each
once. Seconds are processor time of one thread. Exponents of every part are fitted and compared with what they should
be. How to read the result: benchmarks/cost/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch

from benchmarks.common import Results, as_table, child_rows, data_files, environment, exponent, peak_bytes, started
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.siren import ModulatedSiren
from inrflow.training.loop import OptimiserSettings, Stage
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.parts.linear import linear_search
from inrflow.training.parts.trunk import DecoderTraining

DECODER_ERROR = 3e-3  # share of the variance, at held-out points of validation frames
FORECAST_ERROR = 3e-2  # share of the variance, rollouts of validation trajectories
MOST_STEPS = 1500
PARTS = ("decoder", "modes", "codes", "dynamics")
AXES: dict[str, dict[str, tuple[int, ...]]] = {
    "trajectories": {"full": (32, 64, 128, 256), "quick": (12, 24)},
    "points": {"full": (256, 576, 1024, 2304, 4096), "quick": (144, 256)},
    "codes": {"full": (40, 60, 100, 150, 200), "quick": (20, 30)},
}
BASE = {"trajectories": 64, "points": 1024, "codes": 100}
QUICK = {"trajectories": 16, "points": 144, "codes": 24}
#: Exponents that cost may have. A step of the decoder sees a fixed number of points; codes and dynamics are linear in
#: the data; products with Z x Z matrices make dynamics cubic in the code size, and codes at most quadratic.
ALLOWED = {
    "trajectories": {"decoder": 0.0, "modes": 1.0, "codes": 1.0, "dynamics": 1.0},
    "points": {"decoder": 0.0, "modes": 1.0, "codes": 1.0, "dynamics": 0.0},
    "codes": {"decoder": 0.0, "modes": 1.0, "codes": 2.0, "dynamics": 3.0},
}
TOLERANCE = 0.3
HEADER = ("axis", "size", "steps", *(f"{part} s" for part in PARTS), "all s", "decoder error", "forecast error", "MB")


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the parts of one problem, and the errors reached."""
    torch.set_num_threads(1)
    overrides = [f"data.train={case['train']}", "data.frames=10", "data.symmetries=none", "decoder.harmonics=0"]
    config: Config = resolve("train", Config, overrides)
    seconds: dict[str, float] = {}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = call()
        seconds[part] = time.process_time() - began
        return result

    with TrajectoryFile(case["train"]) as file, started(config, file) as run:
        problem = run.problem
        frames = DecoderTraining(problem.source, problem.train, problem.validation, problem.augmentation())
        torch.manual_seed(0)
        channels = len(file.description.channels)
        decoder = ModulatedSiren(problem.embedding(), channels, case["codes"], 128, 2, 2.0)
        stage = Stage("decoder", decoder, frames.loss, frames.score, optimiser=OptimiserSettings("soap", 3e-3))
        steps, decoder_error = timed("decoder", lambda: descend(stage, case.get("decoder_error", DECODER_ERROR)))
        modes = timed("modes", lambda: frames.fit_modes(decoder.double(), case["codes"])).truncated(case["codes"])
        decoder.set_output(modes.mean, modes.modes)
        codes = timed("codes", lambda: TrainingCodes(run, decoder.float(), modes.prior()))
        search = linear_search(run, codes.train, codes.validation, float(modes.noise.mean()))
        fit = timed("dynamics", lambda: search.search([len(modes.variances)]))
    return case | {
        "steps": steps,
        "seconds": seconds,
        "all": sum(seconds.values()),
        "decoder_error": decoder_error,
        "forecast_error": fit.score,
        "peak_bytes": peak_bytes(),
    }


def descend(stage: Stage, target: float) -> tuple[int, float]:
    """Steps until the held-out error is at most `target`, at the rate of a schedule of fixed length; and that error."""
    optimiser, error = stage.make_optimiser(stage.module), float("inf")
    assert stage.validate is not None
    for step in range(MOST_STEPS):
        stage.advance(stage.module, optimiser, step, MOST_STEPS)
        if step % 10 == 9:
            error = stage.validate(stage.module)
            if error <= target:
                return step + 1, error
    return MOST_STEPS, error


def table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["axis"], row[row["axis"]], row["error"], *[""] * (len(HEADER) - 3)])
            continue
        parts = [row["seconds"][part] for part in PARTS]
        lines.append(
            [row["axis"], row[row["axis"]], row["steps"], *parts, row["all"], row["decoder_error"]]
            + [row["forecast_error"], round(row["peak_bytes"] / 1e6)]
        )
    return as_table(HEADER, lines)


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fitted exponents of every part along every axis, and whether they are what they should be at most.

    A part that is nowhere above a twentieth of the whole is left out of the judgement: its cost is not felt.
    """
    found = []
    for axis, allowed in ALLOWED.items():
        some = [row for row in rows if row["axis"] == axis and "error" not in row]
        if len(some) < 2:
            continue
        sizes = [row[axis] for row in some]
        for part in PARTS:
            slope = exponent(sizes, [row["seconds"][part] for row in some])
            felt = any(row["seconds"][part] > 0.05 * row["all"] for row in some)
            fine = slope <= allowed[part] + TOLERANCE or not felt
            found.append({"axis": axis, "part": part, "exponent": slope, "allowed": allowed[part], "fine": fine})
        slope = exponent(sizes, [row["all"] for row in some])
        found.append({"axis": axis, "part": "all", "exponent": slope, "allowed": max(allowed.values()), "fine": True})
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of the parts along every axis, log-log."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes_shown = [axis for axis in AXES if any(row["axis"] == axis for row in rows)]
    figure, panels = plt.subplots(1, len(axes_shown), figsize=(4.4 * len(axes_shown), 4), squeeze=False, sharey=True)
    for panel, axis in zip(panels[0], axes_shown, strict=True):
        some = [row for row in rows if row["axis"] == axis and "error" not in row]
        for index, part in enumerate((*PARTS, "all")):
            values = [row["all"] if part == "all" else max(row["seconds"][part], 1e-3) for row in some]
            style = "ko--" if part == "all" else f"C{index}o-"
            panel.plot([row[axis] for row in some], values, style, markersize=4, label=part)
        panel.set(xscale="log", yscale="log", xlabel={"points": "points of a frame"}.get(axis, axis))
        sizes = [row[axis] for row in some]
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("processor seconds to the fixed error")
    panels[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--out", type=Path, default=Path("scaling.json"), help="JSON file to write; PNG beside it")
    parser.add_argument("--quick", action="store_true", help="two small sizes: a check")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case))), flush=True)
        return
    base = QUICK if options.quick else BASE
    results = Results(options.out, table, fresh=True)
    for axis in options.axes:
        for size in AXES[axis]["quick" if options.quick else "full"]:
            case: dict[str, Any] = base | {axis: size, "axis": axis}
            grid = round(case["points"] ** 0.5)
            train, _ = data_files("wave", case["trajectories"], 2, grid=grid, frames=10, windows=2)
            case |= {"train": str(train)} | ({"decoder_error": 0.1} if options.quick else {})
            for row in child_rows(__file__, case):
                results.keep(row)
    rows = results.rows
    exponents = growth(rows)
    results.write(exponents=exponents)
    plot(rows, options.out.with_suffix(".png"))
    print(f"\n{environment()}\n\n{table(rows)}\n")
    for entry in exponents:
        verdict = "" if entry["fine"] else f"  (more than {entry['allowed']:g}: mend it)"
        print(f"seconds of {entry['part']} ~ {entry['axis']}^{entry['exponent']:.2f}{verdict}")
    missed = [row for row in rows if "error" not in row and row["forecast_error"] > FORECAST_ERROR]
    if missed and not options.quick:
        print(f"{len(missed)} problems did not reach a forecast error of {FORECAST_ERROR:g} of the variance")
    print(f"written to {options.out} and {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
