"""Gaussian posterior of codes given observed values of an affine decoder: encoding by one linear solve.

Model: u = offset + basis z + noise, z ~ N(mean, covariance), noise ~ N(0, variance of the channel). All solves run in
float64 whatever the decoder's precision: normal equations square the condition number.

Evidence: a frame of n values y with prior N(m, B P B^T + R) has the squared innovation Q = (y - m)^T (B P B^T + R)^-1
(y - m), with mean n (the consistency check of Kalman filters, Bar-Shalom et al. 2001, 5.4). A larger Q means stronger
variation than in the training data, or more noise (`evidence`): a variance factor s with an inverse gamma prior is
estimated, under which predictions are Student distributed. Also limits on the distance of states from the training
data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.special import chdtri, fdtri
from torch import Tensor

QUANTILE = 0.999  # quantile of the distances of training data that limits their range
FREEDOM = 4.0  # degrees of freedom of the prior of the variance factor, whose mean is 1
MANY = 1000  # number of independent codes from which on their full covariance matrix is not formed
_JITTER = 1e-14, 1e-12, 1e-10  # of the largest variance: covariances are singular where codes are known exactly
_LOST, _MOST = 1e-12, 1e24  # of sums of squares: relative bound on rounding errors; largest plausible one
BLOCK_NUMBERS = 4_000_000  # numbers in the largest array of one block of groups: 32 MB of float64
#: Numbers in the largest array of one batch of solves: a megabyte stays in the cache and is reused, while page faults
#: of larger arrays in every operation took longer than the solves.
SOLVE_NUMBERS = 131_072


def block_length(values: int, size: int, numbers: int = BLOCK_NUMBERS) -> int:
    """Number of regressions of `values` values and `size` unknowns that are solved in one batch."""
    return max(1, numbers // max(1, max(values, size) * size))


class WhitenedPosterior:
    """Posterior of w ~ N(0, I_r) given y = D w + e with e ~ N(0, I_P), for B designs D (B, P, r) at once; float64.

    A row of zeros is a value that was not observed. The smaller of the systems of the values and of the unknowns is
    factored, once.
    """

    def __init__(self, design: Tensor) -> None:
        self.design = design
        self.of_values = design.shape[1] < design.shape[2]
        gram = design @ design.mT if self.of_values else design.mT @ design
        gram.diagonal(dim1=1, dim2=2).add_(1)
        self.cholesky, failed = torch.linalg.cholesky_ex(gram)
        if bool(failed.any()):  # very small noise lost in rounding, or numbers that are not finite
            largest = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
            raised = _LOST * torch.where(largest < _MOST, largest, 0.0) * torch.eye(gram.shape[1])
            self.cholesky = torch.linalg.cholesky(gram + raised)

    def mean(self, target: Tensor) -> Tensor:
        """Means (B, F, r) for F targets (B, F, P) of each design; targets are 0 where not observed."""
        if self.of_values:
            return torch.cholesky_solve(target.mT, self.cholesky).mT @ self.design
        return torch.cholesky_solve((target @ self.design).mT, self.cholesky).mT

    def covariance(self) -> Tensor:
        """Posterior covariances (B, r, r)."""
        if not self.of_values:
            return torch.cholesky_inverse(self.cholesky)
        covariance = -self.design.mT @ torch.cholesky_solve(self.design, self.cholesky)
        covariance.diagonal(dim1=1, dim2=2).add_(1)
        return covariance

    def value_variance(self) -> Tensor:
        """Variance (B, P) of D w: how uncertain each fitted value is."""
        if not self.of_values:
            return torch.linalg.solve_triangular(self.cholesky, self.design.mT, upper=False).square().sum(1)
        eye = torch.eye(self.design.shape[1], dtype=self.design.dtype)
        inverse = torch.linalg.solve_triangular(self.cholesky, eye.expand_as(self.cholesky), upper=False)
        return 1 - inverse.square().sum(1)


@dataclass
class GaussianPrior:
    """Gaussian prior of codes, with the variance of observed values around decoded ones. Not to be changed once used:
    factors are cached.

    Attributes:
        mean: (Z,).
        covariance: (Z, Z); or (Z,), the variances of independent codes, where these are too many for a full matrix.
        noise: (C,) variance of each channel, of observation noise and truncation together, normalised units.
    """

    mean: Tensor
    covariance: Tensor
    noise: Tensor

    @classmethod
    def shrunk(cls, codes: Tensor, noise: Tensor, parts: int = 1, shrinkage: float = 0.1) -> GaussianPrior:
        """The prior estimated from codes (F, Z), whose covariance is shrunk towards its diagonal, as F may be small. A
        code consists of `parts` parts of equal size, which are taken as independent."""
        centred = codes - codes.mean(0)
        covariance = centred.T @ centred / max(1, len(codes) - 1)
        diagonal = covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=codes.dtype)
        owner = torch.arange(codes.shape[1]) // (codes.shape[1] // parts)
        covariance = torch.where(owner[:, None] == owner, covariance, 0.0)
        own = torch.diag(covariance.diagonal()) + 1e-3 * diagonal
        return cls(codes.mean(0), (1 - shrinkage) * covariance + shrinkage * own, noise)

    def to(self, device: torch.device) -> GaussianPrior:
        """The prior on a device."""
        return GaussianPrior(self.mean.to(device), self.covariance.to(device), self.noise.to(device))

    def truncated(self, size: int) -> GaussianPrior:
        """Prior of the first `size` code dimensions."""
        own = self.covariance[:size] if self.independent else self.covariance[:size, :size]
        return GaussianPrior(self.mean[:size], own, self.noise)

    @property
    def independent(self) -> bool:
        """Whether codes are independent, with `covariance` their variances (Z,)."""
        return self.covariance.dim() == 1

    @cached_property
    def by_channel(self) -> list[GaussianPrior] | None:
        """Priors of the codes of single channels, Z / C each, where these are independent; else None."""
        channels = len(self.noise)
        if channels == 1 or len(self.mean) % channels:
            return None
        size = len(self.mean) // channels
        parts = [slice(c * size, (c + 1) * size) for c in range(channels)]
        blocks = [self.covariance[part, part] for part in parts]
        if torch.count_nonzero(self.covariance) != sum(int(torch.count_nonzero(block)) for block in blocks):
            return None
        return [
            GaussianPrior(self.mean[part], block, self.noise[c : c + 1])
            for c, (part, block) in enumerate(zip(parts, blocks, strict=True))
        ]

    @cached_property
    def factor(self) -> Tensor:
        """Square root L (Z, r) with L L^T = covariance, without the numerical null space."""
        values, vectors = self._spectrum
        keep = values > 1e-14 * values.max().clamp(min=1e-300)
        return vectors[:, keep] * values[keep].sqrt()

    @cached_property
    def lengths(self) -> Tensor | None:
        """Standard deviations (Z,) of independent codes, for which `factor` is diagonal; else None."""
        return self.factor.diagonal() if _is_diagonal(self.factor) else None

    def mahalanobis(self, z: Tensor) -> Tensor:
        """Squared Mahalanobis distance (...,) of codes z (..., Z) from the prior mean; Z on average under the prior."""
        if self.independent:
            values = self.covariance.clamp(min=1e-6 * self.covariance.max())
            return ((z - self.mean).square() / values).sum(-1)
        values, vectors = self._spectrum
        values = values.clamp(min=1e-6 * values.max())
        return (((z - self.mean) @ vectors).square() / values).sum(-1)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the covariance, without a decomposition where it is diagonal. Raises
        LinAlgError where it is not finite."""
        if not bool(torch.isfinite(self.covariance).all()):
            raise torch.linalg.LinAlgError("a covariance of codes is not finite")
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


