"""Embedded default data: the 2-D wave equation in the protocol of the DINo paper.

u_tt = c^2 lap u on a periodic square, channels u and v = u_t. A run starts at rest from one Gaussian bump of random
radius, height and place, and is cut into trajectories, consecutive windows of equal length. The equation is linear, so
every frame is exact, without time steps. Coordinates, speed and initial conditions are from DINo (Yin et al., ICLR
2023).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inrflow.pdes.simulate import simulate


@dataclass(frozen=True)
class WaveData:
    """Trajectories of the wave equation: `t` (T,), `x` (N, 2), `u` (S, T, N, 2) float32, `period` (2,), and its
    symmetries.

    `symmetries` holds `generators` (K, 2, 3), `generators_channels` (K, 2, 2), `maps` (M, 2, 3), `maps_channels` (M,
    2, 2) and `names`, one for each generator and then for each map.
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    period: np.ndarray
    symmetries: dict[str, Any] = field(repr=False)
    channels: tuple[str, ...] = ("u", "v")
    coordinates: tuple[str, ...] = ("x", "y")


def default_wave(
    trajectories: int = 64, seed: int = 0, grid: int = 32, frames: int = 20, dt: float = 0.25, windows: int = 8
) -> WaveData:
    """Trajectories of the wave equation on a grid x grid square.

    `windows` consecutive windows of `frames` frames, `dt` apart, are cut from each run. A run's initial condition
    depends on `seed` and the run's index alone. As in the DINo protocol, coordinates run from 0 to 0.5 over the
    grid's first to last point, so the period is 0.5 grid / (grid - 1).
    """
    data = simulate("wave", trajectories, seed, "dino", grid=grid, frames=frames, dt=dt, windows=windows)
    period = np.full(2, 0.5 * grid / (grid - 1))
    return WaveData(
        t=data.t,
        x=data.x * (period / data.period),
        u=data.u,
        period=period,
        symmetries=data.symmetries.arrays(),
    )
