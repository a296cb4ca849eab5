"""One field seen in many ways: on a grid, at irregular times, at points of each trajectory or frame, in rows.

python benchmarks/forecasts/sampling.py FOLDER [NAME ...] [--ways grid moving rows ...] [--minutes 1.5] [--noise 0]

trains on 24 trajectories of as many values each, from the first 9/19 of the time, and prints NMSE on a grid that eight
others are seen on, within and beyond that time. Runs and what they tell are kept in FOLDER.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from benchmarks.common import trained_by_command

TRAIN, TEST, FRAMES, DENSE = 24, 8, 10, 401
WAYS = ("grid", "irregular", "fixed", "own", "moving", "moving_irregular", "rows", "gaps", "single")
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]  # values (R, C) at times (R,) and points (R, d)


class Problem(NamedTuple):
    """A maker of fields, channels, coordinates, corners, last time, points of a frame and periods."""

    make: Callable[[np.random.Generator], Field]
    channels: list[str]
    coordinates: list[str]
    lower: list[float]
    upper: list[float]
    last: float
    points: int
    period: list[float] | None


def _on_a_ring(generator: np.random.Generator, rate: Callable, length: float, last: float, parts: int, n: int = 192
               ) -> Field:
    """rate(u (parts, n), derivative) on a circle, Fourier collocation; values at any place by its waves."""
    k = 2j * np.pi * np.fft.fftfreq(n, 1 / n) / length
    x = np.arange(n) / n
    start = np.stack([sum(generator.normal() * np.cos(2 * np.pi * (m * x + generator.uniform())) / (1 + 0.5 * m)
                          for m in range(1, 5)) * 0.7 + 0.3 * generator.normal() for _ in range(parts)])

    def along(u: np.ndarray, order: int) -> np.ndarray:
        return np.fft.ifft(k**order * np.fft.fft(u)).real

    t = np.linspace(0, last, DENSE)
    path = solve_ivp(lambda _, u: rate(u.reshape(parts, n), along).ravel(), (0, last), start.ravel(), "LSODA", t,
                     rtol=1e-8, atol=1e-10).y.T.reshape(DENSE, parts, n)
    waves = CubicSpline(t, np.fft.fft(path) / n)
    return lambda at, place: np.einsum("rcn,rn->rc", waves(at), np.exp(place[:, :1] * k)).real


def waves(generator: np.random.Generator) -> Field:
    """u_t = -u u_x + .1 u_xx - .05 u_xxx on a circle."""
    return _on_a_ring(generator, lambda u, d: -u * d(u, 1) + 0.1 * d(u, 2) - 0.05 * d(u, 3), 20.0, 4.0, 1)


def turning(generator: np.random.Generator) -> Field:
    """A_t = A + (1 + .5 i) A_xx - (1 - i) |A|^2 A on a circle, real and imaginary parts."""
    def rate(u: np.ndarray, d: Callable) -> np.ndarray:
        a, b = d(u, 2)
        size = (u**2).sum(0)
        return np.stack([u[0] + a - 0.5 * b - size * (u[0] + u[1]), u[1] + b + 0.5 * a - size * (u[1] - u[0])])

    return _on_a_ring(generator, rate, 40.0, 3.0, 2)


def hunted(generator: np.random.Generator) -> Field:
    """u_t = .02 lap u + u (1 - u) - u v, v_t = .03 lap v + 1.5 u v - .6 v in a box whose walls no flux passes."""
    n, sides = 24, np.array([2.0746, 1.55595])
    k = [np.pi * np.arange(n) / side for side in sides]
    at = [(np.arange(2 * n) + 0.5) / (2 * n) * side for side in sides]
    tables = [np.cos(np.outer(place, wave)) for place, wave in zip(at, k, strict=True)]
    weights = [np.where(np.arange(n) == 0, 1.0, 2.0)[:, None] * table.T / (2 * n) for table in tables]
    square = k[0][:, None] ** 2 + k[1] ** 2

    def rate(_: float, codes: np.ndarray) -> np.ndarray:
        c = codes.reshape(2, n, n)
        u, v = tables[0] @ c @ tables[1].T
        own = weights[0] @ np.stack([u * (1 - u) - u * v, (1.5 * u - 0.6) * v]) @ weights[1].T
        return (own - np.array([0.02, 0.03])[:, None, None] * square * c).ravel()

    start = np.zeros((2, n, n))
    start[:, :4, :4] = generator.normal(size=(2, 4, 4)) * 0.15 / (1 + np.add.outer(np.arange(4), np.arange(4)))
    start[:, 0, 0] = 0.6, 0.5
    t = np.linspace(0, 10, DENSE)
    path = CubicSpline(t, solve_ivp(rate, (0, 10), start.ravel(), "LSODA", t, rtol=1e-8, atol=1e-10).y.T.reshape(
        DENSE, 2, n, n))
    return lambda at, place: np.einsum("rcij,ri,rj->rc", path(at), *(np.cos(np.outer(place[:, j] - 0.4137, k[j]))
                                                                     for j in range(2)))


PROBLEMS = {
    "waves": Problem(waves, ["u"], ["x"], [0.0], [20.0], 4.0, 64, [20.0]),
    "turning": Problem(turning, ["a", "b"], ["x"], [0.0], [40.0], 3.0, 64, [40.0]),
    "hunted": Problem(hunted, ["u", "v"], ["x", "y"], [0.4137] * 2, [2.4883, 1.96965], 10.0, 289, None),
}


def _places(one: Problem, way: str, random: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Times (T,) and points (T, N, d) of each training trajectory."""
    half, fixed = one.last * 9 / 19, random.uniform(one.lower, one.upper, (one.points, len(one.lower)))
    regular, uneven = np.linspace(0, half, FRAMES), np.sort(np.append(random.uniform(0, half, FRAMES - 2), [0, half]))
    for _ in range(TRAIN):
        own = np.sort(np.append(random.uniform(0, half, FRAMES - 2), [0, half]))
        moving = random.uniform(one.lower, one.upper, (FRAMES, one.points, len(one.lower)))
        t = own if way in ("own", "moving_irregular") else uneven if way == "irregular" else regular
        x = _grid(one) if way in ("grid", "irregular") else fixed if way in ("fixed", "gaps") else moving[0]
        yield t, moving if way.startswith(("moving", "single")) else np.broadcast_to(x, (FRAMES, *x.shape))


