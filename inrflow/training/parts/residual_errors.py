"""Errors of codes beside what a residual field makes of them, at held-out places and times: weights and deviations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from inrflow.encoding.residual.field import ChannelField, Conditioned, Rows, combined_std
from inrflow.evaluation.metrics.intervals import gaussian_crps
from inrflow.numerics.normal import HALF_WIDTH_90

_FEWEST, _NARROWEST, _WIDEST = 10, 0.1, 10.0  # errors of which a quantile is taken; factors on deviations
_LEVELS, _POWERS = tuple(10 ** (k / 8) for k in range(-24, 5)), (0.5, 1.0)  # of deviations that grow with the lead


@dataclass
class Comparison:
    """Errors (V,) of codes, what a process differs from them, and deviations; NaN where there is no truth.

    Attributes:
        error: truth minus codes. lead: after the last observation. seen: whether the place was observed.
        difference: of the process at the last observed time; own: at that time itself.
        variance: of an observation by the process, own_variance at that time itself. std: by codes alone.
        x: (V, d) points.
    """

    error: Tensor
    std: Tensor
    lead: Tensor
    seen: Tensor
    difference: Tensor
    variance: Tensor
    own: Tensor
    own_variance: Tensor
    x: Tensor

    @classmethod
    def joined(cls, parts: list[Comparison]) -> Comparison:
        """Those of all folds, where there is a truth."""
        whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        known = torch.isfinite(whole["error"])
        return cls(**{name: value[known] for name, value in whole.items()})

    def best_weight(self) -> float:
        """Weight, from 0 to 1, of least mean squared error."""
        squares = float(self.own.square().sum())
        return float(np.clip(float((self.own * self.error).sum()) / squares, 0.0, 1.0)) if squares else 0.0

    def mean_square(self, weight: Tensor, own: bool = True) -> Tensor:
        """Mean squared errors with weights (V,), at places that were not observed and that were, if there are any."""
        missed = (self.error - weight * (self.own if own else self.difference)).square()
        groups = [missed[self.seen == seen] for seen in (False, True)]
        return torch.stack([group.mean() for group in groups if len(group)] or [missed.new_tensor(torch.nan)])

    def harms(self, weight: Tensor, own: bool) -> bool:
        """Whether weights (V,) make early leads, or late ones, worse than codes alone, each by its share of their error
        at that lead: at places that were observed or not."""
        lead = torch.unique(self.lead, return_inverse=True)[1]
        alone = (torch.bincount(lead, self.error.square()) / torch.bincount(lead)).clamp(min=1e-30)[lead]
        more = (self.error - weight * (self.own if own else self.difference)).square() - self.error.square()
        group = 2 * self.seen.long() + (self.lead <= self.lead.median()).long()
        return bool((torch.bincount(group, more / alone) > 0).any())

    def crps(self, channel: ChannelField | None) -> Tensor:
        """CRPS (V,) between the observations, of codes alone for None: of overconfident ones nearly their error."""
        if channel is None:
            return gaussian_crps(self.error, self.std)
        weight = torch.full_like(self.error, channel.weight)
        std = combined_std(channel, weight, self.own_variance, self.std, channel.spread[0], self.lead)
        return gaussian_crps(self.error - weight * self.own, std)

    def surely_less(self, crps: Tensor, other: Tensor) -> bool:
        """Whether one CRPS (V,) is less than another at most places: by two standard errors of the mean over these."""
        place = torch.unique(self.x, dim=0, return_inverse=True)[1]
        gain = torch.bincount(place, other - crps) / torch.bincount(place)
        return float(gain.mean()) > 2 * float(gain.std(correction=0)) / len(gain) ** 0.5

    def growth(self, channel: ChannelField, weight: Tensor, own: bool = True) -> tuple[float, float]:
        """Level and power of the deviation that grows with the lead, of greatest likelihood; none where it has no
        weight ahead."""
        some = weight > 0.1
        if int(some.sum()) <= _FEWEST:
            return channel.growth
        missed = (self.error - weight * (self.own if own else self.difference))[some]
        variance = (self.own_variance if own else self.variance)[some]

        def surprise(growth: tuple[float, float]) -> float:
            other = replace(channel, growth=growth)
            std = combined_std(other, weight[some], variance, self.std[some], 1.0, self.lead[some])
            return float((std.log() + (missed / std).square() / 2).mean())

        return min([(0.0, 1.0), *product(_LEVELS, _POWERS)], key=surprise)

    def spread(self, channel: ChannelField, weight: Tensor | None = None, own: bool = True) -> float:
        """Factor on deviations of the process with which 90 % intervals hold 90 % of errors, where it has weight."""
        weight = torch.full_like(self.error, channel.weight) if weight is None else weight
        some = weight > 0.1
        if int(some.sum()) <= _FEWEST:
            return 1.0
        missed = (self.error - weight * (self.own if own else self.difference))[some].abs() / HALF_WIDTH_90
        variance = (self.own_variance if own else self.variance)[some]

        def excess(log: float) -> float:
            std = combined_std(channel, weight[some], variance, self.std[some], np.exp(log), self.lead[some])
            return float((missed / std).quantile(0.9)) - 1

        low, high = np.log(_NARROWEST), np.log(_WIDEST)
        if excess(low) < 0 or excess(high) > 0:
            return float(np.exp(low if excess(low) < 0 else high))
        return float(np.exp(brentq(excess, low, high, xtol=1e-3)))


@dataclass
class Targets:
    """Values that are predicted, and what codes make of them.

    Attributes:
        window: (V,) which one they belong to. t: (V,) internal times. x: (V, d).
        error: (V, C) truth minus codes. std: (V, C). lead: (V,) after the last observation. seen: (V,) places.
        values, edge: (V, C) what codes give, and what they gave there at the last observed time.
    """

    window: np.ndarray
    t: np.ndarray
    x: np.ndarray
    error: Tensor
    std: Tensor
    lead: Tensor
    seen: Tensor
    values: Tensor
    edge: Tensor

    def against(self, conditioned: list[Conditioned], c: int) -> Comparison:
        """What the process of a channel differs from codes."""
        difference, variance, own, own_variance = torch.zeros(4, len(self.t), dtype=torch.float64)
        for number, one in enumerate(conditioned):
            rows = np.flatnonzero((self.window == number) & torch.isfinite(self.error[:, c]).numpy())
            if not len(rows):
                continue
            on_codes = one.field.channels[c].on_codes  # type: ignore[union-attr]
            own[rows], own_variance[rows] = one.own(c, self.t[rows], self.x[rows])
            difference[rows], variance[rows] = own[rows], own_variance[rows]
            if bool((self.lead[rows] > 0).any()):
                last = self.t[rows] - self.lead[rows].numpy()
                difference[rows], variance[rows] = one.own(c, last, self.x[rows])
            if not on_codes:
                own[rows] -= self.values[rows, c]
                difference[rows] -= self.edge[rows, c]
        error, std = self.error[:, c], self.std[:, c]
        return Comparison(error, std, self.lead, self.seen, difference, variance, own, own_variance,
                          torch.as_tensor(self.x))


@dataclass
class Fold:
    """Windows of frames of which some places are held out, and what comes after them.

    Attributes:
        observed: of each window, values at the places that are kept, and what codes give there.
        between: values at the held-out places in its frames. ahead: at all places in later frames.
        count: of all places. apart: what codes leave at the held-out ones.
    """

    observed: list[tuple[Rows, np.ndarray]]
    between: Targets
    ahead: Targets
    count: int
    apart: Rows
