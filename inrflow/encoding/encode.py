"""Observations to codes, whatever the decoder and the layout of the points."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gaussian import GaussianPrior, condition


def encode(decoder: Decoder, batch: TrajectoryBatch, prior: GaussianPrior) -> Tensor:
    """Posterior mean codes (S, T, Z), float64, of every frame by itself; unobserved frames get the prior mean."""
    codes = encode_with_covariance(decoder, batch, prior, covariance=False)[0]
    return codes


@torch.no_grad()
def encode_with_covariance(
    decoder: Decoder, batch: TrajectoryBatch, prior: GaussianPrior, covariance: bool = True
) -> tuple[Tensor, Tensor | None]:
    """As `encode`, with the posterior covariance (S or 1, T or 1, Z, Z)."""
    x, u = batch.groups()
    dtype = next(decoder.parameters()).dtype
    means, spreads = [], []
    for points, values in zip(x, u, strict=True):
        if decoder.affine:
            offset, basis = decoder.basis(points.to(dtype))
            mean, spread = condition(offset, basis, values, prior, covariance)
        else:
            mean, spread = gauss_newton(decoder, points, values, prior, covariance=covariance)
        means.append(mean)
        if spread is not None:
            spreads.append(spread if spread.dim() == 3 else spread[None])
    trajectories, frames = batch.u.shape[:2]
    codes = torch.stack(means).reshape(trajectories, frames, -1)
    if not covariance:
        return codes, None
    if any(len(spread) > 1 for spread in spreads):  # some groups miss different values in their frames, others do not
        spreads = [spread.expand(u.shape[1], -1, -1) for spread in spreads]
    stacked = torch.stack(spreads)  # groups x (frames or 1) x Z x Z
    if len(x) == trajectories:
        return codes, stacked
    if len(x) == 1 and stacked.shape[1] == 1:
        return codes, stacked
    return codes, stacked.reshape(trajectories, frames, *stacked.shape[-2:])
