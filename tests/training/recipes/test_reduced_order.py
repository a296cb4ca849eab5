"""POD codes with closed-form dynamics: when delays are kept, and when the recipe is tried though the time is over."""

import h5py
import numpy as np
import pytest
from rotations import write_rotations
from runs import run_on, trained_on

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.evaluate import evaluate
from inrflow.evaluation.observe import Observe
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe


@pytest.fixture(scope="module")
def rod(tmp_path_factory):
    """Heat in a rod of which both ends are held: single frames are states."""
    path = tmp_path_factory.mktemp("data") / "rod.h5"
    random, x, t = np.random.default_rng(0), np.linspace(0, 1, 24), np.arange(12) * 0.5
    waves = np.arange(1, 5)
    decays = np.exp(-0.02 * np.pi**2 * waves**2 * t[:, None])  # (T, 4)
    u = (random.standard_normal((14, 1, 4)) * decays) @ np.sin(np.pi * waves[:, None] * x)
    with h5py.File(path, "w") as file:
        file["t"], file["x"], file["u"] = t, x[:, None], u[..., None].astype(np.float32)
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": "rod"})
        file.attrs.create("channels", ["u"], dtype=h5py.string_dtype())
        file.attrs.create("coordinates", ["x"], dtype=h5py.string_dtype())
    return path


def test_delays_that_observed_frames_do_not_tell_are_left_out(rod, tmp_path, monkeypatch):
    """Whatever the exact codes of earlier frames promise: forecasts begin at what an encoding of frames gives."""
    for name, value in (("LONGER_WINDOW", 1e9), ("ROUNDING", 0.0), ("DECODER_LIMITED", 0.0)):
        monkeypatch.setattr(f"inrflow.training.parts.linear.{name}", value)
    said: list[str] = []
    with run_on(rod, tmp_path, "training.minutes=0.1", said=said) as run:
        candidate, = ReducedOrderRecipe().propose(run)
    lines = [line for line in said if line.startswith("delay embedding")]
    assert len(lines) == 2 and lines[1].startswith("delay embedding: left out"), lines
    assert candidate.memory == 0
    with run_on(rod, tmp_path, "training.minutes=0.1", "dynamics.memory=0") as run:
        plain, = ReducedOrderRecipe().propose(run)
    assert candidate.score == plain.score


def test_trajectories_of_unequal_lengths_are_evaluated_with_deviations(rod, tmp_path):
    """Of files whose shorter trajectories end with times that are not numbers."""
    with h5py.File(rod) as file:
        t, x, u = (file[name][:] for name in "txu")
        attributes = dict(file.attrs)
    times = np.tile(t, (len(u), 1))
    times[::2, 7:], u[::2, 7:] = np.nan, np.nan
    with h5py.File(tmp_path / "uneven.h5", "w") as file:
        file["t"], file["x"], file["u"] = times, x, u
        file.attrs.update(attributes)
    model = trained_on(rod, tmp_path / "run", "recipe=reduced_order", "training.minutes=0.1")
    assert model.integrator.method == "map"
    with TrajectoryFile(tmp_path / "uneven.h5") as file:
        report = evaluate(model, file, Observe(1)).report
    assert report["nmse"]["all"] < 1e-6 and 0.6 < report["coverage_90"] <= 1


def test_components_of_few_values_at_shared_points_are_quick(rod, tmp_path):
    with run_on(rod, tmp_path) as run:
        assert ReducedOrderRecipe().is_quick(run.problem)


@pytest.mark.parametrize("irregular", [False, True])
def test_one_series_is_judged_though_the_frame_before_the_last_fifth_is_missing(tmp_path, irregular):
    path = write_rotations(tmp_path / "train.h5", trajectories=1, frames=30)
    with h5py.File(path, "r+") as file:
        file["u"][0, 23] = np.nan
        if irregular:
            file["t"][:] = np.cumsum(np.random.default_rng(0).choice([0.2, 1.0, 3.0], 30))
    with run_on(path, tmp_path / "run", "training.minutes=0.1") as run:
        found = next(iter(ReducedOrderRecipe().propose(run)))
    assert np.isfinite(found.score.error)
    assert found.first == 22
    assert not irregular or found.field.state_size == found.code_size  # differences over unequal steps tell no state
