"""Regions whose fields keep their values on parts of the boundary."""

import numpy as np
import pytest

from inrflow.domains import Region, from_state, plain
from inrflow.dynamics.laws import fit_law, setting
from inrflow.errors import UserError


def _square(n: int, order: int) -> Region:
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    cells = np.concatenate([corner[:, None] + [0, n + 1, n + 2], corner[:, None] + [0, n + 2, 1]])
    return Region(x, cells, order)


def _heat(region: Region, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """u_t = .1 lap u in closed form, held at multiples of 1 + x that differ among trajectories."""
    generator, t, x = np.random.default_rng(seed), np.arange(8) * 0.1, region.nodes
    modes = np.array([(1, 1), (1, 2), (2, 1), (2, 2)])
    shapes = np.prod(np.sin(np.pi * modes[:, None] * x), -1)
    decay = np.exp(-0.1 * np.pi**2 * (modes**2).sum(1) * t[:, None])
    u = np.einsum("sk,tk,kn->stn", generator.standard_normal((count, 4)), decay, shapes)
    return t, (u + generator.uniform(1, 3, (count, 1, 1)) * (1 + x[:, 0]))[..., None]


@pytest.mark.parametrize("order", [1, 2])
def test_harmonic_functions_carry_values_that_stay(order: int) -> None:
    region = _square(8, order)
    found = region.with_steady(region.nodes, _heat(region, 6)[1])
    assert found is not None
    harmonics = from_state(plain(found.state())).harmonics(20, "steady")
    assert harmonics.steady == 1 and harmonics.count == 20
    inside = np.random.default_rng(0).random((50, 2))
    lift = harmonics.values(inside)[:, -1]
    np.testing.assert_allclose(lift / lift[0], (1 + inside[:, 0]) / (1 + inside[0, 0]), atol=1e-9)
    edge = region.nodes[(region.nodes == 0).any(1)]
    np.testing.assert_allclose(harmonics.values(edge)[:, :-1], 0, atol=1e-12)


def test_nothing_is_held_where_values_change_or_where_nothing_has_arrived_yet() -> None:
    region = _square(8, 1)
    u = np.random.default_rng(0).standard_normal((4, 6, len(region.nodes), 1))
    assert region.with_steady(region.nodes, u) is None
    far = np.exp(-200 * ((region.nodes - 0.5) ** 2).sum(1))[:, None]
    assert region.with_steady(region.nodes, u[:, :, :1] * far) is None
    with pytest.raises(UserError, match="natural"):
        region.harmonics(10, "steady")


def test_a_law_between_walls_held_at_values_of_their_own_is_found() -> None:
    regions = [_square(10, order) for order in (1, 2)]
    t, u = _heat(regions[0], 10)
    law = fit_law(t, regions[0].nodes, u, regions, seconds=10)
    assert law.boundary == "steady"
    later = law.rollout(law.encode(regions[0].nodes, u[:, :1])[:, 0], t)
    assert ((law.decode(later, regions[0].nodes) - u) ** 2).mean() < 1e-3 * u.var()


@pytest.mark.parametrize(("missed", "kind"), [(1.5, "steady"), (3.0, "natural")])
def test_values_that_never_change_are_held_though_other_harmonics_miss_little_less(
    missed: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where first frames are rough, and tell nothing of the boundary."""
    monkeypatch.setattr(setting, "held_out_errors", lambda harmonics, *_: 1e-5 * (missed if harmonics.steady else 1.0))
    region = _square(8, 1)
    t, u = _heat(region, 4)
    data = setting.Data.of(t, region.nodes, u)
    assert setting.choose([region], None, data, 0, lambda _: None)[1] == kind
