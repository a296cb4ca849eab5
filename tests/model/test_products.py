"""Products of state components: their derivative."""

import torch

from inrflow.model.store_v1 import Products

NOW = torch.zeros(())


def test_the_jacobian_is_the_derivative_of_the_products():
    torch.manual_seed(0)
    part = Products(4, 10).double()
    left, right = torch.triu_indices(4, 4)
    part.set(left, right, torch.randn(4, 10, dtype=torch.float64))
    state = torch.randn(3, 4, dtype=torch.float64)
    expected = torch.stack([torch.autograd.functional.jacobian(lambda z: part(NOW, z), s) for s in state])
    torch.testing.assert_close(part.jacobian(NOW, state), expected)
