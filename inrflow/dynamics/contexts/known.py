"""What a surrogate knows of contexts: those of its training environments, and how parameters map to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inrflow.dynamics.contexts.parameter_map import ParameterMap
from inrflow.encoding.posterior import QUANTILE, chi_squared_quantile

_MARGIN = 1.2  # of the squared distance


@dataclass
class Contexts:
    """Contexts of the training environments, standardised: their prior is N(0, 1) in each of P numbers.

    Attributes:
        kind: what tells environments apart: "parameters", "environment" or "trajectory".
        values: (E, P).
        labels: (E,) ids of the environments in the training file.
        names: of Q known parameters; empty where none are known.
        parameters: (E, Q) of the environments, None where none are known.
        map: from parameters to contexts and back, None where none are known.
    """

    kind: str
    values: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    parameters: Tensor | None = None
    map: ParameterMap | None = None

    @property
    def size(self) -> int:
        """P."""
        return self.values.shape[1]

    def distance(self, context: Tensor) -> Tensor:
        """Squared Mahalanobis distance (...,) of contexts (..., P) from the training prior."""
        return context.square().sum(-1)

    def limit(self) -> float:
        """That of the farthest training environment and a margin: environments are few and chosen, often evenly, so
        that a quantile of their Gaussian would lie far outside of all of them."""
        if not len(self.values):
            return chi_squared_quantile(QUANTILE, self.size)
        return _MARGIN * float(self.distance(self.values).max())

    def outside(self, context: Tensor) -> bool:
        """Whether a context (P,) lies beyond the limit."""
        return float(self.distance(context)) > self.limit()

    def widening(self, context: Tensor) -> Tensor:
        """Factor (...,) for the standard deviations of forecasts at contexts (..., P), 1 near the mean context.

        The operators are a regression on the contexts: at c their variance goes as [1, c] (sum_e [1, c_e][1, c_e]^T)^-1
        [1, c]^T, which is 1 + |c|^2 for standardised contexts and 1 + P on the average over the training environments.
        """
        return ((1 + self.distance(context)) / (1 + self.size)).clamp(min=1.0).sqrt()

    def nearest(self, context: Tensor) -> int:
        """The training environment whose context is nearest to one (P,)."""
        return int((self.values - context).square().sum(1).argmin())

    def state(self) -> dict[str, Any]:
        """As nested plain values and tensors, fit for `save_tensors`."""
        state = {key: value for key, value in vars(self).items() if key != "map"}
        state["names"] = list(self.names)
        state["map"] = None if self.map is None else dict(vars(self.map))
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Contexts:
        """The inverse of `state`."""
        state = dict(state)
        stored = state.pop("map")
        names = tuple(state.pop("names"))
        return cls(**state, names=names, map=None if stored is None else ParameterMap(**stored))
