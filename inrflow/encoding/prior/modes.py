"""From features to codes: the orthonormal output modes, the prior of codes and the noise, by expectation maximisation.

A decoder with output modulation is u_c = w_c . psi(x): features psi shared by all codes, weights w of each frame. Given
the features, everything else is linear and Gaussian: this module fits w ~ N(mean, covariance) and the noise of each
channel to all training frames at once (probabilistic principal components with missing data, Tipping and Bishop 1999,
in the metric of the data), so frames that see few points borrow from the others. The eigenvectors of the covariance
become the code dimensions: orthonormal in the data's metric (an error in code is the same error in the data), ordered
by variance, with prior N(0, diag(variances)).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.expectation_maximisation import NOISE_FLOOR, Statistics
from inrflow.numerics.batched_regression import block_length

_FEATURE_FLOOR = 1e-9


@dataclass
class OutputModes:
    """Output layer of a decoder and the statistics of its codes.

    Attributes:
        mean: (C, F) output weights of the mean field.
        modes: (Z, C, F) output weights of each code dimension, ordered by variance.
        variances: (Z,) prior variance of each code dimension, normalised units (mean square over points,
            summed over channels).
        noise: (C,) variance of what the modes leave, each channel.
    """

    mean: Tensor
    modes: Tensor
    variances: Tensor
    noise: Tensor

    def truncated(self, size: int) -> "OutputModes":
        """The first `size` modes; what the others explained becomes noise, shared evenly by the channels."""
        lost = self.variances[size:].sum() / len(self.noise)
        return OutputModes(self.mean, self.modes[:size], self.variances[:size], self.noise + lost)

    def prior(self) -> GaussianPrior:
        """Prior of the codes: zero mean, diagonal covariance."""
        return GaussianPrior(torch.zeros_like(self.variances), torch.diag(self.variances), self.noise.double())


def fit_output_modes(
    features: Callable[[Tensor], Tensor],
    groups: Iterable[tuple[Tensor, Tensor]],
    iterations: int = 5,
    floor: float = 1e-13,
    largest: int = 512,
    progress: Callable[[], None] = lambda: None,
    average: Callable[[GaussianPrior, Tensor], GaussianPrior] | None = None,
) -> OutputModes:
    """Fit mean, modes, variances and noise.

    Args:
        features: map of points (N, d) to features (N, F); the first feature is the constant.
        groups: frames grouped by shared points, each x (N, d) and u (frames, N, C) with NaN = not observed.
        iterations: of expectation maximisation; one suffices where every frame sees many points.
        floor: modes with less than this share of the largest variance are dropped, none where it is negative.
        largest: at most this many modes.
        progress: called after each iteration; an exception that it raises ends the fit.
        average: symmetrises a prior of the weights of the features times the given matrix (F, size).
    """
    groups = list(groups)
    channels = groups[0][1].shape[-1]
    whitening, strength = _whitening(features, groups)
    size = whitening.shape[1]
    dimension = channels * size
    observed = torch.cat([g[1].reshape(-1, channels) for g in groups]).double()
    total = observed.square().nanmean(0)
    del observed
    # To begin with, what the features express strongly (smooth functions) is as much likelier: the prior that a ridge
    # on their own weights would be. The spectrum itself is what the iterations find.
    covariance = torch.diag(torch.kron(10 * total.clamp(min=1e-12), strength / strength.sum()))
    # Frames that see more values than there are features say themselves how large the noise is; it is found faster from
    # below. With fewer values a small noise would be confirmed by interpolation, so it must be approached from above.
    typical = float(torch.stack([torch.isfinite(g[1]).float().mean() * len(g[0]) for g in groups]).median())
    determined = typical > 1.2 * size
    noise = ((1e-8 if determined else 1e-3) * total).clamp(min=NOISE_FLOOR)
    prior = GaussianPrior(torch.zeros(dimension, dtype=torch.float64), covariance, noise)
    blocks = _blocks(groups, dimension)
    for _ in range(iterations):
        statistics = Statistics.empty(prior)
        for x, u in blocks:
            psi = (features(x.flatten(0, 1)).double() @ whitening).unflatten(0, x.shape[:2])
            statistics.add(partial(_block_design, psi, channels), torch.zeros(()), u)
        prior = statistics.maximise(swift=determined)
        if average is not None:
            prior = average(prior, whitening)
        progress()
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0), vectors.flip(1)
    keep = min(int((variances > floor * variances[0]).sum()), largest)
    lost = variances[keep:].clamp(min=0).sum() / channels
    modes = vectors[:, :keep].T.reshape(keep, channels, size) @ whitening.T
    kept = variances[:keep].clamp(min=0)
    return OutputModes(prior.mean.reshape(channels, size) @ whitening.T, modes, kept, prior.noise + lost)


def _blocks(groups: list[tuple[Tensor, Tensor]], dimension: int) -> list[tuple[Tensor, Tensor]]:
    """Groups of equal shape together, x (G, N, d) and u (G, frames, N, C), as many as are solved at once."""
    blocks: list[tuple[Tensor, Tensor]] = []
    run: list[tuple[Tensor, Tensor]] = []
    for group in groups:
        full = run and len(run) >= block_length(group[1][0].numel(), dimension)
        if full or (run and (run[0][0].shape != group[0].shape or run[0][1].shape != group[1].shape)):
            blocks.append((torch.stack([x for x, _ in run]), torch.stack([u for _, u in run])))
            run = []
        run.append(group)
    return [*blocks, (torch.stack([x for x, _ in run]), torch.stack([u for _, u in run]))]


def _block_design(psi: Tensor, channels: int, factor: Tensor) -> Tensor:
    """(G, N, C, r): features (G, N, size), of which each channel has its own weights, times `factor` (C size, r)."""
    return torch.stack([psi @ part for part in factor.chunk(channels)], 2)


def _whitening(
    features: Callable[[Tensor], Tensor], groups: list[tuple[Tensor, Tensor]], points: int = 8192
) -> tuple[Tensor, Tensor]:
    """Map (F, size) to features that are orthonormal over a sample of the points, and their strength (size,).

    Near-dependent features are dropped; the strength is the mean square that unit weights give.
    """
    every = torch.cat([x for x, _ in groups])
    sample = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:points]]
    psi = features(sample).double()
    values, vectors = torch.linalg.eigh(psi.T @ psi / len(psi))
    keep = values > _FEATURE_FLOOR * values[-1]
    return vectors[:, keep] / values[keep].sqrt(), values[keep]
