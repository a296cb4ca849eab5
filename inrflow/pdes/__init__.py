"""Pseudo-spectral solvers of periodic partial differential equations, for data sets generated on demand."""

from inrflow.errors import UserError

#: Names of all registered equations, known without importing them.
NAMES = ["heat", "advection", "burgers", "kuramoto_sivashinsky", "wave", "gray_scott", "navier_stokes"]


def require_known(name: str) -> None:
    """Raise UserError, which lists the names of equations, for a name that is none."""
    if name not in NAMES:
        raise UserError(f"Unknown pde {name!r}: choose one of {', '.join(NAMES)}")
