"""Half of the stations of networks hidden: inrflow beside a Gaussian process, ordinary and space-time kriging.

    pip install scikit-learn PyKrige
    python benchmarks/observations/stations.py [--networks NAME ...] [--files FILE ...] [--seeds 0]
                                                  [--minutes .5] [--out FILE]

The seen half trains a run and is assimilated; values at the hidden half are asked for. The references get what users
give them: scikit-learn and PyKrige coordinates, one hour at a time; the kernel of the Gaussian process (two Matern
functions of smoothness 3/2 and noise) is the median of fits to every twelfth hour. Kriging in space and time has two
Matern functions with exponential decays, by likelihood of twelve windows, and is given the two hours before and after.
What is not installed is left out. How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

import inrflow
from benchmarks.common import Results, as_table, quiet_log
from benchmarks.stations.__main__ import NETWORKS
from benchmarks.stations.base import Network, write
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.training.problem import Problem
from inrflow.training.train import start_run, train

FRAMES = 300
HEADER = ("network", "seed", "channel", "method", "NMSE", "90 % hold", "CRPS", "CPU s")
Answer = tuple[np.ndarray, np.ndarray]  # means and standard deviations (T, N) at hidden places


def halves(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Seen and hidden places."""
    order = np.random.default_rng(5).permutation(len(network.x))
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def by_inrflow(network: Network, seen: np.ndarray, hidden: np.ndarray, minutes: float) -> Answer:
    """Means and deviations (T, N, C) of a run on the seen places."""
    with tempfile.TemporaryDirectory() as folder, quiet_log(Path(folder) / "run") as log:
        with TrajectoryFile(write(network, Path(folder) / "seen.h5", seen)) as file:
            config = Problem.open(file.path, f"training.minutes={minutes}").config
            surrogate = train(start_run(Problem.of(config, file), log, time.process_time))
    solution = surrogate.assimilate(inrflow.Observations(network.t, network.x[seen], network.u[:, seen]))
    t, x = np.repeat(network.t, len(hidden)), np.tile(network.x[hidden], (len(network.t), 1))
    answer = solution.query(t, x, std=True)
    shape = (len(network.t), len(hidden), -1)
    return answer["mean"].reshape(shape), answer["std"].reshape(shape)


def by_process(x: np.ndarray, u: np.ndarray, at: np.ndarray) -> Answer:
    """scikit-learn's Gaussian process, hour by hour; values u (T, N) at x (N, d)."""
    from sklearn.gaussian_process import GaussianProcessRegressor as Process
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    scale, mean = np.nanstd(u), np.nanmean(u)
    u, sphere = (u - mean) / scale, np.allclose((x**2).sum(1), 1)
    extent = 1.0 if sphere else x.std(0)
    x, at = x / extent, at / extent
    ones = 1.0 if sphere else np.ones(x.shape[1])  # a length along each axis of the plane
    kernel = ConstantKernel() * Matern(ones, nu=1.5) + ConstantKernel(0.3) * Matern(0.3 * ones, nu=1.5)
    kernel = kernel + WhiteKernel(0.1)
    thetas = []
    for frame in u[::12]:
        known = np.isfinite(frame)
        if known.sum() > 8:
            thetas.append(Process(kernel, normalize_y=True).fit(x[known], frame[known]).kernel_.theta)
    fixed = kernel.clone_with_theta(np.median(thetas, 0))
    means, stds = np.full((2, len(u), len(at)), np.nan)
    for k, frame in enumerate(u):
        known = np.isfinite(frame)
        if known.sum() > 3:
            process = Process(fixed, optimizer=None, normalize_y=True).fit(x[known], frame[known])
            means[k], stds[k] = process.predict(at, return_std=True)
    return means * scale + mean, stds * scale


def by_kriging(x: np.ndarray, u: np.ndarray, at: np.ndarray) -> Answer:
    """PyKrige's ordinary kriging with an exponential variogram, hour by hour, in the plane."""
    from pykrige.ok import OrdinaryKriging

    x, at = (np.pad(one, ((0, 0), (0, 1)))[:, :2] for one in (x, at))  # a line is one of the plane
    means, stds = np.full((2, len(u), len(at)), np.nan)
    for k, frame in enumerate(u):
        known = np.isfinite(frame)
        if known.sum() > 3 and np.ptp(frame[known]) > 0:
            kriging = OrdinaryKriging(x[known, 0], x[known, 1], frame[known], variogram_model="exponential")
            mean, variance = kriging.execute("points", at[:, 0], at[:, 1])
            means[k], stds[k] = mean, np.sqrt(np.maximum(variance, 1e-12))
    return means, stds


