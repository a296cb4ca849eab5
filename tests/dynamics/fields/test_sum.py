"""Vector fields: terms against their formulas, contexts, zero starts, structure, and terms of a user's own."""

import itertools
import math

import pytest
import torch
from torch import nn

import inrflow.dynamics.fields.base as base
from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.linear import ForcingTerm, LinearTerm
from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.sum import VectorField, build_term
from inrflow.errors import UserError
from inrflow.model.store_v1 import Products
from inrflow.numerics.phases import periodic_phases

EVERYTHING = {"products": 4, "width": 5, "depth": 1, "forcing_period": 4.0, "forcing_harmonics": 2}


def of(size, products=0, **sizes):
    """A field with a term of a class of its own, too."""
    field = VectorField.of(size, **sizes)
    if products:
        field.add(Products(size, products, field.context_size))
    return field


def filled(size, seed=0, **sizes):
    """A float64 field whose parameters, those that start at zero too, are random."""
    torch.manual_seed(seed)
    field = of(size, **sizes).double()
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.5)
    products = field.get(Products)
    if products is not None:
        for mine, pairs in zip((products.left, products.right), torch.triu_indices(size, size)[:, : products.count],
                               strict=True):
            mine.copy_(pairs)
    return field


def states(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_term_is_its_formula_and_they_add_up():
    field = filled(3, **EVERYTHING)
    s, t = states(3), 1.3
    A, b, forcing = field.linear.matrix.tolist(), field.linear.bias.tolist(), field.term(ForcingTerm).weight.tolist()
    products = field.term(Products)
    w = 2 * math.pi / 4.0
    phases = [math.cos(w * t), math.cos(2 * w * t), math.sin(w * t), math.sin(2 * w * t)]
    first, _, last = field.term(NetworkTerm).layers
    hidden = first.weight @ torch.cat([s, torch.tensor(phases, dtype=torch.float64)]) + first.bias
    network = (last.weight @ (hidden / (1 + torch.exp(-hidden))) + last.bias).tolist()
    expected = []
    for i in range(3):
        value = b[i] + sum(A[i][j] * s[j].item() for j in range(3)) + sum(forcing[i][k] * phases[k] for k in range(4))
        for k, (left, right) in enumerate(zip(products.left.tolist(), products.right.tolist(), strict=True)):
            value += float(products.weight[i, k].detach() * s[left] * s[right])
        expected.append(value + network[i])
    rate = field(torch.tensor(t, dtype=torch.float64), s)
    torch.testing.assert_close(rate, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [{}, EVERYTHING])
def test_batches_of_states_and_times_are_the_single_ones(sizes):
    field = filled(3, **sizes)
    s, t = states(4, 5, 3), torch.rand(4, 5, dtype=torch.float64)
    together = field(t, s)
    for i, j in itertools.product(range(4), range(5)):
        torch.testing.assert_close(together[i, j], field(t[i, j], s[i, j]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field(torch.tensor(0.3), s), field(torch.full((4, 5), 0.3), s), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [dict(zip(("linear", "products", "depth", "forcing_period"), chosen, strict=True))
                                   for chosen in itertools.product((True, False), (0, 2), (0, 2), (0.0, 3.0))])
def test_terms_can_be_left_out(sizes):
    field = of(3, width=4, **sizes)
    names = {"linear": sizes["linear"], "products": sizes["products"], "network": sizes["depth"],
             "forcing": sizes["forcing_period"]}
    assert set(field.terms) == {name for name, there in names.items() if there}
    assert field.is_linear == (not sizes["products"] and not sizes["depth"])
    assert field(torch.zeros(2), torch.randn(2, 3)).shape == (2, 3)
    if not sizes["linear"]:
        with pytest.raises(LookupError, match="no LinearTerm"):
            field.set_linear(torch.eye(3), torch.zeros(3))


def test_a_network_starts_at_zero_and_can_leave_it():
    torch.manual_seed(0)
    field = VectorField.of(3, depth=2, width=8, forcing_period=3.0)
    matrix, bias = torch.randn(3, 3), torch.randn(3)
    field.set_linear(matrix, bias)
    s = torch.randn(10, 3)
    rate = field(torch.linspace(0, 5, 10), s)
    torch.testing.assert_close(rate, s @ matrix.T + bias)
    rate.square().sum().backward()
    assert float(field.term(NetworkTerm).layers[-1].weight.grad.abs().max()) > 0


def test_forcing_has_the_declared_period_even_far_from_the_origin():
    field = filled(2, forcing_period=7.3, forcing_harmonics=3)
    t, s = torch.linspace(0, 7.3, 9, dtype=torch.float64)[:-1], states(8, 2)
    torch.testing.assert_close(field(t + 7.3, s), field(t, s), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field(t + 1e6 * 7.3, s), field(t, s), rtol=0, atol=1e-7)
    assert not torch.allclose(field(t + 7.3 / 2, s), field(t, s), atol=1e-2)


def test_a_float32_field_sees_phases_of_float64_times():
    field = filled(1, forcing_period=1.0, forcing_harmonics=1).float()
    t = 1e7 + torch.tensor([0.0, 0.25], dtype=torch.float64)  # float32 cannot tell these times apart
    cosine, sine = periodic_phases(t, 1.0, 1).T
    torch.testing.assert_close(torch.stack([cosine, sine]), torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
                               atol=1e-6, rtol=0)
    assert field(t, torch.zeros(2, 1)).dtype == torch.float32


def test_set_linear_keeps_the_forcing_unless_one_is_given():
    field = filled(2, forcing_period=1.0)
    forcing = field.term(ForcingTerm).weight
    before = forcing.detach().clone()
    field.set_linear(torch.eye(2), torch.ones(2))
    torch.testing.assert_close(forcing.detach(), before)
    field.set_linear(torch.eye(2), torch.ones(2), torch.full((2, 4), 3.0))
    assert bool((forcing == 3.0).all()) and bool((field.linear.matrix == torch.eye(2)).all())


# ---- contexts ----

WITH_CONTEXT = {"context_size": 2, **EVERYTHING}


def at_context(field, context):
    """The field without contexts that one with them is at a context: every term combined by hand."""
    plain = of(3, **EVERYTHING).double()
    state = {key: value.clone() for key, value in field.state_dict().items() if ".context_" not in key}
    for name in ("linear.matrix", "linear.bias", "forcing.weight", "products.weight"):
        term, parameter = name.split(".")
        for k, c in enumerate(context):
            state[f"terms.{name}"] += c * getattr(field.terms[term], f"context_{parameter}")[k].detach()
    for name in ("terms.network.layers.2.weight", "terms.network.layers.2.bias"):
        first, *others = state[name].split(3)
        state[name] = first + sum(c * other for c, other in zip(context, others, strict=True))
    plain.load_state_dict({**plain.state_dict(), **state})
    return plain


@pytest.mark.parametrize("context", [(0.0, 0.0), (0.7, -1.3)])
def test_every_term_is_affine_in_the_context_and_the_context_stays(context):
    field, s, t = filled(3, **WITH_CONTEXT), states(4, 3), torch.linspace(0, 3, 4).double()
    joined = torch.cat([s, torch.tensor(context, dtype=torch.float64).expand(4, 2)], 1)
    rate = field(t, joined)
    torch.testing.assert_close(rate[:, :3], at_context(field, context)(t, s), rtol=1e-12, atol=1e-12)
    assert bool((rate[:, 3:] == 0).all())
    matrix = field.matrix_at(torch.tensor(context, dtype=torch.float64))
    torch.testing.assert_close(matrix, at_context(field, context).linear.matrix.detach())


def test_a_field_with_a_context_is_linear_only_given_it():
    field = VectorField.of(3, context_size=1)
    assert field.is_linear_at_context and not field.is_linear
    assert not filled(3, **WITH_CONTEXT).is_linear_at_context


@pytest.mark.parametrize("sizes", [EVERYTHING, WITH_CONTEXT])
def test_the_jacobian_is_that_of_finite_differences(sizes):
    field = filled(3, **sizes)
    state, t, h = states(4, 3 + sizes.get("context_size", 0)), torch.rand(4).double(), 1e-6
    jacobian = field.jacobian(t, state)
    for j, shift in enumerate(h * torch.eye(state.shape[1]).double()):
        difference = (field(t, state + shift) - field(t, state - shift)).detach() / (2 * h)
        torch.testing.assert_close(jacobian[:, :, j], difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("name", ["linear", "forcing", "network", "products"])
def test_closed_jacobians_are_those_of_automatic_differentiation(name, with_context):
    term = filled(3, **(WITH_CONTEXT if with_context else EVERYTHING)).terms[name]
    z, c, t = states(4, 3), states(4, 2) if with_context else None, torch.rand(4).double()
    torch.testing.assert_close(term.jacobian(t, z, c), FieldTerm.jacobian(term, t, z, c), rtol=1e-12, atol=1e-12)


# ---- structure, and terms of a user's own ----


@pytest.mark.parametrize("sizes", [{}, EVERYTHING, WITH_CONTEXT, {"swish": True, "depth": 2, "linear": False}])
def test_a_field_is_made_again_from_its_structure_and_state(sizes):
    field = filled(3, **sizes)
    again = VectorField.from_structure(field.structure()).double()
    again.load_state_dict(field.state_dict())
    s, t = states(5, 3 + sizes.get("context_size", 0)), torch.rand(5).double()
    assert torch.equal(field(t, s), again(t, s)) and list(field.terms) == list(again.terms)


def own_term():
    class Damping(FieldTerm):
        """-r(c) |z|^2 z"""

        def __init__(self, state_size, context_size=0):
            super().__init__()
            self.state_size, self.context_size = state_size, context_size
            self.rate = nn.Parameter(torch.zeros(1 + context_size, state_size))

        def forward(self, t, z, c=None):
            rate = self.rate[0] if c is None else self.rate[0] + c @ self.rate[1:]
            return -rate * z.square().sum(-1, keepdim=True) * z

    return Damping


@pytest.mark.parametrize("contexts", [0, 2])
def test_a_term_of_a_users_own_adds_up_trains_and_is_made_again(registries, contexts):
    term = register_term("damping")(own_term())
    field = VectorField(3, [LinearTerm(3, contexts), term(3, contexts)], contexts).double()
    nn.init.normal_(field.terms["damping"].rate)
    s, t = states(4, 3 + contexts), torch.zeros(4).double()
    field(t, s).square().sum().backward()
    assert float(field.terms["damping"].rate.grad.abs().min()) > 0 and not field.is_linear
    for j, shift in enumerate(1e-6 * torch.eye(3 + contexts).double()):
        difference = (field(t, s + shift) - field(t, s - shift)).detach() / 2e-6
        torch.testing.assert_close(field.jacobian(t, s)[:, :, j], difference, rtol=0, atol=1e-7)
    again = VectorField.from_structure(field.structure()).double()
    again.load_state_dict(field.state_dict())
    assert torch.equal(field(t, s), again(t, s))
    structure = field.structure()
    base.TERMS.pop("damping")
    with pytest.raises(UserError, match="'damping', which is not registered; import the module that defines it"):
        VectorField.from_structure(structure)
    with pytest.raises(UserError, match="Damping is not registered"):
        field.structure()


def test_a_second_term_of_a_class_has_a_name_of_its_own():
    field = VectorField(3, [LinearTerm(3), NetworkTerm(3, 4, 1), NetworkTerm(3, 4, 2)])
    assert list(field.terms) == ["linear", "network", "network_2"]
    assert list(VectorField.from_structure(field.structure()).terms) == list(field.terms)


def test_two_classes_cannot_share_a_name_and_saved_arguments_must_fit(registries):
    with pytest.raises(ValueError, match="'linear' is registered by inrflow.dynamics.fields.linear.LinearTerm"):
        register_term("linear")(own_term())
    register_term("damping")(own_term())
    register_term("damping")(own_term())  # a cell that runs again
    with pytest.raises(UserError, match="'damping' does not fit its class Damping .*strength"):
        build_term({"term": "damping", "strength": 1})
