"""Linear inverse model with lags for one series: seasonal cycle, EOFs and a vector autoregression of their coefficients
(Penland and Sardeshmukh 1995), chosen by cross-validation over blocks of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.dynamics.fitting.autoregression import AutoregressionSearch
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.point_modes import Cycle, principal_components
from inrflow.evaluation.references.base import Reference
from inrflow.evaluation.references.training_data import coefficients, cycle_of, regular_frames, stacked

_FEWEST, _GAPS = 24, 20  # frames; largest number of steps, relative to the frames


@dataclass
class LaggedInverseModel(Reference):
    """The forecast of one series at N points.

    Attributes:
        step: time step and periods: of the cycle, in units of t, with `harmonics` each; cycle: (1 + k, N C).
        scale: (C,) standard deviations of the channels. modes: (N C, r). noise: (C,) residual variance of the modes,
            and variances: (r,) of the coefficients, in normalised units.
        matrices: (p, r, r) of the autoregression, for lags 1 to p.
    """

    step: float
    periods: list[float]
    harmonics: list[int]
    cycle: Tensor
    scale: Tensor
    modes: Tensor
    noise: Tensor
    variances: Tensor
    matrices: Tensor

    name = "linear_inverse_model"
    title = "linear inverse model"
    on_shared_points = True
    of_one_series = True

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> LaggedInverseModel | None:
        """The fit; None for several trajectories, short ones, those of long gaps, and times that are not multiples of a
        step."""
        whole = stacked(train, validation)
        if len(whole) > 1 or not bool(torch.isfinite(whole.u).any()):
            return None
        kept = torch.isfinite(whole.t[0])
        t, u = whole.t[0][kept], whole.u[0][kept].double()
        found = regular_frames(t.numpy())
        if found is None or len(t) < _FEWEST or found[1][-1] > _GAPS * len(t):
            return None
        step, numbers = found[0], torch.as_tensor(found[1])
        deviation = (u - u.nanmean((0, 1))).square().nanmean((0, 1)).sqrt()
        scale = torch.where(deviation > 0, deviation, 1.0).nan_to_num(1.0)
        values = (u / scale).flatten(1)
        cycle = cycle_of(description, t, values)
        anomalies = torch.full((int(numbers[-1]) + 1, values.shape[1]), torch.nan, dtype=torch.float64)
        anomalies[numbers] = values - cycle(t)
        modes = principal_components(anomalies)
        chosen = AutoregressionSearch(
            modes.codes, torch.isfinite(anomalies).any(1), float(modes.noise.sum()), persistent=False
        ).search()
        size = chosen.choice.size
        left = modes.noise + (modes.patterns[size:].square() * modes.variances[size:, None]).sum(0)
        return cls(
            step, list(cycle.periods), list(cycle.harmonics), cycle.coefficients, scale,
            modes.patterns[:size].T.contiguous(), left.unflatten(0, (-1, len(scale))).mean(0), modes.variances[:size],
            chosen.matrices,
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LaggedInverseModel:
        """The inverse of `state`; a (negligible) bias of earlier versions is ignored."""
        return super().from_state({name: value for name, value in state.items() if name != "bias"})

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor | None:
        """The cycle, and anomalies forecast from all observed frames; None where times are not whole steps apart."""
        counts = torch.diff(t, dim=1) / self.step
        whole = torch.round(counts).nan_to_num(0.0)
        if bool(((counts - whole).abs().nan_to_num(0.0) > 0.1 * whole.clamp(min=1.0)).any()):
            return None
        cycle = Cycle(self.cycle, tuple(self.periods), tuple(self.harmonics))
        usual = cycle(t.nan_to_num().flatten()).reshape(*t.shape, *observed.shape[2:])
        anomalies = observed.double() / self.scale - usual[:, : observed.shape[1]]
        prior = GaussianPrior(torch.zeros_like(self.variances), torch.diag(self.variances), self.noise.clamp(min=1e-8))
        start, seen = coefficients(anomalies, torch.zeros_like(anomalies[0, 0]), self.modes, prior)
        past = [torch.zeros(len(t), len(self.variances), dtype=torch.float64) for _ in self.matrices]
        path = []
        for frame in range(t.shape[1]):
            for taken in range(int(whole[:, frame - 1].max()) if frame else 1):
                code = sum(z @ matrix.T for z, matrix in zip(past, self.matrices, strict=True))
                moves = (whole[:, frame - 1] > taken)[:, None] if frame else torch.ones(len(t), 1, dtype=torch.bool)
                past = [torch.where(moves, new, old) for new, old in zip([code, *past[:-1]], past, strict=True)]
            if frame < observed.shape[1]:
                past[0] = torch.where(seen[:, frame, None], start[:, frame], past[0])
            path.append(past[0])
        return ((torch.stack(path, 1) @ self.modes.T).reshape(usual.shape) + usual) * self.scale
