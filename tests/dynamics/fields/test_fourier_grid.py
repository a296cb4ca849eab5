"""Fourier coefficients of decoded fields: derivatives, inverse Laplacians and the way back, against closed forms."""

import math

import pytest
import torch
from local_systems import basis_of, harmonic_decoder

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.fourier_grid import LocalBasis, has_local_basis
from inrflow.dynamics.fields.pde_terms import FOURTH, LAPLACIAN, Factor


def test_derivatives_of_a_decoded_field_are_those_of_its_harmonics():
    basis = basis_of(1, (2.0, 3.0), 3, shift=0.25)
    decoder = harmonic_decoder(1, (2.0, 3.0), 3)
    codes = torch.randn(2, basis.code_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axes = [length * torch.arange(basis.points, dtype=torch.float64) / basis.points for length in (2.0, 3.0)]
    x = torch.cartesian_prod(*axes).requires_grad_(True)
    value = decoder(x, codes[:1])[0, :, 0]
    slope = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(slope[:, 0].sum(), x, retain_graph=True)[0]
    factors = [Factor(0), Factor(0, (0,)), Factor(0, (1,)), Factor(0, (0, 0)), Factor(0, (0, 1))]
    found = basis.fields(basis.coefficients(codes), factors)[0]
    expected = torch.stack([value + 0.25, slope[:, 0], slope[:, 1], second[:, 0], second[:, 1]]).detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_laplacian_its_inverse_and_its_square_of_a_plane_wave():
    basis = basis_of(1, (2 * math.pi, 2 * math.pi), 2)
    x, y = torch.cartesian_prod(*[2 * math.pi * torch.arange(basis.points).double() / basis.points] * 2).T
    wave = torch.cos(x + 2 * y)
    codes = basis.project(basis.spectrum(wave[None, None]))
    found = basis.fields(basis.coefficients(codes), [Factor(0, (1,), True), Factor(0, FOURTH), Factor(0, LAPLACIAN)])[0]
    torch.testing.assert_close(found[0], 2 * torch.sin(x + 2 * y) / 5, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], 25 * wave, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[2], -5 * wave, rtol=1e-9, atol=1e-9)


def test_projection_takes_a_field_of_codes_back_to_them_whatever_the_modes():
    decoder = harmonic_decoder(2, (1.0,), 4)
    random = torch.Generator().manual_seed(1)
    mixed = torch.randn(7, 2, decoder.features_size, generator=random, dtype=torch.float64)  # not orthonormal
    decoder.set_output(torch.zeros(2, decoder.features_size), mixed)
    basis = LocalBasis(decoder, torch.zeros(2).double())
    codes = torch.randn(3, 7, generator=random, dtype=torch.float64)
    back = basis.project(basis.coefficients(codes, whole=False))
    torch.testing.assert_close(back, codes, rtol=1e-9, atol=1e-9)


def test_a_linear_term_is_a_matrix_of_codes():
    basis = basis_of(2, (1.0,), 3, shift=0.5)
    codes = torch.randn(3, basis.code_size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix, bias = basis.linear(Factor(1), 0)  # the value of channel 1, shift and all, drives channel 0
    rate = codes @ matrix.T + bias
    fields = basis.fields(basis.coefficients(rate) - basis.coefficients(torch.zeros_like(rate)), [Factor(0), Factor(1)])
    values = basis.fields(basis.coefficients(codes), [Factor(1)])[:, 0]
    torch.testing.assert_close(fields[:, 0], values, rtol=1e-9, atol=1e-9)
    assert float(fields[:, 1].abs().max()) < 1e-9


def test_a_domain_that_is_not_periodic_has_no_such_basis():
    raw = ModulatedSiren(make_embedding([0.0], [1.0], None, None, 2, 0), 1, 3, 8, 1)
    assert not has_local_basis(raw)
    with pytest.raises(ValueError, match="periodic"):
        LocalBasis(raw, torch.zeros(1))


def test_a_coarser_grid_gives_the_same_quadratic_products():
    basis = basis_of(1, (2.0, 3.0), 9)
    coarse = basis.of_degree(2)
    assert coarse.points < basis.points and basis.of_degree(3) is basis
    codes = torch.randn(2, basis.code_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rates = []
    for one in (basis, coarse):
        fields = one.fields(one.coefficients(codes), [Factor(0), Factor(0, (0,))])
        rates.append(one.project(one.spectrum(fields[:, :1] * fields[:, 1:])))
    torch.testing.assert_close(rates[0], rates[1], rtol=1e-9, atol=1e-9)
