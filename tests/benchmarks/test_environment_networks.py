"""The published networks for environments: their weights, their penalties, and which numbers an environment owns."""

import pytest
import torch

from benchmarks.baselines.environment_networks import (
    METHODS,
    Coda,
    EnvironmentNetwork,
    Geps,
    Leads,
    NetworkShape,
    SharedNetwork,
    rates,
    spectral_norms,
)

SHAPE = NetworkShape(state_size=3, width=5, depth=2)
ENVIRONMENTS = 4


@pytest.fixture(params=sorted(METHODS))
def network(request: pytest.FixtureRequest) -> EnvironmentNetwork:
    """Each method with weights that are all different from zero."""
    torch.manual_seed(0)
    made = METHODS[request.param](SHAPE, ENVIRONMENTS).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return made


def states(count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def weights_of(network: EnvironmentNetwork, context: torch.Tensor) -> torch.Tensor:
    """All weights and biases (E, numbers) at contexts (E, P)."""
    (layers,) = network.networks({"context": context})
    return torch.cat([part.flatten(1) for pair in layers for part in pair], 1)


def test_all_environments_at_once_move_as_each_does_alone(network):
    together = network.bind(network.environment)(torch.tensor(0.0), states(ENVIRONMENTS * 2))
    for e in range(ENVIRONMENTS):
        alone = network.of(e)(torch.tensor(0.0), states(ENVIRONMENTS * 2)[2 * e : 2 * e + 2])
        torch.testing.assert_close(together[2 * e : 2 * e + 2], alone)


def test_gradients_agree_with_finite_differences(network):
    names = [name for name, value in network.environment.items() if value.numel()]
    given = states(ENVIRONMENTS)

    def loss(*owned: torch.Tensor) -> torch.Tensor:
        environment = {**network.environment, **dict(zip(names, owned, strict=True))}
        moved = network.bind(environment)(torch.tensor(0.0), given).square().sum()
        if isinstance(network, Leads):  # its penalty rests on power iterations, compared with a decomposition below
            return moved
        return moved + network.penalty(environment, given[:, None])

    owned = [network.environment[name].detach().clone().requires_grad_() for name in names]
    if owned:
        assert torch.autograd.gradcheck(loss, owned)
    network.zero_grad()
    loss(*(network.environment[name] for name in names)).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.weights)


def test_fields_without_training_move_nothing():
    for method in METHODS.values():
        made = method(SHAPE, ENVIRONMENTS)
        assert not made.bind(made.environment)(torch.tensor(0.0), states(4).float()).any()


@pytest.mark.parametrize(
    ("method", "numbers"),
    [(SharedNetwork, 0), (Coda, 2), (Geps, 2), (Leads, 3 * 3 + 3 + 3 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3)],
)
def test_an_environment_owns_the_published_count_of_numbers(method, numbers):
    assert method(SHAPE, ENVIRONMENTS).adapted_numbers == numbers


def test_weights_of_coda_are_affine_in_the_context_along_every_direction():
    torch.manual_seed(1)
    coda = Coda(SHAPE, 1, context_size=2).double()
    first, second, zero = torch.randn(1, 2).double(), torch.randn(1, 2).double(), torch.zeros(1, 2).double()
    moved = weights_of(coda, 0.3 * first - 2.0 * second) - weights_of(coda, zero)
    expected = 0.3 * (weights_of(coda, first) - weights_of(coda, zero))
    expected = expected - 2.0 * (weights_of(coda, second) - weights_of(coda, zero))
    torch.testing.assert_close(moved, expected)
    assert (moved != 0).all()  # every weight of the network, biases and skip connection too
    directions = torch.cat([weights_of(coda, c) - weights_of(coda, zero) for c in torch.eye(2).double().split(1)])
    assert torch.linalg.matrix_rank(directions) == 2


def test_penalty_of_coda_is_that_of_the_paper():
    coda = Coda(SHAPE, ENVIRONMENTS, row_weight=0.7, context_weight=0.2).double()
    context = torch.randn(ENVIRONMENTS, 2, dtype=torch.float64)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    columns = [weights_of(coda, c[None]) - weights_of(coda, zero) for c in torch.eye(2).double()]
    W = torch.cat(columns).T  # one row for every weight of the network
    expected = 0.7 * W.norm(dim=1).sum() + 0.2 * context.square().sum()
    torch.testing.assert_close(coda.penalty({"context": context}, states(4)[:, None]), expected)


