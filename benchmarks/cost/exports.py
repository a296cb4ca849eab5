"""Do exported programs give the values of queries? Models of files, in onnxruntime, from the last observed state on.

    python benchmarks/cost/exports.py FILE ... [--minutes .1] [--runs FOLDER]

Every file is trained on (or, with --runs, its run FOLDER/NAME is used), exported, and its first frames are assimilated.
Differences are the largest ones of values, relative to the largest value: of `decode`, of up to `STEPS` applications of
`step`, or of `forecast` at several leads. A residual field, which is not exported, is left out on both sides.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from inrflow import Observations, Surrogate
from inrflow.cli import main as inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.export.model import export

FRAMES, POINTS, STEPS, LEADS = 3, 200, 5, (1.0, 2.0, 2.5, 5.0, 10.0, 30.0)


def differences(run: Path, file: Path) -> tuple[str, float, float | None]:
    """Kind of dynamics, and relative differences of decoded values and of forecasts (None: there are none)."""
    surrogate = replace(Surrogate.load(run), residual=None)
    with TrajectoryFile(file) as data:
        frames = data.read(0)
    size, unit = surrogate.code_size, surrogate.scale.unit
    seen = max(surrogate.window, FRAMES)
    solution = surrogate.assimilate(Observations(frames.t[:seen], frames.x, frames.u[:seen]))
    time = np.array(solution.observed[1:])
    state = solution.states(torch.tensor(time))[0].numpy()[:, : surrogate.field.state_size]
    with tempfile.TemporaryDirectory() as folder:
        exported = export(surrogate, Path(folder))
        graphs = {path.stem: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                  for path in Path(folder).glob("*.onnx")}
        x = (frames.x[0] if frames.x.ndim == 3 else frames.x)[:: max(1, frames.x.shape[-2] // POINTS)].astype(float)
        if exported.at_points:
            x = np.loadtxt(Path(folder) / "points.csv", delimiter=",", skiprows=1, ndmin=2)
    given = {} if exported.at_points else {"x": x}

    def away(s: np.ndarray, t: float) -> float:
        found, expected = graphs["decode"].run(None, {**given, "z": s[:, :size]})[0][0], solution(t, x)
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    decoded, ahead, now = away(state, float(time[0])), [], state
    for lead in LEADS if "forecast" in graphs else ():
        later = graphs["forecast"].run(None, {"t": time, "s": state, "ahead": np.full(1, lead * unit)})[0]
        ahead.append(away(later, float(time[0]) + lead * unit))
    for _ in range(STEPS if "step" in graphs else 0):
        now, time = graphs["step"].run(None, {"t": time, "s": now})[0], time + exported.step
        ahead.append(away(now, float(time[0])))
    return str(surrogate.training["dynamics"]), decoded, max(ahead, default=None)


def main() -> None:
    """Print a row for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=0.1)
    parser.add_argument("--runs", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| data | dynamics | decode | step or forecast |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        for file in arguments.files:
            run = (arguments.runs or Path(scratch)) / file.stem
            if not run.exists():
                inrflow(["train", f"data.train={file}", f"training.minutes={arguments.minutes}", f"output={run}"])
            kind, decoded, ahead = differences(run, file)
            print(f"| {file.stem} | {kind} | {decoded:.1e} | {'-' if ahead is None else f'{ahead:.1e}'} |", flush=True)


if __name__ == "__main__":
    main()
