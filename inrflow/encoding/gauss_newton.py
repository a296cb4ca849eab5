"""Encoding for decoders that are not affine in the code: Gauss-Newton steps with Levenberg-Marquardt damping.

Each step linearises the decoder at the current code and solves the same Gaussian problem as the closed form; a step
that raises the objective is refused and the damping raised (Levenberg 1944, Marquardt 1963).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.encoding.posterior import GaussianPrior
from inrflow.numerics.levenberg_marquardt import levenberg_marquardt

# A frame has settled when a step would move it by less than 1e-4 posterior standard deviations; where the decoder fits
# it badly (an objective far above the number of values) that would be precision without meaning.
_SETTLED = 1e-8
_MISFIT = 1e-10


def gauss_newton(
    decoder: Decoder,
    x: Tensor,
    u: Tensor,
    prior: GaussianPrior,
    start: Tensor | None = None,
    iterations: int = 12,
    covariance: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Most probable codes (F, Z), float64, of frames u (F, N, C) at points x (N, d) or (F, N, d).

    Starts from `start` (F, Z) or the prior mean. With `covariance`, also the posterior covariance (F, Z, Z) of the last
    linearisation (Laplace approximation).
    """
    codes = prior.mean.expand(len(u), -1).clone() if start is None else start.double().clone()
    best = levenberg_marquardt(
        codes, *negative_log_posterior(decoder, x, u, prior), steps=iterations,
        settled=lambda decrement, value: decrement < (_MISFIT * value).clamp(min=_SETTLED),
    )
    return best.point, torch.linalg.inv(best.curvature) if covariance else None


def negative_log_posterior(decoder: Decoder, x: Tensor, u: Tensor, prior: GaussianPrior) -> tuple[
        Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Twice the negative logarithm (F,) of the posterior of codes (F, Z), float64, and its linearisation: functions for
    `levenberg_marquardt`. Frames u (F, N, C) at points x (N, d) or (F, N, d); the noise may depend on the frame."""
    dtype = next(decoder.parameters()).dtype
    x = x.to(dtype)
    jitter = 1e-9 * prior.covariance.diagonal().max() * torch.eye(len(prior.mean)).to(prior.covariance)
    precision = torch.linalg.inv(prior.covariance + jitter)
    values, weight = torch.nan_to_num(u).double(), torch.isfinite(u).double() / prior.noise

    def objective(z: Tensor) -> Tensor:
        with torch.no_grad():
            error = decoder(x, z.to(dtype)).double() - values
        deviation = z - prior.mean
        misfit = (error.square() * weight).flatten(1).sum(1)
        return misfit + torch.einsum("fz,zy,fy->f", deviation, precision, deviation)

    def linearise(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            decoded, jacobian = decoder.linearise(x, z.to(dtype))
        design, weights = jacobian.double().flatten(1, 2), weight.flatten(1)
        error = (values - decoded.double()).flatten(1)
        curvature = torch.einsum("fpz,fp,fpy->fzy", design, weights, design) + precision
        return curvature, torch.einsum("fpz,fp->fz", design, weights * error) - (z - prior.mean) @ precision

    return objective, linearise
