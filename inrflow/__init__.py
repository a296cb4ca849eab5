"""inrflow: observations of a physical field at any points and times in, a continuous field u(t, x) out."""

from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.solution import Solution
from inrflow.surrogate import Surrogate

__all__ = ["Observations", "Solution", "Surrogate", "UserError", "__version__"]
__version__ = "0.1.0"
