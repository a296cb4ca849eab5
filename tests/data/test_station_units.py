"""Places in another unit than the others are told by training and `inspect`, as are channels that describe places."""

import numpy as np
import pytest

from inrflow.commands.inspect import run as inspect
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.plausible import check_plausible
from inrflow.data.source import TrajectorySource
from inrflow.data.station_units import changing_units, other_units

RANDOM = np.random.default_rng(0)
X = np.stack([RANDOM.uniform(0, 100, 30), RANDOM.uniform(0, 100, 30), np.r_[RANDOM.uniform(0, 900, 29), 2900]], 1)
HOURS = np.arange(100)
DAY = np.sin(2 * np.pi * HOURS / 24)[:, None] + 0.3 * RANDOM.standard_normal((100, 30))
KINDS = {
    "T": 18 - 6.5e-3 * X[:, 2] + 5 * DAY,
    "p": 1013 * np.exp(-X[:, 2] / 8000) + DAY,
    "discharge": 3.0 ** np.linspace(-4, 5, 30) * np.exp(0.3 * DAY),
    "rain": np.maximum(DAY - 1, 0.0),
}
VALUES = np.stack(list(KINDS.values()), -1)


def told(values):
    return other_units(X, values, tuple(KINDS), ("x", "y", "elevation"))


def test_mountains_large_rivers_and_rain_are_not_taken_for_other_units():
    assert told(VALUES) == []
    assert told(np.where(RANDOM.random(VALUES.shape) < 0.4, np.nan, VALUES)) == []


@pytest.mark.parametrize(("channel", "place", "convert", "words"), [
    (0, 4, lambda u: u + 273.15, "in kelvin, the others in degrees Celsius"),
    (0, 29, lambda u: u + 273.15, "in kelvin, the others in degrees Celsius"),
    (1, 7, lambda u: u * 100, "100 times too large"),
    (1, 7, lambda u: u / 10, "10 times too small"),
])
def test_a_place_in_another_unit_is_told(channel, place, convert, words):
    values = VALUES.copy()
    values[:, place, channel] = convert(values[:, place, channel])
    (clause,) = told(values)
    assert clause.startswith(f"channel {list(KINDS)[channel]} at x {X[place, 0]:.6g}, y ")
    assert words in clause


def test_degrees_celsius_among_kelvin_are_told_with_the_number_of_places():
    values = VALUES.copy()
    values[:, 3:, 0] += 273.15
    (clause,) = told(values)
    assert "and 2 more places appears to be in degrees Celsius, the others in kelvin" in clause


def test_training_and_inspect_tell_of_it(tmp_path, capsys):
    values = VALUES[None, :, :, :1].copy()
    values[:, :, 5] += 273.15
    path = tmp_path / "air.h5"
    write_trajectories(path, HOURS, X, values, Description("air", ("T",), ("x", "y", "elevation")))
    with TrajectoryFile(path) as file, pytest.warns(UserWarning, match="appears to be in kelvin.*; convert its values"):
        source = TrajectorySource(file)
        source.fit_normalisation([0])
        check_plausible(source, [0])
    inspect([str(path)])
    assert "in kelvin" in " ".join(capsys.readouterr().out.split())


def test_a_channel_that_describes_places_is_told(tmp_path):
    values = np.stack([KINDS["T"], np.tile(X[:, 2] / 90, (100, 1))], -1)[None]
    path = tmp_path / "soil.h5"
    write_trajectories(path, HOURS, X[:, :2], values, Description("soil", ("T", "clay"), ("x", "y")))
    with TrajectoryFile(path) as file, pytest.warns(UserWarning, match="channel clay has one value at each place"):
        source = TrajectorySource(file)
        source.fit_normalisation([0])
        check_plausible(source, [0])


UNITS_IN_TIME = {
    "T": KINDS["T"], "pollution": np.exp(3 + 0.4 * DAY), "humidity": 60 + 20 * DAY, "rain": KINDS["rain"],
    "discharge": KINDS["discharge"], "depths": np.where(X[:, 0] < 50, 4 + 0.05 * DAY, 18 + 4 * DAY),
    "pump": np.where(DAY > 0, 2e3, 2.0) * (1 + 0.05 * RANDOM.standard_normal(DAY.shape)),
    "salinity": np.where(DAY > 0, 31 + DAY, 0.31 * np.exp(0.1 * DAY)),
    "steps": np.where(HOURS[:, None] < 50, 12.0, 40.0) * np.exp(0.1 * DAY),
}


def test_pollution_rivers_depths_rain_switches_and_tides_do_not_change_their_unit():
    values = np.stack(list(UNITS_IN_TIME.values()), -1)
    assert changing_units(X, values, tuple(UNITS_IN_TIME), ("x", "y", "elevation")) == []
    single = values[:, 4:5]
    assert changing_units(X[4:5], single, tuple(UNITS_IN_TIME), ()) == []


@pytest.mark.parametrize(("channel", "rows", "places", "convert", "words"), [
    ("T", HOURS >= 52, 7, lambda u: u + 273.15, "48 % of the values differ by 273.15 from the others, as kelvin from"),
    ("T", HOURS >= 52, slice(None), lambda u: u + 273.15, "more places appears to be in two units: 48 % of the"),
    ("pollution", RANDOM.random(100) < 0.5, 7, lambda u: 1000 * u, "% of the values are 1000 times the others"),
    ("discharge", abs(HOURS - 40) < 20, 7, lambda u: u / 1000, "61 % of the values are 1000 times the others"),
    ("humidity", HOURS < 50, slice(None), lambda u: u / 100, "50 % of the values are 100 times the others"),
])
def test_a_change_of_unit_is_told(channel, rows, places, convert, words):
    values = UNITS_IN_TIME[channel].copy()
    values[rows, places] = convert(values[rows, places])
    (clause,) = changing_units(X, values[..., None], (channel,), ("x", "y", "elevation"))
    assert clause.startswith(f"channel {channel} at x ") and words in clause


def test_half_of_the_places_in_kelvin_are_told():
    values = VALUES.copy()
    values[:, ::2, 0] += 273.15
    (clause,) = told(values)
    assert "and 14 more places appears to be in kelvin, the others in degrees Celsius" in clause
