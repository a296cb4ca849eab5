"""Encoding as one linear solve: the Gaussian posterior of codes given observed values of an affine decoder.

Model: u = offset + basis z + noise, z ~ N(mean, covariance), noise ~ N(0, variance of the channel). All solves run in
float64 whatever the decoder's precision: normal equations square the condition number.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inrflow.encoding.whitened import WhitenedPosterior, block_length


@dataclass
class GaussianPrior:
    """Prior of codes, and the variance with which a decoded value misses an observed one; not changed once in use.

    Attributes:
        mean: (Z,).
        covariance: (Z, Z).
        noise: (C,) variance of each channel (observation noise and what the decoder cannot represent), normalised
            units.
    """

    mean: Tensor
    covariance: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> "GaussianPrior":
        """The prior on a device."""
        return GaussianPrior(self.mean.to(device), self.covariance.to(device), self.noise.to(device))

    def truncated(self, size: int) -> "GaussianPrior":
        """Prior of the first `size` code dimensions."""
        return GaussianPrior(self.mean[:size], self.covariance[:size, :size], self.noise)

    def factor(self) -> Tensor:
        """Square root L (Z, r) with L L^T = covariance, numerically null directions dropped; found once."""
        return self._factor

    @cached_property
    def _factor(self) -> Tensor:
        values, vectors = self._spectrum
        keep = values > 1e-14 * values.max().clamp(min=1e-300)
        return vectors[:, keep] * values[keep].sqrt()

    def mahalanobis(self, z: Tensor) -> Tensor:
        """Squared Mahalanobis distance (...,) of codes z (..., Z) from the prior: about Z inside."""
        values, vectors = self._spectrum
        values = values.clamp(min=1e-6 * values.max())
        return (((z - self.mean) @ vectors).square() / values).sum(-1)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the covariance; codes along the principal directions need no search."""
        if _is_diagonal(self.covariance):
            return self.covariance.diagonal(), torch.eye(len(self.mean), dtype=self.covariance.dtype)
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors


def _is_diagonal(matrix: Tensor) -> bool:
    square = matrix.shape[0] == matrix.shape[1]
    return square and bool(torch.count_nonzero(matrix) == torch.count_nonzero(matrix.diagonal()))


def condition(
    offset: Tensor, basis: Tensor, u: Tensor, prior: GaussianPrior, covariance: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Posterior of the codes of frames that share points.

    Args:
        offset, basis: affine decoder at the points, (N, C) and (N, C, Z).
        u: observed values (F, N, C), NaN where not observed.
        prior: prior and noise; float64.
        covariance: also return the posterior covariance.
    Returns:
        mean (F, Z) and, if asked, covariance (Z, Z) where all frames miss the same values, else (F, Z, Z).
    """
    mean, spread = condition_groups(offset[None], basis[None], u[None], prior, covariance)
    if spread is None:
        return mean[0], None
    return mean[0], spread[0, 0] if spread.shape[1] == 1 else spread[0]


def condition_groups(
    offset: Tensor,
    basis: Tensor,
    u: Tensor,
    prior: GaussianPrior,
    covariance: bool = False,
    which: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Posterior of the codes of frames in groups, each of which has points of its own.

    Args:
        offset, basis: affine decoder at the points of each group, (G, N, C) and (G, N, C, Z); with `which`, at M points
            from which all groups have theirs, (M, C) and (M, C, Z).
        u: observed values (G, F, N, C), NaN where not observed.
        prior: prior and noise; float64.
        covariance: also return the posterior covariance.
        which: (G, N) of the M points that each group has.
    Returns:
        mean (G, F, Z) and, if asked, covariance (G, 1, Z, Z) where all frames of each group miss the same values, else
        (G, F, Z, Z).
    """
    scale, factor = prior.noise.rsqrt(), prior.factor()
    groups, frames, points, channels = u.shape
    whole = (basis.double() * scale[:, None]).reshape(-1, len(prior.mean))
    expected = (offset.double() * scale).reshape(-1) + whole @ prior.mean
    # Once for each point, however many solves see it.
    whitened = whole * factor.diagonal() if _is_diagonal(factor) else whole @ factor
    which = torch.arange(groups * points).view(groups, points) if which is None else which
    place = (which[..., None] * channels + torch.arange(channels)).flatten(1)  # of each group's values in `whitened`
    target = (u.double() * scale).flatten(2) - expected[place][:, None]
    observed = torch.isfinite(target)
    target = target.nan_to_num(0.0, 0.0, 0.0)
    alike = bool((observed == observed[:, :1]).all())
    seen = observed[:, :1] if alike else observed  # what each solve sees
    owner = torch.arange(groups).repeat_interleave(seen.shape[1])
    seen = seen.flatten(0, 1)
    target = target if alike else target.flatten(0, 1)[:, None]
    means, spreads = [], []
    length = block_length(int(seen.sum(1).max()), factor.shape[1])
    for start in range(0, len(owner), length):
        block = slice(start, start + length)
        rows, mask, values = place[owner[block]], seen[block], target[block]
        if not bool(mask.all()):  # observed values first, as many as any of the solves has
            order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
            rows, mask = rows.gather(1, order), mask.gather(1, order)
            values = values.gather(2, order[:, None].expand(-1, values.shape[1], -1))
        design = whitened[rows]
        posterior = WhitenedPosterior(design if bool(mask.all()) else design * mask[..., None])
        means.append(posterior.mean(values) @ factor.T)
        if covariance:
            spreads.append(factor @ posterior.covariance() @ factor.T)
    mean = prior.mean + torch.cat(means).reshape(groups, frames, -1)
    if not covariance:
        return mean, None
    return mean, torch.cat(spreads).reshape(groups, -1, *prior.covariance.shape)
