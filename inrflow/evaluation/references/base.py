"""Reference forecasts of a run, simple alternatives to the model: their interface, registry and file.

A model that does not beat them is not worth its training. All are fitted to the training and validation data; none sees
test data. A reference is one class in one file and one registration: training then fits it, saves it with the run, and
every evaluation, plot and report compares the model with it.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.errors import UserError
from inrflow.evaluation.references.training_data import same_points, shared_points
from inrflow.runtime.tensor_files import load_tensors, save_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

_KIND, _VERSION = "inrflow-references", 2


class Reference(ABC):
    """A forecast with hardly any training; usually a dataclass of fitted values.

    Attributes:
        name: key in evaluation.json and in the file of references; unique.
        title: label in figures and tables.
        on_shared_points: whether it applies only at the points that all training trajectories share: it is then fitted
            only where there are such points, and used only at them.
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
            observed: (S, n, N, C) values of the first n frames, NaN where not observed. The forecast of an observed
                frame is an analysis of its observations.
        """

    def state(self) -> dict[str, Any]:
        """Fitted values as nested dicts of tensors, numbers and strings; by default the fields of the dataclass."""
        if not is_dataclass(self):
            raise NotImplementedError(f"{type(self).__name__} is not a dataclass; define state and from_state")
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



@dataclass
class References:
    """Fitted reference forecasts by name, and the points (N, d) that the training trajectories share, or None."""

    points: Tensor | None = None
    fitted: dict[str, Reference] = field(default_factory=dict)

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Forecasts of the references that apply, by name: each (S, T, N, C), in the precision of `observed`.

        The arguments are those of `Reference.forecast`.
        """
        t = t.double()
        on_points = self.points is not None and x.shape[-2] == len(self.points) and same_points(x, self.points)
        forecasts = {name: reference.forecast(t, x, observed) for name, reference in self.fitted.items()
                     if on_points or not reference.on_shared_points}
        return {name: values.to(observed) for name, values in forecasts.items() if values is not None}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save as one safetensors file, structure and numbers in its header. Raises UserError where that fails."""
        states = {name: reference.state() for name, reference in self.fitted.items()}
        return save_tensors(path, {"points": self.points, "states": states}, {"kind": _KIND, "version": _VERSION})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> References:
        """The inverse of `save`.

        References that are not registered are left out with a warning. Raises UserError where the file is missing or
        holds something else.
        """
        state, metadata = load_tensors(path)
        if metadata.get("kind") != _KIND:
            raise UserError(f"{path} holds no reference forecasts; give the file that training wrote, or train again")
        try:
            for name in state["states"].keys() - REFERENCES.keys():
                warnings.warn(f"{path} holds the reference forecast {name}, which is not registered; it is left out",
                              stacklevel=2)
            known = {name: of for name, of in state["states"].items() if name in REFERENCES}
            return cls(state["points"], {name: REFERENCES[name].from_state(of) for name, of in known.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} does not hold the reference forecasts of this inrflow ({error!r}); train again, "
                            "or remove the file") from error


def fit_references(
    train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
) -> References:
    """Fit every registered reference that the data allow.

    Args:
        train, validation: values in data units, times in the units of the files. Validation data may choose
            hyperparameters and are fitted in the end like the others; None or empty: held-out training data choose. A
            single validation trajectory that continues a single training trajectory is joined to it.
        description: of the data.
    """
    if validation is not None and not validation.t.numel():
        validation = None
    points = shared_points(train, validation)
    fitted = {name: reference.fit(train, validation, description) for name, reference in REFERENCES.items()
              if (points is not None or not reference.on_shared_points)
              and (len(train.u) == 1 or not reference.of_one_series)}
    return References(points, {name: reference for name, reference in fitted.items() if reference is not None})


def title_of(name: str) -> str:
    """The label of a reference forecast (or of the model) in figures and tables."""
    return REFERENCES[name].title if name in REFERENCES else name.replace("_", " ")
