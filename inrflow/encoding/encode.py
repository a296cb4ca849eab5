"""Encoding: codes from observed frames, for any decoder and any layout of the points; and codes of trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder, device_of
from inrflow.encoding.adam import adam_encode
from inrflow.encoding.delayed_values import AffineMotion
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.encoding.posterior import GaussianPrior, block_length, condition_groups

METHODS = ("adam", "gauss_newton", "gradient_steps")  # iterative methods of encoding, besides closed_form
# Default rates: that of DINo; plain gradient steps on errors that are means over a frame need a far larger one.
ADAM_RATE, GRADIENT_RATE = 1e-2, 10.0
_MIXING = -7046029254386353131  # the golden ratio as a 64-bit number: neighbours of a grid mix far apart
_WORTH_SHARING = 0.9  # largest share of distinct points for which evaluating these alone saves time


@dataclass
class CodeData:
    """Codes (S, T, n) of trajectories at internal times t (S, T); observed (S, T) masks the frames that are used."""

    codes: Tensor
    t: Tensor
    observed: Tensor

    @property
    def transitions(self) -> int:
        """Number of pairs of successive observed frames."""
        return int((self.observed[:, 1:] & self.observed[:, :-1]).sum())

    @cached_property
    def variance(self) -> float:
        """Total variance of the observed codes about their mean, which is not 0 for codes of laws."""
        seen = self.codes[self.observed].double()
        return float((seen - seen.mean(0)).square().sum(1).mean())

    def at(self, index: Any) -> CodeData:
        """A subset of the trajectories (mask, indices or slice), and of their frames if `index` is a pair."""
        return CodeData(self.codes[index], self.t[index], self.observed[index])

    def first(self, count: int) -> CodeData:
        """The first `count` trajectories."""
        return self.at(slice(count))

    def frames(self, stop: int) -> CodeData:
        """The first `stop` frames."""
        return self.at((slice(None), slice(stop)))

    def since(self, first: int) -> CodeData:
        """The frames from `first` on."""
        return self.at((slice(None), slice(first, None)))

    def padded(self, frames: int) -> CodeData:
        """The same trajectories with `frames` frames, those added not observed."""
        missing = frames - self.codes.shape[1]
        pad = torch.nn.functional.pad
        t = pad(self.t, (0, missing), value=torch.nan)
        return CodeData(pad(self.codes, (0, 0, 0, missing)), t, pad(self.observed, (0, missing)))

    @staticmethod
    def join(parts: list[CodeData]) -> CodeData:
        """All trajectories of several parts."""
        return CodeData(*(torch.cat([getattr(p, k) for p in parts]) for k in ("codes", "t", "observed")))


@dataclass(frozen=True)
class Encoder:
    """An encoding method.

    Attributes:
        method: "solve" is the Gaussian posterior, in closed form where the decoder is affine, else by Gauss-Newton;
            "adam" and "gradient_steps" are the published descents (DINo, CORAL), without prior and uncertainty.
        iterations, rate: of the descents; 0 iterations are the published number.
    """

    method: str = "solve"
    iterations: int = 0
    rate: float = ADAM_RATE

    @classmethod
    def of(cls, method: str, iterations: int | None = None, rate: float | None = None) -> Encoder:
        """The encoder of a configured method: closed_form, gauss_newton, adam or gradient_steps."""
        if method not in ("adam", "gradient_steps"):
            return cls()
        return cls(method, iterations or 0, rate or (ADAM_RATE if method == "adam" else GRADIENT_RATE))

    def __call__(
        self,
        decoder: Decoder,
        x: Tensor,
        u: Tensor,
        prior: GaussianPrior,
        covariance: bool,
        delay: Tensor | None = None,
        motion: AffineMotion | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Codes (G, F, Z) and covariance (G, 1 or F, Z, Z) of frames u (G, F, N, C) at the points x (G, N, d) of each
        group. `delay` (G, N) and `motion`, for affine decoders: times of values after their frame, and dynamics of
        codes."""
        if self.method == "solve" and decoder.affine:
            return _solve(decoder, x, u, prior, covariance, delay, motion)
        means, spreads = [], []
        for points, values in zip(x, u, strict=True):
            mean, spread = self._descend(decoder, points, values, prior, covariance)
            means.append(mean)
            spreads.append(spread)
        if not covariance:
            return torch.stack(means), None
        return torch.stack(means), torch.stack([s if s.dim() == 3 else s[None] for s in spreads if s is not None])

    def _descend(
        self, decoder: Decoder, x: Tensor, u: Tensor, prior: GaussianPrior, covariance: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Codes (F, Z) and covariance of frames u (F, N, C) at points x (N, d), on the decoder's device."""
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


def encode(
    decoder: Decoder,
    batch: TrajectoryBatch,
    prior: GaussianPrior,
    encoder: Encoder | None = None,
    motion: AffineMotion | None = None,
) -> Tensor:
    """Posterior mean codes (S, T, Z), float64, of each frame by itself; the prior mean for unobserved frames.

    `motion`: dynamics of codes between the time of a frame and the times of its delayed values.
    """
    return encode_with_covariance(decoder, batch, prior, False, encoder, motion)[0]


def encode_with_covariance(
    decoder: Decoder,
    batch: TrajectoryBatch,
    prior: GaussianPrior,
    covariance: bool = True,
    encoder: Encoder | None = None,
    motion: AffineMotion | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`encode`, with the posterior covariance (S or 1, T or 1, Z, Z); gradients flow where values require them."""
    trajectories, frames = batch.u.shape[:2]
    x, u = batch.groups()
    with torch.set_grad_enabled(torch.is_grad_enabled() and u.requires_grad):
        codes, spread = (encoder or Encoder())(decoder, x, u, prior, covariance, batch.delays(), motion)
    codes = codes.reshape(trajectories, frames, -1)
    if spread is None or len(x) == trajectories or (len(x) == 1 and spread.shape[1] == 1):
        return codes, spread
    return codes, spread.reshape(trajectories, frames, *spread.shape[-2:])


def unknown(decoder: Decoder, batch: TrajectoryBatch, codes: Tensor, prior: GaussianPrior, encoder: Encoder | None
            ) -> float:
    """Posterior variance of codes of the first frames, as a share of the mean square of codes (S, T, Z); infinite where
    the encoder gives no covariance."""
    spread = encode_with_covariance(decoder, batch.first_frames(1), prior, True, encoder)[1]
    return math.inf if spread is None else float(
        spread.diagonal(dim1=-2, dim2=-1).sum(-1).mean() / codes.square().sum(-1).nanmean())


def _solve(
    decoder: Decoder,
    x: Tensor,
    u: Tensor,
    prior: GaussianPrior,
    covariance: bool,
    delay: Tensor | None,
    motion: AffineMotion | None,
) -> tuple[Tensor, Tensor | None]:
    """Closed-form posterior, by blocks of groups whose bases fit into memory; for independent codes, means alone."""
    if prior.independent:
        from inrflow.encoding.independent import solve_independent  # finite elements take a second to import

        return solve_independent(decoder, x, u, prior), None  # type: ignore[arg-type]
    separate = decoder.code_per_channel and delay is None  # the dynamics that carry delayed values couple codes
    dtype = next(decoder.parameters()).dtype
    means, spreads = [], []
    length = block_length(u.shape[2] * u.shape[3], decoder.code_size)
    common = common_points(x) if len(x) > 1 and delay is None else None
    if common is not None and len(common[0]) <= length * x.shape[1]:
        offset, basis = decoder.basis(common[0].to(dtype))
        return _condition(separate, offset, basis, u, prior, covariance, common[1])
    for start in range(0, len(x), length):
        offset, basis = decoder.basis(x[start : start + length].to(dtype))
        if delay is not None and motion is not None:
            part = slice(start, start + length)
            offset, basis = motion.of_groups(part).carried(offset, basis, delay[part])
        mean, spread = _condition(separate, offset, basis, u[start : start + length], prior, covariance)
        means.append(mean)
        spreads.append(spread)
    if not covariance:
        return torch.cat(means), None
    width = max(s.shape[1] for s in spreads if s is not None)  # 1 where all frames of a block miss the same values
    return torch.cat(means), torch.cat([s.expand(-1, width, -1, -1) for s in spreads if s is not None])


def _condition(
    separate: bool,
    offset: Tensor,
    basis: Tensor,
    u: Tensor,
    prior: GaussianPrior,
    covariance: bool,
    which: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`condition_groups`, with one smaller system per channel where neither the basis (`separate`) nor the prior
    couples the codes of different channels: the posterior is the same."""
    if not separate or prior.by_channel is None:
        return condition_groups(offset, basis, u, prior, covariance, which)
    means, spreads = [], []
    for c, own in enumerate(prior.by_channel):
        size = len(own.mean)
        channel, part = slice(c, c + 1), slice(c * size, (c + 1) * size)
        mean, spread = condition_groups(
            offset[..., channel], basis[..., channel, part], u[..., channel], own, covariance, which
        )
        means.append(mean)
        spreads.append(spread)
    if not covariance:
        return torch.cat(means, -1), None
    width = max(s.shape[1] for s in spreads if s is not None)
    whole = u.new_zeros(len(u), width, len(prior.mean), len(prior.mean), dtype=torch.float64)
    for c, spread in enumerate(spreads):
        assert spread is not None
        size = spread.shape[-1]
        whole[..., c * size : (c + 1) * size, c * size : (c + 1) * size] = spread
    return torch.cat(means, -1), whole


def common_points(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Distinct points (M, d) of groups x (G, N, d) and the index (G, N) of each point among them; None where most are
    distinct. Where groups observe subsets of one grid, the decoder need only be evaluated on the grid."""
    bits = x.contiguous().view(torch.int64 if x.dtype == torch.float64 else torch.int32).flatten(0, -2).long()
    mixed = torch.zeros_like(bits[:, 0])
    for coordinate in bits.unbind(1):
        mixed = (mixed ^ (mixed >> 29)) * _MIXING + coordinate * _MIXING
    distinct, which = torch.unique(mixed, return_inverse=True)
    if len(distinct) > _WORTH_SHARING * len(mixed):
        return None
    first = torch.empty_like(distinct).scatter_(0, which, torch.arange(len(which)))
    if not torch.equal(bits[first[which]], bits):  # hash collision
        return None
    return x.flatten(0, -2)[first], which.view(x.shape[:-1])
