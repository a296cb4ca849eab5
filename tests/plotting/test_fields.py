"""Panels of a channel: colours, limits and labels say what the arrays say."""

import numpy as np
from small_fields import CHANNELS, TIMES, UNITS, fields, square

from inrflow.plotting.fields import channel_fields
from inrflow.plotting.style import moment_label, palette, units_label


def test_colours_are_centred_for_fields_of_both_signs_and_shared_by_truth_and_forecast():
    assert palette(np.array([-1.0, 3.0, np.nan]))[1] == (-3.0, 3.0)
    assert palette(np.array([15.0, 31.0]))[1] == (15.0, 31.0)
    low, high = palette(np.full(3, 2.0))[1]
    assert low < 2.0 < high
    truth, forecast, std = fields(square())
    data = channel_fields(TIMES, square(), truth, 2 * forecast, std, CHANNELS, UNITS, "u", *[None] * 5)
    styles = data.styles([0, 3])
    assert styles["truth"] == styles["forecast"] == palette(truth[[0, 3], :, 0])
    assert styles["error"][1][0] == -styles["error"][1][1]
    assert styles["uncertainty"][1][0] == 0.0
    assert list(styles) == ["truth", "forecast", "error", "uncertainty"]
    np.testing.assert_allclose(data.panels["error"], 2 * forecast[..., 0] - truth[..., 0])


def test_uncertainty_that_is_the_same_everywhere_is_drawn_in_the_middle_of_its_scale():
    truth, forecast, std = fields(square())
    for values, share in ((np.full_like(std, 0.3), 0.5), (np.linspace(0.01, 0.3, std.size).reshape(std.shape), 1.0)):
        data = channel_fields(TIMES, square(), truth, forecast, values, CHANNELS, UNITS, "u", *[None] * 5)
        low, high = data.styles([0, 3])["uncertainty"][1]
        assert low == 0.0 and abs(np.max(values[[0, 3], :, 0]) / high - share) < 0.02


def test_labels_carry_units_and_dates():
    assert units_label("m2/s2") == " [m²/s²]" and units_label("degC") == " [°C]" and units_label(None) == ""
    assert units_label("kg m-3") == " [kg m⁻³]"
    assert moment_label(31.0, "days since 2000-01-01") == "2000-02-01"
    assert moment_label(0.25, "s") == "t = 0.25 s"
