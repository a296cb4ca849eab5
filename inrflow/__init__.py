"""inrflow: observations of a physical field at any points and times in, a continuous field u(t, x) out.

    >>> surrogate = inrflow.train("train.h5", "data.frames=10", test="test.h5", output="runs/wave")
    >>> surrogate = inrflow.Surrogate.load("runs/wave")
    >>> observations = inrflow.Observations(t, x, u)  # (T,), (N, d), (T, N, C); NaN: not observed
    >>> solution = surrogate.assimilate(observations)  # also a pandas table or an xarray dataset
    >>> values, spread = solution(1.3, x), solution.std(1.3, x)  # (N, C)

Times, places and values are in the units of the data. `inrflow --help` lists the commands.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inrflow.errors import UserError

if TYPE_CHECKING:
    from inrflow.commands.train import train
    from inrflow.data.formats.registry import Format, register_format
    from inrflow.data.observations import Observations
    from inrflow.decoders.base import AffineDecoder, Decoder, register_decoder
    from inrflow.dynamics.fields.base import FieldTerm, register_term
    from inrflow.dynamics.fields.sum import VectorField
    from inrflow.evaluation.metrics.base import Metric, register_metric
    from inrflow.evaluation.references.base import Reference, register_reference
    from inrflow.export.hub import from_hub, push_to_hub
    from inrflow.model.solution import Solution
    from inrflow.model.surrogate import Surrogate
    from inrflow.pdes.equation import Equation
    from inrflow.pdes.equations import register_equation
    from inrflow.training.candidate import Candidate
    from inrflow.training.problem import Problem
    from inrflow.training.recipes.neural import NeuralRecipe
    from inrflow.training.run import Recipe
    from inrflow.training.train import fit, register_recipe

__version__ = "0.1.0"

_HOMES = {
    "AffineDecoder": "decoders.base",
    "Candidate": "training.candidate",
    "Decoder": "decoders.base",
    "Equation": "pdes.equation",
    "FieldTerm": "dynamics.fields.base",
    "Format": "data.formats.builtin",
    "Metric": "evaluation.metrics.base",
    "NeuralRecipe": "training.recipes.neural",
    "Observations": "data.observations",
    "Problem": "training.problem",
    "Recipe": "training.run",
    "Reference": "evaluation.references.base",
    "Solution": "model.solution",
    "Surrogate": "model.surrogate",
    "VectorField": "dynamics.fields.sum",
    "fit": "training.train",
    "from_hub": "export.hub",
    "push_to_hub": "export.hub",
    "register_decoder": "decoders.base",
    "register_equation": "pdes.equations",
    "register_format": "data.formats.builtin",
    "register_metric": "evaluation.metrics.base",
    "register_recipe": "training.train",
    "register_reference": "evaluation.references.base",
    "register_term": "dynamics.fields.base",
    "train": "commands.train",
}
__all__ = [
    "AffineDecoder", "Candidate", "Decoder", "Equation", "FieldTerm", "Format", "Metric", "NeuralRecipe",
    "Observations", "Problem", "Recipe", "Reference", "Solution", "Surrogate", "UserError", "VectorField",
    "__version__", "fit", "from_hub", "push_to_hub", "register_decoder", "register_equation", "register_format",
    "register_metric", "register_recipe", "register_reference", "register_term", "train",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: the command line starts without torch."""
    if name in _HOMES:
        return getattr(import_module(f"inrflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'inrflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
