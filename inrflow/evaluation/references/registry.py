"""Reference forecasts: what a user would otherwise use. A model that does not beat them is not worth its training.

Persistence, the mean training field, climatology and forecasts of anomalies where a period is declared, and POD + DMD
where all trajectories share their points. All are fitted to the training and validation data, and none sees test data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.encoding.posterior import GaussianPrior
from inrflow.errors import UserError
from inrflow.evaluation.references.climatology import AnomalyModes, Climatology, fit_climatology
from inrflow.evaluation.references.modes import regular_step
from inrflow.evaluation.references.pod_dmd import PodDmd, fit_pod_dmd
from inrflow.evaluation.references.points import persistence, same_points
from inrflow.runtime.tensor_files import load_tensors, save_tensors

_KIND = "inrflow-references"


@dataclass
class References:
    """Fitted reference forecasts, in data units.

    Attributes:
        channel_mean: (C,) mean of each channel over the training data.
        period: (d,) of the coordinates, 0 where not periodic, or None.
        points: (N, d) that all training trajectories share, or None.
        mean_field: (N, C) mean training field at these points, or None.
        climatology, pod_dmd, pod_dmd_symmetries: the fitted forecasts, None where they do not apply. The last is
            POD + DMD with symmetry copies of the training data.
    """

    channel_mean: Tensor
    period: Tensor | None = None
    points: Tensor | None = None
    mean_field: Tensor | None = None
    climatology: Climatology | None = None
    pod_dmd: PodDmd | None = None
    pod_dmd_symmetries: PodDmd | None = None

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Forecasts of those references that apply, by name: each (S, T, N, C), in the precision of `observed`.

        Args:
            t: (S, T) in the units of the training times; NaN at the end of a shorter trajectory.
            x: (S or 1, T or 1, N, d).
            observed: (S, n, N, C) values of the first n frames, NaN where not observed. An observed frame is forecast
                by what the reference makes of its observations.
        """
        t = t.double()
        forecasts = {"persistence": persistence(x, observed, t.shape[1], self.channel_mean, self.period)}
        on_points = self.points is not None and x.shape[-2] == len(self.points) and same_points(x, self.points)
        mean = self.mean_field if on_points and self.mean_field is not None else self.channel_mean
        forecasts["training_mean"] = mean.to(observed).expand(*t.shape, *observed.shape[2:])
        if on_points:
            values = observed.double()
            if self.climatology is not None:
                forecasts |= self.climatology.forecast(t, values)
            for name, model in (("pod_dmd", self.pod_dmd), ("pod_dmd_symmetries", self.pod_dmd_symmetries)):
                forecast = None if model is None else model.forecast(t, values)
                if forecast is not None:
                    forecasts[name] = forecast
        return {name: values.to(observed) for name, values in forecasts.items()}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save as one safetensors file, structure and numbers in its header. Raises UserError where that fails."""
        return save_tensors(path, asdict(self), {"kind": _KIND})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> References:
        """The inverse of `save`. Raises UserError where the file is missing or holds something else."""
        state, metadata = load_tensors(path)
        if metadata.get("kind") != _KIND:
            raise UserError(f"{path} holds no reference forecasts; give the file that training wrote, or train again")
        for name in ("pod_dmd", "pod_dmd_symmetries"):
            if state[name] is not None:
                state[name] = PodDmd(**_with_prior(state[name]))
        if state["climatology"] is not None:
            anomalies = state["climatology"]["anomalies"]
            state["climatology"]["anomalies"] = None if anomalies is None else AnomalyModes(**_with_prior(anomalies))
            state["climatology"] = Climatology(**state["climatology"])
        return cls(**state)


def _with_prior(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "prior": GaussianPrior(**state["prior"])}


def fit_references(training: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description,
                   time_unit_step: float | None = None,
                   copies: Sequence[TrajectoryBatch] | None = None) -> References:
    """Fit every reference that the data allow.

    Args:
        training, validation: values in data units, times in the units of the files. Validation data choose rank and
            ridge of POD + DMD and are fitted in the end like the others; None or empty: held-out training data choose.
            A single validation trajectory that comes after a single training trajectory is taken as its continuation.
        description: of the data.
        time_unit_step: the uniform time step, in units of t; None: found from the times.
        copies: symmetry copies of `training` (see `symmetric_copies`); those on other points are left out.
    """
    if validation is not None and not (len(validation) and validation.t.numel()):
        validation = None
    parts = [training] if validation is None else [training, validation]
    mean = _channel_mean(parts)
    period = None if description.period is None else torch.tensor(description.period, dtype=torch.float64)
    references = References(mean, period)
    if any(part.x.shape[:2] != (1, 1) or not same_points(part.x, training.x) for part in parts):
        return references
    references.points = training.x[0, 0].double()
    if validation is not None and _continues(training, validation):
        training, validation = _in_time(training, validation), None
    together = training if validation is None else _stacked(training, validation)
    values = together.u.double().flatten(0, 1)
    references.mean_field = torch.where(torch.isfinite(values).any(0), values.nanmean(0), mean)
    if description.time_period is not None:
        references.climatology = fit_climatology(together, description.time_period, references.mean_field)
    step = regular_step(together.t, time_unit_step)
    if step is not None:
        references.pod_dmd = fit_pod_dmd(training, validation, step)
        on_points = [copy for copy in copies or () if copy.x.shape[:2] == (1, 1) and same_points(copy.x, training.x)]
        if on_points and references.pod_dmd is not None:
            references.pod_dmd_symmetries = fit_pod_dmd(training, validation, step, on_points)
    return references


def _channel_mean(parts: list[TrajectoryBatch]) -> Tensor:
    values = torch.cat([part.u.double().flatten(0, 2) for part in parts])
    return values.nanmean(0).nan_to_num(0.0)


def _continues(training: TrajectoryBatch, validation: TrajectoryBatch) -> bool:
    last = training.t[torch.isfinite(training.t)].max()
    return len(training) == len(validation) == 1 and bool(validation.t[0, 0] > last)


def _in_time(first: TrajectoryBatch, second: TrajectoryBatch) -> TrajectoryBatch:
    kept = torch.isfinite(first.t[0])
    return TrajectoryBatch(torch.cat([first.t[:, kept], second.t], 1), first.x,
                           torch.cat([first.u[:, kept], second.u], 1))


def _stacked(first: TrajectoryBatch, second: TrajectoryBatch) -> TrajectoryBatch:
    """All trajectories, the shorter padded with NaN."""
    frames = max(first.t.shape[1], second.t.shape[1])
    t, u = [], []
    for batch in (first, second):
        missing = frames - batch.t.shape[1]
        t.append(torch.nn.functional.pad(batch.t, (0, missing), value=torch.nan))
        u.append(torch.nn.functional.pad(batch.u, (0, 0, 0, 0, 0, missing), value=torch.nan))
    return TrajectoryBatch(torch.cat(t), first.x, torch.cat(u))
