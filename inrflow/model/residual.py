"""Residual fields of assimilated trajectories: conditioned on the observations, beside what states give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.encoding.residual.field import Conditioned, ResidualField, Rows, rows_of
from inrflow.model.state_prior import StateEstimate


def with_residual(
    decoder: Decoder, estimate: StateEstimate, inner: TrajectoryBatch, residual: ResidualField
) -> StateEstimate:
    """An estimate with a residual field conditioned on the observations of a window (internal units)."""
    conditioned: list[Conditioned | None] = []
    for s, (rows, codes) in enumerate(rows_and_codes(decoder, estimate, inner)):
        known = torch.isfinite(estimate.t[s])
        if not len(rows.t) or not bool(known.any()):  # none of the frames is of this trajectory
            conditioned.append(None)
            continue
        seen = torch.isfinite(inner.u[s]).any(1) & known[:, None]  # (T, C)
        ends = [(one if bool(one.any()) else known).nonzero()[[0, -1], 0] for one in seen.T]
        states = estimate.mean[s, torch.stack(ends), : decoder.code_size]  # (C, 2, Z)

        def edges(x: np.ndarray, states: Tensor = states) -> Tensor:
            points = torch.as_tensor(x)[None, None]
            return torch.stack([_decoded(decoder, points, its[None])[0, ..., c] for c, its in enumerate(states)], -1)

        conditioned.append(Conditioned(residual, rows, codes, edges))
    return replace(estimate, residual=conditioned)


def rows_and_codes(
    decoder: Decoder, estimate: StateEstimate, inner: TrajectoryBatch
) -> list[tuple[Rows, np.ndarray]]:
    """Observed values of each trajectory, and what its states give there, (R, C)."""
    decoded = _decoded(decoder, inner.x, estimate.mean[..., : decoder.code_size])
    seen = torch.isfinite(inner.u).any(-1, keepdim=True)
    both = torch.cat([inner.u.double(), torch.where(seen, decoded, torch.nan)], -1)
    channels, result = inner.u.shape[-1], []
    for rows in rows_of(inner.t, inner.x, both, inner.delay):
        result.append((replace(rows, u=rows.u[:, :channels]), rows.u[:, channels:]))
    return result


def _decoded(decoder: Decoder, x: Tensor, codes: Tensor) -> Tensor:
    dtype = next(decoder.parameters()).dtype
    with torch.no_grad():
        return decoder(x.to(dtype), codes.to(dtype)).double()
