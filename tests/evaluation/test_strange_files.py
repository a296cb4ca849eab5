"""Test files unlike the training data, in another unit or with other parameters: evaluated, and told."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from small_surrogates import law, seen

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.plotting.errors import error_figure


@pytest.fixture(scope="module")
def surrogate():
    model = law("walls")
    model.training |= {"seed": 0, "same_points": False, "points": 1.0}
    model.training["parameters"] = {"nu": [0.5, 0.5], "speed": [1.0, 2.0]}
    model.description = replace(model.description, units=("degC",))
    return model


def told(surrogate, folder, scale=1.0, shift=0.0, stretch=1.0, nu=0.5, speed=1.5, units=None):
    """What is said of an evaluation on the model's own forecast, changed."""
    frames = seen(surrogate, frames=2).frames()
    about = replace(surrogate.description, parameter_names=("nu", "speed"), units=units)
    write_trajectories(folder / "a.h5", stretch * frames.t, frames.x, scale * frames.u[None] + shift, about,
                       parameters=[[nu, speed]], overwrite=True)
    with TrajectoryFile(folder / "a.h5") as file, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        report = evaluate(surrogate, file, Observe(1)).report
    json.dumps(report)
    return " // ".join(str(one.message) for one in found)


def test_what_is_like_the_training_data_is_not_told(surrogate, tmp_path):
    surrogate.normalisation.most = None
    assert told(surrogate, tmp_path, units=("degC",)) == ""


@pytest.mark.parametrize(("change", "words"), [
    ({"shift": 273.0}, "check their unit"), ({"scale": 1e12}, "check their unit"), ({"stretch": 1000.0}, "1e+03 times"),
    ({"stretch": 20.0}, "20 times those of training"),
    ({"nu": 0.6}, "nu is 0.6, in training it was always 0.5"), ({"speed": 3.0}, "in training it was 1 to 2"),
    ({"units": ("K",)}, "u in K instead of degC"),
])
def test_what_is_unlike_it_is_told(surrogate, tmp_path, change, words):
    assert words in told(surrogate, tmp_path, **change)


def test_a_field_that_never_changes_has_a_picture_without_errors(tmp_path):
    assert error_figure(tmp_path / "a.png", np.arange(3.0), {"inrflow": np.full(3, np.nan)}).stat().st_size > 1000


def test_an_evaluation_that_is_over_begins_no_further_trajectories(surrogate, tmp_path):
    frames, u = seen(surrogate, frames=4).frames(), []
    for k in range(9):
        u.append(frames.u + 0.01 * k)
    write_trajectories(tmp_path / "a.h5", frames.t, frames.x, np.stack(u), surrogate.description)
    with TrajectoryFile(tmp_path / "a.h5") as file:
        whole, bounded, first = (evaluate(surrogate, file, Observe(1), with_std=False, limit=limit)
                                 for limit in (np.inf, 600.0, 0.0))
    assert [one.report["trajectories"] for one in (whole, bounded, first)] == [9, 9, 1]
    assert bounded.report["mse"]["in_t"] == pytest.approx(whole.report["mse"]["in_t"], rel=1e-5)
    np.testing.assert_array_equal(first.example["truth"], frames.u)  # of the first trajectory, in any case
    assert first.report["mse"]["in_t"] != pytest.approx(whole.report["mse"]["in_t"], rel=1e-3)
