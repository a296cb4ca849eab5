"""Encoding for decoders that are not affine in the code: Gauss-Newton steps with Levenberg-Marquardt damping.

Each step linearises the decoder at the current code and solves the same Gaussian problem as the closed form; a step
that raises the objective is refused and the damping raised (Levenberg 1944, Marquardt 1963).
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.encoding.posterior import GaussianPrior

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
    dtype = next(decoder.parameters()).dtype
    x = x.to(dtype)
    jitter = 1e-9 * prior.covariance.diagonal().max() * torch.eye(len(prior.mean)).to(prior.covariance)
    precision = torch.linalg.inv(prior.covariance + jitter)
    observed = torch.isfinite(u)
    values = torch.nan_to_num(u).double()
    weight = observed.double() / prior.noise
    codes = prior.mean.expand(len(u), -1).clone() if start is None else start.double().clone()

    def objective(z: Tensor) -> Tensor:
        with torch.no_grad():
            error = decoder(x, z.to(dtype)).double() - values
        deviation = z - prior.mean
        misfit = (error.square() * weight).flatten(1).sum(1)
        return misfit + torch.einsum("fz,zy,fy->f", deviation, precision, deviation)

    damping = torch.full((len(u),), 1e-3, dtype=torch.float64, device=u.device)
    current = objective(codes)
    curvature = precision.expand(len(u), -1, -1)
    for _ in range(iterations):
        with torch.no_grad():
            decoded, jacobian = decoder.linearise(x, codes.to(dtype))
        design = jacobian.double().flatten(1, 2)
        weights = weight.flatten(1)
        error = (values - decoded.double()).flatten(1)
        curvature = torch.einsum("fpz,fp,fpy->fzy", design, weights, design) + precision
        gradient = torch.einsum("fpz,fp->fz", design, weights * error) - (codes - prior.mean) @ precision
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        damped = curvature + torch.diag_embed(damping[:, None] * diagonal)
        step = torch.linalg.solve(damped, gradient)
        proposed = objective(codes + step)
        better = proposed < current
        codes = torch.where(better[:, None], codes + step, codes)
        # Newton decrement: the squared length of the step in posterior standard deviations, as it were without damping.
        decrement = (step * gradient).sum(1) * (1 + damping)
        settled = decrement < (_MISFIT * current).clamp(min=_SETTLED)
        current = torch.where(better, proposed, current)
        damping = torch.where(better, damping * 0.2, damping * 10).clamp(1e-9, 1e6)
        if bool(settled.all()):
            break
    return codes, torch.linalg.inv(curvature) if covariance else None
