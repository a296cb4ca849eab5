"""Walls of boxes found in how fields change, and affine functions that carry values that stay there."""

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import brentq

from inrflow.domains import Box, from_state, placed, walled

PLATES = "natural/steady, natural, natural/held"


def _between_plates(before: float, after: float, count: int) -> tuple[Box, np.ndarray, np.ndarray]:
    """A guessed box, points and a held and a natural channel that decay between walls at 0 and 1, held at 1 and 2."""
    gap = 1 / (count - 1 + before + after)
    y, k, t = (np.arange(count) + before) * gap, np.arange(1, 6), np.arange(6) * 0.02
    decay = np.exp(-((np.pi * k) ** 2) * t[:, None]) / k**2
    size = np.random.default_rng(0).standard_normal((2, 8, 5))
    fields = [np.einsum("sk,tk,kn->stn", a, decay, f(np.pi * k[:, None] * y))
              for a, f in zip(size, (np.sin, np.cos), strict=True)]
    return Box([y[0]], [y[-1]], ["walled"]), y[:, None], np.stack([1 + y + fields[0], fields[1]], -1)


@pytest.mark.parametrize("places", [(0.0, 0.0), (0.5, 0.5), (0.25, 0.75), (2 / 3, 1 / 3)])
def test_walls_are_found_where_changes_vanish_or_are_level(places: tuple[float, float]) -> None:
    found = walled(*_between_plates(*places, 20))
    assert found is not None
    box, pairs = found
    np.testing.assert_allclose([box.lower[0], box.upper[0]], [0, 1], atol=1e-12)
    assert pairs == [["held"], ["natural"]]


