"""Expectation maximisation of a Gaussian prior of codes and of the noise, from frames that see any points.

Each iteration solves all frames with the prior at hand and collects the moments of their posteriors; the prior of the
next iteration is the one that would have produced them (Tipping and Bishop 1999, with missing data).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior
from inrflow.numerics.batched_regression import WhitenedPosterior, block_length

NOISE_FLOOR = 1e-14  # what float32 rounds off values of a few standard deviations


@dataclass
class Statistics:
    """Moments of the codes of all frames seen so far, in the whitened coordinates of the prior, and of what they leave.

    `first` (r,), `second` (r, r), `count` of frames; `residual` and `values` (C,): sum and number of squared errors;
    `leverage` (C,): how many of the values the codes take up.
    """

    prior: GaussianPrior
    factor: Tensor
    first: Tensor
    second: Tensor
    residual: Tensor
    values: Tensor
    leverage: Tensor
    count: float = 0.0

    @classmethod
    def empty(cls, prior: GaussianPrior) -> Statistics:
        """Nothing seen yet."""
        factor = prior.factor()
        size, channels = factor.shape[1], len(prior.noise)
        first, second = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        residual, values, leverage = torch.zeros(3, channels, dtype=torch.float64)
        return cls(prior, factor, first, second, residual, values, leverage)

    def add(self, design: Callable[[Tensor], Tensor], offset: Tensor, u: Tensor) -> None:
        """Frames u (G, F, N, C), NaN = not observed, of G groups that share points.

        `design` maps a matrix (Z, r) to the decoder's basis times it, (G, N, C, r); offset (G, N, C) or a scalar.
        """
        noise = self.prior.noise
        scale = noise.rsqrt()
        channels = u.shape[-1]
        whole = (design(self.factor) * scale[:, None]).flatten(1, 2)
        shift = design(self.prior.mean[:, None])[..., 0] + offset
        target = ((u.double() - shift[:, None]) * scale).flatten(2)
        observed = torch.isfinite(target)
        target = target.nan_to_num(0.0, 0.0, 0.0)
        if bool((observed == observed[:, :1]).all()):
            self._add(whole, target, observed[:, 0], channels)
            return
        length = block_length(whole.shape[1], whole.shape[2])
        owner = torch.arange(len(u)).repeat_interleave(u.shape[1])
        target, observed = target.flatten(0, 1), observed.flatten(0, 1)
        for start in range(0, len(owner), length):
            block = slice(start, start + length)
            self._add(whole[owner[block]], target[block][:, None], observed[block], channels)

    def _add(self, design: Tensor, target: Tensor, observed: Tensor, channels: int) -> None:
        """Designs (B, P, r) with targets (B, F, P), all observed where `observed` (B, P) says."""
        used = observed.any(1)
        if not bool(used.all()):
            design, target, observed = design[used], target[used], observed[used]
        if not len(design):
            return
        frames = target.shape[1]
        design = design * observed[..., None]
        posterior = WhitenedPosterior(design)
        codes = posterior.mean(target)
        self.first += codes.sum((0, 1))
        flat = codes.flatten(0, 1)
        self.second += flat.T @ flat + posterior.total_covariance(torch.full((len(design),), float(frames)).double())
        error = (target - codes @ design.mT).square().sum(1)

        def by_channel(numbers: Tensor) -> Tensor:
            return torch.where(observed, numbers, 0.0).sum(0).unflatten(0, (-1, channels)).sum(0)

        self.residual += by_channel(error) * self.prior.noise
        self.leverage += frames * by_channel(posterior.value_variance())
        self.values += frames * observed.sum(0).unflatten(0, (-1, channels)).sum(0)
        self.count += codes.shape[0] * frames

    def maximise(self, swift: bool = False) -> GaussianPrior:
        """The prior and noise that make these moments most likely; the old ones where nothing was seen.

        `swift`: the noise by the fixed point of MacKay (1992), residual over values that no code takes up. Expectation
        maximisation has the same one, and creeps towards it where codes take up most of the values.
        """
        if not self.count:
            return self.prior
        shift = self.first / self.count
        spread = self.second / self.count - torch.outer(shift, shift)
        covariance = self.factor @ ((spread + spread.T) / 2) @ self.factor.T
        if swift:
            noise = self.residual / (self.values - self.leverage).clamp(min=1)
        else:
            noise = (self.residual + self.leverage * self.prior.noise) / self.values.clamp(min=1)
        noise = torch.where(self.values > 0, noise, self.prior.noise)
        return GaussianPrior(
            self.prior.mean + self.factor @ shift, (covariance + covariance.T) / 2, noise.clamp(min=NOISE_FLOOR)
        )
