"""Taylor-Hood elements against integrals done by hand: polynomials of second order are exact."""

import numpy as np
import pytest
from meshes import rectangle

from inrflow.mesh_flow.elements import TaylorHood


@pytest.fixture(scope="module")
def elements():
    return TaylorHood.of(*rectangle(5, 4, (0.0, 0.0), (2.0, 1.0)))


def test_integrals_of_products_and_slopes(elements):
    x, y = elements.nodes.T
    ones = np.ones_like(x)
    assert ones @ elements.mass @ ones == pytest.approx(2)
    assert (x * y) @ elements.mass @ (x**2) == pytest.approx(4 * 0.5)  # of x^3 y
    assert (x**2 + y) @ elements.stiffness @ (x * y) == pytest.approx(2 * 2 * 0.5 + 2)  # of 2 x y + x
    assert elements.lumped.sum() == pytest.approx(2) and elements.area.sum() == pytest.approx(2)
    assert (elements.area > 0).all()


def test_divergence_weighted_by_a_pressure(elements):
    x, y = elements.nodes.T
    pressure = elements.nodes[: elements.vertices, 0]
    dx, dy = elements.divergence
    assert pressure @ (dx @ (x * y) + dy @ (y**2)) == pytest.approx(2 * 0.5 + 2 * 2 * 0.5)  # of x (y + 2 y)


def test_convection_is_what_the_velocity_carries(elements):
    x, y = elements.nodes.T
    velocity = np.stack([x**2 - y, x * y], axis=1)
    # (u . grad) u = ((x^2 - y) 2 x - x y, (x^2 - y) y + x^2 y), integrated over [0, 2] x [0, 1]
    expected = [2 * 4 - 2 * 2 * 0.5 - 2 * 0.5, 8 / 3 * 0.5 - 2 / 3 + 8 / 3 * 0.5]
    np.testing.assert_allclose(elements.convection(velocity).sum(0), expected, rtol=1e-12)


def test_values_at_vertices_go_on_linearly(elements):
    plane = elements.nodes @ [2.0, -1.0] + 3
    np.testing.assert_allclose(elements.interpolated_to_nodes(plane[: elements.vertices]), plane)


def test_what_is_no_mesh_is_refused():
    x, triangles = rectangle(2, 2)
    with pytest.raises(ValueError, match="no triangle"):
        TaylorHood.of(np.vstack([x, [[9, 9]]]), triangles)
    with pytest.raises(ValueError, match="no area"):
        TaylorHood.of(x, np.vstack([triangles, [[0, 1, 2]]]))
    with pytest.raises(ValueError, match="more than two"):
        TaylorHood.of(x, np.vstack([triangles, triangles[:2]]))
    with pytest.raises(ValueError, match="triples"):
        TaylorHood.of(x, triangles + 1)
