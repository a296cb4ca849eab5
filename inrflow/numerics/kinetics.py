"""Functions of one value with a constant, by which rates saturate or thermal reactions speed up: their numbers, values,
derivatives and text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ARRHENIUS, *HILL = range(5)  # exp(-a / u); 1 / (u^n + a^n) of orders n = 1, 2, 3, 4, which are their kinds
KINDS = 5
FUNCTION = -2  # numbers of functions with a constant are at most this, below those of other "axes" of factors
RECIPROCAL = 16  # "axis" of a factor 1 / u
_RESOLUTION, _LEAST = 1e-9, -30.0  # of logarithms of constants


def number_of(kind: int, constant: float) -> int:
    """The function of a kind and a positive constant, as the "axis" of a factor: a number of at most -2."""
    return FUNCTION - kind - KINDS * round((math.log(constant) - _LEAST) / _RESOLUTION)


def kind_and_constant(number: int) -> tuple[int, float]:
    """Kind and constant of a function, the inverse of `number_of`."""
    steps, kind = divmod(FUNCTION - number, KINDS)
    return kind, math.exp(_LEAST + _RESOLUTION * steps)


def values_and_slopes(number: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """Values of a function at values u, and its derivatives by u."""
    if number == RECIPROCAL:
        return 1 / u, -1 / u**2
    kind, a = kind_and_constant(number)
    if kind == ARRHENIUS:
        f = torch.exp(-a / u)
        return f, f * a / u**2
    f = 1 / (u**kind + a**kind)
    return f, -kind * u ** (kind - 1) * f**2


def changed(number: int, change: float) -> int:
    """The function after a change of the logarithm of its constant: that of values in smaller units."""
    return number - KINDS * round(change / _RESOLUTION)


def unit_power(number: int) -> float:
    """Power of the unit of values in that of the function."""
    return -1.0 if number == RECIPROCAL else -float(kind_and_constant(number)[0])


def written(number: int, name: str) -> str:
    """The function of a channel as text."""
    if number == RECIPROCAL:
        return f"1/{name}"
    kind, a = kind_and_constant(number)
    if kind == ARRHENIUS:
        return f"exp(-{a:.4g}/{name})"
    return f"1/({name}+{a:.4g})" if kind == 1 else f"1/({name}^{kind}+{a:.4g}^{kind})"
