"""Small data sets for the tests of the data layer."""

from __future__ import annotations

import numpy as np

from inrflow.data.description import Description, Symmetries

WAVE = Description("wave", ("u", "v"), ("x", "y"), units=("m", "m/s"), time_units="s", source="made here",
                   licence="free", period=(1.0, 0.0))


def with_symmetries(description: Description = WAVE) -> Description:
    stored = description.to_dict()
    stored["symmetries"] = Symmetries.by_name(["translation", "reflection", "exchange"][:2], description).to_dict()
    return Description.from_dict(stored)


def field(trajectories: int = 3, frames: int = 5, points: int = 7, channels: int = 2, seed: int = 0):
    """t (T,), x (N, 2), u (S, T, N, C) of random numbers; values are exact in float32."""
    random = np.random.default_rng(seed)
    t = np.cumsum(random.uniform(0.1, 1.0, frames))
    x = random.random((points, 2))
    u = random.standard_normal((trajectories, frames, points, channels)).astype(np.float32)
    return t, x, u


def scattered_rows(seed=3, rows=60):
    random = np.random.default_rng(seed)
    trajectory = random.choice([0, 2, 5], rows)
    trajectory[:3] = [0, 2, 5]
    return (trajectory, random.integers(0, 6, rows) / 4.0, random.random((rows, 2)),
            random.standard_normal((rows, 2)).astype(np.float32))
