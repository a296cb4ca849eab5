from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from inrflow.commands.plot import _draw_forecasts
from inrflow.commands.report import draw_errors
from inrflow.config.schema import PlotConfig
from inrflow.data.description import Description
from inrflow.plotting import Scene


def drawn(path):
    """Whether a picture holds more than its background."""
    return float(np.std(imread(path))) > 0.01


def test_pictures_of_a_run_show_forecasts_errors_and_training(tiny_run, elsewhere, inrflow_command, monkeypatch):
    monkeypatch.setattr("inrflow.plotting.animations._SMOOTH", 18)  # of 10 frames, and once between them
    monkeypatch.setattr("inrflow.plotting.animations._DPI", 40)
    outcome = inrflow_command("plot", f"run={tiny_run.run}", "output=plots", "trajectory=1", "observe.frames=2",
                              "frames=3")
    assert outcome.code == 0, outcome.err
    names = {item.name for item in (elsewhere / "plots").iterdir()}
    assert {"forecast_u.png", "forecast_v.png", "forecast_u.gif", "forecast_v.gif", "errors.png"} <= names
    assert all(drawn(elsewhere / "plots" / name) for name in names if name.endswith(".png"))
    with Image.open(elsewhere / "plots" / "forecast_u.gif") as moving:
        assert moving.n_frames == 19


def test_times_and_points_never_seen_are_drawn_without_truth(tiny_run, elsewhere, inrflow_command):
    (elsewhere / "places.csv").write_text("t,x,y\n0.3,0.1,0.2\n0.3,0.9,0.4\n0.3,0.5,1.1\n0.7,0.5,1.1\n")
    common = (f"run={tiny_run.run}", "channel=v", "animation=false")
    for folder, asked in (("a", "times=[0.1,0.35]"), ("b", "resolution=12"), ("c", "points=places.csv")):
        outcome = inrflow_command("plot", *common, f"output={folder}", asked)
        assert outcome.code == 0, outcome.err
        assert {item.suffix for item in (elsewhere / folder).iterdir()} == {".png"}
        assert drawn(elsewhere / folder / "forecast_v.png") and not (elsewhere / folder / "errors.png").exists()


@pytest.mark.parametrize(("argument", "said"), [
    ("channel=w", "choose one of u, v"),
    ("trajectory=3", "trajectories 0 to 2"),
    ("frames=0", "frames=0"),
    ("times=[2,1]", "increasing"),
    ("times=[]", "increasing"),
    ("times=[2024-03-07]", "is not a time in units without a name"),
    ("resolution=1", "resolution=1"),
    ("observe.frames=0", "observe.frames=0"),
    ("observe.points=2", "observe.points=2"),
    ("data.test=nowhere.h5", "does not exist"),
    ("chanel=u", "did you mean channel?"),
])
def test_mistakes_are_one_clear_line_and_nothing_is_written(argument, said, tiny_run, elsewhere, inrflow_command):
    outcome = inrflow_command("plot", f"run={tiny_run.run}", argument)
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()) == 1
    assert not list(elsewhere.iterdir())


def test_names_of_channels_make_files_that_any_system_has(tmp_path):
    about = Description("flow", ("U:0", "p" * 300), ("x",))
    scene = Scene(np.arange(3.0), np.linspace(0, 1, 6)[:, None], np.zeros((3, 6, 2)), about.channels)
    written = _draw_forecasts(PlotConfig(animation=False), about, scene, tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert all(":" not in path.name and len(path.name) < 200 for path in written) and len(written) >= 2


@pytest.mark.parametrize(("points", "first"), [(3, 4), (2, 0)])
def test_errors_of_a_fit_are_not_drawn(points, first, tmp_path, monkeypatch):
    """Four of six frames are observed, at all of three points or at some."""
    shown = []
    monkeypatch.setattr("inrflow.plotting.error_figure",
                        lambda path, times, errors, *_, **__: shown.append((times, errors)))
    observed = np.where(np.arange(3)[:, None] < points, np.ones((4, 3, 1)), np.nan)
    evaluation = SimpleNamespace(times=np.arange(6.0), by_frame={"inrflow": np.arange(6.0) / 8},
                                 example={"observed": observed, "truth": np.ones((6, 3, 1))})
    about = Description("a", ("u",), ("x",))
    draw_errors(tmp_path, SimpleNamespace(description=about, horizon=2.0), evaluation)
    (times, errors), = shown
    assert times.tolist() == list(range(first, 6)) and errors == {"inrflow": pytest.approx(times / 8)}
