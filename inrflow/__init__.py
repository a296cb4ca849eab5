"""inrflow: observations of a physical field at any points and times in, a continuous field u(t, x) out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inrflow.errors import UserError

if TYPE_CHECKING:
    from inrflow.data.observations import Observations
    from inrflow.model.solution import Solution
    from inrflow.model.surrogate import Surrogate

__all__ = ["Observations", "Solution", "Surrogate", "UserError", "__version__"]
__version__ = "0.1.0"

_HOMES = {
    "Observations": "inrflow.data.observations",
    "Solution": "inrflow.model.solution",
    "Surrogate": "inrflow.model.surrogate",
}


def __getattr__(name: str) -> Any:
    """The public classes, imported when they are first asked for: the command line starts without torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'inrflow' has no attribute {name!r}")
