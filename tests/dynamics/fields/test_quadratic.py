"""Products of state components: their derivative and the choice of pairs."""

import copy

import torch

from inrflow.dynamics.fields.quadratic import Couplings, Products, leading_pairs

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


def test_couplings_without_gradients_are_those_with_them_also_after_their_weights_change():
    random = torch.Generator().manual_seed(2)
    part = Couplings(12, 2).double()
    triples = torch.randint(0, 5, (3, 12), generator=random)
    state, context = (torch.randn(2, 3, n, generator=random, dtype=torch.float64) for n in (5, 2))
    for _ in range(2):
        part.set(triples, *(torch.randn(*s, generator=random, dtype=torch.float64) for s in ((12,), (2, 12))))
        expected = torch.zeros(2, 3, 5).double()
        for m, (out, left, right) in enumerate(triples.T.tolist()):
            weight = part.weight[m] + context @ part.context_weight[:, m]
            expected[..., out] += (weight * state[..., left] * state[..., right]).detach()
        torch.testing.assert_close(part(NOW, state, context).detach(), expected)
        with torch.no_grad():
            torch.testing.assert_close(part(NOW, state, context), expected)
            torch.testing.assert_close(copy.deepcopy(part)(NOW, state, context), expected)
