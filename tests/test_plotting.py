"""Figures: what is drawn is what the arrays say, files are whole, and matplotlib's state stays as it was."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from inrflow import plotting
from inrflow.data.sphere import lonlat_to_xyz
from inrflow.errors import UserError

T = 6
TIMES = np.linspace(0.0, 2.5, T)
CHANNELS, UNITS = ("u", "p"), ("m/s", "m2/s2")


def square(side=9):
    axis = np.arange(side) / side
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def fields(x, seed=0):
    """Truth, forecast and standard deviation (T, N, 2) at points (N, d)."""
    random = np.random.default_rng(seed)
    wave = np.sin(5 * x[:, 0] + TIMES[:, None])
    truth = np.stack([wave, 20 + wave**2], -1)
    return truth, truth + 0.05 * random.normal(size=truth.shape), np.full(truth.shape, 0.05)


def sphere_points():
    longitude, latitude = np.meshgrid(np.arange(150, 211, 5), np.arange(-20, 21, 5))
    return lonlat_to_xyz(longitude.ravel(), latitude.ravel())


POINTS = {
    "grid": (square(), {}),
    "scattered": (np.random.default_rng(0).random((80, 2)), {}),
    "wide": (np.random.default_rng(1).random((80, 2)) * [4, 1], {"horizon": 1.0, "time_units": "s"}),
    "line": (np.linspace(0, 1, 30)[:, None], {"horizon": 1.0}),
    "map": (sphere_points(), {"geometry": "sphere", "time_units": "days since 2000-01-01"}),
    "space": (np.random.default_rng(2).random((60, 3)), {}),
}


@pytest.mark.parametrize("kind", POINTS)
def test_forecasts_on_every_kind_of_points_become_whole_pictures(kind, tmp_path):
    x, options = POINTS[kind]
    truth, forecast, std = fields(x)
    full = plotting.forecast_figure(tmp_path / "full.png", TIMES, x, truth, forecast, std, CHANNELS, UNITS, channel="p",
                                    frames=2, title="A title", **options)
    bare = plotting.forecast_figure(tmp_path / "bare.png", TIMES, x, None, forecast, None, CHANNELS, frames=[0, 3],
                                    **options)
    for path in (full, bare):
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 100
            assert np.asarray(picture.convert("RGB")).reshape(-1, 3).std() > 5  # not an empty sheet
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bare.png", "full.png"]


@pytest.mark.parametrize("kind", ["grid", "wide", "line", "map"])
def test_animations_move_and_hold_at_most_the_asked_number_of_frames(kind, tmp_path):
    x, options = POINTS[kind]
    truth, forecast, std = fields(x)
    path = plotting.animation(tmp_path / "film.gif", TIMES, x, truth, forecast, std, CHANNELS, largest=3, **options)
    with Image.open(path) as film:
        assert film.format == "GIF" and film.n_frames == 3
        pictures = []
        for frame in range(3):
            film.seek(frame)
            pictures.append(np.asarray(film.convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[2]).mean() > 0.5
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.gif"]


def test_moving_points_are_drawn_where_they_are(tmp_path):
    x = np.random.default_rng(0).random((T, 40, 2))
    values = np.sin(5 * x[..., :1])
    assert plotting.forecast_figure(tmp_path / "a.png", TIMES, x, values, values, None, ("u",), frames=2).exists()
    assert plotting.animation(tmp_path / "a.gif", TIMES, x, values, values, None, ("u",), largest=2).exists()


def test_a_grid_with_gaps_puts_every_value_into_its_own_cell():
    """Shuffled points of a lattice of which some points, and one whole column, lack."""
    random = np.random.default_rng(0)
    x = square(8) * [2.0, 3.0] + 1e-7 * random.random((64, 2))
    column, row = np.divmod(np.arange(64), 8)
    kept = random.permutation(np.nonzero((column != 3) & (np.arange(64) % 11 != 5))[0])
    view = plotting._view(x[kept], ("x", "y"), None, None)
    assert view.kind == "image"
    drawn = view.draw(Figure().subplots(), kept.astype(float), *plotting._palette(kept.astype(float)))
    image = np.ma.asarray(drawn.get_array()).reshape(8, 8).filled(-1.0)
    expected = np.full((8, 8), -1.0)
    expected[row[kept], column[kept]] = kept
    np.testing.assert_array_equal(image, expected)


def test_an_uneven_tensor_grid_is_an_image_and_scattered_points_are_not():
    axis = np.array([0.0, 0.1, 0.3, 0.7, 1.5])
    uneven = np.stack(np.meshgrid(axis, axis**2, indexing="ij"), -1).reshape(-1, 2)
    assert plotting._view(uneven, ("x", "y"), None, None).kind == "image"
    assert plotting._view(POINTS["scattered"][0], ("x", "y"), None, None).kind == "triangles"
    assert plotting._view(uneven, ("x", "y"), None, np.array([[0, 1, 5]])).triangles.shape == (1, 3)


def area(x, triangles):
    a, b = x[triangles[:, 1]] - x[triangles[:, 0]], x[triangles[:, 2]] - x[triangles[:, 0]]
    return 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()


def test_triangles_leave_a_hole_open_and_cover_the_rest():
    ring = [radius * np.stack([np.cos(angle), np.sin(angle)], -1)
            for radius in np.linspace(0.5, 1.5, 11)
            for angle in [np.linspace(0, 2 * np.pi, int(60 * radius), endpoint=False) + radius]]
    x = np.concatenate(ring)
    triangles = plotting._triangles(x)
    assert np.linalg.norm(x[triangles].mean(1), axis=1).min() > 0.45
    assert area(x, triangles) == pytest.approx(np.pi * (1.5**2 - 0.5**2), rel=0.02)


def test_triangles_with_unknown_corners_are_left_out():
    x = square(4)
    view = plotting._View("triangles", x, ("x", "y"), triangles=plotting._triangles(x + 0.01 * np.sin(7 * x[:, ::-1])))
    values = np.arange(16.0)
    values[5] = np.nan
    drawn = view.draw(Figure().subplots(), values, *plotting._palette(values))
    assert np.isfinite(drawn.get_array()).all()
    shown = drawn._triangulation.triangles
    assert len(shown) and 5 not in shown and len(shown) == (~(view.triangles == 5).any(1)).sum()


def test_colours_are_centred_for_fields_of_both_signs_and_shared_by_truth_and_forecast():
    assert plotting._palette(np.array([-1.0, 3.0, np.nan]))[1] == (-3.0, 3.0)
    assert plotting._palette(np.array([15.0, 31.0]))[1] == (15.0, 31.0)
    low, high = plotting._palette(np.full(3, 2.0))[1]
    assert low < 2.0 < high
    truth, forecast, std = fields(square())
    data = plotting._fields(TIMES, square(), truth, 2 * forecast, std, CHANNELS, UNITS, "u", *[None] * 5)
    styles = data.styles([0, 3])
    assert styles["truth"] == styles["forecast"] == plotting._palette(truth[[0, 3], :, 0])
    assert styles["error"][1][0] == -styles["error"][1][1]
    assert styles["uncertainty"][1][0] == 0.0
    assert list(styles) == ["truth", "forecast", "error", "uncertainty"]
    np.testing.assert_allclose(data.panels["error"], 2 * forecast[..., 0] - truth[..., 0])


def test_a_map_is_cut_where_no_points_are():
    view = plotting._view(sphere_points(), ("x", "y", "z"), "sphere", None)
    assert view.kind == "image" and view.longitude
    assert np.ptp(view.x[:, 0]) == pytest.approx(60.0)  # 150 E to 150 W, in one piece
    assert [plotting._degrees(value, "E", "W") for value in (150.0, 180.0, 210.0, 360.0)] == \
        ["150°E", "180°", "150°W", "0°"]


def test_labels_carry_units_and_dates():
    assert plotting._units("m2/s2") == " [m²/s²]" and plotting._units("degC") == " [°C]" and plotting._units(None) == ""
    assert plotting._units("kg m-3") == " [kg m⁻³]"
    assert plotting._moment(31.0, "days since 2000-01-01") == "2000-02-01"
    assert plotting._moment(0.25, "s") == "t = 0.25 s"


def test_arrays_that_do_not_fit_together_are_refused():
    truth, forecast, std = fields(square())
    with pytest.raises(ValueError, match="uncertainty has shape"):
        plotting.forecast_figure("unused.png", TIMES, square(), truth, forecast, std[:2], CHANNELS)


def test_a_figure_that_cannot_be_written_leaves_nothing_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "error.png"
    plotting.error_figure(path, TIMES, {"model": TIMES + 1})
    before = path.read_bytes()

    def fails(self, *arguments, **options):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(UserError, match="disk is full"):
        plotting.error_figure(path, TIMES, {"model": TIMES + 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["error.png"] and path.read_bytes() == before


def drawn_axes(monkeypatch, draw):
    """The axes of the figure that `draw` would have written."""
    kept = []
    monkeypatch.setattr(plotting, "_save", lambda figure, path: kept.append(figure) or path)
    draw()
    return kept[0].axes


def test_error_figure_shows_model_references_and_horizon_on_a_log_scale(monkeypatch):
    errors = {"inrflow": np.array([0.0, 1e-4, 1e-3, np.nan, 2e-3, 1.0]), "pod_dmd": np.full(T, 0.1)}
    ax, = drawn_axes(monkeypatch, lambda: plotting.error_figure("-", TIMES, errors, horizon=1.2, ylabel="NMSE"))
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "NMSE"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["inrflow", "POD + DMD"]
    model = ax.lines[0]
    np.testing.assert_array_equal(model.get_ydata(), [np.nan, 1e-4, 1e-3, np.nan, 2e-3, 1.0])
    assert model.get_linewidth() > ax.lines[1].get_linewidth()
    assert any(list(line.get_xdata()) == [1.2, 1.2] for line in ax.lines)


def test_error_figure_has_dates_for_calendar_times(tmp_path):
    path = plotting.error_figure(tmp_path / "e.png", 31.0 * np.arange(T), {"model": 1 + TIMES}, 62.0,
                                 time_units="days since 2000-01-01")
    with Image.open(path) as picture:
        assert picture.size[0] > 300


def test_training_curves_come_from_the_log_by_stage(tmp_path, monkeypatch):
    rows = [{"stage": "decoder", "step": 0, "validation": 1.0}, {"stage": "decoder", "step": 10, "loss": 0.5},
            {"stage": "decoder", "step": 20, "loss": 0.4, "validation": 0.6},
            {"stage": "decoder", "step": 20, "loss": 0.3, "validation": 0.5}, {"stage": "dynamics", "step": 0}]
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"stage": "decoder", "st', encoding="utf-8")
    stages = plotting.read_steps(log)
    assert [row["step"] for row in stages["decoder"]] == [0, 10, 20] and stages["decoder"][2]["loss"] == 0.3
    ax, = drawn_axes(monkeypatch, lambda: plotting.loss_figure("-", stages))
    assert ax.get_title() == "decoder" and ax.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.3], [1.0, 0.5]]


def test_a_run_without_steps_still_gives_a_figure(tmp_path):
    assert plotting.loss_figure(tmp_path / "loss.png", {}).exists()


def test_nothing_of_matplotlib_is_changed(tmp_path):
    before = {key: value for key, value in matplotlib.rcParams.items() if key != "backend"}
    truth, forecast, std = fields(square())
    plotting.forecast_figure(tmp_path / "a.png", TIMES, square(), truth, forecast, std, CHANNELS)
    plotting.animation(tmp_path / "a.gif", TIMES, square(), truth, forecast, std, CHANNELS, largest=2)
    assert {key: matplotlib.rcParams[key] for key in before} == before
    code = "import sys, inrflow.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
