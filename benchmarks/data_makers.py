"""What makers of data share: number of frames, the method of lines, random fields, files in the project's schema."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

Fields = tuple[np.ndarray, np.ndarray, np.ndarray, dict]  # t (T,), x (N, d), u (S, T, N, C), attributes
FRAMES = 20
DATASETS = {"triangles", "tetrahedra", "parameters"}  # others are attributes of the file


def solve(rate: Callable, u: np.ndarray, t: np.ndarray, method: str = "RK45") -> np.ndarray:
    """Fields (T, ...) at times t of du/dt = rate(u)."""
    solution = solve_ivp(lambda _, y: rate(y.reshape(u.shape)).ravel(), (t[0], t[-1]), u.ravel(), method, t,
                         rtol=1e-7, atol=1e-9)
    return solution.y.T.reshape(len(t), *u.shape)


def stepped(rate: Callable, w: np.ndarray, gap: float, steps: int) -> np.ndarray:
    """Frames (T, ...) of dw/dt = rate(w), each of so many steps of the classical Runge-Kutta method."""
    dt, frames = gap / steps, [w]
    for _ in range(FRAMES - 1):
        for _ in range(steps):
            a = rate(w)
            b = rate(w + dt / 2 * a)
            c = rate(w + dt / 2 * b)
            w = w + dt / 6 * (a + 2 * b + 2 * c + rate(w + dt * c))
        frames.append(w)
    return np.stack(frames)


def surface_elements(x: np.ndarray, cells: np.ndarray) -> tuple[csc_matrix, csc_matrix]:
    """Stiffness and masses (N, N) of linear elements on triangles (E, 3) of points x (N, 3)."""
    edges = [x[cells[:, (i + 2) % 3]] - x[cells[:, (i + 1) % 3]] for i in range(3)]
    area, shape = np.linalg.norm(np.cross(edges[0], edges[1]), axis=1) / 2, (len(x), len(x))
    parts = [(i, j, (cells[:, i], cells[:, j])) for i in range(3) for j in range(3)]
    stiffness = sum(csc_matrix(((edges[i] * edges[j]).sum(1) / 4 / area, at), shape) for i, j, at in parts)
    return stiffness, sum(csc_matrix((area / 12 * (1 + (i == j)), at), shape) for i, j, at in parts)


def reacting(w: np.ndarray, reaction: Callable, stiffness: csc_matrix, masses: csc_matrix,
             diffusivities: tuple[float, ...], step: float, every: int) -> np.ndarray:
    """Frames (T, C, N, S), of `every` steps each, of dw/dt = diffusivity lap w + reaction(w) from w (C, N, S), on
    finite elements: Strang splitting, reactions by Runge-Kutta, diffusion by Crank and Nicolson."""
    pairs = [((masses - 0.5 * step * d * stiffness).tocsr(), splu((masses + 0.5 * step * d * stiffness).tocsc()))
             for d in diffusivities]

    def half(w: np.ndarray) -> np.ndarray:
        return w + step / 2 * reaction(w + step / 4 * reaction(w))

    frames = [w]
    for index in range(1, every * (FRAMES - 1) + 1):
        w = half(w)
        w = half(np.stack([solver.solve(explicit @ part) for (explicit, solver), part in zip(pairs, w, strict=True)]))
        if index % every == 0:
            frames.append(w)
    return np.stack(frames)


def bumps(generator: np.random.Generator, x: np.ndarray, waves: int) -> np.ndarray:
    """A random smooth field at points (..., d) of about unit size, without flux at the walls of the unit box."""
    total = 0.0
    for _ in range(3 * waves):
        k = generator.integers(0, waves + 1, x.shape[-1])
        total = total + generator.standard_normal() * np.prod(np.cos(np.pi * k * x), -1) / (1 + (k**2).sum())
    return np.asarray(total)


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


def write_problem(name: str, folder: Path, makers: Mapping[str, Callable], train: int, test: int, seed: int = 0
                  ) -> None:
    """Files NAME_train.h5 and NAME_test.h5 of so many trajectories of one problem."""
    t, x, u, attributes = makers[name](np.random.default_rng(seed), train + test)
    for part, rows in (("train", slice(train)), ("test", slice(train, None))):
        own = {key: value[rows] if key == "parameters" else value for key, value in attributes.items()}
        write_fields(folder / f"{name}_{part}.h5", name,
                     (t[rows] if t.ndim == 2 else t, x[rows] if x.ndim == 3 else x, u[rows], own))


def folder_and_names(arguments: Sequence[str], makers: Mapping[str, Any]) -> tuple[Path, Sequence[str]]:
    """The folder, made where missing, and the problems of arguments FOLDER [NAME ...], all where none is named."""
    parser = argparse.ArgumentParser(description="Writes NAME_train.h5 and NAME_test.h5 of problems into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(makers)}; all if none is named")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - set(makers)):
        parser.error(f"no problem is called {', '.join(unknown)}: {', '.join(makers)} are")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    return chosen.folder, chosen.names or list(makers)


def write_problems(arguments: Sequence[str], makers: Mapping[str, Callable], train: int, test: int,
                   numbers: Mapping[str, tuple[int, int]] = MappingProxyType({})) -> None:
    """Those of the named problems, all of them by default, of arguments FOLDER [NAME ...]; `numbers`: of trajectories,
    where they are other ones."""
    target, names = folder_and_names(arguments, makers)
    for name in names:
        write_problem(name, target, makers, *numbers.get(name, (train, test)))
