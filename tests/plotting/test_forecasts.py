"""Pictures and animations of forecasts: whole files of every kind of points."""

import importlib
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from small_fields import CHANNELS, POINTS, TIMES, UNITS, T, fields, square

import inrflow
from inrflow import plotting
from inrflow.plotting import Scene


@pytest.mark.parametrize("kind", POINTS)
def test_forecasts_on_every_kind_of_points_become_whole_pictures(kind, tmp_path):
    x, options = POINTS[kind]
    truth, forecast, std = fields(x)
    scene = Scene(TIMES, x, forecast, CHANNELS, truth, std, UNITS, assimilated=0.5, sensors=x[::9], **options)
    full = plotting.forecast_figure(tmp_path / "full.png", scene, channel="p", frames=2, title="A title")
    scene = Scene(TIMES, x, forecast, CHANNELS, **options)
    bare = plotting.forecast_figure(tmp_path / "bare.png", scene, frames=[0, 3])
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
    scene = Scene(TIMES, x, forecast, CHANNELS, truth, std, assimilated=0.5, sensors=x[::9], **options)
    path = plotting.animation(tmp_path / "film.gif", scene, largest=3)
    with Image.open(path) as film:
        assert film.format == "GIF" and film.n_frames == 3
        pictures = []
        for frame in range(3):
            film.seek(frame)
            pictures.append(np.asarray(film.convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[2]).mean() > 0.5
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.gif"]


def test_films_show_the_model_between_the_frames(tmp_path):
    """Of a field that grows in time, with frames a quarter apart, of which the truth is that of the nearest one."""
    x, asked = square(), []
    ramp = np.ones(len(x))[:, None]

    def between(times):
        asked.extend(times)
        return times[:, None, None] * ramp

    t = np.array([0.0, 0.25, 1.0])
    scene = Scene(t, x, between(t), ("p",), between(t), between=between)
    data = scene.channel("p").refined(8)
    np.testing.assert_allclose(data.t, [0, 0.0625, 0.125, 0.1875, 0.25, 0.4375, 0.625, 0.8125, 1])
    np.testing.assert_allclose(data.panels["model"][:, 0], data.t)
    np.testing.assert_allclose(data.panels["truth"][[0, 1, 3, 4, 5, 7, 8], 0], [0, 0, 0.25, 0.25, 0.25, 1, 1])
    assert not data.panels["error"].any() and len(scene.channel("p").refined(2).t) == 3
    path = plotting.animation(tmp_path / "film.gif", scene, channel="p", largest=8)
    with Image.open(path) as film:
        assert film.n_frames == 8


def test_films_show_colour_bars_to_their_ends(tmp_path):
    truth, forecast, std = fields(square())
    scene = Scene(TIMES, square(), forecast, CHANNELS, truth, std)
    path = plotting.animation(tmp_path / "film.gif", scene, channel="p", largest=2)
    with Image.open(path) as film:
        for frame in range(film.n_frames):
            film.seek(frame)
            seen = np.asarray(film.convert("RGB")).reshape(-1, 3).astype(int)
            for name in ("viridis", "RdBu_r", "magma_r"):
                for end in (0.0, 1.0):
                    colour = 255 * np.array(colormaps[name](end)[:3])
                    assert (np.abs(seen - colour).max(1) < 8).sum() > 10, (name, end)


def test_moving_points_are_drawn_where_they_are(tmp_path):
    x = np.random.default_rng(0).random((T, 40, 2))
    values = np.sin(5 * x[..., :1])
    scene = Scene(TIMES, x, values, ("u",), values)
    assert plotting.forecast_figure(tmp_path / "a.png", scene, frames=2).exists()
    assert plotting.animation(tmp_path / "a.gif", scene, largest=2).exists()


def test_arrays_that_do_not_fit_together_are_refused():
    truth, forecast, std = fields(square())
    with pytest.raises(ValueError, match="std has shape"):
        plotting.forecast_figure("unused.png", Scene(TIMES, square(), forecast, CHANNELS, truth, std[:2]))


def test_nothing_of_matplotlib_is_changed_and_pyplot_is_not_needed(tmp_path, monkeypatch):
    before = {key: value for key, value in matplotlib.rcParams.items() if key != "backend"}
    for name in [name for name in sys.modules if name.startswith("inrflow.plotting")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(inrflow, "plotting", plotting)  # put back at the end
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails from here on
    fresh = importlib.import_module("inrflow.plotting")
    truth, forecast, std = fields(square())
    scene = fresh.Scene(TIMES, square(), forecast, CHANNELS, truth, std)
    fresh.forecast_figure(tmp_path / "a.png", scene)
    fresh.animation(tmp_path / "a.gif", scene, largest=2)
    assert {key: matplotlib.rcParams[key] for key in before} == before
