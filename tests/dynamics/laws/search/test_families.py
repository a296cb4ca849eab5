"""Families of terms: the projected transport of a velocity without divergence, where the data are one."""

import pytest
import torch

from inrflow.domains import Box
from inrflow.dynamics.laws.field import LawField, Library
from inrflow.dynamics.laws.search.families import families_of
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.dynamics.laws.transform import DenseTransform, SeparableTransform

CUBE = Box([0.0, 0.0, 0.0], [6.0, 5.0, 4.0], ["periodic"] * 3)
UNITS = (1.0, 1.3, 0.7)
TRANSPORT = [Term.transport(j, UNITS) for j in range(3)]


@pytest.mark.parametrize("domain", [CUBE, Box([0.0, 0.0], [1.0, 2.0], ["walled", "periodic"])])
def test_sums_along_one_axis_at_a_time_are_those_over_all_points(domain: Box) -> None:
    harmonics = domain.harmonics(40)
    dense, separable = DenseTransform(harmonics, 2), SeparableTransform(harmonics, 2)
    codes = torch.randn(3, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for axis in range(-1, domain.dimensions):
        fields = dense.fields(codes, axis)
        torch.testing.assert_close(separable.fields(codes, axis), fields)
        torch.testing.assert_close(separable.project(fields, axis), dense.project(fields, axis))
        if axis >= 0:
            torch.testing.assert_close(separable.derivative(axis), dense.derivative(axis))


def test_transport_of_flows_is_sought_where_velocities_have_no_divergence_in_the_units_of_their_channels() -> None:
    harmonics = CUBE.harmonics(60)
    z = torch.randn(2, 3, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = LawField(Library(TRANSPORT, harmonics), -torch.eye(3, dtype=torch.float64))
    projected = field(0.0, z.flatten(1)).reshape(z.shape)
    assert set(TRANSPORT) <= set(families_of(CUBE, harmonics, projected[None].numpy(), UNITS).every)
    for states, units in ((z, UNITS), (projected, None)):
        assert not any(term.solenoidal for term in families_of(CUBE, harmonics, states[None].numpy(), units).every)


def test_jacobian_of_the_projected_transport_agrees_with_differences() -> None:
    terms = [TRANSPORT[0], Term((((0, VALUE),),), 1)]
    theta = [[0.5, 0.7, 0.9], [1.1, 1.3, 1.5]]
    count = CUBE.harmonics(20).count
    field = LawTerm(CUBE.state(), "natural", count, [term.state() for term in terms], theta)
    z, v = torch.randn(2, 2, 3 * count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.zeros(2, dtype=torch.float64)
    slope = (field(t, z + 1e-6 * v) - field(t, z - 1e-6 * v)) / 2e-6
    torch.testing.assert_close((field.jacobian(t, z) @ v[..., None])[..., 0], slope, rtol=1e-5, atol=1e-6)


def test_transport_saved_before_velocities_had_units_is_read() -> None:
    term = Term.transport(1, (1.0, 1.0))
    assert Term.from_state({**term.state(), "signs": []}) == term
