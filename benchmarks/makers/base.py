"""Problems and their files: the registry of makers, times, random fields, the method of lines.

A new problem is a function (generator, count) -> `Fields` under `@problem()` in the file of its kind, or in a new file
in one of the folders beside this one; `python -m benchmarks.makers FOLDER NAME` writes it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

Fields = tuple[np.ndarray, np.ndarray, np.ndarray, dict]  # t (T,), x (N, d), u (S, T, N, C), attributes
FRAMES = 20
DATASETS = {"triangles", "tetrahedra", "parameters"}  # others are attributes of the file
Maker = Callable[..., Fields]  # of a generator, a number of trajectories and, in families, of a parameter
TRAIN, TEST = 24, 8  # trajectories, where a problem says nothing else


def solve(rate: Callable, u: np.ndarray, t: np.ndarray, method: str = "RK45") -> np.ndarray:
    """Fields (T, ...) at times t of du/dt = rate(u)."""
    solution = solve_ivp(lambda _, y: rate(y.reshape(u.shape)).ravel(), (t[0], t[-1]), u.ravel(), method, t,
                         rtol=1e-7, atol=1e-9)
    return solution.y.T.reshape(len(t), *u.shape)


def stepped(rate: Callable, w: np.ndarray, gap: float, steps: int, count: int = FRAMES) -> np.ndarray:
    """So many frames (T, ...) of dw/dt = rate(w), each of so many steps of the classical Runge-Kutta method."""
    dt, frames = gap / steps, [w]
    for _ in range(count - 1):
        for _ in range(steps):
            a = rate(w)
            b = rate(w + dt / 2 * a)
            c = rate(w + dt / 2 * b)
            w = w + dt / 6 * (a + 2 * b + 2 * c + rate(w + dt * c))
        frames.append(w)
    return np.stack(frames)


def linear(generator_matrix: np.ndarray, start: np.ndarray, gap: float) -> np.ndarray:
    """States (S, T, N) of du/dt = A u from `start` (S, N), by the matrix exponential."""
    step, frames = expm(gap * generator_matrix), [start]
    for _ in range(FRAMES - 1):
        frames.append(frames[-1] @ step.T)
    return np.stack(frames, 1)


def bumps(generator: np.random.Generator, x: np.ndarray, waves: int) -> np.ndarray:
    """A random smooth field at points (..., d) of about unit size, without flux at the walls of the unit box."""
    total = 0.0
    for _ in range(3 * waves):
        k = generator.integers(0, waves + 1, x.shape[-1])
        total = total + generator.standard_normal() * np.prod(np.cos(np.pi * k * x), -1) / (1 + (k**2).sum())
    return np.asarray(total)


def bumps_of(generator: np.random.Generator, x: np.ndarray, spread: float, mean: float = 0.0) -> np.ndarray:
    """A random smooth field at points (N, d) of any box, of this deviation about a mean."""
    f = bumps(generator, (x - x.min(0)) / (x.max(0) - x.min(0)), 4)
    return np.asarray(mean + spread * (f - f.mean()) / f.std())


def cell_centres(n: int, d: int, length: float = 1.0) -> np.ndarray:
    """Centres (n, ..., d) of cells of a box."""
    return np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n * length] * d, indexing="ij"), -1)


def with_noise(generator: np.random.Generator, u: np.ndarray, share: float) -> np.ndarray:
    """Values (S, T, N, C) with white noise of this share of their deviation on those of training."""
    u = u.copy()
    u[:TRAIN] += share * u[:TRAIN].std((0, 1, 2)) * generator.standard_normal(u[:TRAIN].shape)
    return u


def parameters(count: int, trained: list[float], tested: list[float]) -> np.ndarray:
    """A parameter for every trajectory, those of training first."""
    return np.concatenate([np.resize(trained, TRAIN), np.resize(tested, count - TRAIN)])


def write_fields(path: Path, name: str, fields: Fields, **arrays: np.ndarray) -> None:
    """A file of trajectories; `channels` and meshes among the attributes have their own place in it."""
    t, x, u, attributes = fields
    own: dict[str, Any] = {key: value for key, value in attributes.items() if key not in ("channels", *DATASETS)}
    with h5py.File(path, "w") as file:
        file["t"], file["x"], file["u"] = t, x, u.astype(np.float32)
        for key in DATASETS & set(attributes):
            file[key] = attributes[key]
        for key, value in arrays.items():
            file[key] = value
        text = h5py.string_dtype()
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": name} | own)
        file.attrs.create("channels", attributes.get("channels", list("uvw"[: u.shape[-1]])), dtype=text)
        file.attrs.create("coordinates", list("xyz"[: x.shape[-1]]), dtype=text)


class Problem(NamedTuple):
    """A maker of (generator, count) and how many trajectories of it train and test."""

    make: Maker
    train: int
    test: int


PROBLEMS: dict[str, Problem] = {}


def problem(train: int = TRAIN, test: int = TEST, name: str | None = None) -> Callable[[Maker], Maker]:
    """Decorator that registers a maker under its own name or another one."""

    def registered(make: Maker) -> Maker:
        key = name or make.__name__
        if key in PROBLEMS:
            raise ValueError(f"two problems are called {key}: give one of them another name")
        PROBLEMS[key] = Problem(make, train, test)
        return make

    return registered


def load() -> None:
    """Import all makers, which registers their problems."""
    for path in sorted(Path(__file__).parent.glob("*/*.py")):
        importlib.import_module(f"benchmarks.makers.{path.parent.name}.{path.stem}")


def write_problem(name: str, folder: Path, seed: int = 0) -> None:
    """Files NAME_train.h5 and NAME_test.h5 of one problem; NAME:CHANNEL writes one channel of it alone."""
    key, _, channel = name.partition(":")
    make, train, test = PROBLEMS[key]
    t, x, u, about = make(np.random.default_rng(seed), train + test)
    if channel:
        u = u[..., [about.get("channels", list("uvw")).index(channel)]]
        about = about | {"channels": [channel]}
    for part, rows in (("train", slice(train)), ("test", slice(train, None))):
        own = {key: value[rows] if key == "parameters" else value for key, value in about.items()}
        write_fields(folder / f"{name.replace(':', '_')}_{part}.h5", key,
                     (t[rows] if t.ndim == 2 else t, x[rows] if x.ndim == 3 else x, u[rows], own))
