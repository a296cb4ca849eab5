"""POD modes from incomplete frames: output layer, prior of codes and noise of an affine decoder, by probabilistic PCA.

An affine decoder is u_c = w_c . psi(x) with features psi shared by all frames and weights w of each frame. Given the
features, w ~ N(mean, covariance) and the noise of each channel are fitted to all training frames by expectation
maximisation (probabilistic principal components with missing data, Tipping and Bishop 1999, in the metric of the data),
so that frames with few observed points use the statistics of the others. The eigenvectors of the covariance are the
POD modes and become the code dimensions: orthonormal in the metric of the data, ordered by variance, with the prior
N(0, diag(variances)).

The E step encodes all frames under the present prior and sums the moments of their posteriors; the M step takes the
prior and noise of largest likelihood given these. Variances are then estimated once more, on held-out frames:
eigenvalues of a sample covariance are biased, the leading ones too large, the trailing ones too small, by orders of
magnitude where frames are few and alike (Ledoit and Wolf 2004). Variances along the same directions in frames that the
modes were not fitted to have no such bias (Bartz 2016, "Cross-validation based nonlinear shrinkage").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior, WhitenedPosterior, block_length, repeated_patterns
from inrflow.numerics.effort import effort

_FEATURE_FLOOR = 1e-9
_SAMPLED = 8192  # points of which features are made orthonormal
# Observed values of a frame per feature from which on the noise is updated by MacKay's fixed point, and from which on
# its initial value is small. Measured with Fourier features on Kuramoto-Sivashinsky and Burgers, 1.13 and 1.16 values
# per feature, noise 0 to 1e-2: the fixed point removes 4e-5 to 1e-4 of spurious noise from clean data and changes
# errors of noisy frames by at most 10 %; a small initial value as well raised these up to 1.8 times at random points.
_DETERMINED, _WELL_DETERMINED = 1.05, 1.2


@dataclass
class OutputModes:
    """POD modes over the features of a decoder: its output layer and the statistics of its codes.

    Attributes:
        mean: (C, F) output weights of the mean field.
        modes: (Z, C, F) output weights of each code dimension, ordered by variance.
        variances: (Z,) prior variance of each code dimension, normalised units (mean square over points, summed over
            channels).
        noise: (C,) residual variance of each channel.
    """

    mean: Tensor
    modes: Tensor
    variances: Tensor
    noise: Tensor

    def truncated(self, size: int) -> OutputModes:
        """The first `size` modes; the variance of the others is added to the noise, evenly over channels."""
        lost = self.variances[size:].sum() / len(self.noise)
        return OutputModes(self.mean, self.modes[:size], self.variances[:size], self.noise + lost)

    def prior(self) -> GaussianPrior:
        """Prior of the codes, N(0, diag(variances))."""
        return GaussianPrior(torch.zeros_like(self.variances), torch.diag(self.variances), self.noise.double())


def fit_output_modes(
    features: Callable[[Tensor], Tensor],
    groups: Iterable[tuple[Tensor, Tensor]],
    iterations: int = 5,
    floor: float = 1e-13,
    largest: int = 512,
    progress: Callable[[int], None] = lambda done: None,
    average: Callable[[GaussianPrior, Tensor], GaussianPrior] | None = None,
) -> OutputModes:
    """Fit mean, modes, variances and noise by expectation maximisation.

    Args:
        features: map of points (N, d) to features (N, F); the first feature is the constant.
        groups: frames grouped by shared points, each x (N, d) and u (frames, N, C) with NaN = not observed.
        iterations: of expectation maximisation; one suffices where every frame has many points.
        floor: modes with less than this share of the largest variance are dropped, none where it is negative.
        largest: maximum number of modes.
        progress: called after each iteration with their number; an exception that it raises ends the fit.
        average: (prior, matrix (F, size)) -> prior of the weights of the features times the matrix, averaged over a
            symmetry group; applied after each iteration.
    """
    groups = list(groups)
    channels = groups[0][1].shape[-1]
    whitening, strength = _whitening(features, groups)
    size = whitening.shape[1]
    dimension = channels * size
    observed = torch.cat([g[1].reshape(-1, channels) for g in groups]).double()
    total = observed.square().nanmean(0)
    del observed
    # The first prior is that of a ridge on the weights of the features themselves: variances proportional to their
    # strength. The iterations fit the spectrum.
    covariance = torch.diag(torch.kron(10 * total.clamp(min=1e-12), strength / strength.sum()))
    # Frames with many more values than features determine the noise, and the iterations converge faster from below.
    # With fewer values a small noise would be confirmed by interpolation, so the start must be above it.
    typical = float(torch.stack([torch.isfinite(g[1]).float().mean() * len(g[0]) for g in groups]).median())
    noise = ((1e-8 if typical > _WELL_DETERMINED * size else 1e-3) * total).clamp(min=NOISE_FLOOR)
    prior = GaussianPrior(torch.zeros(dimension, dtype=torch.float64), covariance, noise)
    blocks = list(_blocks(groups, dimension))
    for done in range(iterations):
        statistics = Statistics(prior)
        for x, u in blocks:
            psi = (features(x.flatten(0, 1)).double() @ whitening).unflatten(0, x.shape[:2])
            statistics.add(partial(_block_design, psi, channels), torch.zeros(()), u)
            effort.check()
        prior = statistics.maximise(swift=typical > _DETERMINED * size)
        if average is not None:
            prior = average(prior, whitening)
        progress(done + 1)
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0), vectors.flip(1)
    keep = min(int((variances > floor * variances[0]).sum()), largest)
    lost = variances[keep:].clamp(min=0).sum() / channels
    modes = vectors[:, :keep].T.reshape(keep, channels, size) @ whitening.T
    kept = variances[:keep].clamp(min=0)
    return OutputModes(prior.mean.reshape(channels, size) @ whitening.T, modes, kept, prior.noise + lost)


def _blocks(groups: list[tuple[Tensor, Tensor]], dimension: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Runs of groups of equal shape, x (G, N, d) and u (G, frames, N, C), short enough to be solved in one batch."""
    for _, alike in groupby(groups, key=lambda group: (group[0].shape, group[1].shape)):
        run = list(alike)
        length = block_length(run[0][1][0].numel(), dimension)
        for start in range(0, len(run), length):
            x, u = zip(*run[start : start + length], strict=True)
            yield torch.stack(x), torch.stack(u)


