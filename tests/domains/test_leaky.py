"""Tests of walls that leak, du/dn = -h u, against closed forms on a square, and of finding h in data."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial import Delaunay

from inrflow.domains import Region
from inrflow.domains.base import from_state
from inrflow.domains.sides import sides
from inrflow.encoding.conditions import leaky
from inrflow.errors import UserError


def square(n: int, hole: bool = False) -> Region:
    """A unit square, of which the middle ninth may be a hole."""
    grid = np.linspace(0, 1, n)
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    cells = Delaunay(x + 1e-6 * np.random.default_rng(0).standard_normal(x.shape)).simplices
    middle = np.abs(x[cells].mean(1) - 0.5).max(1)
    return Region(x, cells[middle > 1 / 6] if hole else cells)


def test_eigenvalues_of_leaking_walls_are_those_of_the_closed_form() -> None:
    h = 2.5  # waves cos(k x - a) with tan a = h / k at one wall and k - a = a at the other
    k = [brentq(lambda k, m=m: 2 * np.arctan2(h, k) - k + m * np.pi, 1e-9, 20) for m in range(3)]
    expected = sorted(a**2 + b**2 for a in k for b in k)[:4]
    harmonics = square(13).harmonics(4, "leaky 2.5")
    np.testing.assert_allclose(harmonics.eigenvalues, expected, rtol=3e-4)


def test_natural_and_held_walls_are_the_limits_and_parts_have_their_own() -> None:
    region = square(10, hole=True)
    assert len(region.parts) == 2 and len(region.parts[0]) == 36
    for name, limit in (("leaky 0/0", "natural"), ("leaky inf", "held")):
        np.testing.assert_allclose(region.harmonics(5, name).eigenvalues, region.harmonics(5, limit).eigenvalues)
    mixed = region.harmonics(5, "leaky inf/0")
    edge = np.stack([np.linspace(0, 1, 9), np.zeros(9)], 1)
    assert np.abs(mixed.values(edge)).max() < 1e-9 < np.abs(mixed.values(np.array([[1 / 3, 0.5]]))).max()
    with pytest.raises(UserError, match="2 parts, and the law has other conditions on each of 3"):
        region.harmonics(5, "leaky 0/1/2")


def decaying(harmonics: Any, nodes: np.ndarray, generator: np.random.Generator, count: int, frames: int) -> np.ndarray:
    """Values (count, frames, N) at nodes of random sums of harmonics, of which the finest decay first."""
    size = np.exp(-0.01 * harmonics.eigenvalues[:, None] * np.arange(1, frames + 1)).T
    codes = generator.standard_normal((count, 1, size.shape[1])) * size
    return np.einsum("stk,nk->stn", codes, harmonics.values(nodes))


def test_how_much_walls_leak_is_found_in_data() -> None:
    region, generator = square(12, hole=True), np.random.default_rng(1)
    harmonics = region.harmonics(30, "leaky 1.5/inf")
    u = decaying(harmonics, region.nodes, generator, 4, 6)
    x = np.broadcast_to(region.nodes, (4, *region.nodes.shape))
    found = leaky(region, "natural", 30, x, u[..., None], 0, lambda: False)
    assert found is not None
    rates = found[0].leaks(found[1])
    outer = np.isclose(found[0].basis.mesh.p[:, found[0].basis.mesh.facets[0, found[0].parts[0]]], 0).any()
    rates = rates if outer else rates[::-1]
    assert len(rates) == 2 and rates[1] == np.inf
    assert rates[0] == pytest.approx(1.5, rel=0.04)  # of sixteen draws, the farthest: 1.529
    free = region.harmonics(30).values(region.nodes)
    kept = np.einsum("stk,nk->stn", generator.standard_normal((4, 6, 30)), free)[..., None]
    assert leaky(region, "natural", 30, x, kept, 0, lambda: False) is None


def test_channels_that_leak_unlike_have_conditions_of_their_own() -> None:
    region, generator = square(9), np.random.default_rng(2)
    x, fields = np.broadcast_to(region.nodes, (3, *region.nodes.shape)), []
    for name in ("leaky 1.5", "leaky 6"):
        fields.append(decaying(region.harmonics(12, name), region.nodes, generator, 3, 4))
    found = leaky(region, "natural", 12, x, np.stack(fields, -1), 0, lambda: False)
    assert found is not None
    assert [found[0].leaks(name)[0] for name in found[1].split(", ")] == pytest.approx([1.5, 6], rel=0.04)
    alike = leaky(region, "natural", 12, x, np.stack(fields[:1] * 2, -1), 0, lambda: False)
    assert alike is not None and ", " not in alike[1]


def test_sides_that_leak_are_told_on_a_boundary_in_one_piece() -> None:
    region, generator = square(13), np.random.default_rng(3)
    mesh = region.basis.mesh
    middle = mesh.p[:, mesh.facets[:, mesh.boundary_facets()]].mean(1)
    truth = np.where(middle[0] < 1e-9, 1, np.where(middle[1] > 1 - 1e-9, 2, 0))  # natural, leaking, held
    place = region.divided(truth)
    assert from_state(place.state()) is place
    u = decaying(place.harmonics(25, "leaky 0/3/inf"), region.nodes, generator, 6, 6)
    x = np.broadcast_to(region.nodes, (6, *region.nodes.shape))
    found = leaky(region, "natural", 25, x, u[..., None], 0, lambda: False)
    assert found is not None
    rates = np.array(found[0].leaks(found[1]))[found[0].sides]
    np.testing.assert_allclose(rates, np.choose(truth, [0, 3, np.inf]), rtol=0.02)


def test_sides_are_told_where_frames_or_trajectories_miss_values() -> None:
    region, generator = square(13), np.random.default_rng(3)
    mesh = region.basis.mesh
    held = mesh.p[0, mesh.facets[:, mesh.boundary_facets()]].mean(0) < 1e-9
    place = region.divided(held.astype(int))
    u = decaying(place.harmonics(25, "leaky 0/inf"), region.nodes, generator, 6, 6)[..., None]
    x = np.broadcast_to(region.nodes, (6, *region.nodes.shape))
    for seen in (generator.random(u.shape) < 0.7, np.repeat(generator.random((6, 1, *u.shape[2:])) < 0.6, 6, 1)):
        found, rates = sides(region, x, np.where(seen, u, np.nan))
        assert rates[0, found.sides].tolist() == np.where(held, np.inf, 0).tolist()
