"""The normal distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations


def half_width(share: float) -> float:
    """Half width, in standard deviations, of the central interval with probability `share`."""
    return NormalDist().inv_cdf((1 + share) / 2)


def gaussian_crps(error: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(mean, std^2); `error` is the truth minus the mean, elementwise.

    Closed form of Gneiting et al. (2005), equation 5; |error| where std = 0. In the units of the values.
    """
    certain = std <= 0
    z = error / torch.where(certain, 1.0, std)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return torch.where(certain, error.abs(), score)


def number_text(value: float, error: float) -> str:
    """A value and, in parentheses, its standard error in units of the last digit: "0.0300(12)", "-3.36(4)e-06".

    The error has one digit, or two where the first one is 1.
    """
    if not (0 < error < math.inf) or value == 0:
        return f"{value:.4g}"
    power = math.floor(math.log10(max(abs(value), error)))
    power = power if not -4 <= power < 6 else 0
    value, error = value / 10.0**power, error / 10.0**power
    first, exponent = f"{error:.0e}".split("e")
    digits = min(max((first == "1") - int(exponent), 0), 12)
    return f"{value:.{digits}f}({max(round(error * 10**digits), 1)})" + (f"e{power:+03d}" if power else "")
