"""`inrflow generate`: trajectories of a known equation, solved on demand and written as a data file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.writing import write_trajectories
from inrflow.pdes.simulate import Simulation, simulate
from inrflow.runtime.atomic_files import require_replaceable


def generate(
    pde: str, output: str | os.PathLike[str], *, seed: int = 0, overwrite: bool = False, **settings: Any
) -> Path:
    """Solve the equation `pde` from random initial conditions and write the trajectories to `output`.

    `settings`: those of `simulate`. Returns the path. Raises UserError for inadmissible settings and, unless
    `overwrite`, if the file exists.
    """
    path = Path(output)
    require_replaceable(path, overwrite)  # before anything is solved
    simulation = simulate(pde, seed=seed, **settings)
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


def describe(simulation: Simulation, seed: int) -> Description:
    """Data-set description of a simulation: names, domain, origin and symmetries."""
    arrays = simulation.symmetries.arrays()
    return Description(
        name=simulation.equation.name,
        channels=simulation.channels,
        coordinates=simulation.coordinates,
        source=f"{simulation.equation.formula}; periodic; protocol {simulation.protocol}, seed {seed}",
        licence="generated data, free",
        period=simulation.period,
        symmetries=Symmetries(**arrays, coordinates=simulation.coordinates),
        parameter_names=simulation.parameter_names,
    )
