"""Internal time: units in which the training data's typical step is 1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TimeScale:
    """Internal time tau = (t - origin) / unit; unit is the typical step of the training data."""

    origin: float
    unit: float

    def internal(self, t: Tensor) -> Tensor:
        """Internal times of data times."""
        return (t.double() - self.origin) / self.unit

    def external(self, tau: Tensor) -> Tensor:
        """Data times of internal times."""
        return tau.double() * self.unit + self.origin

    @classmethod
    def of(cls, times: Tensor) -> TimeScale:
        """From training times (S, T), NaN-padded."""
        steps = (times[:, 1:] - times[:, :-1]).flatten()
        return cls(float(times[:, 0].nanmedian()), float(steps.nanmedian()))
