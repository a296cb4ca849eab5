"""Reference forecasts of a run: what a user would otherwise use.

A model that does not beat them is not worth its training. All are fitted to the training and validation data; none sees
test data.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.errors import UserError
from inrflow.evaluation.references.base import REFERENCES, Reference, register_reference
from inrflow.evaluation.references.climatology import Climatology, DampedAnomalies
from inrflow.evaluation.references.kriging import Kriging
from inrflow.evaluation.references.linear_inverse_model import LaggedInverseModel
from inrflow.evaluation.references.pod_dmd import PodDmd
from inrflow.evaluation.references.simple import Persistence, TrainingMean
from inrflow.evaluation.references.training_data import same_points, shared_points
from inrflow.runtime.tensor_files import load_tensors, save_tensors

_KIND, _VERSION = "inrflow-references", 2
_GONE = {"climatology_lim"}  # references of earlier versions that others have replaced

for _reference in (
    Persistence, TrainingMean, Climatology, DampedAnomalies, LaggedInverseModel, Kriging, PodDmd,
):
    register_reference(_reference)


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
        """The inverse of `save`, for files of version 1 too.

        References that are not registered are left out with a warning. Raises UserError where the file is missing or
        holds something else.
        """
        state, metadata = load_tensors(path)
        if metadata.get("kind") != _KIND:
            raise UserError(f"{path} holds no reference forecasts; give the file that training wrote, or train again")
        try:
            if metadata.get("version", 1) == 1:
                state = _from_version_1(state)
            for name in state["states"].keys() - REFERENCES.keys() - _GONE:
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


def _from_version_1(old: dict[str, Any]) -> dict[str, Any]:
    """The state of a file that held a fixed set of references, as `save` writes it now."""
    points, mean = old["points"], old["channel_mean"]
    states: dict[str, dict[str, Any]] = {
        "persistence": {"channel_mean": mean, "period": old["period"]},
        "training_mean": {"channel_mean": mean, "points": points, "field": old["mean_field"]},
    }
    if old["climatology"] is not None:
        climatology = dict(old["climatology"])
        anomalies = climatology.pop("anomalies")
        states["climatology"] = climatology
        if anomalies is not None:
            kept = {key: value for key, value in anomalies.items() if key not in ("persistence", "propagator")}
            damped = anomalies["persistence"]
            states["climatology_ar1"] = {"climatology": climatology, **kept, "propagator": damped}
    if old["pod_dmd"] is not None:
        states["pod_dmd"] = old["pod_dmd"]
    return {"points": points, "states": states}
