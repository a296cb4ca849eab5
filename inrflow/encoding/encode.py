"""Observations to codes, whatever the decoder and the layout of the points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.devices import device_of
from inrflow.encoding.adam import adam_encode
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gaussian import GaussianPrior, condition
from inrflow.encoding.gradient_steps import gradient_steps_encode


@dataclass(frozen=True)
class Encoder:
    """How codes are found. "solve": the closed form where the decoder is affine, else Gauss-Newton; "adam" and
    "gradient_steps" are the published descents, `iterations` steps at `rate`, without prior and uncertainty."""

    method: str = "solve"
    iterations: int = 0
    rate: float = 1e-2

    def __call__(
        self, decoder: Decoder, x: Tensor, u: Tensor, prior: GaussianPrior, covariance: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Codes (F, Z) and covariance (Z, Z) or (F, Z, Z) of frames u (F, N, C) at points x (N, d).

        The closed form is solved where u lies, in float64; the descents run on the decoder's device.
        """
        if self.method == "solve" and decoder.affine:
            offset, basis = decoder.basis(x.to(next(decoder.parameters()).dtype))
            return condition(offset, basis, u, prior, covariance)
        home = device_of(decoder)
        away, x, u = u.device, x.to(home), u.to(home)
        if self.method == "solve":
            mean, spread = gauss_newton(decoder, x, u, prior.to(home), covariance=covariance)
            return mean.to(away), spread.to(away) if spread is not None else None
        if self.method == "adam":
            mean = adam_encode(decoder, x, u, self.iterations or 300, self.rate)
        else:
            mean = gradient_steps_encode(decoder, x, u, self.iterations or 3, self.rate)
        return mean.to(away).double(), torch.zeros_like(prior.covariance) if covariance else None


def encode(decoder: Decoder, batch: TrajectoryBatch, prior: GaussianPrior, encoder: Encoder | None = None) -> Tensor:
    """Posterior mean codes (S, T, Z), float64, of every frame by itself; unobserved frames get the prior mean."""
    return encode_with_covariance(decoder, batch, prior, False, encoder)[0]


@torch.no_grad()
def encode_with_covariance(
    decoder: Decoder,
    batch: TrajectoryBatch,
    prior: GaussianPrior,
    covariance: bool = True,
    encoder: Encoder | None = None,
) -> tuple[Tensor, Tensor | None]:
    """As `encode`, with the posterior covariance (S or 1, T or 1, Z, Z)."""
    x, u = batch.groups()
    find = encoder or Encoder()
    means, spreads = [], []
    for points, values in zip(x, u, strict=True):
        mean, spread = find(decoder, points, values, prior, covariance)
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
