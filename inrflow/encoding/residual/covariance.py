"""Covariance functions of a residual field: sums of Matern functions in space, each with a decay in time.

    k(dy, dt) = sum_q s_q^2 M_nu(|(dy - v dt) / l_q|) M_mu(|dt| / tau_q) + e^2 [dy = 0] exp(-|dt| / tau),
    and a nugget in observed values

The first component is constant in space (an unknown mean at each time, as in ordinary kriging). With a trend it is also
linear along coordinates (an unknown slope at each time, as in universal kriging), and optionally along their squares,
as pressure is along elevation: s_0^2 + f(y) . diag(b^2) f(y'), f = y or [y, y^2]. Lengths l_q differ between groups of
coordinates (geometric anisotropy); v is the velocity of a frozen field (Gneiting, Genton and Guttorp, 2007). Matern
functions of half-integer smoothness (Rasmussen and Williams, 2006, 4.16) are positive definite in R^p, hence with
chordal distances on circles and spheres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.encoding.residual.motion import displacement_path

SMOOTHNESS = (0.5, 1.5, 2.5)
DOUBTFUL = 5.0  # standardised leave-one-out errors


def matern(distance: Tensor, smoothness: float) -> Tensor:
    """Matern correlation of half-integer smoothness at scaled distances (...); lengths as in scikit-learn."""
    if smoothness == 0.5:
        return torch.exp(-distance)
    scaled = (2 * smoothness) ** 0.5 * distance
    if smoothness == 1.5:
        return (1 + scaled) * torch.exp(-scaled)
    if smoothness == 2.5:
        return (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)
    raise ValueError(f"smoothness {smoothness:g}; Matern functions of smoothness 1/2, 3/2 and 5/2 are known")


@dataclass(frozen=True)
class Form:
    """Discrete choices of a covariance function.

    Attributes:
        smoothness: nu of each Matern component in space.
        memory: mu of the decay in time, 1/2 (AR(1)) or 3/2.
        groups: index of the length scale of each embedded coordinate.
        moving: for each embedded coordinate, whether the field may move along it.
        drift: whether the field moves.
        trend: for each embedded coordinate, whether there is a trend along it; empty: no trend.
        curved: whether the trend is quadratic.
        site: whether each place has a persistent error of its own, as of an instrument or of its surroundings."""

    smoothness: tuple[float, ...]
    memory: float
    groups: tuple[int, ...]
    moving: tuple[bool, ...]
    drift: bool = False
    trend: tuple[bool, ...] = ()
    curved: bool = False
    site: bool = False

    @property
    def slopes(self) -> int:
        """Number of slopes."""
        return sum(self.trend) * (1 + self.curved)

    @property
    def lengths(self) -> int:
        """Number of length scales of a component."""
        return max(self.groups) + 1

    @property
    def size(self) -> int:
        """Number of parameters."""
        q = len(self.smoothness)
        velocity = sum(self.moving) if self.drift else 0
        return 2 * (q + 1) + q * self.lengths + 1 + 2 * self.site + self.slopes + velocity


@dataclass(frozen=True)
class Covariance:
    """A covariance function of one channel.

    Attributes:
        form: its discrete choices.
        parameters: (form.size,) float64: logarithms of s_0^2 .. s_q^2, of tau_0 .. tau_q, of the nugget's variance, of
            the lengths, of e^2 and tau, and of the squares of b, then the velocity.
        loud: (L, p + 1) embedded places whose values vary far more than predicted from others, and an added variance of
            their values in predictions at other places.
        doubtful: standardised leave-one-out error beyond which values are given less weight.
        others: weights and covariances of alternative forms; the covariance of the field is the weighted mean of all.
        path: (K, 1 + p) times, and displacements in addition to those by the velocity, of a field that drifts."""

    form: Form
    parameters: Tensor
    loud: Tensor = field(default_factory=lambda: torch.empty(0, 1, dtype=torch.float64))
    doubtful: float = DOUBTFUL
    others: tuple[tuple[float, Covariance], ...] = ()
    path: np.ndarray = field(default_factory=lambda: np.empty((0, 1)))

    @classmethod
    def of(cls, form: Form, variances: list[float], times: list[float], nugget: float, lengths: list[list[float]],
           velocity: list[float] | None = None, slopes: list[float] | None = None,
           site: tuple[float, ...] = ()) -> Covariance:
        """From plain values; the first variance and time are those of the component that is constant in space."""
        logs = [*variances, *times, nugget, *(length for row in lengths for length in row), *site, *(slopes or ())]
        moved = velocity or [0.0] * (sum(form.moving) if form.drift else 0)
        return cls(form, torch.cat([torch.tensor(logs, dtype=torch.float64).log(), torch.tensor(moved).double()]))

    def state(self) -> dict[str, Any]:
        """State as nested tensors and plain values."""
        return {"form": asdict(self.form), "parameters": self.parameters, "loud": self.loud, "doubtful": self.doubtful,
                "others": [(weight, other.state()) for weight, other in self.others]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Covariance:
        """The inverse of `state`."""
        form: dict[str, Any] = {name: tuple(one) if isinstance(one, list | tuple) else one
                                for name, one in state["form"].items()}
        others = tuple((weight, cls.from_state(other)) for weight, other in state.get("others", ()))
        return cls(Form(**form), state["parameters"], state.get("loud", torch.empty(0, 1)).double(),
                   state.get("doubtful", DOUBTFUL), others)

    def at(self, parameters: Tensor) -> Covariance:
        """A covariance of the same form with other parameters."""
        return replace(self, parameters=parameters)

    def followed(self, t: np.ndarray, y: np.ndarray, value: np.ndarray) -> Covariance:
        """The covariance with the path estimated from values (R,) at times (R,) and embedded places (R, p), if it
        drifts."""
        if not self.form.drift:
            return self
        return replace(self, path=displacement_path(self.velocity.numpy(), t, y, value, self.form.moving))

    def rigid(self) -> Covariance:
        """A covariance with one component, of smoothness 1/2 in space and 3/2 in time, with the lengths of the
        strongest one: for a field that moves as a whole and is interpolated between frames."""
        form = replace(self.form, smoothness=(0.5,), memory=1.5, trend=(), curved=False, site=False)
        first, *others = self.variances.tolist()
        strongest = int(self.variances[1:].argmax())
        times = [float(self.times[0]), float(self.times[strongest + 1])]
        return self.of(form, [first, sum(others)], times, float(self.nugget), [self.lengths[strongest].tolist()],
                       self.velocity[torch.tensor(form.moving)].tolist() if form.drift else None)

    @property
    def variances(self) -> Tensor:
        """Variances (Q + 1,) of the components; the first is constant in space."""
        return self.parameters[: len(self.form.smoothness) + 1].exp()

    @property
    def times(self) -> Tensor:
        """Decay times (Q + 1,) of the components."""
        q = len(self.form.smoothness) + 1
        return self.parameters[q : 2 * q].exp()

    @property
    def nugget(self) -> Tensor:
        """Variance of an observation around the field."""
        return self._mean(lambda one: one.parameters[2 * len(one.form.smoothness) + 2].exp())

    @property
    def lengths(self) -> Tensor:
        """Length scales (Q, L)."""
        begin, q = 2 * len(self.form.smoothness) + 3, len(self.form.smoothness)
        return self.parameters[begin : begin + q * self.form.lengths].exp().view(q, -1)

    @property
    def site(self) -> Tensor:
        """Variance and decay time (2,) of the persistent error of each place."""
        if not self.form.site:
            return self.parameters.new_tensor([0.0, 1.0])
        begin = len(self.form.smoothness) * (2 + self.form.lengths) + 3
        return self.parameters[begin : begin + 2].exp()

    @property
    def slopes(self) -> Tensor:
        """Variances (p,) of the slopes along embedded coordinates, or (2 p,) with those along their squares."""
        form, begin = self.form, self.parameters.shape[0] - (sum(self.form.moving) if self.form.drift else 0)
        none = self.parameters.new_zeros(len(form.groups) * (1 + form.curved))
        if not any(form.trend):
            return none
        some = torch.tensor(form.trend * (1 + form.curved))
        return none.masked_scatter(some, self.parameters[begin - form.slopes : begin].exp())

    def _along(self, y: Tensor) -> Tensor:
        """Regressors (..., p) or (..., 2 p) of the trend at embedded places (..., p)."""
        return torch.cat([y, y.square()], -1) if self.form.curved else y

    @property
    def velocity(self) -> Tensor:
        """Velocity (p,) of the embedded coordinates."""
        moving = torch.tensor(self.form.moving)
        if not self.form.drift:
            return self.parameters.new_zeros(len(moving))
        return self.parameters.new_zeros(len(moving)).masked_scatter(moving, self.parameters[-int(moving.sum()) :])

    @property
    def variance(self) -> Tensor:
        """Variance of the field at the origin of the embedding, without the nugget."""
        return self._mean(lambda one: one.variances.sum() + one.site[0])

    def variance_at(self, y: Tensor) -> Tensor:
        """Variance (...) of the field at embedded places (..., p), without the nugget."""
        return self.variance + self._mean(lambda one: (one._along(y).square() * one.slopes).sum(-1))

    def _mean(self, part: Callable[[Covariance], Tensor]) -> Tensor:
        """Weighted mean of a quantity over this form and the others."""
        own = (1 - sum(weight for weight, _ in self.others)) * part(self)
        return sum((weight * part(other) for weight, other in self.others), own)

    def loudness(self, y: Tensor) -> Tensor:
        """Variances (...) added to the nugget of values at embedded places (..., p) in predictions at other places."""
        if not len(self.loud):
            return y.new_zeros(y.shape[:-1])
        return (y[..., None, :] == self.loud[:, :-1]).all(-1).double() @ self.loud[:, -1]

    def __call__(self, t: Tensor, y: Tensor, other_t: Tensor, other_y: Tensor) -> Tensor:
        """Covariances (..., A, B) of values of the field at t (..., A), y (..., A, p) and at (..., B), (..., B, p)."""
        return self._mean(lambda one: one._between(t, y, other_t, other_y))

    def _between(self, t: Tensor, y: Tensor, other_t: Tensor, other_y: Tensor) -> Tensor:
        """Covariances of this form alone."""
        level = (self._along(y) * self.slopes) @ self._along(other_y).mT if any(self.form.trend) else 0.0
        same = (y[..., :, None, :] == other_y[..., None, :, :]).all(-1) if self.form.site else None
        centre = other_t[..., :1]  # centred, as distances by Gram matrices lose digits far from the origin
        if self.form.drift:
            y, other_y = (p - (s - centre)[..., None] * self.velocity - torch.as_tensor(self._beside(s.numpy()))
                          for p, s in ((y, t), (other_y, other_t)))
        y, other_y = y - other_y[..., :1, :], other_y - other_y[..., :1, :]
        lag = (t[..., :, None] - other_t[..., None, :]).abs()
        variances, times, lengths = self.variances, self.times, self.lengths
        groups = torch.tensor(self.form.groups)
        total = (variances[0] + level) * matern(lag / times[0], self.form.memory)
        for q, smoothness in enumerate(self.form.smoothness):
            scaled, other = y / lengths[q][groups], other_y / lengths[q][groups]
            squares = scaled.square().sum(-1)[..., :, None] + other.square().sum(-1)[..., None, :]
            distance = (squares - 2 * scaled @ other.mT).clamp(min=1e-20).sqrt()
            decay = matern(lag / times[q + 1], self.form.memory)
            total = total + variances[q + 1] * matern(distance, smoothness) * decay
        return total if same is None else total + self.site[0] * matern(lag / self.site[1], 0.5) * same

    def _beside(self, t: np.ndarray) -> np.ndarray | float:
        """Displacements (..., p) at times (...) in addition to those by the velocity, constant beyond the ends of the
        path."""
        if not len(self.path):
            return 0.0
        return np.stack([np.interp(t, self.path[:, 0], along) for along in self.path[:, 1:].T], -1)

    def metric(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Coordinates (R, p + 1) in units of the lengths and decay time of the strongest component, to find neighbours.
        """
        with torch.no_grad():
            lengths = self.lengths[self._strongest][torch.tensor(self.form.groups)].numpy()
            moved = y - t[:, None] * self.velocity.numpy() - self._beside(t)
        return np.concatenate([moved / lengths, t[:, None] / self.lasting], 1)

    @property
    def lasting(self) -> float:
        """Decay time of the strongest component."""
        return float(self.times[self._strongest + 1])

    @property
    def _strongest(self) -> int:
        return int(self.variances[1:].argmax())
