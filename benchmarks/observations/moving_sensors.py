"""A quarter of the sensors that move through a field hidden: inrflow beside a Gaussian process in space and time.

    pip install scikit-learn
    python benchmarks/observations/moving_sensors.py [--names NAME ...] [--seeds 0] [--minutes .5] [--out FILE]

Drifters in rough and in smooth stirring (`plane`, `smooth`; `crowd` of 360), `gliders` that dive through two stratified
fields, floats on the `globe`, and `cars` in a town's air. The process has two Matern functions and noise, by likelihood
of 500 values, and all of them. How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import inrflow
from benchmarks.common import Results, quiet_log
from benchmarks.observations.stations import Answer, scores, table
from benchmarks.stations.base import Network
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.training.problem import Problem
from inrflow.training.train import start_run, train


class Waves:
    """Random waves in R^d whose energy falls as k^-slope from a longest to a shortest one, and which lose their phase
    the sooner the shorter they are, as k^(-2/3)."""

    def __init__(self, random: np.random.Generator, slope: float, longest: float, shortest: float, memory: float,
                 dimensions: int = 2, count: int = 200) -> None:
        k = 2 * np.pi / np.exp(random.uniform(np.log(shortest), np.log(longest), count))
        way = random.standard_normal((count, dimensions))
        self.k = k[:, None] * way / np.linalg.norm(way, axis=1, keepdims=True)
        self.size = k ** ((1 - slope) / 2) / np.sqrt((k ** (1 - slope)).sum())
        self.memory = memory * (k * longest / (2 * np.pi)) ** (-2 / 3)
        self.random, self.state = random, random.standard_normal((2, count))

    def step(self, dt: float) -> None:
        kept = np.exp(-dt / self.memory)
        self.state = kept * self.state + np.sqrt(1 - kept**2) * self.random.standard_normal(self.state.shape)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values (N,) at points (N, d)."""
        return (np.cos(x @ self.k.T) * self.state[0] + np.sin(x @ self.k.T) * self.state[1]) @ self.size

    def velocity(self, x: np.ndarray) -> np.ndarray:
        """(N, 2) of the flow of which they are the stream function."""
        slope = (np.cos(x @ self.k.T) * self.state[1] - np.sin(x @ self.k.T) * self.state[0]) * self.size
        return np.stack([slope @ self.k[:, 1], -slope @ self.k[:, 0]], 1)


def plane(seed: int = 0, sensors: int = 36, frames: int = 120, slope: float = 3.0, memory: float = 12.0,
          noise: float = 0.1) -> Network:
    random = np.random.default_rng([seed, 701])
    field, flow = Waves(random, slope, 100, 4, memory), Waves(random, slope, 80, 4, memory)
    x, places, values = random.uniform(0, 100, (sensors, 2)), [], []
    for _ in range(frames):
        for _ in range(4):
            field.step(0.25)
            flow.step(0.25)
            x = np.clip(x + 2.5 * flow.velocity(x) + [0.025, 0], 0, 100)
        places.append(x)
        values.append(field(x) + noise * random.standard_normal(sensors))
    return _network("plane", ("c",), ("x", "y"), places, values, "hours")


def smooth(seed: int = 0) -> Network:
    return plane(seed + 50, 30, 80, 5.0, 40.0, 0.05)


def crowd(seed: int = 0) -> Network:
    return plane(seed + 90, 360, 60)


def gliders(seed: int = 0, sensors: int = 24, frames: int = 100) -> Network:
    random = np.random.default_rng([seed, 702])
    warm, salt = Waves(random, 3.0, 60, 4, 20.0), Waves(random, 3.0, 50, 4, 20.0)
    x, way, phase = random.uniform(0, 60, (sensors, 2)), *random.uniform(0, 2 * np.pi, (2, sensors))
    places, values = [], []
    for frame in range(frames):
        warm.step(1.0)
        salt.step(1.0)
        way = way + 0.1 * random.standard_normal(sensors)
        x = np.abs(x + 0.6 * np.stack([np.cos(way), np.sin(way)], 1))
        x = np.where(x > 60, 120 - x, x)
        z = 250 * (1 - np.cos(2 * np.pi * frame / 10 + phase))
        t = 20 * np.exp(-z / 150) + 1.5 * np.exp(-z / 200) * warm(x) + 0.5 * np.cos(z / 120) * salt(x)
        s = 34 + z / 600 + 0.2 * np.exp(-z / 300) * salt(x)
        places.append(np.concatenate([x, z[:, None]], 1))
        values.append(np.stack([t, s], 1) + [0.05, 0.02] * random.standard_normal((sensors, 2)))
    return _network("gliders", ("T", "S"), ("x", "y", "z"), places, values, "hours")


def globe(seed: int = 0, sensors: int = 60, frames: int = 90) -> Network:
    random = np.random.default_rng([seed, 703])
    field, (u, v) = Waves(random, 3.0, 2.1, 0.16, 15.0, 3, 300), random.standard_normal((2, sensors))
    lon, lat = random.uniform(-180, 180, sensors), np.degrees(np.arcsin(random.uniform(-0.9, 0.9, sensors)))
    places, values = [], []
    for _ in range(frames):
        field.step(1.0)
        u, v = 0.9 * u + 0.4 * random.standard_normal(sensors), 0.9 * v + 0.4 * random.standard_normal(sensors)
        lon, lat = lon + 0.5 * u / np.cos(np.radians(lat)), np.clip(lat + 0.5 * v, -80, 80)
        a, b = np.radians(lon), np.radians(lat)
        places.append(np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], 1))
        value = 15 - 10 * np.sin(b) ** 2 + 2 * field(places[-1])
        values.append(value + 0.2 * random.standard_normal(sensors))
    return _network("globe", ("T",), ("ux", "uy", "uz"), places, values, "days", "sphere")