def test_penalty_of_leads_is_that_of_the_paper():
    torch.manual_seed(2)
    leads = Leads(SHAPE, 2, weight=0.7, lipschitz=0.3).double()
    with torch.no_grad():
        for value in leads.environment.values():
            value.copy_(torch.randn_like(value))
    environment, given = dict(leads.environment.items()), states(6).unflatten(0, (2, 3))
    expected = torch.zeros(())
    for e in range(2):
        layers = [(w[e : e + 1], b[e : e + 1]) for w, b in leads.own(environment)]
        moved, size = rates(layers, given[e : e + 1])[0].norm(dim=1), given[e].norm(dim=1)
        singular = [torch.linalg.svdvals(w[0])[0] for w, _ in layers]
        bound = singular[0] + singular[1] * singular[2] * singular[3]
        expected = expected + (moved / size).square().mean() + 0.3 * bound**2
    torch.testing.assert_close(leads.penalty(environment, given), 0.7 * expected, rtol=1e-3, atol=0.0)


def test_penalty_of_leads_bounds_how_differently_states_can_move():
    torch.manual_seed(3)
    leads = Leads(SHAPE, 1, weight=1.0, lipschitz=1.0).double()
    with torch.no_grad():
        for value in leads.environment.values():
            value.copy_(torch.randn_like(value))
    own = leads.own(dict(leads.environment.items()))
    first, second = states(200)[None, :100], states(200)[None, 100:]
    slope = ((rates(own, first) - rates(own, second)).norm(dim=-1) / (first - second).norm(dim=-1)).max()
    at_rest = leads.penalty(dict(leads.environment.items()), torch.full((1, 1, 3), 1e9, dtype=torch.float64))
    assert slope.square() < 1.2 * at_rest  # the slope of silu is at most 1.1


def test_spectral_norms_are_the_largest_singular_values_and_have_their_gradient():
    weight = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    found = spectral_norms(weight, iterations=400)
    torch.testing.assert_close(found, torch.linalg.svdvals(weight)[:, 0], rtol=1e-6, atol=0.0)
    (gradient,) = torch.autograd.grad(found.sum(), weight, retain_graph=True)
    (expected,) = torch.autograd.grad(torch.linalg.svdvals(weight)[:, 0].sum(), weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_geps_moves_every_layer_by_a_matrix_of_the_code_s_rank():
    geps = Geps(NetworkShape(6, 7, 2), 1, context_size=2).double()
    code, zero = torch.tensor([[0.4, -1.3]]).double(), torch.zeros(1, 2).double()
    moved, still = (geps.networks({"context": c})[0] for c in (code, zero))
    for index, ((weight, bias), (weight_0, bias_0)) in enumerate(zip(moved, still, strict=True)):
        A, B = geps.left[index], geps.right[index]
        torch.testing.assert_close(weight[0] - weight_0[0], A @ torch.diag(code[0]) @ B)
        torch.testing.assert_close(bias[0] - bias_0[0], code[0] @ geps.bias_of_code[index])
        assert torch.linalg.matrix_rank((weight - weight_0)[0].detach()) == 2


def test_mean_field_is_that_of_the_mean_context_or_of_the_mean_own_rates(network):
    given = states(5)
    expected = torch.stack([network.of(e)(torch.tensor(0.0), given) for e in range(ENVIRONMENTS)]).mean(0)
    if isinstance(network, Coda | Geps):
        context = network.environment["context"].mean(0, keepdim=True)
        expected = network.bind({"context": context})(torch.tensor(0.0), given)
    torch.testing.assert_close(network.mean()(torch.tensor(0.0), given), expected)


def test_skip_connection_starts_from_a_fitted_linear_field(network):
    made = type(network)(SHAPE, ENVIRONMENTS).double()
    matrix, bias = torch.randn(3, 3).double(), torch.randn(3).double()
    made.set_skip(matrix, bias)
    torch.testing.assert_close(made.of(1)(torch.tensor(0.0), states(5)), states(5) @ matrix.T + bias)