def condition_each(basis: Tensor, u: Tensor, covariances: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Posteriors of frames that all observe the same points, under a prior for each frame.

    The Gram matrix of the basis is shared, so that the cost of each solve depends on the code size alone.

    Args:
        basis: (N, C, Z), with more values than codes.
        u: observed values (F, N, C) minus decoded prior means; none missing.
        covariances: (F, Z, Z) of the priors. noise: (C,).
    Returns:
        posterior minus prior means (F, Z), and posterior covariances (F, Z, Z)."""
    design = (basis.double() * noise.rsqrt()[:, None]).flatten(0, 1)
    projected = (u.double() * noise.rsqrt()).flatten(1) @ design
    gram = design.T @ design
    eye = torch.eye(design.shape[1], dtype=torch.float64)
    means, spreads = [], []
    for lower, right in zip(_roots(covariances), projected, strict=True):
        cholesky = torch.linalg.cholesky(eye + lower.T @ gram @ lower)
        half = torch.linalg.solve_triangular(cholesky, lower.T, upper=False)
        spreads.append(half.T @ half)
        means.append(half.T @ (half @ right))
    return torch.stack(means), torch.stack(spreads)


def _roots(covariances: Tensor) -> Tensor:
    """Cholesky factors of covariances (F, Z, Z), with the smallest jitter of `_JITTER` that makes them definite."""
    largest = covariances.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
    for share in _JITTER:
        lower, failed = torch.linalg.cholesky_ex(covariances + share * largest * torch.eye(covariances.shape[-1]))
        if not bool(failed.any()):
            break
    return lower


def condition_groups(
    offset: Tensor,
    basis: Tensor,
    u: Tensor,
    prior: GaussianPrior,
    covariance: bool = False,
    which: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Posterior of the codes of frames in groups; the frames of a group share points.

    Args:
        offset, basis: affine decoder at the points of each group, (G, N, C) and (G, N, C, Z); with `which`, at M points
            of which each group observes some, (M, C) and (M, C, Z).
        u: observed values (G, F, N, C), NaN where not observed.
        prior: prior and noise; float64.
        covariance: also return the posterior covariance.
        which: (G, N) indices of the points of each group among the M.
    Returns:
        mean (G, F, Z) and, if asked, covariance (G, 1, Z, Z) where all frames of each group miss the same values, else
        (G, F, Z, Z).
    """
    scale, factor, lengths = prior.noise.rsqrt(), prior.factor, prior.lengths
    groups, frames, points, channels = u.shape
    # Whitened once for each point, as several solves may use it.
    whole = basis.double()
    whitened = whole @ factor * scale[:, None] if lengths is None else whole * (scale[:, None] * lengths)
    whitened = whitened.reshape(math.prod(whole.shape[:-2]), channels, factor.shape[1])  # rank 0: codes are known
    expected = ((offset.double() + whole @ prior.mean) * scale).reshape(-1, channels)
    which = torch.arange(groups * points).view(groups, points) if which is None else which
    target = (u.double() * scale - expected[which][:, None]).flatten(2)
    observed = torch.isfinite(target)
    alike = frames == 1 or bool((observed == observed[:, :1]).all())
    if (repeated := None if alike else repeated_patterns(observed)) is not None:
        mean = prior.mean.expand(groups, frames, -1).clone()
        each = prior.covariance.new_empty(groups, frames, *prior.covariance.shape) if covariance else None
        for group, rows, own in repeated:
            posterior = WhitenedPosterior(whitened[which[group]].flatten(0, 1)[None, own])
            mean[group, rows] += posterior.mean(target[group, rows][None, :, own])[0] @ factor.T
            if each is not None:
                each[group, rows] = factor @ posterior.covariance() @ factor.T
        return mean, each
    seen = (observed[:, :1] if alike else observed).flatten(0, 1)  # by each solve
    whole_frames = bool(seen.all())
    if not whole_frames:
        target = target.nan_to_num(0.0, 0.0, 0.0)
    owner = torch.arange(groups) if alike else torch.arange(groups).repeat_interleave(frames)
    target = target if alike else target.flatten(0, 1)[:, None]
    means, spreads = [], []
    length = block_length(int(seen.sum(1).max()), factor.shape[1], SOLVE_NUMBERS)
    for start in range(0, len(owner), length):
        block = slice(start, start + length)
        place, values = which[owner[block]], target[block]
        if whole_frames:
            design = whitened.index_select(0, place.flatten()).view(len(place), points * channels, factor.shape[1])
        else:
            design, values = _observed(whitened, place, seen[block], values)
        posterior = WhitenedPosterior(design)
        means.append(posterior.mean(values) @ factor.T)
        if covariance:
            spreads.append(factor @ posterior.covariance() @ factor.T)
    mean = prior.mean + torch.cat(means).reshape(groups, frames, -1)
    if not covariance:
        return mean, None
    return mean, torch.cat(spreads).reshape(groups, -1, *prior.covariance.shape)


def repeated_patterns(observed: Tensor) -> list[tuple[int, Tensor, Tensor]] | None:
    """Frames of masks (G, F, P) of observed values with the same mask, as (group, frames, mask (P,)), the masks that
    are empty included; None where most frames have masks of their own."""
    found = []
    for group, own in enumerate(observed):
        masks, label = own.unique(dim=0, return_inverse=True)
        if 2 * len(masks) > len(own) + 1:
            return None
        found += [(group, (label == k).nonzero()[:, 0], mask) for k, mask in enumerate(masks)]
    return found


def _observed(whitened: Tensor, place: Tensor, seen: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Design (B, P, r) and values (B, F, P) of B solves, packed to the largest number P of observed values and padded
    with zeros.

    Args:
        whitened: (M, C, r) at all points. place: (B, N) of the points of each solve among these.
        seen: (B, N C) which values are observed. values: (B, F, N C).
    """
    order = seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(seen.sum(1).max())]
    channels = whitened.shape[1]
    rows = (place[..., None] * channels + torch.arange(channels)).flatten(1).gather(1, order)
    design = whitened.flatten(0, 1)[rows] * seen.gather(1, order)[..., None]
    return design, values.gather(2, order[:, None].expand(-1, values.shape[1], -1))


def given(mean: Tensor, cov: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Conditional means (S, n) and covariances (S or 1, n, n) of states, given values (S, k) of their first k
    dimensions."""
    k = known.shape[1]
    cross = cov[:, :, :k]
    block = cov[:, :k, :k]
    block = block + 1e-12 * block.diagonal(dim1=1, dim2=2).amax(1)[:, None, None] * torch.eye(k)
    gain = torch.linalg.solve(block, cross.mT).mT
    mean = mean + (gain @ (known - mean[:, :k])[..., None])[..., 0]
    cov = cov - gain @ cross.mT
    cov[:, :k], cov[:, :, :k] = 0.0, 0.0
    return mean, (cov + cov.mT) / 2


def variance_factor(quadratic: Tensor, count: Tensor) -> Tensor:
    """Posterior estimate (...) of the variance factor from squared innovations `quadratic` (...) of `count` (...)
    values."""
    return (FREEDOM + quadratic) / (FREEDOM + count)


def squared_innovation(
    after: Tensor, u: Tensor, noise: Tensor, step: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared innovation Q (F,) and number of values (F,) of frames u (F, N, C), NaN where not observed.

    Q is the minimum of (y - B z)^T R^-1 (y - B z) + (z - m)^T P^-1 (z - m), at the posterior mean z, so that it changes
    in second order alone with rounding errors of z.

    Args:
        after: values (F, N, C) decoded at the posterior mean, float64.
        noise: (C,) variances R.
        step: posterior minus prior means (F, Z). covariance: P of the prior, (1 or F, Z, Z), or variances (Z,).
    """
    seen = torch.isfinite(u)
    left = torch.where(seen, (u.double() - after).square() / noise, 0.0).flatten(1).sum(1)
    if covariance.dim() == 1:
        root = covariance.clamp(min=1e-300).sqrt()
        return left + (step / root).square().sum(1), seen.flatten(1).sum(1)
    root = _roots(covariance)
    lengths = torch.linalg.solve_triangular(root, step[..., None], upper=False)
    return left + lengths.square().sum((1, 2)), seen.flatten(1).sum(1)


def chi_squared_quantile(share: float, degrees: int) -> float:
    """Quantile of the chi-squared distribution with `degrees` degrees of freedom, at probability `share`."""
    return float(chdtri(degrees, 1 - share))


def hotelling_quantile(share: float, degrees: int, count: int) -> float:
    """Quantile of the squared Mahalanobis distance of a new point from the mean of `count` others, under their own
    covariance (Hotelling 1931); with fewer than `degrees` + 2 others, two degrees of freedom are assumed."""
    left = max(count - degrees, 2)
    return degrees * (count**2 - 1) / (count * left) * float(fdtri(degrees, left, share))
