"""Panels of a channel: colours, limits and labels say what the arrays say."""

import numpy as np
from small_fields import CHANNELS, TIMES, UNITS, T, fields, square

from inrflow.plotting import Scene
from inrflow.plotting.style import date_axis, moment_label, new_figure, palette, units_label


def test_colours_are_centred_for_fields_of_both_signs_and_shared_by_truth_and_model():
    assert palette(np.array([-1.0, 3.0, np.nan]))[1] == (-3.0, 3.0)
    assert palette(np.array([15.0, 31.0]))[1] == (15.0, 31.0)
    low, high = palette(np.full(3, 2.0))[1]
    assert low < 2.0 < high
    truth, forecast, std = fields(square())
    data = Scene(TIMES, square(), 2 * forecast, CHANNELS, truth, std, UNITS).channel("u")
    styles = data.styles([0, 3])
    assert styles["truth"] == styles["model"] == palette(truth[[0, 3], :, 0])
    assert styles["error"][1][0] == -styles["error"][1][1]
    assert styles["std"][1][0] == 0.0
    assert list(styles) == ["truth", "model", "error", "std"]
    np.testing.assert_allclose(data.panels["error"], 2 * forecast[..., 0] - truth[..., 0])


def test_uncertainty_that_is_the_same_everywhere_is_drawn_in_the_middle_of_its_scale():
    truth, forecast, std = fields(square())
    for values, share in ((np.full_like(std, 0.3), 0.5), (np.linspace(0.01, 0.3, std.size).reshape(std.shape), 1.0)):
        data = Scene(TIMES, square(), forecast, CHANNELS, truth, values, UNITS).channel("u")
        low, high = data.styles([0, 3])["std"][1]
        assert low == 0.0 and abs(np.max(values[[0, 3], :, 0]) / high - share) < 0.02


def test_labels_carry_units_and_dates():
    assert units_label("m2/s2") == " [m²/s²]" and units_label("degC") == " [°C]" and units_label(None) == ""
    assert units_label("kg m-3") == units_label("kg m**-3") == " [kg m⁻³]" and units_label("m^2") == " [m²]"
    assert moment_label(31.0, "days since 2000-01-01") == "2000-02-01"
    assert moment_label(0.25, "s") == "t = 0.25 s"
    assert moment_label(15.0, "fortnights since 2000-01-01") == "t = 15 fortnights"  # no calendar
    assert moment_label(7.0, "hours since 2000-01-01", 1.0) == "2000-01-01 07:00"
    assert moment_label(48.0, "hours since 2000-01-01", 24.0) == "2000-01-03"


def test_frames_are_assimilated_up_to_the_last_observation_and_forecasts_after_it():
    truth, forecast, std = fields(square())
    scene = {"truth": truth, "std": std, "horizon": 1.2, "sensors": square()[:5]}
    data = Scene(TIMES, square(), forecast, CHANNELS, **scene, assimilated=TIMES[1]).channel(0)
    assert [data.status(frame) for frame in range(T)] == [
        "assimilated", "assimilated", "forecast", *["forecast, beyond training"] * 3]
    assert [data.marked("truth", frame) for frame in range(3)] == [True, True, False]
    assert not data.marked("model", 0) and not data.marked("error", 0)
    untold = Scene(TIMES, square(), forecast, CHANNELS, **scene).channel(0)
    assert untold.status(0) == "" and not untold.marked("truth", 0)


def test_points_where_the_truth_is_never_known_stay_empty_in_all_panels():
    truth, forecast, std = fields(square())
    truth[:, 7], truth[0, 8] = np.nan, np.nan
    data = Scene(TIMES, square(), forecast, CHANNELS, truth, std).channel("u")
    for name in ("model", "std", "error"):
        assert np.isnan(data.panels[name][:, 7]).all()
    assert np.isfinite(data.panels["model"][:, 8]).all() and np.isfinite(forecast).all()


def test_points_that_move_are_drawn_in_panels_that_show_the_places_of_all_frames():
    moving = np.stack([square() + shift for shift in np.linspace(0, 1, T)])
    _, forecast, _ = fields(square())
    data = Scene(TIMES, moving, forecast, CHANNELS).channel("u")
    ax = new_figure(2, 2, None).subplots()
    limits = []
    for frame in (0, T - 1):
        data.view(frame).format_axes(ax, bottom=True, left=True)
        limits.append((*ax.get_xlim(), *ax.get_ylim()))
    assert limits[0] == limits[1] and limits[0][0] <= moving[..., 0].min() and limits[0][1] >= moving[..., 0].max()


def test_dates_of_two_months_name_both():
    for first, words in (("2023-10-24", "2023-Oct to 2023-Nov"), ("2023-10-02", "2023-Oct")):
        figure = new_figure(4, 2, None)
        ax = figure.subplots()
        ax.plot(np.datetime64(first) + np.arange(9), np.arange(9))
        date_axis(ax)
        figure.canvas.draw()
        assert ax.xaxis.get_offset_text().get_text() == words
