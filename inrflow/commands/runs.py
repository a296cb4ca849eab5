"""What the commands that take run=DIR have in common."""

from __future__ import annotations

from pathlib import Path

from inrflow.data.formats.schema import open_hdf5, read_description
from inrflow.errors import UserError
from inrflow.model.family import Family, is_family
from inrflow.model.surrogate import Surrogate


def load_run(
    run: str | None, device: str = "auto", physics: str | None = None, data: str | None = None
) -> Surrogate:
    """The surrogate of a run directory, its decoder on the device; of several physics the one named, or that a `data`
    file belongs to.

    Raises UserError where no run is named, it holds none, or the physics is not known.
    """
    if run is None:
        raise UserError("run=DIR is missing; give a run directory that inrflow train has written")
    if physics is not None or data is None or not is_family(run):
        return Surrogate.load(run, device, physics)
    family = Family.load(run)
    if Path(data).suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"{data} does not say to which physics it belongs; give physics=NAME, one of "
                        f"{', '.join(family.names)}")
    with open_hdf5(Path(data)) as file:
        return family.surrogate(family.find(read_description(file, Path(data))))
