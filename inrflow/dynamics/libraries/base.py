"""What a library of features is: rates that are linear in unknowns, on the transitions that tell these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from inrflow.dynamics.fields.sum import VectorField

Solution = TypeVar("Solution")


class FeatureLibrary(Protocol[Solution]):
    """Rates ds/dt = sum_u theta_u phi_u(s) on the states of one data set; a solution is a value of theta.

    In integral form, s_{i+1} - s_i = sum_u theta_u int phi_u(s) dt: least squares, once the paths between frames are
    known. `libraries.integral_form` takes them along polynomials first, then along the flow of the last solution.
    """

    def solutions(
        self, about: Solution | None, ridges: Sequence[float]
    ) -> Iterable[tuple[float, Solution | None]]:
        """Least-squares solutions of each ridge, with integrals along the flow of a solution, or along polynomials
        through frames (None). A solution is None where its ridge is too small for the precision of the sums."""
        ...

    def field(self, solution: Solution) -> VectorField:
        """The vector field of a solution, float64."""
        ...
