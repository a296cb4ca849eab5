"""Pressures of flows on Taylor-Hood elements against closed forms."""

import numpy as np

from inrflow.domains import Flows, Region, from_state
from inrflow.domains.flows import Pressure
from inrflow.domains.triangulation import grid_mesh

_AXIS = np.linspace(0, 1, 13)
_X = np.random.default_rng(0).random((30, 2))


def test_a_force_that_is_a_gradient_is_balanced_by_its_potential() -> None:
    """du/dt = -grad q - grad p vanishes with p = -q, q = cos pi x cos pi y."""
    harmonics = Flows(*grid_mesh(_AXIS, _AXIS), np.ones(2)).with_pressure(Pressure(2, 2.0, level=True)).harmonics(95)
    assert (harmonics.count, harmonics.free, harmonics.steady, harmonics.components) == (95, 30, 1, 3)
    rule = harmonics.quadrature()
    (a, b), weights = np.pi * rule.points.T, np.tile(rule.weights, 2)
    force = -np.pi * np.concatenate([np.sin(a) * np.cos(b), np.cos(a) * np.sin(b)])
    codes = harmonics.tests_at_gauss_points().T @ (weights * force)
    own = harmonics.values(_X).reshape(30, 3, -1)[:, :, 30:94]
    (a, b) = np.pi * _X.T
    np.testing.assert_allclose(2 * own[:, 2] @ codes, -np.cos(a) * np.cos(b), atol=1e-2)
    assert not own[:, :2].any()


def test_a_steady_channel_flow_has_a_pressure_that_falls_to_zero_at_its_outlet() -> None:
    """u = 4 y (1 - y) in a channel of length 2: p = 8 nu (2 - x), exact on these elements."""
    nodes, cells = grid_mesh(np.linspace(0, 2, 9), np.linspace(0, 1, 5))
    region = Region(nodes, cells, 2)
    mesh, (x, y) = region.basis.mesh, region.basis.doflocs
    facets = mesh.boundary_facets()
    closed = mesh.p[0, mesh.facets[:, facets]].mean(0) < 2 - 1e-9
    inflow = np.stack([4 * y * (1 - y), 0 * x])[None]
    flows = Flows(nodes, cells, np.ones(2), inflow, np.where(closed, [facets] * 2, -1))
    harmonics = from_state(flows.with_pressure(Pressure(0, 1.0, 0.1, 12)).state()).harmonics(30)
    values = harmonics.values(_X).reshape(30, 3, -1)[..., -1]
    np.testing.assert_allclose(values, np.stack([0.8 * (2 - _X[:, 0]), 4 * _X[:, 1] * (1 - _X[:, 1]), 0 * _X[:, 0]], 1),
                               atol=1e-9)


def test_pressures_that_are_fixed_at_a_point_are_zero_there() -> None:
    """The pressure of the force (y, 0), and those of modes, differ by constants from those with a mean of zero."""
    flows, at = Flows(*grid_mesh(_AXIS, _AXIS), np.ones(2)), np.array([[0.25, 0.5]])
    found = []
    for zero in ((), at[0]):
        harmonics = flows.with_pressure(Pressure(2, 1.0, modes=120, zero=zero, level=not len(zero))).harmonics(141)
        rule = harmonics.quadrature()
        force = np.concatenate([rule.weights * rule.points[:, 1], 0 * rule.weights])
        codes = harmonics.tests_at_gauss_points().T @ force
        values = harmonics.values(np.concatenate([at, _X])).reshape(31, 3, -1)[:, 2]
        found.append(np.concatenate([values[:, 20 : 20 + len(codes)] @ codes[:, None], values[:, :20]], 1))
    size = np.abs(found[0]).max(0)
    assert np.abs(found[1][0]).max() < 1e-2 * size[0]
    np.testing.assert_allclose(found[1] / size, (found[0] - found[0][:1]) / size, atol=2e-2)
