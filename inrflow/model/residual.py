"""Residual fields of assimilated trajectories: what their states leave of the observations, as a Gaussian process."""

from __future__ import annotations

from dataclasses import replace

import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.encoding.residual.field import ResidualField, rows_of
from inrflow.model.state_prior import StateEstimate, StatePrior


def encoding_prior(residual: ResidualField, prior: StatePrior, inner: TrajectoryBatch) -> StatePrior:
    """The prior of states, with as much noise as lets values of a correlated residual count for what they tell."""
    if not residual.on_codes:
        return prior
    return replace(prior, noise=prior.noise * residual.inflation(inner.x[0, 0].double().numpy()))


def with_residual(
    decoder: Decoder, estimate: StateEstimate, inner: TrajectoryBatch, residual: ResidualField
) -> StateEstimate:
    """An estimate with a residual field conditioned on what its states leave of a window (internal units)."""
    values = inner.u.double()
    if residual.on_codes:
        dtype = next(decoder.parameters()).dtype
        with torch.no_grad():
            values = values - decoder(inner.x.to(dtype), estimate.mean[..., : decoder.code_size].to(dtype)).double()
    conditioned = [residual.condition(rows) for rows in rows_of(inner.t, inner.x, values, inner.delay)]
    return replace(estimate, residual=conditioned)
