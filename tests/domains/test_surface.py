"""Tests of curved surfaces against the unit sphere, whose eigenvalues and areas are known, and a flat square."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay

from inrflow.domains import Surface, domain_mismatch, domains_of, from_state
from inrflow.errors import UserError


def ball(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) all over the unit sphere, and triangles between them."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), np.pi * (1 + 5**0.5) * i
    x = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)
    return x, ConvexHull(x).simplices


def test_harmonics_of_a_ball_are_those_of_the_sphere() -> None:
    x, cells = ball()
    surface = Surface(x, cells)
    assert not surface.bounded and surface.measure == pytest.approx(4 * np.pi, rel=5e-4)
    harmonics = surface.harmonics(36)
    degree = np.repeat(np.arange(6), 2 * np.arange(6) + 1)
    np.testing.assert_allclose(harmonics.eigenvalues[1:], (degree * (degree + 1))[1:], rtol=2e-3)
    rule = harmonics.quadrature()
    np.testing.assert_allclose((rule.values * rule.weights[:, None]).T @ rule.values, np.eye(36), atol=1e-10)
    slopes = np.einsum("q,qkd,qjd->kj", rule.weights, rule.gradients, rule.gradients)
    np.testing.assert_allclose(slopes, np.diag(harmonics.eigenvalues), atol=1e-8)


def test_fewer_points_project_products_of_many_harmonics_as_accurately() -> None:
    surface = Surface(*ball())
    harmonics = surface.harmonics(160)
    few = harmonics.quadrature()
    exact = surface.harmonics(400).quadrature()  # too many for few points
    assert len(few.points) == len(exact.points) / 2 == 3 * len(surface.cells)
    found = [(rule.values[:, :160] * rule.weights[:, None]).T @ (rule.points[:, 2] * rule.points[:, 0] ** 2)
             for rule in (few, exact)]
    assert np.linalg.norm(found[0] - found[1]) < 1e-3 * np.linalg.norm(found[1])


def test_values_and_gradients_at_points_are_those_of_a_linear_function() -> None:
    surface = Surface(*ball())
    harmonics, rule = surface.harmonics(64), surface.harmonics(64).quadrature()
    codes = (rule.values * rule.weights[:, None]).T @ rule.points[:, 2]
    x = ball(90)[0]
    np.testing.assert_allclose(harmonics.values(x) @ codes, x[:, 2], atol=3e-3)
    tangential = np.array([0, 0, 1]) - x[:, 2:] * x
    np.testing.assert_allclose(np.einsum("nkd,k->nd", harmonics.gradients(x), codes), tangential, atol=0.1)
    assert surface.inside(x).all() and not surface.inside(1.3 * x).any()


def test_a_flat_square_has_edges_and_products_of_sines() -> None:
    grid = np.linspace(0, 1, 13)
    flat = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    square = Surface(np.column_stack([flat, 0 * flat[:, 0]]), Delaunay(flat).simplices)
    assert square.bounded and square.measure == pytest.approx(1.0)
    np.testing.assert_allclose(square.harmonics(4, "held").eigenvalues / np.pi**2, [2, 5, 5, 8], rtol=2e-3)
    np.testing.assert_allclose(square.harmonics(4).eigenvalues / np.pi**2, [0, 1, 1, 2], atol=1e-3)


def test_surfaces_are_inferred_saved_and_told_apart() -> None:
    x, cells = ball(200)
    surface, = domains_of(x, cells=cells)
    again = from_state(surface.state())
    np.testing.assert_array_equal(again.harmonics(9).eigenvalues, surface.harmonics(9).eigenvalues)
    assert domain_mismatch(surface, x, cells=cells) is None
    assert "outside" in str(domain_mismatch(surface, x * [1.5, 1, 1], cells=cells))
    with pytest.raises(UserError, match="expected"):
        Surface(x[:, :2], cells)
    with pytest.raises(UserError, match="nodes reach to"):
        Surface(x[:50], cells)
