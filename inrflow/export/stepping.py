"""Vector fields and time steps as modules that torch.export and ONNX can express; float64.

States (S, n) are codes and, if a model has them, delayed codes; the context is fixed on export. Times (S,) are in data
units, and used only by models with a periodic forcing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.step_map import MapTerm
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.term import LawTerm
from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate
from inrflow.numerics import etdrk4


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
        series = field.get(MapTerm)
        self.series = _Series(series) if series is not None else None
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
        if self.series is not None:
            return self.series(t, s)
        if isinstance(self.rate.field, LawField) and self.method == "etd":
            later = self.rate.field.after(s, self.operators)
            return later if self.rate.field.values is None else self.rate.field.values.completed(later)
        h = 1.0 / self.steps  # the 3/8 rule, which torchdiffeq calls rk4
        first = self.rate.internal(t, s)
        second = self.rate.internal(t + h / 3, s + h / 3 * first)
        third = self.rate.internal(t + 2 * h / 3, s + h * (second - first / 3))
        last = self.rate.internal(t + h, s + h * (first - second + third))
        return s + h / 8 * (first + 3 * (second + third) + last)


class _Series(nn.Module):
    """Discrete-time map over one unit of time as an affine map, with phases of the season given by time."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, term: MapTerm) -> None:
        super().__init__()
        self.series = term if isinstance(term, AutoregressionTerm) else None
        self.known = k = 0 if self.series is None else self.series.known
        n = len(term.bias)
        basis = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
        states = torch.nn.functional.pad(basis, (k, 0))
        times = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(n + 1, 2)
        moved = term.path(states, times)[:, 1, k:].detach()
        matrix = moved[1:] - moved[0]
        if self.series is not None:  # of which a part stays where it is large
            matrix = self.series.propagate(torch.eye(k + n)[None].double(), times[0, 1:])[1][0, k:, k:].T
        self.register_buffer("bias", moved[0])
        self.register_buffer("matrix", matrix)

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        states = s[:, self.known :]
        if self.series is None:
            return states @ self.matrix + self.bias
        beyond = self.series.beyond(states)
        return torch.cat([self.series.phases(t + 1), (states - beyond) @ self.matrix + self.bias + beyond], 1)
