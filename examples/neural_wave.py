"""The neural path on a generated wave: `python examples/neural_wave.py`.

A modulated SIREN and a network vector field are trained by descent, then forecast new trajectories from one frame.
"""

from __future__ import annotations

from pathlib import Path

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.evaluate import evaluate
from inrflow.evaluation.observe import Observe
from inrflow.evaluation.references import fit_references
from inrflow.pdes.generate import generate


def main(
    folder: str | Path = "neural_wave", *settings: str, grid: int = 32, trajectories: int = 64
) -> dict[str, float]:
    """Mean squared errors of forecasts by the model and by persistence. `settings`: as on the command line."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    train = generate("wave", home / "train.h5", trajectories=trajectories, grid=grid, seed=0, overwrite=True)
    test = generate("wave", home / "test.h5", trajectories=8, grid=grid, seed=1, overwrite=True)
    problem = inrflow.Problem.open(train, "recipe=neural", "data.frames=10", *settings)
    surrogate = inrflow.fit(problem, directory=home / "run")
    surrogate.save(home / "run")
    seen = problem.source.batch(problem.train, normalised=False)
    references = fit_references(seen, None, problem.description)
    with TrajectoryFile(test) as file:
        report = evaluate(surrogate, file, Observe(frames=1), references).report
    return {"neural": report["mse"]["all"], "persistence": report["references"]["persistence"]["mse"]["all"]}


if __name__ == "__main__":
    for name, error in main("neural_wave", "training.minutes=2").items():
        print(f"{name}: mean squared error {error:.2e}")