def test_walls_are_found_where_fields_are_level_there_later() -> None:
    """Heat that spreads from one wall in the first frames, and a front that runs on in the middle."""
    n, t = 60, np.arange(10)
    x = (np.arange(n) + 0.375) / n
    k, size = np.arange(8)[:, None], np.random.default_rng(0).standard_normal((8, 1, 8))
    heat = size * np.exp(-0.04 * (np.pi * k[:, 0]) ** 2 * t[:, None]) @ np.cos(np.pi * k * x)
    heat = heat * np.clip(5 - t, 0, None)[:, None]
    front = 1 / (1 + np.exp((x - 0.35 - 0.01 * t[:, None]) / 0.04))
    found = walled(Box([x[0]], [x[-1]], ["walled"]), x[:, None], (heat + front)[..., None])
    assert found is not None
    np.testing.assert_allclose([found[0].lower[0], found[0].upper[0]], [0, 1], atol=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_noise_of_the_values_does_not_hide_walls(noise: float) -> None:
    box, x, u = _between_plates(0.5, 0.5, 40)
    found = walled(box, x, u + noise * u.std((0, 1, 2)) * np.random.default_rng(1).standard_normal(u.shape))
    assert found is not None and found[1] == [["held"], ["natural"]]
    np.testing.assert_allclose([found[0].lower[0], found[0].upper[0]], [0, 1], atol=0.5 / 40)


@pytest.mark.parametrize(("noise", "kept"), [(0.0, False), (0.1, True)])
def test_walls_of_the_box_given_stay_where_noise_hides_others(noise: float, kept: bool) -> None:
    guess, x, u = _between_plates(0.75, 0.25, 40)
    u = u[..., 1:]  # level at walls
    half = 0.5 * (x[1] - x[0])
    for box in (Box([0.0], [1.0], ["walled"]), Box(x[0] - half, x[-1] + half, ["walled"]), guess):
        found = walled(box, x, u + noise * u.std((0, 1, 2)) * np.random.default_rng(1).standard_normal(u.shape))
        assert found is not None
        told = (box.lower[0], box.upper[0]) if kept else (0, 1)
        np.testing.assert_allclose([found[0].lower[0], found[0].upper[0]], told, atol=1e-12)


def test_walls_that_are_known_stay_where_fields_say_others() -> None:
    guess, x, u = _between_plates(0.75, 0.25, 40)
    box = Box(x[0] - 0.5 * (x[1] - x[0]), x[-1] + 0.5 * (x[1] - x[0]), ["walled"])
    found, same = walled(box, x, u), walled(box, x, u, known=True)
    assert found is not None and same is not None and found[1] == same[1] == [["held"], ["natural"]]
    assert abs(found[0].lower[0] - box.lower[0]) > 0.2 * (x[1, 0] - x[0, 0])
    np.testing.assert_array_equal([same[0].lower, same[0].upper], [box.lower, box.upper])


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_layers_at_walls_do_not_move_them_a_cell_away(noise: float) -> None:
    """Waves that run into walls, level there in layers of a tenth: more room fits their slopes next to it."""
    n, generator, t = 16, np.random.default_rng(0), np.arange(10)[:, None] * 0.1
    x, wide = (np.arange(n) + 0.5) / n, 0.1
    u = np.zeros((24, len(t), n))
    for k in 2.3 * np.arange(1, 6):
        phase, size = generator.uniform(0, 2 * np.pi, (24, 1, 1)), generator.standard_normal((24, 1, 1)) / k
        first, last = (wide * k * np.cos(phase + k * (end - t)) for end in (0, 1))
        u += size * (np.sin(phase + k * (x - t)) + first * np.exp(-x / wide) - last * np.exp((x - 1) / wide))
    u += noise * u.std() * generator.standard_normal(u.shape)
    found = walled(Box([x[0]], [x[-1]], ["walled"]), x[:, None], u[..., None])
    assert found is not None and found[1] == [["natural"]]
    np.testing.assert_allclose([found[0].lower[0], found[0].upper[0]], [0, 1], atol=1e-12)


def test_inlets_are_held_though_functions_fit_outlets_worse() -> None:
    """Two streams that run against each other, each held where it enters and neither held nor level where it leaves."""
    n, generator, t = 40, np.random.default_rng(0), np.arange(10)[:, None] * 0.1
    x, k = (np.arange(n) + 0.5) / n, 1.7 * np.arange(1, 6)[:, None, None, None]
    size, phase = generator.standard_normal((5, 24, 1, 1)) / k, generator.uniform(0, 2 * np.pi, (5, 24, 1, 1))
    stream = 1 + np.tanh(3 * x) * (size * np.sin(k * (x - t) + phase)).sum(0)
    u = np.stack([stream, np.roll(stream, 1, 0)[..., ::-1]], -1)
    found = walled(Box([x[0]], [x[-1]], ["walled"]), x[:, None], u)
    assert found is not None and found[1] == [["held-natural"], ["natural-held"]]
    np.testing.assert_allclose([found[0].lower[0], found[0].upper[0]], [0, 1], atol=1e-12)


def _cooled(rates: tuple[float, float], outside: float = 0.0) -> list[list[str]]:
    """Conditions found of heat in a rod of 120 finite volumes, of which every third is seen, and at whose ends du/dn =
    -rate (u - outside)."""
    n, grid = 120, (np.arange(120) + 0.5) / 120
    operator = n**2 * (np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1) - 2 * np.eye(n))
    for end, rate in zip((0, -1), rates, strict=True):
        operator[end, end] = -(n**2) - n * rate / (1 + rate / (2 * n))
    step, rng = scipy.linalg.expm(0.02 * operator), np.random.default_rng(0)
    u = [rng.standard_normal((12, 6)) @ np.cos(np.pi * np.arange(6)[:, None] * grid)]
    for _ in range(9):
        u.append(u[-1] @ step.T)
    found = walled(Box([0.0], [1.0], ["walled"]), grid[1::3, None], outside + np.stack(u, 1)[:, :, 1::3, None])
    assert found is not None
    return found[1]


def test_walls_that_leak_are_told_from_those_without_flux_and_those_that_leak_to_other_values() -> None:
    ends = [float(end.removeprefix("leaky ")) for end in _cooled((3.0, 0.7))[0][0].split("-")]
    np.testing.assert_allclose(ends, [3.0, 0.7], rtol=0.05)
    lower, upper = _cooled((0.0, 2.0))[0][0].split("-")
    assert lower == "natural" and abs(float(upper.removeprefix("leaky ")) - 2) < 0.1
    assert _cooled((0.0, 0.0)) == [["natural"]]
    assert "leaky" not in _cooled((3.0, 0.7), outside=5.0)[0][0]


