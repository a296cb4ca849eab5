"""What every registered term of a vector field must do."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registered_terms import states, terms

import inrflow.dynamics.fields.sum  # noqa: F401  registers the engine's own terms
from inrflow.dynamics.fields.base import TERMS
from inrflow.dynamics.fields.sum import build_term, term_structure

every_term = pytest.mark.parametrize("name", sorted(TERMS))
random_trials = settings(max_examples=8, deadline=None, derandomize=True)


@every_term
@given(data=st.data())
@random_trials
def test_a_structure_in_json_and_the_weights_make_the_same_term(name, data):
    term, n, contexts = data.draw(terms(name))
    twin = build_term(json.loads(json.dumps(term_structure(term)))).double()
    twin.load_state_dict(term.state_dict())
    t, z, c = states(n, contexts, 4)
    assert type(twin) is type(term) and term_structure(twin) == term_structure(term)
    assert torch.equal(twin(t, z, c), term(t, z, c))


@every_term
@given(data=st.data())
@random_trials
def test_the_jacobian_is_that_of_finite_differences(name, data):
    term, n, contexts = data.draw(terms(name))
    t, z, c = states(n, contexts, 3)
    with torch.no_grad():
        jacobian = term.jacobian(t, z, c)
        assert jacobian.shape == (3, n, n)
        for j, shift in enumerate(1e-5 * torch.eye(n).double()):
            difference = (term(t, z + shift, c) - term(t, z - shift, c)) / 2e-5
            torch.testing.assert_close(jacobian[:, :, j], difference, rtol=0, atol=1e-7)


@every_term
@given(data=st.data(), share=st.floats(-2, 2))
@random_trials
@torch.no_grad()
def test_rates_are_affine_in_the_context(name, data, share):
    term, n, _ = data.draw(terms(name).filter(lambda drawn: drawn[2] > 0))
    (t, z, one), (_, _, other) = states(n, 2, 3), states(n, 2, 3, seed=2)
    between = share * term(t, z, one) + (1 - share) * term(t, z, other)
    torch.testing.assert_close(term(t, z, share * one + (1 - share) * other), between, rtol=1e-9, atol=1e-9)


@every_term
@given(data=st.data())
@random_trials
@torch.no_grad()
def test_rates_are_polynomials_of_the_stated_degree(name, data):
    term, n, contexts = data.draw(terms(name))
    t, z, c = states(n, contexts, 3)
    _, step, _ = states(n, contexts, 3, seed=2)
    values = [term(t, z + k * step, c) for k in range(4)]
    for _ in range(3 if term.degree is None else term.degree + 1):  # differences of this order vanish
        values = [after - before for before, after in zip(values, values[1:], strict=False)]
    size = max(float(value.abs().max()) for value in values)
    assert size > 1e-3 if term.degree is None else size < 1e-9
    if term.degree == 1:
        assert torch.equal(term(t, z, c), term(t + 1, z, c))


@every_term
@given(data=st.data())
@random_trials
@torch.no_grad()
def test_states_do_not_influence_one_another(name, data):
    term, n, contexts = data.draw(terms(name))
    t, z, c = states(n, contexts, 2, 3)
    whole = term(t, z, c)
    assert whole.shape == z.shape
    for s in range(2):
        for k in range(3):
            alone = term(t[s, k : k + 1], z[s, k : k + 1], None if c is None else c[s, k : k + 1])
            torch.testing.assert_close(whole[s, k], alone[0], rtol=1e-10, atol=1e-10)


@every_term
@given(data=st.data())
@random_trials
def test_gradients_reach_every_weight_that_is_trained_and_without_them_rates_are_the_same(name, data):
    term, n, contexts = data.draw(terms(name))
    t, z, c = states(n, contexts, 5)
    rates = term(t, z.requires_grad_(), c)
    with torch.no_grad():
        torch.testing.assert_close(term(t, z, c), rates, rtol=1e-10, atol=1e-10)
    rates.square().sum().backward()
    for parameter in term.parameters():
        if parameter.numel() and parameter.requires_grad:
            assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0