def _block_design(psi: Tensor, channels: int, factor: Tensor) -> Tensor:
    """Features (G, N, size), weighted by channel, times `factor` (C size, r): (G, N, C, r)."""
    return torch.stack([psi @ part for part in factor.chunk(channels)], 2)


def _whitening(features: Callable[[Tensor], Tensor], groups: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Map (F, size) to features that are orthonormal over a sample of the points, and their strength (size,), the mean
    square before normalisation. Linearly dependent features are dropped."""
    pooled = torch.cat([x for x, _ in groups])
    sample = pooled[torch.randperm(len(pooled), generator=torch.Generator().manual_seed(0))[:_SAMPLED]]
    psi = features(sample).double() / math.sqrt(len(sample))
    few = len(psi) < psi.shape[1]  # the Gram matrix of few points has the same nonzero eigenvalues
    values, vectors = torch.linalg.eigh(psi @ psi.T if few else psi.T @ psi)
    keep = values > _FEATURE_FLOOR * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    return psi.T @ vectors / values if few else vectors / values.sqrt(), values


NOISE_FLOOR = 1e-14  # rounding of float32 values of a few standard deviations


class Statistics:
    """Sufficient statistics of the E step, in the whitened coordinates of the prior.

    Attributes:
        prior, factor: the prior and its square root (Z, r).
        first, second, count: sums over frames of the posterior mean (r,) and second moment (r, r), number of frames.
        residual, values, leverage: by channel (C,), the sum of squared residuals, the number of observed values, and
            the number of these that the codes fit (the trace of the projection).
    """

    def __init__(self, prior: GaussianPrior) -> None:
        self.prior, self.factor, self.count = prior, prior.factor, 0
        size = self.factor.shape[1]
        self.first, self.second = torch.zeros(size).double(), torch.zeros(size, size).double()
        self.residual, self.values, self.leverage = torch.zeros(3, len(prior.noise), dtype=torch.float64)

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
        if (repeated := repeated_patterns(observed)) is not None:
            for group, rows, own in repeated:
                self._add(whole[group, None], target[group, None, rows], own[None], channels)
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
        self.second += flat.T @ flat + frames * posterior.covariance().sum(0)
        error = (target - codes @ design.mT).square().sum(1)

        def by_channel(numbers: Tensor) -> Tensor:
            return torch.where(observed, numbers, 0.0).sum(0).unflatten(0, (-1, channels)).sum(0)

        self.residual += by_channel(error) * self.prior.noise
        self.leverage += frames * by_channel(posterior.value_variance())
        self.values += frames * observed.sum(0).unflatten(0, (-1, channels)).sum(0)
        self.count += codes.shape[0] * frames

    def maximise(self, swift: bool) -> GaussianPrior:
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


_ENOUGH = 1.2  # observed values per code, from which on MacKay's fixed point is used for the noise


def refit_variances(
    modes: OutputModes,
    features: Callable[[Tensor], Tensor],
    groups: Sequence[tuple[Tensor, Tensor]],
    iterations: int = 3,
) -> OutputModes:
    """The same modes with variances and noise re-estimated from other frames, by expectation maximisation; ordered by
    variance.

    Args:
        modes: as fitted.
        features: map of points (N, d) to features (N, F).
        groups: frames that the modes were not fitted to, grouped by shared points, each x (N, d) and u (frames, N, C)
            with NaN = not observed. Without any the modes are returned unchanged."""
    prior = modes.prior()
    for _ in range(iterations):
        statistics = Statistics(prior)
        for x, u in groups:
            psi = features(x).double()
            basis = torch.einsum("nf,zcf->ncz", psi, modes.modes.double())
            statistics.add(partial(torch.matmul, basis[None]), (psi @ modes.mean.double().T)[None], u[None])
            effort.check()
        if not statistics.count:
            return modes
        swift = float(statistics.values.sum()) > _ENOUGH * statistics.count * len(modes.variances)
        variances = (statistics.factor @ statistics.second * statistics.factor).sum(1) / statistics.count
        prior = GaussianPrior(prior.mean, variances.diag(), statistics.maximise(swift).noise)
    variances = prior.covariance.diagonal()
    order = variances.argsort(descending=True)
    return OutputModes(modes.mean, modes.modes[order], variances[order], prior.noise)
