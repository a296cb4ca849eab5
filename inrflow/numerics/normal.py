"""The normal distribution."""

from __future__ import annotations

from statistics import NormalDist

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations


def half_width(share: float) -> float:
    """Half width, in standard deviations, of the central interval that holds a share of the values."""
    return NormalDist().inv_cdf((1 + share) / 2)
