"""Products of state components: their derivative and the choice of pairs."""

import torch

from inrflow.dynamics.fields.quadratic import Products, leading_pairs

NOW = torch.zeros(())


def test_the_jacobian_is_the_derivative_of_the_products():
    torch.manual_seed(0)
    part = Products(4, 10).double()
    left, right = leading_pairs(torch.ones(4), 10)
    part.set(left, right, torch.randn(4, 10, dtype=torch.float64))
    state = torch.randn(3, 4, dtype=torch.float64)
    expected = torch.stack([torch.autograd.functional.jacobian(lambda z: part(NOW, z), s) for s in state])
    torch.testing.assert_close(part.jacobian(NOW, state), expected)


def test_pairs_of_components_that_vary_most_are_kept():
    left, right = leading_pairs(torch.tensor([3.0, 1.0, 0.1]), 3)
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == {(0, 0), (0, 1), (1, 1)}
