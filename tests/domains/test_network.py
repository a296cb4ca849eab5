"""Curves that branch and meet: harmonics of a star in closed form, and the curves that points lie along."""

import numpy as np
import pytest

from inrflow.domains import HELD, Network, domain_mismatch, domains_of, from_state
from inrflow.domains.network import network_from_points


def star(each: int, turns: tuple[float, ...] = (0.3, 2.4, 4.5), centre: bool = True) -> np.ndarray:
    """Points (N, 2) of branches of length 1 that meet at the origin, the first point if it is one."""
    s = (np.arange(each) + 1) / each
    arms = [np.outer(s, [np.cos(a), np.sin(a)]) for a in turns]
    return np.concatenate([np.zeros((int(centre), 2)), *arms])


def test_harmonics_of_a_star_are_those_in_closed_form():
    network = network_from_points(star(30))
    assert len(network.cells) == 90 and len(network.edge) == 3
    waves = np.sqrt(network.harmonics(7).eigenvalues) / np.pi
    np.testing.assert_allclose(waves, [0, 0.5, 0.5, 1, 1.5, 1.5, 2], atol=1e-5)
    held = np.sqrt(network.harmonics(4, HELD).eigenvalues) / np.pi
    np.testing.assert_allclose(held, [0.5, 1, 1, 1.5], atol=1e-5)



def test_many_harmonics_of_many_segments_keep_their_quadrature() -> None:
    line = np.linspace(0, 1, 1601)
    rule = Network(np.column_stack([line, 0 * line]), np.column_stack([np.arange(1600), np.arange(1, 1601)])
                   ).harmonics(260).quadrature()
    np.testing.assert_allclose((rule.values[:, :9].T * rule.weights) @ rule.values[:, :9], np.eye(9), atol=1e-9)


def test_harmonics_are_orthonormal_with_gradients_along_the_curves():
    harmonics = network_from_points(star(30)).harmonics(9)
    rule = harmonics.quadrature()
    np.testing.assert_allclose((rule.values.T * rule.weights) @ rule.values, np.eye(9), atol=1e-12)
    energy = (rule.gradients**2).sum(2).T @ rule.weights
    np.testing.assert_allclose(energy, harmonics.eigenvalues, atol=1e-9)
    out, x = star(1, centre=False), 0.51 * star(1, centre=False)
    ahead = (harmonics.values(x + 1e-6 * out) - harmonics.values(x - 1e-6 * out)) / 2e-6
    np.testing.assert_allclose(np.einsum("nkd,nd->nk", harmonics.gradients(x), out), ahead, atol=1e-6)


def test_a_ring_is_closed_wherever_its_points_lie():
    turn = np.sort(np.random.default_rng(1).uniform(0, 2 * np.pi, 150))
    ring = network_from_points(np.stack([np.cos(turn), np.sin(turn), 0.2 * np.sin(2 * turn)], 1))
    assert not ring.bounded and len(ring.cells) == 150 and ring.dimensions == 3


def test_points_that_fill_a_region_are_no_network():
    random = np.random.default_rng(0)
    grids = [np.stack(np.meshgrid(np.arange(50) * 0.02, np.arange(8) * gap), -1).reshape(-1, 2)
             for gap in (0.02, 0.06, 0.3)]
    for points in (random.random((400, 2)), random.random((300, 3)), random.random((60, 2)), *grids):
        assert network_from_points(points) is None


def test_domains_are_networks_of_points_along_curves_and_of_segments():
    (found,) = domains_of(star(30, centre=False))
    assert isinstance(found, Network)
    again = from_state(found.state())
    np.testing.assert_array_equal(again.cells, found.cells)
    assert domain_mismatch(found, star(40)) is None and "outside" in domain_mismatch(found, star(40, (0.0, 1.0)))
    (given,) = domains_of(star(1), cells=np.array([[0, 1], [0, 2], [0, 3]]))
    assert given.kind == "network" and given.measure == pytest.approx(3)
    np.testing.assert_allclose(given.distance(np.array([[0.0, 0.0], [30.0, 40.0]]))[1], 49, atol=1.5)
