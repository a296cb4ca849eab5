"""Families: trajectories of systems that differ by a parameter, by the solvers of domain_data.py.

python benchmarks/family_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5; test values of the parameter
were not trained, the last lies beyond the range. `environment` numbers the values, for training that is not told them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from data_makers import FRAMES, Fields, write_fields
from domain_data import annulus, burgers_held
from shape_data import fhn_lshape

EACH, TESTED = 6, 2  # trajectories for each value of a parameter


def waves(generator: np.random.Generator, count: int, speed: float) -> Fields:
    """u_t = v, v_t = speed^2 u_xx on a circle of length 2, in closed form, 64 points."""
    t, x = np.arange(FRAMES) * 0.05, np.arange(64) / 32
    u = np.zeros((count, FRAMES, 64, 2))
    for k in np.arange(1, 6) * np.pi:
        for part, (a, b) in zip(u, generator.standard_normal((count, 2)) / k, strict=True):
            phase, turn = generator.uniform(0, 7), speed * k * t[:, None]
            shape = np.cos(k * x + phase)
            part[..., 0] += (a * np.cos(turn) + b * np.sin(turn)) * shape
            part[..., 1] += speed * k * (b * np.cos(turn) - a * np.sin(turn)) * shape
    return t, x[:, None], u, {"period": [2.0]}


FAMILIES = {  # maker, name of its parameter, values trained and tested
    "burgers_viscosities": (burgers_held, "viscosity", (0.02, 0.03, 0.045, 0.06), (0.025, 0.035, 0.05, 0.08)),
    "annulus_mortalities": (annulus, "mortality", (0.3, 0.4, 0.5, 0.6), (0.35, 0.45, 0.55, 0.7)),
    "fhn_excitabilities": (fhn_lshape, "excitability", (0.3, 0.38, 0.46, 0.54, 0.62, 0.7), (0.34, 0.5, 0.66, 0.8)),
    "wave_speeds": (waves, "speed", (0.6, 0.8, 1.0, 1.2), (0.7, 0.9, 1.1, 1.4)),
}


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Training and test trajectories of one family."""
    maker, parameter, trained, tested = FAMILIES[name]
    generator = np.random.default_rng(seed)
    for part, values, each in (("train", trained, EACH), ("test", tested, TESTED)):
        made = [maker(generator, each, **{parameter: value}) for value in values]
        t, x, _, attributes = made[0]
        u = np.concatenate([fields[2] for fields in made])
        write_fields(folder / f"{name}_{part}.h5", name, (t, x, u, attributes), environment=np.repeat(
            np.arange(len(values)) + 100 * (part == "test"), each))
        with h5py.File(folder / f"{name}_{part}.h5", "a") as file:
            file["parameters"] = np.repeat(values, each)[:, None]
            file["parameters"].attrs.create("names", [parameter], dtype=h5py.string_dtype())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for problem in sys.argv[2:] or FAMILIES:
        write(problem, target)
