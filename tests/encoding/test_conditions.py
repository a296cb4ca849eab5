"""Conditions at walls, told by scattered points whose values have noise."""

import numpy as np
import pytest

from inrflow.domains import Box, Region
from inrflow.domains.triangulation import grid_mesh
from inrflow.encoding.conditions import conditions, steady

WAVES = np.array([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)])


def _moving(functions: np.ndarray) -> np.ndarray:
    """Fields (24, 7, N) of functions (K, N) whose weights are random."""
    return np.einsum("stk,kn->stn", np.random.default_rng(1).standard_normal((24, 7, len(functions))), functions)


def _noisy(u: np.ndarray, noise: float) -> np.ndarray:
    return (u + noise * u.std() * np.random.default_rng(2).standard_normal(u.shape))[..., None]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_a_wall_that_holds_values_is_told_where_noise_makes_most_of_all_errors(noise: float) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (200, 2))
    k = np.arange(1, 5)[:, None]
    u = _moving(np.sin(np.pi * (k - 0.5) * x[:, 0]) * np.cos(np.pi * (k % 3) * x[:, 1])) + 1 + x[:, 0]
    found = conditions(Box([0, 0], [1, 1], ["walled", "walled"]), np.broadcast_to(x, (24, *x.shape)),
                       _noisy(u, noise), 0)
    assert found == "steady-natural/natural"


@pytest.mark.parametrize(("value", "held", "kind"), [(2.0, True, "steady"), (0.0, True, "held"), (2.0, False, None)])
def test_a_value_that_the_boundary_of_a_region_keeps_is_told_by_points_within(value: float, held: bool, kind: str | None
                                                                             ) -> None:
    region, x = Region(*grid_mesh(*[np.linspace(0, 1, 9)] * 2)), np.random.default_rng(0).uniform(0.02, 0.98, (250, 2))
    u = value + _moving(np.prod((np.sin if held else np.cos)(np.pi * WAVES[:, None] * x), -1))
    found = steady(region, "natural", 40, np.broadcast_to(x, (24, *x.shape)), _noisy(u, 0.05), 0)
    if kind is None or found is None:
        assert found is kind
        return
    region, name = found
    assert name == kind
    harmonics = region.harmonics(60, name)
    carried = harmonics.values(x)[:, harmonics.count - harmonics.steady :]
    np.testing.assert_allclose(carried, 1 if kind == "steady" else np.zeros((250, 0)), atol=1e-6)


def test_parts_of_a_boundary_that_hold_a_channel_are_told_apart() -> None:
    """Held along the outer square, without flux through the hole; the other channel is held nowhere."""
    nodes, cells = grid_mesh(*[np.linspace(0, 1, 13)] * 2)
    cells = cells[np.abs(nodes[cells].mean(1) - 0.5).max(1) > 1 / 6]
    region = Region(nodes, cells)
    x = np.random.default_rng(0).uniform(0.01, 0.99, (400, 2))
    x = x[np.abs(x - 0.5).max(1) > 0.17]
    u = np.stack([_moving(region.harmonics(10, name).values(x).T) for name in ("leaky inf/0", "natural")], -1)
    found = steady(region, "natural", 40, np.broadcast_to(x, (24, *x.shape)), u, 0)
    assert found is not None and found[1] == "leaky inf/0, natural"


@pytest.mark.parametrize("flow", [True, False])
def test_components_across_walls_along_which_a_flow_does_not_slip_have_no_slope_there(flow: bool) -> None:
    """By continuity; other channels that vanish with their slopes, as those of a clamped plate, tell nothing."""
    x, k = np.random.default_rng(0).uniform(0, 1, (300, 2)), np.pi * np.arange(1, 5)[:, None]
    a, b = (np.sin(np.pi * y) ** 2 * np.cos((k - np.pi) * y) for y in x.T)
    slopes = [np.pi * np.sin(2 * np.pi * y) * np.cos((k - np.pi) * y)
              - np.sin(np.pi * y) ** 2 * (k - np.pi) * np.sin((k - np.pi) * y) for y in x.T]
    u = _moving(a * slopes[1]), _moving(-slopes[0] * b) * 5 if flow else _moving(a * b)[::-1]
    box = Box([0, 0], [1, 1], ["walled", "walled"])
    found = conditions(box, np.broadcast_to(x, (24, *x.shape)), np.stack(u, -1), 0)
    assert (found == "natural/held, held/natural") is flow
