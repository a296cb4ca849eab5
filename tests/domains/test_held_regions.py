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
    assert found is not None and found[1] == "steady"
    harmonics = from_state(plain(found[0].state())).harmonics(20, "steady")
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
    law = fit_law(t, regions[0].nodes, u, regions, seconds=4)
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
    assert setting.choose_basis([region], None, data, 0, lambda _: None)[1] == kind


def test_channels_of_unlike_conditions_have_harmonics_of_their_own() -> None:
    """One is held at the left, one nowhere, one along all of the boundary at values of its own, on either elements."""
    region = _square(10, 2)
    x, generator, t = region.nodes, np.random.default_rng(1), np.arange(8) * 0.1
    left = np.sin(np.pi * x[:, 0] / 2) * np.cos(np.pi * x[:, 1] * np.arange(3)[:, None])
    free = np.cos(np.pi * x[:, 0]) * np.cos(np.pi * x[:, 1] * np.arange(3)[:, None])
    parts = [np.einsum("sk,tk,kn->stn", generator.standard_normal((6, 3)), np.exp(-np.outer(t, [1, 2, 3])), own)
             for own in (left, free)]
    u = np.stack([parts[0] + 2, parts[1], _heat(region, 6)[1][..., 0]], -1)
    found = region.with_steady(x, u)
    assert found is not None
    held, kind = found
    names = kind.split(", ")
    assert len(set(names)) == 3
    harmonics = from_state(plain(held.state())).harmonics(120, kind)
    assert harmonics.allowed is not None and harmonics.steady == 2 and harmonics.count == 120
    own = [harmonics.values(x)[:, harmonics.own(c)] for c in range(3)]
    for table, values in zip(own, u.transpose(3, 0, 1, 2), strict=True):
        flat = values.reshape(-1, len(x)).T
        rest = flat - table @ np.linalg.lstsq(table, flat, rcond=None)[0]
        assert (rest**2).mean() < 1e-6 * flat.var()
    moving = harmonics.own(0, moving=True)
    np.testing.assert_allclose(harmonics.values(x[x[:, 0] == 0])[:, moving], 0, atol=1e-9)
    assert np.abs(harmonics.values(x[x[:, 0] == 1])[:, moving]).max() > 1
    values = np.sort(harmonics.eigenvalues[moving])[:3] / np.pi**2
    np.testing.assert_allclose(values, [0.25, 1.25, 2.25], rtol=1e-3)  # of quarter waves, and of these with half waves


@pytest.mark.parametrize("held", [True, False])
def test_conditions_of_each_channel_are_told_by_points_within(held: bool) -> None:
    """Where no point is on the boundary; alike where both channels are of one kind."""
    region, generator = _square(10, 2), np.random.default_rng(2)
    x = generator.uniform(0.02, 0.98, (300, 2))
    waves = np.array([(1, 1), (1, 2), (2, 1), (2, 3)])
    shapes = [np.prod(of(np.pi * waves[:, None] * x), -1) for of in ((np.sin if held else np.cos), np.cos)]
    size = generator.standard_normal((4, 6, 2, 4))
    u = np.stack([np.einsum("stk,kn->stn", size[:, :, c], shapes[c]) for c in range(2)], -1)
    kind = setting.choose_basis([region], None, setting.Data.of(np.arange(6.0), x, u), 0, lambda _: None)[1]
    assert kind == ("held, natural" if held else "natural")
