"""Modes of a series at places with short records, as of stations that begin late.

Principal components by expectation maximisation have as many coefficients there as codes, fitted to few frames, and
what these imply for all earlier frames rotates the patterns of all places. So the components are those of the other
places; short records have the mean pattern of these, and a code of their own for what it leaves.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inrflow.encoding.prior.point_modes import PointModes

_SHORT = 0.4  # share of a channel's longest record
_MOST, _FEWEST_OTHERS = 60, 4  # values of short records; other places


def short_records(values: Tensor, channels: int) -> Tensor:
    """Which (M,) of values (T, M) of places, the last index being that of `channels`, are short records: of few frames
    in every channel, but some. None if there are many, or few other places."""
    count = torch.isfinite(values).sum(0).unflatten(0, (-1, channels))
    some = count.any(1)
    short = (count < _SHORT * count.amax(0)).all(1) & some
    few = int(short.sum()) * channels <= _MOST and int((some & ~short).sum()) >= _FEWEST_OTHERS
    return (short & few).repeat_interleave(channels)


def with_own_codes(modes: PointModes, ratio: Tensor, lasting: Tensor, anomalies: Tensor, short: Tensor, channels: int
                   ) -> tuple[PointModes, Tensor, Tensor]:
    """Modes of the other values, ratios (R,) and autocorrelations (H, R), extended to `short` (M,) records of anomalies
    (T, M): to the mean pattern of the other places, and a code for what this leaves of each, with the variance and
    autocorrelations of what it leaves of those."""
    places = int(short.sum()) // channels
    if not places:
        return modes, ratio, lasting
    shared = modes.patterns.unflatten(1, (-1, channels)).mean(1)  # (R, C)
    left = anomalies - (modes.codes @ shared).repeat(1, len(short) // channels)
    usual, own = left[:, ~short].unflatten(1, (-1, channels)), torch.eye(places * channels, dtype=torch.float64)
    square = usual.square().nanmean((0, 1)).nan_to_num(1.0).clamp(min=float(modes.noise.mean()))
    again = torch.stack([(usual[lag:] * usual[:-lag]).nanmean((0, 1)) for lag in range(1, len(lasting) + 1)])
    again = (again.nan_to_num(0.0) / square).clamp(-1, 1).repeat(1, places)
    patterns = torch.zeros(len(shared) + len(own), len(short), dtype=torch.float64)
    patterns[: len(shared), ~short], patterns[:, short] = modes.patterns, torch.cat([shared.repeat(1, places), own])
    modes = replace(
        modes, patterns=patterns, variances=torch.cat([modes.variances, square.repeat(places)]),
        noise=modes.noise.mean().repeat(len(short)).masked_scatter(~short, modes.noise),
        codes=torch.cat([modes.codes, left[:, short].nan_to_num(0.0)], 1),
        correlation=None if modes.correlation is None else torch.block_diag(modes.correlation, own))
    return modes, torch.nn.functional.pad(ratio, (0, len(own)), value=1.0), torch.cat([lasting, again], 1)
