"""A few sparse observations in, a field to be asked anywhere out: `python examples/assimilate_and_query.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.pdes.generate import generate


def main(folder: str | Path = "assimilate", *settings: str, grid: int = 32) -> dict[str, np.ndarray]:
    """Values, standard deviations and slopes at 5 random places between two frames, after 40 of the points are observed
    in the first frame. `settings`: as on the command line."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    train = generate("heat", home / "train.h5", trajectories=32, grid=grid, seed=0, overwrite=True)
    test = generate("heat", home / "test.h5", trajectories=1, grid=grid, seed=1, overwrite=True)
    surrogate = inrflow.fit(inrflow.Problem.open(train, *settings), directory=home / "run")
    random = np.random.default_rng(0)
    with TrajectoryFile(test) as file:
        points = random.permutation(file.points)[:40]
        seen = file.read(0, [0], points)
    solution = surrogate.assimilate(inrflow.Observations(seen.t, seen.x, seen.u))
    x, time = random.random((5, 2)), 1.23
    return {"x": x, "u": solution(time, x), "std": solution.std(time, x), "dx": solution.derivatives(time, x)["dx"]}


if __name__ == "__main__":
    answer = main("assimilate", "training.minutes=0.5")
    for place, value, spread, slope in zip(*answer.values(), strict=True):
        print(f"u({place[0]:.2f}, {place[1]:.2f}) = {value[0]:+.4f} +- {spread[0]:.4f}, slope {slope[0].round(3)}")
