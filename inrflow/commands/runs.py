"""What the commands that take run=DIR have in common."""

from __future__ import annotations

from inrflow.errors import UserError
from inrflow.surrogate import Surrogate


def load_run(run: str | None, device: str = "auto") -> Surrogate:
    """The surrogate of a run directory, its decoder on the device. Raises UserError where none is named or found."""
    if run is None:
        raise UserError("run=DIR is missing; give a run directory that inrflow train has written")
    return Surrogate.load(run, device)
