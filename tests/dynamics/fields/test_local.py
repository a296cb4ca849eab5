"""Products of derivatives as a part of a vector field, against trigonometry, differences and the saved model."""

import math

import torch
from local_systems import basis_of, points_of

from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import LAPLACIAN, Factor, from_plain, to_plain
from inrflow.dynamics.fields.sum import VectorField

NOW = torch.zeros(())
U, U_X = Factor(0), Factor(0, (0,))


def codes_of(basis, field):
    return basis.project(basis.spectrum(field[None, None]))


def test_a_product_is_formed_without_aliasing_and_projected():
    basis = basis_of(1, (2 * math.pi,), 4)
    x = points_of(basis)
    products = LocalProducts(to_plain([(U, U_X), (U, U, U)]), 1)
    products.attach(basis)
    products.set(torch.tensor([[[1.0], [0.0]]]).double())
    rate = products.double()(NOW, codes_of(basis, torch.cos(2 * x)))  # u u_x = -2 cos 2x sin 2x = -sin 4x
    torch.testing.assert_close(rate, codes_of(basis, -torch.sin(4 * x)), rtol=1e-9, atol=1e-9)
    products.set(torch.tensor([[[0.0], [1.0]]]).double())
    rate = products(NOW, codes_of(basis, torch.cos(3 * x)))  # (3 cos 3x + cos 9x) / 4; the wave 9 is not held
    torch.testing.assert_close(rate, codes_of(basis, 0.75 * torch.cos(3 * x)), rtol=1e-9, atol=1e-9)


def test_the_jacobian_is_that_of_differences_and_contexts_act_affinely():
    basis = basis_of(2, (1.0, 2.0), 2, shift=0.3)
    stirred, curved = (Factor(0, (0,)), Factor(1, (1,), True)), (Factor(1), Factor(1, (0, 1)))
    terms = [(Factor(0), Factor(1), Factor(1)), stirred, curved]
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 2, generator=random, dtype=torch.float64)
    field = VectorField.of(basis.code_size, local=terms, channels=2, context_size=1).double()
    field.set_context_linear(torch.randn(1, *[basis.code_size] * 2, generator=random, dtype=torch.float64),
                             torch.randn(1, basis.code_size, generator=random, dtype=torch.float64))
    products = field.term(LocalProducts)
    products.set(weights)
    products.attach(basis)
    state = torch.randn(2, basis.code_size + 1, generator=random, dtype=torch.float64)
    t = torch.zeros(2).double()
    found = field.jacobian(t, state)
    size = basis.code_size
    for column in (0, 7, size - 1, size):
        step = torch.zeros_like(state)
        step[:, column] = 1e-5
        expected = (field(t, state + step) - field(t, state - step)).detach() / 2e-5
        torch.testing.assert_close(found[:, :, column], expected, rtol=1e-6, atol=1e-6)
    middle = field(t, state).detach()
    left, right = state.clone(), state.clone()
    left[:, size], right[:, size] = state[:, size] - 1, state[:, size] + 1
    torch.testing.assert_close((field(t, left) + field(t, right)).detach() / 2, middle, rtol=1e-9, atol=1e-9)


def test_terms_survive_their_plain_form():
    terms = [(), (U, U_X), (Factor(1, LAPLACIAN),), (Factor(0), Factor(1, (1,), True))]
    assert from_plain(to_plain(terms)) == terms


def test_no_states_have_no_products():
    basis = basis_of(1, (2 * math.pi,), 2)
    products = LocalProducts(to_plain([(U, U_X)]), 1).double()
    products.attach(basis)
    nothing = torch.zeros(0, basis.code_size, dtype=torch.float64)
    assert products.spectra(nothing).shape == (0, 1, basis.count) and products(NOW, nothing).shape == nothing.shape
