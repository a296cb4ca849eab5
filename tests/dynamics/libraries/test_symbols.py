"""Equations with constant coefficients are found from a few transitions, couplings that hardly move included."""

import torch
from spectral_systems import burgers, labels_of, line_of_trajectories

from inrflow.dynamics.libraries.spectral import SpectralFit
from inrflow.dynamics.libraries.symbols import SymbolFit, linear_symbols, product_symbols
from inrflow.dynamics.libraries.waves import Waves


def test_terms_of_an_equation_on_a_line() -> None:
    """1, d, dd, dddd of u; of the products u u, u du, u ddu, du du, each pair of factors once."""
    waves = Waves(labels_of(1, 1, 3))
    assert len(linear_symbols(waves)) == 4
    assert len(product_symbols(waves)) == 4


def test_symbols_are_those_of_derivatives() -> None:
    """The product u du has the coefficients of (u^2 / 2)'."""
    waves = Waves(labels_of(1, 1, 3))
    codes = torch.randn(5, len(waves.labels), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = waves.products(waves.coefficients(codes))
    square, transport = product_symbols(waves)[:2]
    zero = torch.zeros(5, waves.count, dtype=torch.complex128)
    half = zero.index_add(1, waves.out, products * square) / 2
    slope = zero.index_add(1, waves.out, products * transport)
    torch.testing.assert_close(slope, 1j * waves.vectors[:, 0] * half)


def test_burgers_equation_is_found_from_one_trajectory() -> None:
    """Wave by wave, eight transitions leave the weights of short waves open; the equation has them all."""
    labels, taught, waves = line_of_trajectories(1)
    _, judged, _ = line_of_trajectories(3)
    fit = SpectralFit(taught, labels)
    free, equation = fit.search(judged, 0), SymbolFit(fit).search(judged, 0)
    assert free is not None and equation is not None
    truth = burgers(waves).products

    def missed(products: torch.Tensor) -> float:
        return float((products - truth).abs().square().sum() / truth.abs().square().sum())

    assert missed(equation.operator.products) < 1e-5 < missed(free.operator.products)
    assert equation.score < 1e-6 < free.score
    again = SymbolFit(fit).refit(equation)
    assert missed(again.operator.products) < 1e-5