def cars(seed: int = 0, sensors: int = 30, frames: int = 150) -> Network:
    random = np.random.default_rng([seed, 704])
    field, roads = Waves(random, 2.6, 12, 0.6, 8.0), Waves(random, 3.0, 10, 0.8, 1e9)
    x, goal, places, values = *random.uniform(0, 10, (2, sensors, 2)), [], []
    for frame in range(frames):
        field.step(1.0)
        way = goal - x
        far = np.linalg.norm(way, axis=1, keepdims=True)
        x, arrived = np.where(far > 1.2, x + 1.2 * way / np.maximum(far, 1e-9), goal), far <= 1.2
        goal = np.where(arrived, random.uniform(0, 10, (sensors, 2)), goal)
        day = 0.3 * np.cos(2 * np.pi * frame / 144)
        places.append(x)
        values.append(np.exp(2.5 + 0.5 * roads(x) + 0.4 * field(x) + day + 0.1 * random.standard_normal(sensors)))
    return _network("cars", ("NO2",), ("x", "y"), places, values, "hours")


def _network(name: str, channels: tuple[str, ...], coordinates: tuple[str, ...], places: list[np.ndarray],
             values: list[np.ndarray], units: str, geometry: str | None = None) -> Network:
    u = np.array(values).reshape(len(values), len(places[0]), len(channels))
    about = Description(name, channels, coordinates, time_units=units, geometry=geometry)
    return Network(np.arange(float(len(u))), np.array(places), u, about)


MAKERS = {make.__name__: make for make in (plane, smooth, crowd, gliders, globe, cars)}


def by_process(t: np.ndarray, x: np.ndarray, u: np.ndarray, at_t: np.ndarray, at: np.ndarray) -> Answer:
    """scikit-learn's, given values (R,) at times (R,) and places (R, d)."""
    from sklearn.gaussian_process import GaussianProcessRegressor as Process
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    given = np.concatenate([x, t[:, None]], 1)
    scale, ones = given.std(0), np.ones(given.shape[1])
    kernel = ConstantKernel() * Matern(ones, nu=1.5) + ConstantKernel(0.3) * Matern(0.3 * ones, nu=0.5)
    some = np.random.default_rng(0).permutation(len(u))[:500]
    fitted = Process(kernel + WhiteKernel(0.1), normalize_y=True).fit(given[some] / scale, u[some]).kernel_
    process = Process(fitted, optimizer=None, normalize_y=True).fit(given / scale, u)
    mean, std = process.predict(np.concatenate([at, at_t[:, None]], 1) / scale, return_std=True)
    return mean, std


def by_inrflow(network: Network, seen: np.ndarray, at_t: np.ndarray, at: np.ndarray, minutes: float) -> Answer:
    """Means and deviations (R, C) of a run on the seen sensors."""
    x, u = network.x[:, seen], network.u[:, seen]
    with tempfile.TemporaryDirectory() as folder, quiet_log(Path(folder) / "run") as log:
        path = Path(folder) / "seen.h5"
        write_trajectories(path, network.t, x[None], u[None], network.description)
        with TrajectoryFile(path) as file:
            config = Problem.open(path, f"training.minutes={minutes}").config
            surrogate = train(start_run(Problem.of(config, file), log, time.process_time))
    answer = surrogate.assimilate(inrflow.Observations(network.t, x, u)).query(at_t, at, std=True)
    return answer["mean"], answer["std"]


def measure(name: str, seed: int, minutes: float) -> list[dict[str, Any]]:
    """Rows of one network."""
    network, rows = MAKERS[name](seed), []
    order = np.random.default_rng([seed, 9]).permutation(network.x.shape[1])
    cut = round(0.75 * len(order))
    seen, hidden = np.sort(order[:cut]), np.sort(order[cut:])
    at_t, at = np.repeat(network.t, len(hidden)), network.x[:, hidden].reshape(-1, network.x.shape[-1])
    truth = network.u[:, hidden].reshape(len(at), -1)
    began = time.process_time()
    mean, std = by_inrflow(network, seen, at_t, at, minutes)
    spent = time.process_time() - began
    t, x = np.repeat(network.t, len(seen)), network.x[:, seen].reshape(-1, at.shape[1])
    for c, channel in enumerate(network.description.channels):
        own = {"network": name, "seed": seed, "channel": channel}
        rows.append(own | {"method": "inrflow", "seconds": spent} | scores(truth[:, c], (mean[:, c], std[:, c])))
        if len(t) <= 5000:
            began = time.process_time()
            answer = by_process(t, x, network.u[:, seen, c].ravel(), at_t, at)
            rows.append(own | {"method": "Gaussian process", "seconds": time.process_time() - began}
                        | scores(truth[:, c], answer))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("moving_sensors.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results(arguments.out, table, fresh=True)
    for name in arguments.names:
        for seed in arguments.seeds:
            for row in measure(name, seed, arguments.minutes):
                results.keep(row)


if __name__ == "__main__":
    main()
