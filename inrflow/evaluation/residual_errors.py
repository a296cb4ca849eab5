"""Errors of codes and of their combination with a residual field, at held-out places and times: weights and factors on
standard deviations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from inrflow.encoding.residual.field import Ahead, ChannelField, Codes, Conditioned, Decay, Rows, parts_of_std
from inrflow.encoding.residual.neighbours import Sites, left_out
from inrflow.encoding.residual.places import Places
from inrflow.evaluation.forecast import quantile_of_others
from inrflow.numerics.normal import HALF_WIDTH_90, gaussian_crps

_FEWEST, _NARROWEST, _WIDEST = 10, 0.1, 1e4  # errors for a quantile; bounds on factors
_STEP, _LITTLE, _NOTHING = 0.25, 0.1, 1e-12  # bin of log(1 + lead); a weight; share of the variance
_MEMORIES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, np.inf)  # of decays, in steps
_CALM = 0.5  # power of factors below 1, from a part of a series or of the places
_CLEARLY, _HARM = 0.01, 1.01  # least certain gain for a weight; largest ratio of errors at early or late leads


@dataclass
class Comparison:
    """Errors (V,) of codes, differences of a process from them, and standard deviations; NaN where the truth is
    unknown.

    Attributes:
        error: truth minus codes. lead: after the last observation. seen: whether the place was observed.
        difference: process minus codes at the last observed time; own: at the time itself.
        deviation: standard deviation of an observation by the process, own_deviation at the time itself. std: by codes.
        x: (V, d) points. window: (V,) index of the window."""

    error: Tensor
    std: Tensor
    lead: Tensor
    seen: Tensor
    difference: Tensor
    deviation: Tensor
    own: Tensor
    own_deviation: Tensor
    x: Tensor
    window: Tensor

    @classmethod
    def joined(cls, parts: list[Comparison]) -> Comparison:
        """The errors of all folds, where the truth is known."""
        whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        known = torch.isfinite(whole["error"])
        return cls(**{name: value[known] for name, value in whole.items()})

    def missed(self, channel: ChannelField) -> Tensor:
        """Errors (V,) of codes combined with a process."""
        weight, _, stays, *_ = self._outside(channel)
        return self.error - weight * (stays * self.difference + (1 - stays) * self.own)

    def _by_lead(self, missed: Tensor) -> Tensor:
        """Mean squares (H,) of errors (V,) in bins of lead."""
        lead = torch.unique(self._alike, return_inverse=True)[1]
        return (torch.bincount(lead, missed.square()) / torch.bincount(lead)).clamp(min=_NOTHING)

    def _gains(self) -> Callable[[Tensor], float]:
        """Function of errors (V,): the mean logarithm, over windows and leads, of the ratio of squared errors of codes
        to these, less two standard errors over windows."""
        (window, _), cell = torch.unique(torch.stack([self.window, self._alike]), dim=1, return_inverse=True)
        of_window = torch.unique(window, return_inverse=True)[1]
        values, cells = torch.bincount(cell), torch.bincount(of_window)

        def squares(errors: Tensor) -> Tensor:
            return (torch.bincount(cell, errors.square()) / values).clamp(min=_NOTHING)

        codes = squares(self.error)

        def gain(missed: Tensor) -> float:
            gains = torch.bincount(of_window, (codes / squares(missed)).log()) / cells
            return float(gains.mean()) - (2 * float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0)

        return gain

    def crps(self, channel: ChannelField | None) -> Tensor:
        """CRPS (V,) of observations, for codes combined with a process or (None) for codes alone."""
        if channel is None:
            return gaussian_crps(self.error, self.std)
        return gaussian_crps(self.missed(channel), self.deviations(channel))

    def significantly_less(self, crps: Tensor, other: Tensor) -> bool:
        """Whether the mean over places of one CRPS (V,) is significantly less than another, by two standard errors."""
        place = torch.unique(self.x, dim=0, return_inverse=True)[1]
        gain = torch.bincount(place, other - crps) / torch.bincount(place)
        return float(gain.mean()) > 2 * float(gain.std(correction=0)) / len(gain) ** 0.5

    def deviations(self, channel: ChannelField) -> Tensor:
        """Standard deviations (V,) of codes combined with a process."""
        own, codes = self._parts(channel)
        return self._outside(channel)[3] * own + codes

    def _parts(self, channel: ChannelField) -> tuple[Tensor, Tensor]:
        _, wide, stays, _, added = self._outside(channel)
        deviation = stays * self.deviation + (1 - stays) * self.own_deviation
        return parts_of_std(channel, wide, deviation.square() + added, self.std)

    def _outside(self, channel: ChannelField) -> Tensor:
        return channel.outside(self.lead.numpy(), ~self.seen.numpy())

    def select(self, rows: Tensor) -> Comparison:
        """A subset of the values."""
        return Comparison(**{name: value[rows] for name, value in vars(self).items()})

    def ahead(self, channel: ChannelField) -> ChannelField:
        """The process with its parameters outside of the observations, fitted to these errors, all at observed or all
        at new places.

        Its decay, with its own or a full initial weight, has the largest gain that is certain to two standard errors,
        in logarithms, so that early leads count as much as late ones with larger errors; without one that increases
        early or late errors. Without errors, nothing is changed.
        Its factors on standard deviations are those of 90 % intervals at each lead; of factors below 1, from days that
        are similar at all places, the square root is taken."""
        if not len(self.error):
            return channel

        def process(ahead: Ahead) -> ChannelField:
            return replace(channel, observed=ahead) if bool(self.seen.all()) else replace(channel, new=ahead)

        best, most, alone = Decay(), _CLEARLY, self._by_lead(self.error)
        shares, gain_of = (False, True) if channel.weight < 1 else (False,), self._gains()
        for memory, held, whole in product(_MEMORIES, (0.0, *_MEMORIES), shares):
            decay = Decay(memory, 0.0, held, whole)
            missed = self.missed(process(Ahead(decay)))
            halves = (self._by_lead(missed) / alone).tensor_split(2)
            if max(float(half.mean()) for half in halves if len(half)) <= _HARM and (gain := gain_of(missed)) > most:
                best, most = decay, gain
        leads = []
        for part in (self.select(self._alike == lead) for lead in self._alike.unique()):
            factor = part.spread(process(Ahead(best)))
            factor = 1.0 if factor is None else max(factor, min(factor, 1.0) ** _CALM)
            leads.append((float(part.lead.mean()), factor, float(part.std.square().mean().sqrt())))
        return process(Ahead(best, *zip(*leads, strict=True)))

    def between(self, channel: ChannelField, least: float) -> ChannelField:
        """The process with its factor on standard deviations between the observations, fitted to these errors: that of
        90 % intervals, at least `least`; or `least` times the square root of one below 1 that their mean square allows,
        too, as it is large for a few large errors among zeros."""
        square = (self.missed(channel) / self.deviations(channel)).square().mean()
        factor = self.spread(channel) or 1.0
        return replace(channel, spread=max(factor, least * min(max(factor, float(square.sqrt())), 1.0) ** _CALM))

    def spread(self, channel: ChannelField) -> float | None:
        """Factor on standard deviations of a process with which 90 % intervals contain 90 % of errors, where it has
        weight; None for too few such values."""
        own, codes = self._parts(channel)
        some = self._outside(channel)[1] > _LITTLE
        if int(some.sum()) <= _FEWEST:
            return None
        wanted = (self.missed(channel).abs() / HALF_WIDTH_90 - codes)[some] / own[some]
        return min(max(quantile_of_others(wanted, self.window[some], 0.9), _NARROWEST), _WIDEST)

    @property
    def _alike(self) -> Tensor:
        return (self.lead.log1p() / _STEP).round()


def with_factor_in_gaps(channel: ChannelField, c: int, places: Places, rows: Rows) -> ChannelField:
    """The process of a channel with its factor on standard deviations in gaps of observed places: that of 90 %
    intervals of values left out one by one, at least 1. The one of unobserved places (`spread`) may be far larger."""
    seen = np.isfinite(rows.u[:, c])
    truth, y = rows.u[seen, c].astype(np.float64), places(rows.x[seen])
    value = channel.roots(truth) if channel.roots else truth
    sites = Sites(rows.t[seen], y, channel.covariance.followed(rows.t[seen], y, value))
    error, variance = left_out(sites, torch.as_tensor(value), np.arange(len(value)))
    mean = torch.as_tensor(value) - error
    mean, variance = channel.roots.moments(mean, variance) if channel.roots else (mean, variance)
    wanted = (torch.as_tensor(truth) - mean).abs() / variance.sqrt() / HALF_WIDTH_90
    return replace(channel, within=max(quantile_of_others(wanted, torch.as_tensor(rows.place[seen]), 0.9), 1.0))


@dataclass
class Targets:
    """Held-out values, and their predictions by codes.

    Attributes:
        window: (V,) index of the window. t: (V,) internal times. x: (V, d).
        error: (V, C) truth minus codes. std: (V, C). lead: (V,) after the last observation. seen: (V,) observed places.
        values: (V, C) decoded from codes."""

    window: np.ndarray
    t: np.ndarray
    x: np.ndarray
    error: Tensor
    std: Tensor
    lead: Tensor
    seen: Tensor
    values: Tensor

    def against(self, conditioned: list[Conditioned], c: int) -> Comparison:
        """Comparison of the process of a channel with codes, given a conditioned field for each window."""
        difference, variance, own, own_variance = torch.zeros(4, len(self.t), dtype=torch.float64)
        error, values = self.error[:, c].clone(), self.values[:, c].clone()
        for number, one in enumerate(conditioned):
            rows = np.flatnonzero((self.window == number) & torch.isfinite(error).numpy())
            if not len(rows):
                continue
            channel, lead = one.field.channels[c], self.lead[rows].numpy()
            assert channel is not None
            later = lead > 0
            new = later & ~self.seen[rows].numpy() & channel.kriged
            values[rows[new]] = one.codes(c, self.t[rows[new]], self.x[rows[new]], new[new])
            error[rows] += self.values[rows, c] - values[rows]
            own[rows], own_variance[rows] = one.own(c, self.t[rows], self.x[rows])
            difference[rows], variance[rows] = own[rows], own_variance[rows]
            if later.any():
                last = np.concatenate([self.t[rows, None] - lead[:, None], self.x[rows]], 1)
                distinct, first, which = np.unique(last, axis=0, return_index=True, return_inverse=True)
                at = distinct[:, 0], distinct[:, 1:]
                found = *one.own(c, *at), one.codes(c, *at, new[first])
                difference[rows], variance[rows], edge = (part[which.reshape(-1)] for part in found)
            if not channel.on_codes:
                own[rows] -= values[rows]
                difference[rows] -= edge if later.any() else values[rows]
        return Comparison(error, self.std[:, c], self.lead, self.seen, difference, variance.sqrt(), own,
                          own_variance.sqrt(), torch.as_tensor(self.x), torch.as_tensor(self.window))


@dataclass
class Fold:
    """Windows of frames with some places held out, and the frames after them.

    Attributes:
        observed: for each window, observations at the other places, decoded values there, and a function for others.
        between: values at the held-out places in its frames. ahead: at all places in later frames.
        count: of all places. apart: residuals of codes at the held-out ones.
        early: observed and ahead of windows as short as those of queries, which meet other changes; or none.
    """

    observed: list[tuple[Rows, np.ndarray, Codes]]
    between: Targets
    ahead: Targets
    count: int
    apart: Rows
    early: tuple[list[tuple[Rows, np.ndarray, Codes]], Targets] | None = None
