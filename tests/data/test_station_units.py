"""Places in another unit than the others are told by training and `inspect`, as are channels that describe places."""

import numpy as np
import pytest

from inrflow.commands.inspect import run as inspect
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.plausible import check_plausible
from inrflow.data.source import TrajectorySource
from inrflow.data.station_units import other_units

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
