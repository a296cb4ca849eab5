"""Jacobians by gathers from a spectrum, against those by transforms of every code's change."""

import math

import pytest
import torch
from local_systems import basis_of, harmonic_decoder

from inrflow.dynamics.fields.fourier_grid import HarmonicJacobian, LocalBasis
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import Factor, to_plain

U, V, U_X = Factor(0), Factor(1), Factor(0, (0,))
NOW = torch.zeros(())
TERMS = {"second degree": [(U, U_X), (U, V)], "third degree": [(U, V, V), (U, U_X, Factor(1, (0, 0)))]}


@pytest.mark.parametrize("period", [(2.0,), (1.0, 2.0), (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("terms", TERMS)
def test_gathers_give_what_transforms_give(terms, period):
    basis = basis_of(2, period, 5 if len(period) < 3 else 2, shift=0.2)
    products = LocalProducts(to_plain(TERMS[terms]), 2).double()
    products.attach(basis)
    random = torch.Generator().manual_seed(0)
    products.set(torch.randn(1, 2, 2, generator=random, dtype=torch.float64))
    codes = torch.randn(2, basis.code_size, generator=random, dtype=torch.float64)
    assert products.harmonic is not None
    by_gathers = products.jacobian(NOW, codes).detach()
    products.harmonic = None
    expected = products.jacobian(NOW, codes).detach()
    torch.testing.assert_close(by_gathers, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_codes_of_several_waves_are_left_to_transforms():
    decoder = harmonic_decoder(1, (2 * math.pi,), 2)
    turned = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    decoder.set_output(torch.zeros(1, 5), turned[:, None])
    basis = LocalBasis(decoder, torch.zeros(1).double())
    assert HarmonicJacobian.of(basis) is None
    products = LocalProducts(to_plain([(U, U_X)]), 1).double()
    products.attach(basis)
    products.set(torch.ones(1, 1, 1).double())
    codes = torch.ones(1, 5).double()
    step = 1e-6 * torch.eye(5).double()
    expected = (products(NOW, codes + step) - products(NOW, codes - step)).detach().T / 2e-6
    torch.testing.assert_close(products.jacobian(NOW, codes)[0], expected, rtol=1e-6, atol=1e-6)
