"""Spectra, calibration, series at places and coastlines: what is drawn, against what is known of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.plotting import Scene, calibration_figure, coasts, series_figure, spectrum_figure

T, AXIS = np.arange(6.0), np.arange(64) / 64
GRID = np.stack(np.meshgrid(AXIS, AXIS, indexing="ij"), -1).reshape(-1, 2)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be written."""
    figures = []
    for module in ("series", "diagnostics"):
        monkeypatch.setattr(f"inrflow.plotting.{module}.save_figure",
                            lambda figure, path: figures.append(figure) or path)
    return figures


def scene(x, truth, **more):
    field = np.broadcast_to(truth, (len(T), len(truth)))[..., None]
    return Scene(T, x, 1.1 * field, ("u",), field, 0.2 + 0 * field, assimilated=2.0, horizon=4.0, **more)


@pytest.mark.parametrize("x", [AXIS[:, None], GRID[np.random.default_rng(0).permutation(len(GRID))]])
def test_the_spectrum_of_a_wave_is_its_variance_at_its_wavenumber(x, drawn):
    spectrum_figure("a.png", scene(x, 3 * np.sin(2 * np.pi * 5 * x[:, 0])))
    (figure,) = drawn
    assert len(figure.axes) == 2 and "t = 3" in figure.axes[0].get_title()  # the first forecast and the last
    for name, size in (("truth", 1.0), ("model", 1.1), ("error", 0.1)):
        line = next(one for one in figure.axes[0].lines if one.get_label() == name)
        k, power = line.get_data()
        assert k[np.argmax(power)] == pytest.approx(5.0)
        assert power.sum() == pytest.approx(size**2 * 4.5, rel=0.02)


@pytest.mark.parametrize("x", [np.random.default_rng(0).random((50, 2)), GRID[:-1], GRID[: 64 * 4]])
def test_points_that_are_no_full_grid_have_no_spectrum(x, drawn):
    assert spectrum_figure("a.png", scene(x, x[:, 0])) is None and not drawn


def test_intervals_are_drawn_against_their_promise_for_each_lead(drawn):
    rows = [{"above": None, "up_to": 0.0, "coverage_50": 0.6, "coverage_90": 0.97, "z_spread": 0.8},
            {"above": 30.5, "up_to": None, "coverage_50": 0.3, "coverage_90": 0.7, "z_spread": 1.7}]
    calibration_figure("a.png", rows)
    left, right = drawn[0].axes
    held = [line.get_ydata() for line in left.lines[1:]]
    np.testing.assert_allclose(held, [[60, 97], [30, 70]])
    assert [label.get_text() for label in right.get_yticklabels()] == ["observed times", "over 30.5 steps ahead"]


def test_series_are_at_places_far_apart_that_were_seen_with_their_intervals(drawn):
    x = np.concatenate([np.random.default_rng(0).normal(0, 0.01, (40, 2)), [[1, 1], [-1, 1], [0, -1], [5, 5]]])
    truth = np.where(x[:, 0] > 4, np.nan, x[:, 1])  # the last was never seen
    series_figure("a.png", scene(x, truth))
    titles = [ax.get_title(loc="left") for ax in drawn[0].axes]
    assert titles[1:] and {"x = 1, y = 1", "x = -1, y = 1", "x = 0, y = -1"} == set(titles[1:])
    ax = drawn[0].axes[1]
    band = next(one for one in ax.collections if one.get_label() == "90% interval").get_datalim(ax.transData).intervaly
    assert np.ptp(band) == pytest.approx(2 * 1.6448536 * 0.2)
    moving = scene(np.broadcast_to(x, (len(T), *x.shape)), truth)
    assert series_figure("a.png", moving) is None


def test_coastlines_are_drawn_inside_of_the_map_where_their_package_is_installed(tmp_path, monkeypatch):
    shore = np.array([[170, 10], [179, 12], [-179, 14], [-170, 10]], "<f4")
    lake = np.array([[1, 1], [2, 2]], "<f4")
    (tmp_path / "gshhs_c.dat").write_bytes(shore.tobytes() + lake.tobytes())
    (tmp_path / "gshhsmeta_c.dat").write_text(f"1 1. 4 0 0 0 {shore.nbytes} 1\n2 1. 2 0 0 {shore.nbytes} 16 2\n")
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    low, high = np.array([0.0, -80.0]), np.array([360.0, 80.0])
    for found, count in ((package, 2), (None, 0)):
        coasts._coasts.cache_clear()
        monkeypatch.setattr(coasts, "find_spec", lambda name, found=found: found)
        ax = Figure().subplots()
        coasts.draw_coasts(ax, low, high)
        lines = [np.asarray(one) for one in ax.collections[0].get_segments()]
        assert len(lines) == count and all(0 <= line[:, 0].min() <= line[:, 0].max() <= 360 for line in lines)
    coasts._coasts.cache_clear()
    x = lonlat_to_xyz(*np.random.default_rng(0).uniform(10, 40, (2, 30)))
    assert series_figure(tmp_path / "a.png", scene(x, x[:, 0], geometry="sphere")) == tmp_path / "a.png"
