"""Equations of several physics joined: what contexts span, what each keeps and needs, the sizes of terms."""

import json
import math

import torch
from local_systems import basis_of

from inrflow.dynamics.contexts.shared_dynamics import (
    SharedEquation,
    SharedOperators,
    from_record,
    term_sizes,
    to_record,
)
from inrflow.dynamics.fields.pde_terms import Factor
from inrflow.dynamics.fields.quadratic import Couplings
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.libraries.pde import LocalEquation

U, V, U_X, U_XX = Factor(0), Factor(1), Factor(0, (0,)), Factor(0, (0, 0))


def equations() -> list[LocalEquation]:
    """Heat, Burgers with a negligible term, and a reaction of two channels."""
    two = torch.zeros(3, 2, dtype=torch.float64)
    two[0], two[1, 0], two[2, 1] = torch.tensor([0.1, 0.2]), -1.0, 3.0
    return [
        LocalEquation(((U_XX,),), torch.tensor([[0.5]]).double()),
        LocalEquation(((U_XX,), (U, U_X), ()), torch.tensor([[0.02], [-1.0], [1e-6]]).double()),
        LocalEquation(((U_XX,), (U, V, V), (V,)), two),
    ]


def shared(context_size: int | None = None) -> SharedEquation:
    own = equations()
    return SharedEquation.of(own, [torch.ones(len(one.terms)).double() for one in own], context_size)


def test_one_context_less_than_physics_spans_them_exactly_each_with_its_own_terms():
    family = shared()
    assert family.weights.shape == (3, 5, 2) and max(family.lost) < 1e-20
    for index, one in enumerate(equations()):
        again = family.equation(index, one.weights.shape[-1], None)
        assert again.terms == one.terms
        torch.testing.assert_close(again.weights, one.weights, rtol=1e-9, atol=1e-14)


def test_fewer_contexts_lose_something_and_say_how_much():
    assert max(shared(1).lost) > 1e-3
    mean = shared(0)
    assert mean.contexts.shape == (3, 0)
    share = (0.5 - (0.5 + 0.02 + 0.1) / 3) ** 2 / 0.5**2
    assert abs(mean.lost[0] - share) < 1e-6


def test_terms_that_do_next_to_nothing_are_not_needed():
    family = shared()
    assert family.needed_terms(1) == ((U_XX,), (U, U_X))
    assert family.needed_terms(2) == ((U_XX,), (U, V, V), (V,))


def test_it_is_stored_as_tensors_and_plain_values():
    family = shared()
    again = SharedEquation.rebuilt(family.state(), json.loads(json.dumps(family.metadata())))
    assert again.terms == family.terms and again.lost == family.lost
    torch.testing.assert_close(again.equation(2, 2, None).weights, equations()[2].weights, rtol=1e-9, atol=1e-14)


def test_a_record_of_an_equation_is_plain_and_exact():
    basis = basis_of(1, (1.0,), 2, shift=0.3)
    one = LocalEquation(((U_XX,), ()), torch.tensor([[1 / 3], [0.1]]).double(), torch.randn(basis.code_size).double())
    again, shift = from_record(json.loads(json.dumps(to_record(one, basis))))
    assert again.terms == one.terms and torch.equal(again.weights, one.weights) and torch.equal(shift, basis.shift)
    assert again.force is not None and torch.equal(again.force, one.force)


def test_sizes_are_root_mean_squares_over_the_domain():
    basis = basis_of(1, (2 * math.pi,), 3)
    x = 2 * math.pi * torch.arange(basis.points, dtype=torch.float64) / basis.points
    code = basis.project(basis.spectrum(torch.cos(2 * x)[None, None]))[0]
    nothing = torch.zeros(basis.code_size, basis.code_size, dtype=torch.float64)
    sizes = term_sizes(basis, [(), (U,), (U_XX,)], code, nothing)
    torch.testing.assert_close(sizes, torch.tensor([1.0, 0.5**0.5, 4 * 0.5**0.5]).double(), rtol=1e-6, atol=1e-6)


def quadratic(size: int, couplings: int, seed: int) -> VectorField:
    random = torch.Generator().manual_seed(seed)
    field = VectorField.of(size, couplings=couplings).double()
    field.set_linear(*(torch.randn(*shape, generator=random).double() for shape in ((size, size), (size,))))
    slots = torch.arange(couplings) % size
    triples = torch.stack([slots, torch.zeros(couplings).long(), slots])
    field.term(Couplings).set(triples, torch.randn(couplings, generator=random).double())
    return field


def test_quadratic_fields_of_different_codes_are_spanned_exactly_by_one_context_less() -> None:
    fields, names = [quadratic(3, 3, 0), quadratic(2, 2, 1)], [["a", "b", "c"], ["c", "d"]]
    variances = [torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.2, 2.0])]
    family = SharedOperators.of(names, fields, variances)
    assert family.codes == ["a", "b", "c", "d"] and family.contexts.shape == (2, 1) and max(family.lost) < 1e-20
    family = SharedOperators.rebuilt(family.state(), json.loads(json.dumps(family.metadata())))
    now = torch.zeros(5).double()
    for index, (field, own) in enumerate(zip(fields, names, strict=True)):
        states = torch.randn(5, len(own), generator=torch.Generator().manual_seed(2)).double()
        torch.testing.assert_close(family.own_field(index, own)(now, states), field(now, states))
    assert min(SharedOperators.of(names, fields, variances, 0).lost) > 0.1
