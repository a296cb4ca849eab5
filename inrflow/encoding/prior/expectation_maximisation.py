"""Expectation maximisation of a Gaussian prior of codes and of the noise, from frames with any points observed.

The E step encodes all frames under the present prior and sums the moments of their posteriors; the M step takes the
prior and noise of largest likelihood given these (Tipping and Bishop 1999, with missing data).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior
from inrflow.numerics.batched_regression import WhitenedPosterior, block_length

NOISE_FLOOR = 1e-14  # rounding of float32 values of a few standard deviations


@dataclass
class Statistics:
    """Sufficient statistics of the E step, in the whitened coordinates of the prior.

    Attributes:
        prior, factor: the prior and its square root (Z, r).
        first, second, count: sums over frames of the posterior mean (r,) and second moment (r, r), number of frames.
        residual, values, leverage: by channel (C,), the sum of squared residuals, the number of observed values, and
            the number of these that the codes fit (the trace of the projection).
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
        """Statistics of no frames."""
        factor = prior.factor()
        size, channels = factor.shape[1], len(prior.noise)
        first, second = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        residual, values, leverage = torch.zeros(3, channels, dtype=torch.float64)
        return cls(prior, factor, first, second, residual, values, leverage)

    def add(self, design: Callable[[Tensor], Tensor], offset: Tensor, u: Tensor) -> None:
        """Add frames u (G, F, N, C), NaN = not observed; the frames of each of the G groups share points.

        `design` maps a matrix (Z, r) to the product of the decoder's basis with it, (G, N, C, r); `offset` is (G, N, C)
        or a scalar.
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
        """Add whitened designs (B, P, r) with targets (B, F, P) that are observed where `observed` (B, P) is true."""
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
        """M step: prior and noise of largest likelihood; unchanged without frames.

        `swift`: the noise is residual / (values - leverage), the fixed point of MacKay (1992). Expectation maximisation
        has the same fixed point, but converges slowly to it where the leverage is close to the number of values.
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
