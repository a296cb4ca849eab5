"""Regularised least squares for many codes, without a matrix of all of them.

Model, for each channel by itself: u = offset + sum_k z_k psi_k + noise, z_k ~ N(mean_k, v_k). Where values and codes
are many and not orthogonal, by conjugate gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder, GridSum, TableSum
from inrflow.encoding.harmonic_codes import observed_patterns
from inrflow.encoding.posterior import GaussianPrior, WhitenedPosterior
from inrflow.numerics.conjugate_gradients import conjugate_gradients

_DIRECT = 1536  # largest system that is factored: the smaller of the numbers of values and of codes
_TOLERANCE, _ITERATIONS = 1e-9, 400  # of conjugate gradients: relative residual, and steps


def solve_independent(decoder: DomainHarmonicDecoder, x: Tensor, u: Tensor, prior: GaussianPrior) -> Tensor:
    """Posterior mean codes (G, F, Z), float64, of frames u (G, F, N, C) at the points x (G, N, d) of each group."""
    channels, offset = u.shape[-1], decoder.offset.detach().cpu().double()
    mean, variance = prior.mean.reshape(channels, -1), prior.covariance.reshape(channels, -1)
    codes = mean.expand(*u.shape[:2], *mean.shape).clone()
    for points, frames, found in zip(x, u, codes, strict=True):
        at = decoder.sum_at(points, torch.float64)
        missed = frames.double() - offset - at.values(mean)
        for c in range(channels):
            for rows, some in observed_patterns(missed[..., c].detach().numpy()):
                if len(some):
                    seen = torch.zeros(len(points), dtype=torch.bool).index_fill(0, torch.as_tensor(some), True)
                    found[rows, c] += _solved(at, missed[rows, :, c], seen, variance[c], prior.noise[c])
    return codes.flatten(2)


def _solved(at: TableSum | GridSum, values: Tensor, seen: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """Posterior mean codes (F, K), of prior variances (K,) and mean zero, of values (F, N) of which `seen` (N,) are
    given."""
    root, every, fewest = (variance / noise).sqrt(), bool(seen.all()), min(int(seen.sum()), len(variance))
    if fewest <= _DIRECT and not (every and isinstance(at, GridSum)):
        design = at.rows(seen) * root
        return WhitenedPosterior(design[None]).mean(values[None, :, seen])[0] * root

    def applied(w: Tensor) -> Tensor:
        fields = at.values((w * root)[:, None])[..., 0]
        return w + at.sums(fields if every else fields * seen) * root

    diagonal = 1 + int(seen.sum()) * root.square()  # preconditioner: exact for harmonics at evenly spread points
    right = at.sums(values if every else torch.where(seen, values, 0.0)) * root
    return conjugate_gradients(applied, right, _TOLERANCE, _ITERATIONS, lambda residual: residual / diagonal) * root
