"""`inrflow generate`: trajectories of a known equation, solved on demand and written as a data file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inrflow.aside import Aside
from inrflow.data.description import Description
from inrflow.data.symmetries import Symmetries
from inrflow.data.trajectories import write_trajectories
from inrflow.pdes.simulate import Progress, Simulation, simulate


def generate(
    pde: str,
    output: str | os.PathLike[str],
    trajectories: int = 64,
    frames: int | None = None,
    dt: float | None = None,
    grid: int | None = None,
    dimensions: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    environments: int | None = None,
    points: str | int = "grid",
    shared_points: bool = False,
    noise: float = 0.0,
    missing: float = 0.0,
    time_jitter: float = 0.0,
    seed: int = 0,
    protocol: str | None = None,
    progress: Progress | None = None,
    *,
    windows: int | None = None,
    burn_in: float | None = None,
    period: float | None = None,
    resolution: int | None = None,
    tolerance: float = 1e-7,
    overwrite: bool = False,
) -> Path:
    """Solve the equation `pde` from random initial conditions and write the trajectories to `output`.

    `protocol`: a published or default way to make the data (`find_equation(pde).protocols`), of which `frames` (each
    `dt` apart), `grid` (points per axis of the output), `dimensions`, `windows` (trajectories cut one after the other
    from a run), `burn_in` (time before the first frame), `period` (length of each axis) and `resolution` (points per
    axis of the solver) replace single settings.

    `parameters`: for each name a number; `sample`, which draws from the equation's own range, or {"low": a, "high":
    b}, drawn for each run, with environments for each environment; or a list with a value for each environment. Runs
    take the environments in turn.

    `points`: `grid`, or the number of random points, different ones in every trajectory or, with `shared_points`, the
    same; values there are exact. `noise`: standard deviation, in units of each channel's own. `missing`: fraction of
    the values not observed. `time_jitter`: frames after the first move by up to half this fraction of `dt`.
    `progress`: called with the number of steps done and of all steps, possibly from other threads.

    Initial conditions depend on `seed` and the run's index alone. `tolerance`: relative local error of a time step.
    Returns the path. Raises UserError for what cannot be meant, before anything is solved where that is possible.
    """
    path = Aside(output, overwrite).path  # a name that cannot be written is told before anything is solved
    simulation = simulate(
        pde,
        trajectories=trajectories,
        seed=seed,
        protocol=protocol,
        parameters=parameters,
        environments=environments,
        points=points,
        shared_points=shared_points,
        noise=noise,
        missing=missing,
        time_jitter=time_jitter,
        tolerance=tolerance,
        progress=progress,
        frames=frames,
        dt=dt,
        grid=grid,
        dimensions=dimensions,
        windows=windows,
        burn_in=burn_in,
        period=period,
        resolution=resolution,
    )
    write_trajectories(
        path,
        simulation.t,
        simulation.x,
        simulation.u,
        describe(simulation, seed),
        parameters=simulation.parameters,
        environment=simulation.environment,
        overwrite=overwrite,
    )
    return path


def describe(simulation: Simulation, seed: int | None = None) -> Description:
    """The description of a simulation as a data set: its names, domain, origin and symmetries."""
    seeded = "" if seed is None else f", seed {seed}"
    arrays = simulation.symmetries.arrays()
    return Description(
        name=simulation.equation.name,
        channels=simulation.channels,
        coordinates=simulation.coordinates,
        source=f"{simulation.equation.formula}; periodic; protocol {simulation.protocol}{seeded}",
        licence="generated data, free",
        period=simulation.period,
        symmetries=Symmetries(**arrays, coordinates=simulation.coordinates),
        parameter_names=simulation.parameter_names,
    )