def in_space_and_time(x: np.ndarray, u: np.ndarray, at: np.ndarray, width: int = 2) -> Answer:
    """Kriging around one mean, each hour from those up to `width` before and after it."""
    scale, mean, extent = np.nanstd(u), np.nanmean(u), x.std(0)
    x, at, u, count = x / extent, at / extent, (u - mean) / scale, len(u)

    def rough(distance: np.ndarray) -> np.ndarray:
        return (1 + 3**0.5 * distance) * np.exp(-(3**0.5) * distance)

    def covariance(p: np.ndarray, x: np.ndarray, t: np.ndarray, other: np.ndarray, s: np.ndarray) -> np.ndarray:
        distance = np.sqrt((((x[:, None] - other) / np.exp(p[5:])) ** 2).sum(-1))
        slow, fast = (np.exp(-np.abs(t[:, None] - s) / np.exp(one)) for one in p[2:4])
        return (np.exp(p[0]) * rough(distance) + 1) * slow + np.exp(p[1]) * rough(4 * distance) * fast

    starts = np.random.default_rng(0).permutation(count - width)[:12]
    windows = []
    for start in starts:
        k, i = np.nonzero(np.isfinite(u[start : start + width + 1]))
        windows.append((x[i], k.astype(float), u[start + k, i]))

    def surprise(p: np.ndarray) -> float:
        total = 0.0
        for where, t, value in windows:
            root = np.linalg.cholesky(covariance(p, where, t, where, t) + np.exp(p[4]) * np.eye(len(t)))
            total += 0.5 * np.sum(np.linalg.solve(root, value) ** 2) + np.log(np.diag(root)).sum()
        return total / sum(len(value) for _, _, value in windows)

    first = np.concatenate([np.log([0.5, 0.2, 8.0, 3.0, 0.1]), np.zeros(x.shape[1])])
    limits = [(-6, 3), (-6, 3), (-1.6, 6.2), (-1.6, 6.2), (-9, 1)] + [(-3, 3)] * x.shape[1]
    p = minimize(surprise, first, method="L-BFGS-B", bounds=limits, options={"maxiter": 12}).x
    means, stds = np.full((2, count, len(at)), np.nan)
    for hour in range(count):
        begin = max(0, hour - width)
        k, i = np.nonzero(np.isfinite(u[begin : hour + width + 1]))
        root = np.linalg.cholesky(covariance(p, x[i], begin + k, x[i], begin + k) + np.exp(p[4]) * np.eye(len(i)))
        half = np.linalg.solve(root, covariance(p, x[i], begin + k, at, np.full(len(at), hour)))
        means[hour] = half.T @ np.linalg.solve(root, u[begin + k, i])
        whole = np.exp(p[0]) + np.exp(p[1]) + 1 + np.exp(p[4])
        stds[hour] = np.sqrt(np.maximum(whole - (half**2).sum(0), 1e-9))
    return means * scale + mean, stds * scale


def scores(truth: np.ndarray, answer: Answer) -> dict[str, float]:
    """NMSE, share held by 90 % intervals, CRPS in units of the deviation, of finite values."""
    error, std = answer[0] - truth, answer[1]
    known = np.isfinite(error) & (std > 0)
    z, deviation = error[known] / std[known], np.nanstd(truth)
    crps = std[known] * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)) / deviation
    held = float(np.mean(np.abs(z) < norm.ppf(0.95)))
    return {"nmse": float(np.mean(error[known] ** 2) / deviation**2), "held": held,
            "crps": float(crps.mean())}


def of_file(path: Path) -> Network:
    """That of the first trajectory of a file."""
    with TrajectoryFile(path) as file:
        frames = file.read(0)
        return Network(frames.t, frames.x, frames.u, file.description)


def measure(name: str, network: Network, seed: int, minutes: float) -> list[dict[str, Any]]:
    """Rows of one network."""
    network = Network(network.t[:FRAMES], network.x, network.u[:FRAMES], network.description)
    seen, hidden = halves(network)
    began, rows = time.process_time(), []
    mean, std = by_inrflow(network, seen, hidden, minutes)
    spent = time.process_time() - began
    for c, channel in enumerate(network.description.channels):
        own, truth = {"network": name, "seed": seed, "channel": channel}, network.u[:, hidden, c].astype(float)
        rows.append(own | {"method": "inrflow", "seconds": spent} | scores(truth, (mean[..., c], std[..., c])))
        for method, function in (("Gaussian process", by_process), ("ordinary kriging", by_kriging),
                                 ("kriging in space and time", in_space_and_time)):
            if function is by_kriging and network.description.geometry == "sphere":
                continue
            began = time.process_time()
            try:
                answer = function(network.x[seen], network.u[:, seen, c].astype(float), network.x[hidden])
            except ImportError as error:
                print(f"{method} is left out: {error}")
                continue
            rows.append(own | {"method": method, "seconds": time.process_time() - began} | scores(truth, answer))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    keys = ("network", "seed", "channel", "method", "nmse", "held", "crps", "seconds")
    return as_table(HEADER, [[row[key] for key in keys] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="networks as trajectory files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("observations.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results(arguments.out, table, fresh=True)
    networks = [(name, seed, NETWORKS[name](seed)) for name in arguments.networks for seed in arguments.seeds]
    for name, seed, network in [*networks, *((path.stem, 0, of_file(path)) for path in arguments.files)]:
        for row in measure(name, network, seed, arguments.minutes):
            results.keep(row)


if __name__ == "__main__":
    main()
