"""Stokes modes against published eigenvalues, integrals and closed forms."""

import numpy as np
import pytest

from inrflow.domains import Flows, Region, flows_of, from_state
from inrflow.domains.infer import _divergence
from inrflow.domains.triangulation import grid_mesh


@pytest.fixture(scope="module")
def square() -> Flows:
    axis = np.linspace(0, 1, 13)
    return Flows(*grid_mesh(axis, axis), np.array([2.0, 1.0]))


def test_the_lowest_stokes_eigenvalues_of_the_unit_square(square: Flows) -> None:
    # Leriche & Labrosse, J. Comput. Phys. 200 (2004): 13.0862 and twice 23.0311 on (-1, 1)^2
    np.testing.assert_allclose(square.harmonics(6).eigenvalues[:3] / 4, [13.0862, 23.0311, 23.0311], rtol=3e-3)


def test_modes_are_orthonormal_and_without_divergence(square: Flows) -> None:
    rule = square.harmonics(20).quadrature()
    values, gradients = rule.values.reshape(2, -1, 20), rule.gradients.reshape(2, -1, 20, 2)
    np.testing.assert_allclose(np.einsum("cqk,cqj,q->kj", values, values, rule.weights), np.eye(20), atol=1e-9)
    divergence, vorticity = gradients[0, ..., 0] + gradients[1, ..., 1], gradients[1, ..., 0] - gradients[0, ..., 1]
    assert (rule.weights @ divergence**2 < 1e-2 * (rule.weights @ vorticity**2)).all()


def test_components_are_divided_by_the_scale_and_vanish_on_walls(square: Flows) -> None:
    x = np.array([[0.3, 0.4], [0.0, 0.5], [0.7, 1.0]])
    ones = Flows(square.region.nodes, square.region.cells, np.ones(2)).harmonics(8).values(x).reshape(3, 2, 8)
    values = square.harmonics(8).values(x).reshape(3, 2, 8)
    np.testing.assert_allclose(values * np.array([[2.0], [1.0]]), ones, atol=1e-9)
    assert np.abs(values[1:]).max() < 1e-9 < np.abs(values[0]).max()


def test_steady_modes_are_what_moves_at_the_boundary(square: Flows) -> None:
    """Modes and a shear flow (y, 0) of an amplitude of each trajectory's own."""
    axis = np.linspace(0, 1, 21)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    generator = np.random.default_rng(0)
    shear = np.stack([x[:, 1], 0 * x[:, 1]], 1) / square.scale
    table, amplitude = square.harmonics(12).values(x), generator.uniform(1, 2, 9)
    u = (0.1 * generator.standard_normal((9, 5, 12)) @ table.T).reshape(9, 5, -1, 2)
    flows = square.with_steady(x, u + amplitude[:, None, None, None] * shear)
    assert flows is not None and flows.steady.shape[0] == 1
    again = from_state(flows.state()).harmonics(20)
    assert (again.count, again.steady) == (20, 1)
    values = again.values(x)
    assert np.abs(np.linalg.lstsq(values, shear.ravel(), rcond=None)[0] @ values.T - shear.ravel()).max() < 1e-3
    assert square.with_steady(x, generator.standard_normal(u.shape)) is None


def test_slippery_walls_have_eigenvalues_in_closed_form_and_are_found_in_data(square: Flows) -> None:
    """Stream functions sin(k pi x) sin(l pi y), of pi^2 (k^2 + l^2), whose flows slip along the walls."""
    nodes, cells = square.region.nodes, square.region.cells
    amplitudes = np.random.default_rng(0).standard_normal((3, 4, 2))
    x, y = np.pi * nodes.T
    each = np.stack([np.stack([m * np.sin(k * x) * np.cos(m * y), -k * np.cos(k * x) * np.sin(m * y)], 1)
                     for k, m in ((1, 1), (2, 1))])
    each[np.abs(each) < 1e-12] = 0.0
    (found,) = flows_of([Region(nodes, cells)], nodes, np.einsum("stk,knc->stnc", amplitudes, each), np.ones(2))
    assert found.held is not None and found.held.shape[0] == 2 and not len(found.steady)
    np.testing.assert_allclose(found.harmonics(6).eigenvalues[:3] / np.pi**2, [2, 5, 5], rtol=3e-3)
    again = from_state(found.state()).harmonics(6)
    np.testing.assert_allclose(again.coefficients, found.harmonics(6).coefficients)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_channels_are_flows_where_their_divergence_is_less_than_that_of_any_two(noise: float) -> None:
    """Swirls of a stream function at scattered points around a hole, and their components turned by a quarter."""
    rng = np.random.default_rng(0)
    x = rng.random((3000, 2))
    x = x[np.linalg.norm(x - 0.5, axis=1) > 0.2]
    k, phase = rng.uniform(3, 12, (2, 60)) * rng.choice([-1, 1], (2, 60)), rng.uniform(0, 2 * np.pi, 60)
    waves = np.cos(x @ k + phase) @ (rng.standard_normal((4, 5, 60, 1)) * np.stack([k[1], -k[0]], -1))
    u = waves + noise * waves.std() * rng.standard_normal(waves.shape)
    assert _divergence(x, u) < 0.9 and _divergence(x, u[..., ::-1] * [1, -1]) > 1.1  # a gradient
    others = np.cos(x @ rng.uniform(-12, 12, (2, 60)) + phase) @ rng.standard_normal((4, 5, 60, 2))
    assert _divergence(x, others) == pytest.approx(1, abs=0.05)
    assert _divergence(x, 0 * u + x[:, 1:] * [1, 0]) < 1e-9  # a shear flow
    assert not flows_of([Region(*grid_mesh(*[np.linspace(0, 1, 9)] * 2))], x, others, np.ones(2))


def test_outlets_are_where_velocities_change(square: Flows) -> None:
    """A stream function x^2 (y - y^2)^2 cos(t), which is at rest on three sides, beside an inflow y - y^2."""
    nodes, cells = square.region.nodes, square.region.cells
    (x, y), wall = nodes.T, nodes[:, 1] - nodes[:, 1] ** 2
    driven = np.stack([x**2 * 2 * wall * (1 - 2 * y), -2 * x * wall**2], 1)
    inflow, swing = np.stack([wall, 0 * x], 1), np.random.default_rng(0).standard_normal((4, 5, 1, 1))
    u = np.array([1, 2, 3, 1.5])[:, None, None, None] * inflow + 3 * swing * driven
    (found,) = flows_of([Region(nodes, cells)], nodes, u, np.ones(2))
    mesh = found.region.basis.mesh
    assert found.held is not None and len(found.steady) == 1
    for own in found.held:
        middles = mesh.p[:, mesh.facets[:, np.setdiff1d(mesh.boundary_facets(), own)]].mean(1)
        np.testing.assert_allclose(middles[0], 1)
        assert middles.shape[1] == 12
    values = found.harmonics(80).values(nodes)
    for field in (inflow, driven):
        left = np.linalg.lstsq(values, field.ravel(), rcond=None)[0] @ values.T - field.ravel()
        assert (left**2).mean() < 1e-4 * (field**2).mean()
    between = (np.arange(12) + 0.5) / 12  # nodes, where parabolas are not told
    at = found.harmonics(80).values(np.stack([0 * between, between], 1)).reshape(12, 2, -1)[..., -1]
    np.testing.assert_allclose(at[:, 0] / at[5, 0], (between - between**2) / (between[5] - between[5] ** 2), rtol=1e-2)
