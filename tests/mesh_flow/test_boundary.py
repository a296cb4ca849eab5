"""Conditions at the boundary of a mesh, read off what half of its nodes show."""

import numpy as np
import pytest
from meshes import rectangle

from inrflow.mesh_flow.boundary import boundary_conditions, loops, stretches
from inrflow.mesh_flow.elements import TaylorHood


def around_a_hole():
    """A channel with a square hole, of which some corners are cut."""
    x, triangles = rectangle(16, 10, (0.0, 0.0), (3.2, 1.0))
    middle = x[triangles].mean(1)
    keep = ~((np.abs(middle[:, 0] - 1.0) < 0.2) & (np.abs(middle[:, 1] - 0.5) < 0.2))
    used, triangles = np.unique(triangles[keep], return_inverse=True)
    return x[used], triangles.reshape(-1, 3)


def channel(x, t):
    """Steady inflow, walls, and an outflow that changes."""
    u = 4 * x[:, 1] * (1 - x[:, 1]) * np.ones((len(t), 1))
    moving = np.sin(t)[:, None] * x[:, 0] * x[:, 1] * (1 - x[:, 1])
    hole = (np.abs(x[:, 0] - 1.0) < 0.25) & (np.abs(x[:, 1] - 0.5) < 0.25)  # its nodes and no others
    return np.stack([u + moving, moving], axis=-1) * ~hole[None, :, None]


@pytest.mark.parametrize("seed", range(4))
def test_inflow_and_walls_are_found_and_the_outflow_is_left_free(seed):
    x, triangles = around_a_hole()
    elements = TaylorHood.of(x, triangles)
    observed = np.sort(np.random.default_rng(seed).permutation(len(x))[: len(x) // 2])
    found = boundary_conditions(elements, observed, channel(x, np.linspace(0, 6, 20))[:, observed])
    place = elements.nodes[found.nodes]
    ends = elements.edges[elements.boundary]
    boundary = np.union1d(ends, elements.vertices + np.flatnonzero(elements.boundary))
    leaves = (elements.nodes[boundary, 0] > 3.19) & (np.abs(elements.nodes[boundary, 1] - 0.5) < 0.49)
    np.testing.assert_array_equal(found.nodes, boundary[~leaves])
    inflow = np.where(place[:, 0] < 1e-9, 4 * place[:, 1] * (1 - place[:, 1]), 0.0)
    np.testing.assert_allclose(found.velocity, np.stack([inflow, 0 * inflow], axis=1), atol=1e-9)


def test_a_rectangle_has_four_stretches_and_a_circle_one():
    elements = TaylorHood.of(*rectangle(5, 4))
    (loop,) = loops(elements)
    assert sorted(len(s) for s in stretches(elements, loop)) == [5, 5, 6, 6]
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    wheel = TaylorHood.of(
        np.vstack([[[0, 0]], np.stack([np.cos(angle), np.sin(angle)], axis=1)]),
        np.stack([np.zeros(12, int), 1 + np.arange(12), 1 + (np.arange(12) + 1) % 12], axis=1),
    )
    (loop,) = loops(wheel)
    (rim,) = stretches(wheel, loop)
    assert rim[0] == rim[-1] and sorted(rim[1:]) == list(range(1, 13))
