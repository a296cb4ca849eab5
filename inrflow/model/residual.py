"""Residual fields of assimilated trajectories: conditioned on the observations, beside what states give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.residual.field import Codes, Conditioned, ResidualField, Rows, rows_of
from inrflow.model.state_path import StatePath
from inrflow.model.state_prior import StateEstimate


def with_residual(
    decoder: Decoder, dynamics: Dynamics, estimate: StateEstimate, inner: TrajectoryBatch, residual: ResidualField
) -> StateEstimate:
    """An estimate with a residual field conditioned on the observations of a window (internal units)."""
    parts = rows_and_codes(decoder, dynamics, estimate, inner)
    known = torch.isfinite(estimate.t).any(1).tolist()
    conditioned = [Conditioned(residual, *part) if len(part[0].t) and some else None
                   for part, some in zip(parts, known, strict=True)]
    return replace(estimate, residual=conditioned)


def rows_and_codes(
    decoder: Decoder, dynamics: Dynamics, estimate: StateEstimate, inner: TrajectoryBatch
) -> list[tuple[Rows, np.ndarray, Codes]]:
    """Observed values of each trajectory, what its states give there, (R, C), and what they give elsewhere."""
    decoded = _decoded(decoder, inner.x, estimate.mean[..., : decoder.code_size])
    seen = torch.isfinite(inner.u).any(-1, keepdim=True)
    both = torch.cat([inner.u.double(), torch.where(seen, decoded, torch.nan)], -1)
    channels = inner.u.shape[-1]
    result: list[tuple[Rows, np.ndarray, Codes]] = []
    for s, rows in enumerate(rows_of(inner.t, inner.x, both, inner.delay)):
        path = StatePath(dynamics, estimate.select(slice(s, s + 1)))

        def given(t: np.ndarray, x: np.ndarray, path: StatePath = path) -> Tensor:
            states = path.mean(torch.as_tensor(t)[None], check=False)[..., : decoder.code_size]
            return _decoded(decoder, torch.as_tensor(x)[None, None], states)[0]

        result.append((replace(rows, u=rows.u[:, :channels]), rows.u[:, channels:], given))
    return result


def _decoded(decoder: Decoder, x: Tensor, codes: Tensor) -> Tensor:
    dtype = next(decoder.parameters()).dtype
    with torch.no_grad():
        return decoder(x.to(dtype), codes.to(dtype)).double()