def test_walls_that_leak_are_not_taken_for_walls_without_flux_a_cell_away() -> None:
    """Heat at 80 cell centres of (0, 2), that leaves by du/dn = -2.5 u and -.8 u."""
    k = np.array([brentq(lambda k: (2 / k - k) * np.sin(2 * k) + 3.3 * np.cos(2 * k), n + 1e-6, n + np.pi / 2)
                  for n in np.pi / 2 * np.arange(12)])[:, None]
    x = (np.arange(80) + 0.5) / 40
    modes, t = np.cos(k * x) + 2.5 / k * np.sin(k * x), 0.1 * np.arange(10)[:, None]
    size = np.random.default_rng(0).standard_normal((16, 1, 12)) / (1 + np.arange(12)) ** 3
    u = (size * np.exp(-0.02 * k[:, 0] ** 2 * t)) @ modes
    found = walled(Box(x[:1], x[-1:], ["walled"]), x[:, None], u[..., None])
    assert found is not None
    np.testing.assert_allclose([*found[0].lower, *found[0].upper], [0, 2], atol=1e-12)
    np.testing.assert_allclose([float(end.removeprefix("leaky ")) for end in found[1][0][0].split("-")], [2.5, 0.8],
                               rtol=1e-4)


def test_scattered_points_and_missing_values_tell_no_walls() -> None:
    box, x, u = _between_plates(0.5, 0.5, 20)
    assert walled(box, x + 0.01 * np.sin(37 * x), u) is None
    u[0, 1, 3] = np.nan
    assert walled(box, x, u) is None


@pytest.mark.parametrize("kind", ["natural", "held"])
def test_walls_stand_where_scattered_points_fit_what_decays_between_them(kind: str) -> None:
    random = np.random.default_rng(1)
    lower, lengths = np.array([0.31, -1.7]), np.array([1.37, 0.83])
    x, wave = lower + lengths * random.random((200, 2)), np.cos if kind == "natural" else np.sin
    k = np.stack(np.meshgrid(np.arange(1, 5), np.arange(1, 5), indexing="ij"), -1).reshape(-1, 2)
    parts = np.prod(wave(np.pi * k * ((x - lower) / lengths)[:, None]), -1)  # (N, K)
    rates = np.exp(-0.3 * (k**2).sum(1) * np.arange(6)[:, None] / 5)
    u = np.einsum("sk,tk,nk->stn", random.standard_normal((4, len(k))), rates, parts)[..., None]
    guess = Box(x.min(0) - 0.005, x.max(0) + 0.005, ["walled"] * 2)
    found = placed(guess, x, u, kind)
    assert found is not None
    np.testing.assert_allclose([found.lower, found.upper], [lower, lower + lengths], atol=2e-4)
    assert placed(guess, x, random.standard_normal(u.shape), kind) is None
    assert placed(found, x, u, kind) is None


def test_affine_functions_are_the_last_harmonics_and_belong_to_channels_with_steady_values() -> None:
    box = Box([0.0, -1.0], [2.0, 1.0], ["periodic", "walled"])
    harmonics = box.harmonics(150, PLATES)
    assert harmonics.steady == 2 and harmonics.allowed is not None
    assert harmonics.allowed[:, -2:].tolist() == [[True, True], [False, False], [False, False]]
    assert (harmonics.vectors or {})[1] == ("natural", "natural")
    x = np.random.default_rng(0).random((7, 2)) * 2 - [0, 1]
    np.testing.assert_allclose(harmonics.values(x)[:, -2:], np.stack([np.ones(7), np.sqrt(3) * x[:, 1]], 1), atol=1e-12)
    for axis, step in enumerate(1e-6 * np.eye(2)):
        slopes = (harmonics.values(x + step) - harmonics.values(x - step)) / 2e-6
        np.testing.assert_allclose(harmonics.gradients(x)[:, :, axis], slopes, atol=1e-6)
    again = from_state(box.state()).harmonics(harmonics.count, PLATES)
    np.testing.assert_array_equal(again.modes, harmonics.modes)  # type: ignore[attr-defined]
    rule = harmonics.quadrature()
    gram = (rule.values * rule.weights[:, None]).T @ rule.values
    for own in harmonics.allowed[:, :-2]:
        mine = np.flatnonzero(own)
        np.testing.assert_allclose(gram[np.ix_(mine, mine)], np.eye(len(mine)), atol=1e-10)


def test_a_wall_is_where_values_never_change_though_next_to_it_they_hardly_do() -> None:
    """What enters at x = 0 stays, and u - 1 grows from there as x^2: level and held."""
    x, t = np.linspace(0, 1, 41), np.arange(8)
    random = np.random.default_rng(0).standard_normal((6, 8, 3, 1))
    u = 1 + (random * x**2 * np.cos(np.pi * np.arange(3)[:, None] * x)).sum(2) * (1 + t)[:, None]
    found = walled(Box([0.0], [1.0], ["walled"]), x[:, None], u[..., None])
    assert found is not None and found[1] == [["held-natural"]] and found[0].lower[0] == 0
