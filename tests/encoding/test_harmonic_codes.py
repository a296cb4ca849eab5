"""Codes of harmonics: posteriors of frames with gaps."""

import numpy as np
import pytest

from inrflow.domains import Box
from inrflow.domains.region import Region
from inrflow.encoding import harmonic_codes
from inrflow.encoding.harmonic_codes import HarmonicCodes, _blocks, _posterior, fit_codes, held_out_errors
from inrflow.errors import UserError

SQUARE = Box([0.0, 0.0], [1.0, 1.5], ["walled", "walled"])


def _frames(points: np.ndarray, count: int, noise: float, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes' variances (K,), fields (B, N) and the same with noise and gaps, of smooth random fields."""
    rng, harmonics = np.random.default_rng(3), SQUARE.harmonics(60)
    variance = np.exp(-0.15 * harmonics.eigenvalues)
    truth = rng.standard_normal((count, harmonics.count)) * np.sqrt(variance) @ harmonics.values(points).T
    seen = truth + noise * rng.standard_normal(truth.shape)
    return variance, truth, np.where(rng.random(truth.shape) < share, np.nan, seen)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_codes_of_frames_with_gaps_are_those_of_the_dense_posterior_of_what_was_observed(share: float) -> None:
    points = np.random.default_rng(0).random((150, 2)) * [1, 1.5]
    variance, _, seen = _frames(points, 20, 0.05, share)
    codes = HarmonicCodes(SQUARE.harmonics(60), np.zeros((1, len(variance))), variance[None])
    blocks = list(_blocks(codes._design(points), seen))
    assert len(blocks) == 1 and np.isnan(blocks[0][2]).any()  # not a factorisation for every frame
    found, _, noise = _posterior(*blocks[0][1:], np.zeros(len(variance)), variance)
    assert 0.04**2 < noise < 0.06**2
    for frame, values in zip(found, seen, strict=True):
        some = np.isfinite(values)
        table = SQUARE.harmonics(60).values(points[some])
        exact = np.linalg.solve(table.T @ table / noise + np.diag(1 / variance), table.T @ values[some] / noise)
        np.testing.assert_allclose(frame, exact, atol=1e-9)


def test_gaps_in_every_frame_cost_no_accuracy_on_grids_and_at_scattered_points() -> None:
    axes = [(np.arange(n) + 0.5) / n * length for n, length in ((12, 1.0), (16, 1.5))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    for points in (grid, np.random.default_rng(1).random((192, 2)) * [1, 1.5]):
        _, truth, seen = _frames(points, 40, 0.0, 0.1)
        codes = fit_codes(SQUARE.harmonics(60), points, seen[None, :, :, None])
        found = codes.decode(codes.encode(points, seen[:, :, None])[0], points)[:, :, 0]
        assert ((found - truth) ** 2).mean() < 1e-10 * truth.var()


def test_a_search_for_the_noise_in_some_rounds_gives_the_variances_of_one_in_each(monkeypatch: pytest.MonkeyPatch
                                                                                  ) -> None:
    points = np.random.default_rng(4).random((150, 2)) * [1, 1.5]
    _, truth, seen = _frames(points, 40, 0.05, 0.3)
    found = []
    for every in (harmonic_codes._SEARCH, 1):
        monkeypatch.setattr(harmonic_codes, "_SEARCH", every)
        found.append(fit_codes(SQUARE.harmonics(60), points, seen[None, :, :, None]).variance)
    np.testing.assert_allclose(*found, rtol=0.02)


def test_few_frames_with_gaps_compare_numbers_of_harmonics_as_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(5).random((150, 2)) * [1, 1.5]
    u = _frames(points, 120, 0.05, 0.3)[2].reshape(6, 20, 150, 1)
    x, found = np.repeat(points[None], 6, 0), []
    for frames in (harmonic_codes._COMPARED, len(u) * 20):
        monkeypatch.setattr(harmonic_codes, "_COMPARED", frames)
        errors = np.array([held_out_errors(SQUARE.harmonics(count), x, u, 0) for count in (5, 15, 60)])
        found.append(errors / errors[-1])
    np.testing.assert_allclose(*found, rtol=0.3)
    assert found[0][0] > 5 and found[0][1] < 1.1


def test_noise_is_told_as_well_by_many_harmonics_that_hold_nothing_else() -> None:
    points = np.random.default_rng(2).random((300, 2)) * [1, 1.5]
    _, _, seen = _frames(points, 100, 0.05, 0.0)
    fields = seen.reshape(10, 10, 300, 1)
    for count in (60, 120, 220):
        codes = fit_codes(SQUARE.harmonics(count), points[None], fields)
        left, share = codes.residuals(points, fields)
        assert (left**2).mean() / share[0] == pytest.approx(0.05**2, rel=0.08)


def test_a_region_without_a_node_inside_has_no_held_harmonics_and_an_infinite_error() -> None:
    nodes, cells = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    harmonics = Region(nodes, cells, 1).harmonics(3, "held")
    u = np.random.default_rng(0).standard_normal((1, 3, 4, 1))
    assert harmonics.count == 0 and held_out_errors(harmonics, nodes[None], u, 0, 0.4) == np.inf


def test_variances_of_a_few_trajectories_are_not_taken_at_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    harmonics, random = Box([0.0], [1.0], ["walled"]).harmonics(24), np.random.default_rng(3)
    x = (np.arange(48)[:, None] + 0.5) / 48
    fields = random.standard_normal((22, 1, 24)) / (1 + np.arange(24)) @ harmonics.values(x).T
    u, seen = np.repeat(fields, 4, 1)[..., None], np.sort(random.permutation(48)[:16])  # frames that hardly differ

    def missed() -> float:
        codes = fit_codes(harmonics, x[None].repeat(2, 0), u[:2])
        found = [codes.decode(codes.encode(x[seen], one[:1, seen])[0], x) for one in u[2:]]
        return float(np.square(np.stack(found) - u[2:, :1]).mean())

    pooled = missed()
    monkeypatch.setattr(harmonic_codes, "_ALIKE_OTHERS", 0)
    assert pooled < 0.7 * missed()


def test_as_many_harmonics_as_points_leave_the_noise_that_is_known() -> None:
    generator, x = np.random.default_rng(0), np.arange(64)[:, None] / 64
    waves = generator.standard_normal((12, 8, 1, 6)) @ np.cos(2 * np.pi * np.arange(1, 7)[:, None] * x.T)
    u = (waves + 0.2 * generator.standard_normal(waves.shape)).swapaxes(2, 3)
    harmonics = Box([0.0], [1.0], ["periodic"]).harmonics(63)
    places = np.broadcast_to(x, (12, 64, 1))
    told = []
    for noise in (0.0, np.array([0.04])):
        left, share = fit_codes(harmonics, places, u, noise).residuals(x, u)
        told.append((left**2).mean() / share[0])
    assert told[1] == pytest.approx(0.04, rel=0.08)
    assert told[0] < 0.03  # waves of noise are taken for waves of fields


@pytest.mark.parametrize("count", [120, 140])
def test_harmonics_that_a_grid_does_not_show_change_nothing(count: int) -> None:
    """Of 12 x 12 points, that sines of half a wave a point vanish at, and at which waves beyond are those within."""
    torus = Box([0.0, 0.0], [1.0, 1.0], ["periodic", "periodic"])
    x = np.stack(np.meshgrid(*[np.arange(12) / 12] * 2, indexing="ij"), -1).reshape(-1, 2)
    shown = torus.harmonics(80)
    decay = np.exp(-0.004 * shown.eigenvalues * np.arange(5)[:, None])
    u = (np.random.default_rng(0).standard_normal((10, 1, shown.count)) * decay @ shown.values(x).T)[..., None]
    codes = fit_codes(torus.harmonics(count), x[None].repeat(10, 0), u)
    assert np.abs(codes.residuals(x, u)[0]).max() < 1e-6
    if count == 120:  # of waves that are told apart
        assert codes.variance[0, shown.count :].sum() < 1e-6 * codes.variance.sum()


def test_harmonics_up_to_the_last_one_that_data_hold_are_kept_with_all_of_its_eigenspace() -> None:
    box = Box([0.0, 0.0], [1.0, 1.0], ["walled", "walled"])
    axis = np.linspace(0, 1, 12)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    field = np.sin(3 * np.pi * x[:, 0]) * np.sin(2 * np.pi * x[:, 1])  # not that of exchanged axes
    sizes = np.random.default_rng(0).standard_normal((4, 5, 1, 1))
    u = sizes * np.stack([field, np.cos(np.pi * x[:, 0])], -1)
    boundary, points = "held, natural", np.broadcast_to(x, (4, *x.shape))
    domain, used = fit_codes(box.harmonics(80, boundary), points, u).used(box)
    codes = fit_codes(domain.harmonics(used, boundary), points, u)
    assert used < 80 and np.abs(codes.residuals(x, u[0])[0]).max() < 1e-9


def test_harmonics_of_which_none_varies_are_named() -> None:
    harmonics = SQUARE.harmonics(6)
    codes = HarmonicCodes(harmonics, np.ones((1, harmonics.count)), np.zeros((1, harmonics.count)))
    with pytest.raises(UserError, match="no harmonic of the domain varies in time"):
        codes.used(SQUARE)
