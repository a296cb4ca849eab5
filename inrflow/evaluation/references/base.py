"""The interface of reference forecasts, and their registry.

A reference is one class in one file and one registration: training then fits it, saves it with the run, and every
evaluation, plot and report compares the model with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description

if TYPE_CHECKING:
    from typing_extensions import Self


class Reference(ABC):
    """A forecast that needs no training to speak of; usually a dataclass of what was fitted.

    Attributes:
        name: key in evaluation.json and in the file of references; unique.
        title: label in figures and tables.
        on_shared_points: whether it holds only at the points that all training trajectories share: it is then fitted
            only where there are such points, and asked only for them.
        of_one_series: whether it is fitted only where there is one training trajectory.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    on_shared_points: ClassVar[bool] = False
    of_one_series: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description) -> Self | None:
        """Fit to data in data units; None where the data do not allow it.

        Validation data may choose hyperparameters and are fitted in the end like the others.
        """

    @abstractmethod
    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor | None:
        """Values (S, T, N, C) in data units; None where the reference does not apply.

        Args:
            t: (S, T) float64 in the units of the training times; NaN at the end of a shorter trajectory.
            x: (S or 1, T or 1, N, d).
            observed: (S, n, N, C) values of the first n frames, NaN where not observed. An observed frame is forecast
                by what the reference makes of its observations.
        """

    def state(self) -> dict[str, Any]:
        """What was fitted, as nested dicts of tensors, numbers and strings; by default the fields of the dataclass."""
        if not is_dataclass(self):
            raise NotImplementedError(f"{type(self).__name__} is no dataclass; define state and from_state")
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(**state)


REFERENCES: dict[str, type[Reference]] = {}
R = TypeVar("R", bound=type[Reference])


def register_reference(reference: R) -> R:
    """Class decorator: training fits this reference from now on. Raises ValueError where its name is taken."""
    if REFERENCES.setdefault(reference.name, reference) is not reference:
        raise ValueError(f"the reference {reference.name!r} is registered already; choose another name")
    return reference
