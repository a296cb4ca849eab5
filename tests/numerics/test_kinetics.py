"""Functions of one value with a constant."""

import math

import pytest
import torch

from inrflow.numerics.kinetics import (
    ARRHENIUS,
    FUNCTION,
    HILL,
    changed,
    kind_and_constant,
    number_of,
    unit_power,
    values_and_slopes,
    written,
)

U = torch.linspace(0.4, 2.0, 9, dtype=torch.float64)
FORMULAS = {ARRHENIUS: lambda u, a: torch.exp(-a / u), HILL[0]: lambda u, a: 1 / (u + a),
            HILL[1]: lambda u, a: 1 / (u**2 + a**2), HILL[3]: lambda u, a: 1 / (u**4 + a**4)}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("a", [1e-3, 0.3, 70.0])
def test_numbers_keep_kind_and_constant_and_give_values_and_derivatives(kind: int, a: float) -> None:
    number = number_of(kind, a)
    assert number <= FUNCTION < -1
    assert kind_and_constant(number) == (kind, pytest.approx(a, rel=1e-9))
    u = U.clone().requires_grad_()
    expected = FORMULAS[kind](u, a)
    (slope,) = torch.autograd.grad(expected.sum(), u)
    values, slopes = values_and_slopes(number, U)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-7, atol=0)
    torch.testing.assert_close(slopes, slope, rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", FORMULAS)
def test_functions_in_other_units_have_the_same_values_but_for_their_unit(kind: int) -> None:
    number, unit = number_of(kind, 0.7), 250.0
    ours, _ = values_and_slopes(number, U)
    theirs, _ = values_and_slopes(changed(number, math.log(unit)), unit * U)
    torch.testing.assert_close(ours * unit ** unit_power(number), theirs, rtol=1e-7, atol=0)


def test_functions_are_written_with_the_name_of_their_channel() -> None:
    texts = [written(number_of(kind, 0.25), "prey") for kind in (1, 3, ARRHENIUS)]
    assert texts == ["1/(prey+0.25)", "1/(prey^3+0.25^3)", "exp(-0.25/prey)"]