def _grid(one: Problem) -> np.ndarray:
    count = round(one.points ** (1 / len(one.lower)))
    axes = [np.linspace(low, high, count, endpoint=one.period is None)
            for low, high in zip(one.lower, one.upper, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def write(folder: Path, name: str, way: str, noise: float) -> None:
    """Write NAME_test.h5 and NAME_WAY_train.h5."""
    one, random = PROBLEMS[name], np.random.default_rng(1)
    fields = [one.make(np.random.default_rng([7, s])) for s in range(TRAIN + TEST)]
    about = {"format": "inrflow-trajectories", "version": 1, "name": name, "channels": one.channels,
             "coordinates": one.coordinates, **({"period": one.period} if one.period else {})}

    def frames(field: Field, t: np.ndarray, x: np.ndarray) -> np.ndarray:
        return field(np.repeat(t, x.shape[1]), x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1)

    t, grid = np.linspace(0, one.last, 20), _grid(one)
    tested = np.stack([frames(field, t, np.broadcast_to(grid, (20, *grid.shape))) for field in fields[TRAIN:]])
    seen = list(_places(one, way, random))
    u = np.stack([frames(field, *places) for field, places in zip(fields, seen, strict=False)])
    u += noise * u.std((0, 1, 2)) * random.standard_normal(u.shape)
    times, x = (np.stack(parts) for parts in zip(*seen, strict=True))
    if way == "gaps":
        u[random.random(u.shape) < 0.4] = np.nan
    if way == "single":  # one channel of each value
        u[random.integers(0, u.shape[-1], u.shape[:-1])[..., None] != np.arange(u.shape[-1])] = np.nan
    values = {"t": times, "x": x if way.startswith(("moving", "single")) else x[:, 0], "u": u.astype(np.float32)}
    if way == "rows":
        count = FRAMES * one.points
        at = np.sort(random.uniform(0, one.last * 9 / 19, (TRAIN, count)), 1)
        x = random.uniform(one.lower, one.upper, (TRAIN, count, len(one.lower)))
        u = np.concatenate([field(*places) for field, *places in zip(fields, at, x, strict=False)])
        u += noise * u.std(0) * random.standard_normal(u.shape)
        values = {"trajectory": np.repeat(np.arange(TRAIN), count), "t": at.ravel(), "x": x.reshape(len(u), -1),
                  "u": u.astype(np.float32)}
    for path, held in ((folder / f"{name}_test.h5", {"t": t, "x": grid, "u": tested.astype(np.float32)}),
                       (folder / f"{name}_{way}_train.h5", values)):
        with h5py.File(path, "w") as file:
            file.attrs.update(about)
            for key, value in held.items():
                file[key] = value


def row(folder: Path, name: str, way: str, minutes: float) -> None:
    """Train on one way of seeing a field, and print the figures."""
    found = trained_by_command(
        folder / f"{name}_{way}", f"{name} | {way}", f"data.train={folder / name}_{way}_train.h5",
        f"data.test={folder / name}_test.h5", f"training.minutes={minutes}", "seed=0")
    if found is None:
        return
    report, taken = found
    print(f"| {name} | {way} | {report['nmse']['in_t']:.1e} / {report['nmse']['out_t']:.1e} | {taken['candidate']} | "
          f"{100 * report['coverage_90']:.0f} % |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--noise", type=float, default=0.0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for problem in options.names:
        for chosen in options.ways:
            write(options.folder, problem, chosen, options.noise)
            row(options.folder, problem, chosen, options.minutes)
