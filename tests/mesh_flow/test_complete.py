"""A nudged flow against exact solutions of the Navier-Stokes equations."""

import numpy as np
import pytest
from meshes import REYNOLDS, kovasznay, rectangle

from inrflow.mesh_flow.boundary import Boundary
from inrflow.mesh_flow.complete import ObservedFlow, complete, find_model
from inrflow.mesh_flow.elements import TaylorHood
from inrflow.mesh_flow.nudging import NudgedFlow


def half_of(elements, seed=0):
    return np.sort(np.random.default_rng(seed).permutation(elements.vertices)[: elements.vertices // 2])


def edge_of(elements):
    return np.union1d(elements.edges[elements.boundary], elements.vertices + np.flatnonzero(elements.boundary))


@pytest.fixture(scope="module")
def steady():
    """Elements, and observations at their boundary and half of the vertices, in other units of pressure."""
    elements = TaylorHood.of(*rectangle())
    nodes = np.union1d(half_of(elements), elements.edges[elements.boundary])
    u = np.repeat(kovasznay(elements.nodes[nodes])[None], 12, axis=0)
    return elements, ObservedFlow(np.linspace(0, 1.1, 12), nodes, u[..., :2], 3 * u[..., 2] + 5)


def test_the_viscosity_is_found_and_the_flow_is_known_where_nobody_looked(steady):
    elements, observed = steady
    model = find_model(elements, observed, seed=0)
    assert model.viscosity == pytest.approx(1 / REYNOLDS, rel=0.2)
    assert model.missed.mean() < 0.1 * model.interpolated.mean()
    values, true = complete(elements, observed, model), kovasznay(elements.nodes)
    true[:, 2] = 3 * true[:, 2] + 5
    np.testing.assert_array_equal(values[:, observed.nodes], observed.values)
    unseen = np.setdiff1d(np.arange(elements.vertices), observed.nodes)
    error = np.square(values[-1] - true)[unseen].mean(0) / true[unseen].var(0)
    assert (error < [1e-3, 1e-3, 1e-2]).all()


def test_without_observations_a_decaying_vortex_decays_as_it_must():
    """Taylor and Green's vortices, the velocity at the edge of their box held: inside, where that has had no time to
    matter, against the exact solution."""
    elements = TaylorHood.of(*rectangle(16, 16, (0.0, 0.0), (1.0, 1.0)))
    x, y = (2 * np.pi * elements.nodes).T
    vortex = np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)], axis=1)
    everywhere = np.arange(0, elements.vertices, 7)
    edge = edge_of(elements)
    none = NudgedFlow(elements, Boundary(edge, vortex[edge]), everywhere, strength=0.0)
    t, viscosity = np.linspace(0, 0.02, 3), 0.05
    path = none.follow(t, np.ones((3, len(everywhere), 2)), vortex, viscosity)
    inside = (np.abs(elements.nodes - 0.5) < 0.3).all(1)
    decay = np.exp(-8 * np.pi**2 * viscosity * t[-1])
    np.testing.assert_allclose(path.velocity[-1][inside], decay * vortex[inside], atol=0.01)
    assert decay < 0.93


def test_a_wrong_start_is_forgotten(steady):
    elements, observed = steady
    true = kovasznay(elements.nodes)[:, :2]
    edge = edge_of(elements)
    flow = NudgedFlow(elements, Boundary(edge, true[edge]), observed.nodes)
    path = flow.follow(observed.t, observed.velocity, np.zeros_like(true), 1 / REYNOLDS)
    error = np.square(path.velocity - true).mean((1, 2)) / true.var()
    assert error[-1] < 1e-3 < 0.1 < error[0]


def test_too_few_nodes_or_an_unstable_flow_give_nothing(steady):
    elements, observed = steady
    few = observed.at(np.arange(6))
    assert find_model(elements, few, seed=0) is None
    flow = NudgedFlow(elements, Boundary(np.empty(0, int), np.empty((0, 2))), observed.nodes)
    wild = 1e3 * np.random.default_rng(0).normal(size=(len(elements.nodes), 2))
    assert flow.follow(observed.t, observed.velocity, wild, 1e-9) is None
