"""inrflow: observations of a physical field at any points and times in, a continuous field u(t, x) out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inrflow.errors import UserError

if TYPE_CHECKING:
    from inrflow.data.observations import Observations
    from inrflow.decoders.base import AffineDecoder, Decoder
    from inrflow.decoders.registry import register_decoder
    from inrflow.dynamics.fields.base import FieldTerm, register_term
    from inrflow.dynamics.fields.sum import VectorField
    from inrflow.model.solution import Solution
    from inrflow.model.surrogate import Surrogate
    from inrflow.training.candidate import Candidate
    from inrflow.training.fit import fit
    from inrflow.training.problem import Problem
    from inrflow.training.recipes.base import Recipe
    from inrflow.training.recipes.registry import register_recipe

__version__ = "0.1.0"

_HOMES = {
    "AffineDecoder": "decoders.base",
    "Candidate": "training.candidate",
    "Decoder": "decoders.base",
    "FieldTerm": "dynamics.fields.base",
    "Observations": "data.observations",
    "Problem": "training.problem",
    "Recipe": "training.recipes.base",
    "Solution": "model.solution",
    "Surrogate": "model.surrogate",
    "VectorField": "dynamics.fields.sum",
    "fit": "training.fit",
    "register_decoder": "decoders.registry",
    "register_recipe": "training.recipes.registry",
    "register_term": "dynamics.fields.base",
}
__all__ = [
    "AffineDecoder", "Candidate", "Decoder", "FieldTerm", "Observations", "Problem", "Recipe", "Solution", "Surrogate",
    "UserError", "VectorField", "__version__", "fit", "register_decoder", "register_recipe", "register_term",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: the command line starts without torch."""
    if name in _HOMES:
        return getattr(import_module(f"inrflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'inrflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
