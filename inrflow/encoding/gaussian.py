"""Encoding as one linear solve: the Gaussian posterior of codes given observed values of an affine decoder.

Model: u = offset + basis z + noise, z ~ N(mean, covariance), noise ~ N(0, variance of the channel). All solves run in
float64 whatever the decoder's precision: normal equations square the condition number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class GaussianPrior:
    """Prior of codes, and the variance with which a decoded value misses an observed one.

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
        """Square root L (Z, r) with L L^T = covariance, numerically null directions dropped."""
        values, vectors = torch.linalg.eigh(self.covariance)
        keep = values > 1e-14 * values[-1].clamp(min=1e-300)
        return vectors[:, keep] * values[keep].sqrt()

    def mahalanobis(self, z: Tensor) -> Tensor:
        """Mean squared distance per dimension, (...,), of codes z (..., Z) from the prior: about 1 inside."""
        values, vectors = torch.linalg.eigh(self.covariance)
        values = values.clamp(min=1e-6 * values[-1])
        return (((z - self.mean) @ vectors).square() / values).mean(-1)


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
    scale = prior.noise.rsqrt()
    factor = prior.factor()
    design = (basis.double() * scale[:, None]).flatten(0, 1)
    target = ((u.double() - offset.double()) * scale).flatten(1)
    target = target - design @ prior.mean
    design = design @ factor
    observed = torch.isfinite(target)
    eye = torch.eye(factor.shape[1], dtype=design.dtype, device=design.device)
    if bool((observed == observed[:1]).all()):
        rows = observed[0]
        design, target = (design, target) if bool(rows.all()) else (design[rows], target[:, rows])
        if design.shape[0] < design.shape[1]:  # fewer values than codes: the smaller system is that of the values
            gram = design @ design.T
            gram.diagonal().add_(1)
            cholesky = torch.linalg.cholesky(gram)
            whitened = torch.cholesky_solve(target.T, cholesky).T @ design
            spread = (
                factor - factor @ design.T @ torch.cholesky_solve(design, cholesky) if covariance else None
            )
            return prior.mean + whitened @ factor.T, spread @ factor.T if spread is not None else None
        cholesky = torch.linalg.cholesky(eye + design.T @ design)
        whitened = torch.cholesky_solve((target @ design).T, cholesky).T
        spread = torch.cholesky_solve(factor.T, cholesky) if covariance else None
        return prior.mean + whitened @ factor.T, factor @ spread if spread is not None else None
    means, spreads = [], []
    for values, rows in zip(target, observed, strict=True):
        mean, spread = _condition_frame(design[rows], values[rows], factor, eye, covariance)
        means.append(prior.mean + mean)
        spreads.append(spread)
    return torch.stack(means), torch.stack(spreads) if covariance else None  # type: ignore[arg-type]


def _condition_frame(
    design: Tensor, target: Tensor, factor: Tensor, eye: Tensor, covariance: bool
) -> tuple[Tensor, Tensor | None]:
    cholesky = torch.linalg.cholesky(eye + design.T @ design)
    whitened = torch.cholesky_solve((target @ design)[:, None], cholesky)[:, 0]
    spread = factor @ torch.cholesky_solve(factor.T, cholesky) if covariance else None
    return factor @ whitened, spread
