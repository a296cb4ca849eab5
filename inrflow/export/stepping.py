"""Vector fields, time steps and forecasts as modules that torch.export and ONNX can express; float64.

States (S, n) are codes and, if a model has them, delayed codes; the context is fixed on export. Times (S,) are in data
units, and used only by models with a periodic forcing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.states import SeasonalMean
from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate
from inrflow.numerics import etdrk4

_MOST_STEPS = 2**20  # of forecasts by powers of a map


class Rate(nn.Module):
    """Vector field ds/dt (S, n), per unit of data time, of states (S, n) at times t (S,)."""

    context: Tensor

    def __init__(self, surrogate: Surrogate, context: Tensor) -> None:
        super().__init__()
        self.scale, self.size = surrogate.scale, surrogate.field.state_size
        self.register_buffer("context", context.double())
        self.field: nn.Module = surrogate.field
        law = surrogate.field.get(LawTerm)
        if law is not None and len(surrogate.field.terms) == 1 and not law.period:
            self.field = law.law(context if len(law.by_context) else None)

    def internal(self, t: Tensor, s: Tensor) -> Tensor:
        """Vector field in internal time, at internal times."""
        if isinstance(self.field, LawField) or not len(self.context):
            return self.field(t, s)
        return self.field(t, torch.cat([s, self.context.expand(s.shape[0], -1)], 1))[:, : self.size]

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        rate = self.internal(self.scale.internal(t), s) / self.scale.unit
        return rate + 0 * t[:, None]  # so that t is an input of every graph


class Step(nn.Module):
    """Time step of `length` from states (S, n) at times t (S,), by one step of the model's own integrator.

    Raises UserError for adaptive integrators, whose number of steps varies.
    """

    def __init__(self, surrogate: Surrogate, context: Tensor) -> None:
        super().__init__()
        integrator, field = surrogate.integrator, surrogate.field
        self.rate, self.method = Rate(surrogate, context), integrator.method
        self.steps = 1 if self.method == "map" else max(1, math.ceil(1.0 / integrator.step - 1e-6))
        self.scale = surrogate.scale
        if self.method == "dopri5":
            raise UserError("a step is not exported: the integrator (dopri5) adapts its steps, which a fixed graph "
                            "cannot; integrate the exported vector field")
        self.map = _Map(field.term(StepMapTerm)) if self.method == "map" else None
        if self.method == "etd":
            law = self.rate.field
            if not isinstance(law, LawField):
                raise UserError("a step is not exported: the law has a season; integrate the exported vector field")
            self.steps = 1 if law.exact else self.steps
            h = 1.0 / self.steps
            blocks = [law.exponential(h)] if law.exact else etdrk4.coefficients(
                law.blocks, h, etdrk4.phi_matrix_functions)
            self.operators = [*map(law.prepared, blocks)]

    @property
    def length(self) -> float:
        """Length of a step in data time: the time step of training, or an integer fraction of it."""
        return self.scale.unit / self.steps

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        return self._moved(self.scale.internal(t), s) + 0 * t[:, None]

    def _moved(self, t: Tensor, s: Tensor) -> Tensor:
        if self.map is not None:
            return self.map(t, s)
        if isinstance(self.rate.field, LawField) and self.method == "etd":
            later = self.rate.field.after(s, self.operators)
            return later if self.rate.field.values is None else self.rate.field.values.completed(later)
        h = 1.0 / self.steps  # the 3/8 rule, which torchdiffeq calls rk4
        first = self.rate.internal(t, s)
        second = self.rate.internal(t + h / 3, s + h / 3 * first)
        third = self.rate.internal(t + 2 * h / 3, s + h * (second - first / 3))
        last = self.rate.internal(t + h, s + h * (first - second + third))
        return s + h / 8 * (first + 3 * (second + third) + last)


class Forecast(nn.Module):
    """Autoregression: states (S, n) at times t + ahead, from the last observed states (S, n) at times t (S,), by powers
    of the map. Forecasts are damped by their leads, so that they are no repetition of single steps."""

    powers: Tensor

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.scale, self.series = surrogate.scale, surrogate.field.term(AutoregressionTerm)
        every = [self.series.affine_map()]
        while 2 ** len(every) <= min(surrogate.extent.reach / surrogate.scale.unit + 1, _MOST_STEPS):
            every.append(every[-1] @ every[-1])
        self.register_buffer("powers", torch.stack(every))

    def forward(self, t: Tensor, s: Tensor, ahead: Tensor) -> Tensor:
        series, (whole, share) = self.series, self.series.steps(ahead / self.scale.unit)
        states = s[:, series.known :]
        now = series.begun(states)
        for k, power in enumerate(self.powers):
            now = torch.where(torch.remainder(whole // 2**k, 2)[:, None] > 0, now @ power.T, now)
        here, later = (series.damped(states, one, steps)
                       for one, steps in ((now, whole), (now @ self.powers[0].T, whole + 1)))
        return torch.cat([series.phases(self.scale.internal(t + ahead)), here + share[:, None] * (later - here)], 1)


class _Map(nn.Module):
    """Map over one unit of time, affine around a mean that may have a season."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, term: StepMapTerm) -> None:
        super().__init__()
        self.mean = SeasonalMean(term.mean.double(), term.season)
        n = len(term.bias)
        around = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        moved = (term.path(around + self.mean(times[:1]), times.expand(n + 1, 2))[:, 1] - self.mean(times[1:])).detach()
        self.register_buffer("bias", moved[0])
        self.register_buffer("matrix", moved[1:] - moved[0])

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        return (s - self.mean(t)) @ self.matrix + self.bias + self.mean(t + 1)
