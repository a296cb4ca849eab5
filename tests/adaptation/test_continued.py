"""Surrogates continued with further observations: series and laws fitted to all of them, others trained anew."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from inrflow.adaptation.continued import continued, judge_of
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.laws.term import LawTerm
from inrflow.training.problem import Problem
from inrflow.training.recipes.law import LawRecipe
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe
from inrflow.training.recipes.series import SeriesRecipe
from inrflow.training.recorder import Recorder
from inrflow.training.train import fit, start_run

SETTINGS = ("training.minutes=0.1", "training.residual_field=off")


def written(path, t, x, u, period=None):
    about = Description("grown", ("u",), tuple("xy"[: x.shape[-1]]), period=period)
    write_trajectories(path, t, x, u[..., None], about)
    return path


def updated(before, path, tmp_path):
    """The surrogate continued on a file, or None, and what was told."""
    told = io.StringIO()
    problem = Problem.open(path, *SETTINGS)
    with Recorder(tmp_path, Console(file=told, width=200)) as log:
        return continued(before, start_run(problem, log)), told.getvalue(), problem


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A damped autoregression at eight places, and the surrogate of its first 150 frames."""
    folder, random = tmp_path_factory.mktemp("series"), np.random.default_rng(3)
    x, t, u = random.random((8, 2)), np.arange(260.0), np.zeros((260, 8))
    mixing = 0.85 * np.eye(8) + 0.05 * random.standard_normal((8, 8))
    for k in range(1, 260):
        u[k] = mixing @ u[k - 1] + random.standard_normal(8)
    path = written(folder / "old.h5", t[:150], x, u[None, :150])
    return fit(Problem.open(path, *SETTINGS), [SeriesRecipe()], quiet=True), t, x, u


def test_a_series_is_continued_with_later_frames(series, tmp_path):
    before, t, x, u = series
    after, told, problem = updated(before, written(tmp_path / "all.h5", t, x, u[None]), tmp_path)
    assert "series:" in told and after is not None
    kept = judge_of(before, problem)
    assert kept.fitted.u.shape[1] == 205 and kept.windows.t.min() >= 190
    assert kept(after)[0].mean() <= 1.05 * kept(before)[0].mean() and len(kept(after)[0]) == 4
    assert after.training["frames"] == 260 and after.horizon == 259 and after.training["continued"] == 1
    assert before.training["frames"] == 150


def test_frames_that_are_unlike_those_before_are_trained_anew(series, tmp_path):
    before, t, x, u = series
    other = u.copy()
    other[150:] = 12 * np.random.default_rng(0).standard_normal((110, 8))
    after, told, problem = updated(before, written(tmp_path / "all.h5", t, x, other[None]), tmp_path)
    assert after is None and "training from scratch: 90 % intervals" in told
    assert float(problem.source.normalisation.scale.item()) > 2 * float(before.normalisation.scale.item())
    after, told, _ = updated(before, written(tmp_path / "many.h5", np.arange(320.0), x, np.tile(u, (2, 1))[None, :320]),
                             tmp_path)
    assert after is None and "more than 2 times the frames" in told


def test_coefficients_of_a_law_come_nearer_to_the_truth(tmp_path):
    random, x, t = np.random.default_rng(1), np.linspace(0, 1, 33)[:-1, None], np.linspace(0, 0.5, 12)
    k = np.arange(1, 6)
    first, second = random.standard_normal((2, 24, 1, 5)) / k
    phase = 2 * np.pi * k * (x - 0.3 * t[:, None, None])  # advection and diffusion, in closed form
    decay = np.exp(-0.01 * (2 * np.pi * k) ** 2 * t[:, None, None])
    parts = (first, decay * np.cos(phase)), (second, decay * np.sin(phase))
    u = sum(np.einsum("sok,tnk->stn", *part) for part in parts)
    u += 0.01 * random.standard_normal(u.shape)
    before = fit(Problem.open(written(tmp_path / "old.h5", t, x, u[:14], [1.0]), *SETTINGS), [LawRecipe()], quiet=True)
    after, told, problem = updated(before, written(tmp_path / "all.h5", t, x, u, [1.0]), tmp_path)
    assert "coefficients of the law" in told and after is not None
    assert after.training["trajectories"] == 24

    def error(surrogate):
        theta, terms = (next(iter(surrogate.field.terms.values())).__dict__[name] for name in ("_parameters", "terms"))
        return theta["theta"].detach().numpy()[: len(terms), 0] / surrogate.scale.unit

    found, earlier = error(after), error(before)
    truth = np.array([min((-0.3, 0.01), key=lambda one: abs(one - value)) for value in earlier])
    assert np.abs(found - truth).max() <= 1.05 * np.abs(earlier - truth).max()
    with TrajectoryFile(tmp_path / "all.h5") as file:
        assert file.trajectories == 24


def test_coefficients_of_a_law_of_second_order_are_refined_along_its_flow(tmp_path):
    random, x, t = np.random.default_rng(2), np.linspace(0, 1, 33)[:-1, None], np.linspace(0, 2.4, 13)
    k = np.arange(1, 6)
    turn = np.sqrt((0.2 * 2 * np.pi * k) ** 2 - 0.15**2)[:, None] * t  # u'' = -.3 u' + .04 lap u, in closed form
    parts = random.standard_normal((4, 20, 5)) / k**2
    waves = np.cos(2 * np.pi * k[:, None] * x[:, 0]), np.sin(2 * np.pi * k[:, None] * x[:, 0])
    u = sum(np.einsum("sk,kt,kn->stn", part, time, wave) for part, (time, wave) in zip(
        parts, ((time, wave) for time in (np.cos(turn), np.sin(turn)) for wave in waves), strict=True))
    u = u * np.exp(-0.15 * t)[:, None]
    before = fit(Problem.open(written(tmp_path / "old.h5", t, x, u[:14], [1.0]), *SETTINGS), [LawRecipe()], quiet=True)
    assert before.window == 3 and before.field.term(LawTerm).channels_with_rates(1) == (0,)
    _, told, _ = updated(before, written(tmp_path / "all.h5", t, x, u, [1.0]), tmp_path)
    assert "coefficients of the law" in told


def test_maps_of_another_recipe_are_continued_as_a_series(tmp_path):
    random, x = np.random.default_rng(6), np.arange(12.0)[:, None]
    u = np.zeros((90, 12))
    for k in range(1, 90):
        u[k] = 0.9 * np.roll(u[k - 1], 1) + 0.3 * random.standard_normal(12)
    before = fit(Problem.open(written(tmp_path / "old.h5", np.arange(70.0), x, u[None, :70]), *SETTINGS),
                 [ReducedOrderRecipe()], quiet=True)
    assert before.field.get(StepMapTerm) is not None and "series" not in before.training
    after, told, _ = updated(before, written(tmp_path / "all.h5", np.arange(90.0), x, u[None]), tmp_path)
    assert "series: " in told and after is not None and after.training["continued"] == 1
