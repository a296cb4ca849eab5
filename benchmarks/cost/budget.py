"""Whether training keeps its time budget, and what it reaches in it, over sizes and kinds of data.

    python benchmarks/cost/budget.py [--cases NAME ...] [--minutes .05 .3 1] [--clock processor] [--out budget.json]

Data come from finite differences and Fourier collocation (nothing of the engine). Every row is a training in a process
of its own with one thread, timed from the start of the process until model and reference forecasts are fitted; allowed
are 1.2 times the budget and 20 s. How to read the result: benchmarks/cost/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay

from benchmarks.common import as_table, cache_folder, peak_bytes, quiet_log, run_cases
from benchmarks.makers.base import Fields, bumps, write_fields
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.references.base import fit_references
from inrflow.training.problem import Problem
from inrflow.training.recorder import CANDIDATES_FILE
from inrflow.training.train import start_run, train

TEST = 4
#: kind, trajectories, points, frames
CASES: dict[str, tuple[str, int, int, int]] = {
    "line": ("line", 16, 256, 10),
    "many": ("line", 1024, 256, 10),
    "long": ("line", 16, 256, 1000),
    "grid": ("grid", 16, 16384, 10),
    "points": ("points", 16, 4096, 10),
    "points_many": ("points", 256, 1024, 40),
    "points_large": ("points", 16, 16384, 20),
    "mesh": ("mesh", 16, 2048, 20),
    "single": ("line", 1, 1024, 500),
    "large": ("points", 1024, 16384, 10),
    "grid_long": ("grid", 16, 4096, 1000),
    "points_long": ("points", 16, 1024, 1000),
    "mesh_large": ("mesh", 64, 16384, 50),
    "grid_series": ("grid", 1, 4096, 2000),
    "moving": ("moving", 16, 64, 40),
    "moving_many": ("moving", 256, 256, 20),
    "moving_single": ("moving", 32, 1, 1000),
}
HEADER = ("case", "trajectories x points x frames", "minutes", "s", "allowed", "peak MB", "model", "NMSE in-t",
          "NMSE out-t")


def line(generator: np.random.Generator, count: int, points: int, frames: int) -> Fields:
    """u_t = 0.01 u_xx - u u_x on a circle of length 2, Fourier collocation."""
    k = 1j * np.pi * np.fft.rfftfreq(points, 1 / points)
    mask = np.arange(len(k)) < points // 3
    x, steps = np.arange(points) * 2 / points, 40
    dt = 0.05 / steps * min(1.0, 40 / frames)
    decay = np.exp(0.01 * k**2 * dt / 2)
    amplitude = generator.standard_normal((count, 2, 5)) / np.arange(1, 6)
    waves = np.pi * x * np.arange(1, 6)[:, None]
    u = np.fft.rfft(np.einsum("sk,kn->sn", amplitude[:, 0], np.sin(waves))
                    + np.einsum("sk,kn->sn", amplitude[:, 1], np.cos(waves)))

    def rate(v: np.ndarray) -> np.ndarray:
        return -0.5 * k * mask * np.fft.rfft(np.fft.irfft(v * mask, points) ** 2)

    path = [u]
    for _ in range(frames - 1):
        for _ in range(steps):
            a = rate(u)
            b = rate(decay * (u + dt / 2 * a))
            c = rate(decay * u + dt / 2 * b)
            d = rate(decay**2 * u + decay * dt * c)
            u = decay**2 * u + dt / 6 * (decay**2 * a + 2 * decay * (b + c) + d)
        path.append(u)
    fields = np.fft.irfft(np.stack(path, 1), points)[..., None]
    return np.arange(frames) * steps * dt, x[:, None], fields, {"period": [2.0]}


def moving(generator: np.random.Generator, count: int, points: int, frames: int) -> Fields:
    """The same at points of their own in each frame: its Fourier series."""
    t, x, u, attributes = line(generator, count, 256, frames)
    series, k = np.fft.rfft(u[..., 0]) / 128, np.arange(129)
    series[..., 0] /= 2
    x = generator.uniform(0, 2, (count, frames, points, 1))
    values = np.empty(x.shape)
    for s, m in np.ndindex(count, frames):
        values[s, m, :, 0] = (np.exp(1j * np.pi * x[s, m] * k) @ series[s, m]).real
    return t, x, values, attributes


def _reaction(n: int, count: int, frames: int, generator: np.random.Generator, periodic: bool) -> tuple[Any, Any]:
    """Times and fields (S, T, n, n) of u_t = 0.003 lap u + u - u^3 in a unit box, at centres of cells."""
    g = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)
    u = np.stack([bumps(generator, 2 * x if periodic else x, 4) for _ in range(count)])
    step = 0.2 * min(1.0, 20 / frames)
    inner = int(np.ceil(step / min(0.05, 0.2 / (0.003 * n**2))))
    dt, path = step / inner, [u]

    def rate(v: np.ndarray) -> np.ndarray:
        p = np.pad(v, ((0, 0), (1, 1), (1, 1)), mode="wrap" if periodic else "edge")
        lap = (p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2] - 4 * v) * n**2
        return 0.003 * lap + v - v**3

    for _ in range(frames - 1):
        for _ in range(inner):
            half = u + dt / 2 * rate(u)
            u = u + dt * rate(half)
        path.append(u)
    return np.arange(frames) * step, np.stack(path, 1)


def grid(generator: np.random.Generator, count: int, points: int, frames: int) -> Fields:
    """Allen-Cahn on a periodic box, a regular grid."""
    n = round(points**0.5)
    t, u = _reaction(n, count, frames, generator, True)
    g = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)
    return t, x, u.reshape(count, frames, -1, 1), {"period": [1.0, 1.0]}


def points(generator: np.random.Generator, count: int, number: int, frames: int) -> Fields:
    """Allen-Cahn between walls, at scattered points of a cubic interpolant of 64 x 64 cells."""
    n = 64
    x = np.random.default_rng(7).random((number, 2))  # the same in both files
    u = np.empty((count, frames, number, 1), dtype=np.float32)
    for start in range(0, count, 64):
        size = min(64, count - start)
        t, fields = _reaction(n, size, frames, generator, False)
        for s, m in np.ndindex(size, frames):
            u[start + s, m, :, 0] = map_coordinates(fields[s, m], x.T * n - 0.5, order=3, mode="reflect")
    return t, x, u, {}


def mesh(generator: np.random.Generator, count: int, number: int, frames: int) -> Fields:
    """The same with a triangulation of the points."""
    t, x, u, attributes = points(generator, count, number, frames)
    return t, x, u, attributes | {"triangles": Delaunay(x).simplices}


MAKERS: dict[str, Callable[..., Fields]] = {"line": line, "grid": grid, "points": points, "mesh": mesh,
                                      "moving": moving}


def files(name: str) -> tuple[Path, Path, int]:
    """Training and test file of a case, made on the first call and kept; and the frames trained on, half of them."""
    kind, count, number, frames = CASES[name]
    paths = []
    for part, size, seed in (("train", count, 0), ("test", TEST, 1)):
        path = cache_folder() / f"budget_{name}_{part}.h5"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = MAKERS[kind](np.random.default_rng(seed), size, number, 2 * frames if part == "test" else frames)
            write_fields(path, f"budget_{name}", made)
        paths.append(path)
    return paths[0], paths[1], frames


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One training until its model and reference forecasts are saved, and the errors of its forecasts."""
    torch.set_num_threads(1)
    clock = time.process_time if case["clock"] == "processor" else time.perf_counter
    began = clock() if case["clock"] == "wall" else 0.0  # a process begins at 0
    train_file, test_file, _ = files(case["case"])
    settings = [f"data.train={train_file}", f"training.minutes={case['minutes']}", *case["settings"]]
    config: Config = resolve("train", Config, settings)
    with tempfile.TemporaryDirectory() as folder, TrajectoryFile(train_file) as file, \
            quiet_log(Path(folder)) as log:
        problem = Problem.of(config, file)
        surrogate = train(start_run(problem, log, clock), None)
        surrogate.save(folder)
        held = problem.source.batch(problem.validation, normalised=False) if len(problem.validation) else None
        fit_references(problem.source.batch(problem.train, normalised=False), held, file.description)
        seconds, peak = clock() - began, peak_bytes()
        found = json.loads((Path(folder) / CANDIDATES_FILE).read_text())
    row = found["candidates"][found["chosen"]]
    with TrajectoryFile(test_file) as file:
        report = evaluate(surrogate, file, Observe(1), with_std=False).report
    return case | {"seconds": seconds, "peak": peak, "model": f"{row['recipe']}, {row['candidate']}",
                   "in_t": report["nmse"]["in_t"], "out_t": report["nmse"]["out_t"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = []
    for row in rows:
        sizes, allowed = " x ".join(map(str, CASES[row["case"]][1:])), 72 * row["minutes"] + 20
        if "error" in row:
            lines.append([row["case"], sizes, row["minutes"], row["error"], allowed, *[""] * 4])
            continue
        lines.append([row["case"], sizes, row["minutes"], row["seconds"], allowed, round(row["peak"] / 1e6),
                      row["model"], row["in_t"], row["out_t"]])
    return as_table(HEADER, lines)


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every size and kind of data, its files made, by minutes."""
    for name in arguments.cases:
        files(name)
        for minutes in arguments.minutes:
            yield {"case": name, "minutes": minutes, "clock": arguments.clock, "settings": arguments.settings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--minutes", nargs="+", type=float, default=[0.05, 0.3, 1.0])
    parser.add_argument("--clock", choices=["processor", "wall"], default="processor")
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of inrflow train")
    run_cases(parser, __file__, "budget.json", measure, table, cases)


if __name__ == "__main__":
    main()
