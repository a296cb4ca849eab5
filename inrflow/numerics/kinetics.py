"""Functions of one value with a constant, by which rates saturate or thermal reactions speed up: their numbers, values,
derivatives and text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HYPERBOLA, BELL, ARRHENIUS = range(3)  # 1 / (u + a); 1 / (u^2 + a^2); exp(-a / u)
KINDS = 3
FUNCTION = -2  # numbers of functions are at most this, below those of other "axes" of factors
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
    kind, a = kind_and_constant(number)
    if kind == ARRHENIUS:
        f = torch.exp(-a / u)
        return f, f * a / u**2
    f = 1 / (u + a) if kind == HYPERBOLA else 1 / (u**2 + a**2)
    return f, -(f**2) if kind == HYPERBOLA else -2 * u * f**2


def in_units(number: int, unit: float) -> int:
    """The function of values in other units, of which the former one is `unit`."""
    kind, a = kind_and_constant(number)
    return number_of(kind, a * unit)


def unit_power(number: int) -> float:
    """Power of the unit of values in that of the function."""
    return (-1.0, -2.0, 0.0)[kind_and_constant(number)[0]]


def written(number: int, name: str) -> str:
    """The function of a channel as text."""
    kind, a = kind_and_constant(number)
    return (f"1/({name}+{a:.4g})", f"1/({name}^2+{a:.4g}^2)", f"exp(-{a:.4g}/{name})")[kind]
