"""The law recipe: heat between walls, whose solution is known, from scattered points; saved, loaded and asked."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import run_on, trained_on
from scipy.integrate import solve_ivp

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.observations import Observations
from inrflow.domains import Box
from inrflow.dynamics.laws import Law
from inrflow.dynamics.laws.terms import LAPLACIAN, VALUE, Term
from inrflow.model.surrogate import Surrogate
from inrflow.training.recipes.law import LawRecipe, _written

DIFFUSIVITY, TIMES = 0.05, 0.2 * np.arange(12)


def heat(x: np.ndarray, t: np.ndarray, amplitudes: np.ndarray, diffusivity: float = DIFFUSIVITY) -> np.ndarray:
    """(T, N, 1) of u_t = D u_xx - u with no flux at 0 and 1, amplitudes (K,) of cosines at the start; offset 3."""
    waves = np.pi * np.arange(len(amplitudes))
    decay = np.exp(-(diffusivity * waves**2 + 1) * t[:, None])
    return ((decay * amplitudes) @ np.cos(waves[:, None] * x[:, 0]))[..., None]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.default_rng(0)
    x = np.sort(random.random((60, 1)), 0)
    x[0], x[-1] = 0.0, 1.0
    amplitudes = random.normal(size=(14, 6)) / (1 + np.arange(6))
    u = np.stack([heat(x, TIMES[:8], one) for one in amplitudes]).astype(np.float32)
    path = tmp_path_factory.mktemp("heat") / "heat.h5"
    write_trajectories(path, TIMES[:8], x, u, Description("heat", ("u",), ("x",)))
    return path, x, amplitudes


@pytest.fixture(scope="module")
def surrogate(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("law")
    return folder, trained_on(data[0], folder, "recipe=law", "training.minutes=0.3")


def test_the_law_is_found_and_written_in_the_units_of_the_data(surrogate):
    folder, model = surrogate
    line = model.training["equation"][0]
    assert float(re.search(r"([\d.]+)\(?\d*\)? lap u", line).group(1)) == pytest.approx(DIFFUSIVITY, rel=0.02)
    assert json.loads((folder / "candidates.json").read_text())["candidates"][0]["recipe"] == "law"


def test_laws_of_flows_that_walls_hold_are_written_in_the_units_of_the_data():
    units = (2.0, 3.0)
    terms = (Term((((0, LAPLACIAN),),), solenoidal=True, vector=(0, 1), units=units),
             Term((((2, VALUE),),), axis=1, solenoidal=True, vector=(0, 1), units=units, row=0))
    theta = np.array([[0.1, 0.0, 0.0], [1.0, 0.0, 0.0]])
    law = Law(Box([0, 0], [1, 1], ["periodic", "walled"]), "held", terms, theta, 0 * theta, None)
    problem = SimpleNamespace(
        description=SimpleNamespace(channels=("u", "v", "T"), coordinates=("x", "y")), scale=SimpleNamespace(unit=0.5),
        source=SimpleNamespace(normalisation=SimpleNamespace(scale=torch.tensor([2.0, 3.0, 5.0]))),
        differences=["u", "v", "T"])
    assert _written(law, problem)[0] == "du/dt = 0.2 P lap u + 0.4 (P T e_y)_x"  # 1 2 / (5 2 .5), of u over 2


def test_laws_of_values_far_from_zero_are_those_of_their_differences(tmp_path):
    x, random = (np.arange(48) + 0.5) / 48, np.random.default_rng(0)

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        padded = np.pad(u, 1, mode="edge")
        return 0.004 * 48**2 * (padded[2:] - 2 * u + padded[:-2]) + u - u**3

    start = random.normal(size=(10, 5)) @ np.cos(np.pi * np.arange(5)[:, None] * x) / 2
    u = np.stack([solve_ivp(rate, (0, 3), one, "LSODA", TIMES[:10] / 3, rtol=1e-9, atol=1e-9).y.T for one in start])
    path = tmp_path / "kelvin.h5"
    write_trajectories(path, TIMES[:10] / 3, x[:, None], 290 + 5 * u[..., None], Description("kelvin", ("T",), ("x",)))
    with run_on(path, tmp_path, "recipe=law", "training.minutes=0.05") as run:
        (found,) = LawRecipe().propose(run)
        centre = 290 + 5 * float(u.mean())
    assert found.score.error < 1e-6
    (line,) = found.metadata["equation"]
    shown = float(re.search(r"\(T-([\d.]+)\)", line).group(1))
    assert line.startswith("dT/dt") and shown == pytest.approx(centre, abs=1.0)
    assert float(re.search(r"([\d.]+)\(\d+\) lap \(T", line).group(1)) == pytest.approx(0.004, rel=0.02)
    cubic = float(re.search(r"- ([\d.]+)\(\d+\) \(T-[\d.]+\)\^3", line).group(1))
    assert cubic == pytest.approx(1 / 25, rel=0.02)


def test_no_network_is_sought_where_a_short_law_explains_the_data(surrogate):
    assert 'network"' not in (surrogate[0] / "candidates.json").read_text()


def test_a_network_is_put_into_a_law_where_it_is_asked_for_or_none_is_found(tmp_path, monkeypatch):
    x, random = (np.arange(32) + 0.5) / 32, np.random.default_rng(0)

    def rate(_: float, u: np.ndarray) -> np.ndarray:  # no polynomial
        padded = np.pad(u, 1, mode="edge")
        return 0.01 * 32**2 * (padded[2:] - 2 * u + padded[:-2]) + 2 * u / (0.1 + u**2) - u

    start = 1.2 + 0.5 * random.normal(size=(8, 4)) @ np.cos(np.pi * np.arange(4)[:, None] * x) / 2
    u = [solve_ivp(rate, (0, 1), one, "LSODA", TIMES[:8] / 2, rtol=1e-8, atol=1e-8).y.T for one in start]
    path = tmp_path / "growth.h5"
    write_trajectories(path, TIMES[:8] / 2, x[:, None], np.stack(u)[..., None].astype(np.float32),
                       Description("growth", ("u",), ("x",)))
    with run_on(path, tmp_path, "recipe=law", "training.minutes=0.02", "dynamics.network=on") as run:
        found = list(LawRecipe().propose(run))
    assert "network" in found[-1].name and found[-1].score.error < 0.1
    monkeypatch.setattr("inrflow.dynamics.laws.fit.LawSearch.run", lambda *_: None)  # no law forecasts
    with run_on(path, tmp_path, "recipe=law", "training.minutes=0.02", "dynamics.network=on") as run:
        (found,) = LawRecipe().propose(run)
    assert "network" in found.name and found.score.error < 0.1
    monkeypatch.setattr("inrflow.training.recipes.law._FIRST_SECONDS", 0.0)
    monkeypatch.setattr("inrflow.dynamics.laws.fit._VISIBLE", 0.0)  # terms leave 3e-8 here
    with run_on(path, tmp_path, "recipe=law", "training.minutes=0.02") as run:
        found = list(LawRecipe().propose(run))
    assert run.budget.decisions["first_network"] and min(one.score.error for one in found) < 0.1


def test_other_fields_are_forecast_at_other_points_and_by_the_saved_model_too(surrogate, data, tmp_path):
    _, model = surrogate
    model.save(tmp_path)
    _, x, _ = data
    places, mix = np.linspace(0, 1, 23)[:, None], np.array([0.5, -0.8, 0.3, 0.2, 0.0, 0.05])
    seen, truth = heat(x, TIMES[:1], mix), heat(places, TIMES, mix)
    for one in (model, Surrogate.load(tmp_path)):
        solution = one.assimilate(Observations(TIMES[:1], x, seen))
        assert np.square(solution.frames(TIMES, places) - truth).mean() < 1e-5 * truth.var()
    slopes = solution.derivatives(TIMES[2], places)["dx"][:, 0, 0]
    waves = np.pi * np.arange(6)
    exact = -(np.exp(-(DIFFUSIVITY * waves**2 + 1) * TIMES[2]) * mix * waves) @ np.sin(waves[:, None] * places[:, 0])
    np.testing.assert_allclose(slopes, exact, atol=2e-2)
    assert bool(torch.isfinite(torch.as_tensor(solution.std(TIMES[5], places))).all())


def test_a_law_is_written_with_parameters_that_each_trajectory_has_of_its_own_and_holds_beyond_them(tmp_path):
    x, random = (np.arange(40)[:, None] + 0.5) / 40, np.random.default_rng(6)
    diffusivities = random.uniform(0.02, 0.06, 16)
    fields = np.stack([heat(x, TIMES, random.normal(size=6) / (1 + np.arange(6)), one) for one in diffusivities])
    about = Description("rods", ("u",), ("x",), parameter_names=("D",))
    write_trajectories(tmp_path / "rods.h5", TIMES, x, fields, about, parameters=diffusivities[:, None])
    model = trained_on(tmp_path / "rods.h5", tmp_path / "run", "recipe=law", "training.minutes=0.3")
    (line,) = model.training["equation"]
    assert float(re.search(r"([\d.]+) D lap u", line).group(1)) == pytest.approx(1, rel=0.02)
    truth = heat(x, TIMES, random.normal(size=6) / (1 + np.arange(6)), 0.1)
    with pytest.warns(UserWarning, match="outside"):
        solution = model.assimilate(Observations(TIMES[:1], x, truth[:1]), parameters={"D": 0.1})
    assert np.square(solution.frames(TIMES, x) - truth).mean() < 1e-5 * truth.var()


def test_three_trajectories_between_walls_say_the_law_of_others(tmp_path):
    x, random = (np.arange(40)[:, None] + 0.5) / 40, np.random.default_rng(5)
    mixes = random.normal(size=(11, 6)) / (1 + np.arange(6))
    write_trajectories(tmp_path / "few.h5", TIMES[:8], x, np.stack([heat(x, TIMES[:8], mix) for mix in mixes[:3]]),
                       Description("few", ("u",), ("x",)))
    model, held = trained_on(tmp_path / "few.h5", tmp_path / "run", "training.minutes=0.2"), []
    for truth in (heat(x, TIMES, mix) for mix in mixes[3:]):
        solution = model.assimilate(Observations(TIMES[:1], x, truth[:1]))
        errors = abs(solution.frames(TIMES, x) - truth)
        assert np.square(errors).mean() < 1e-3 * truth.var()
        held.append((errors < 1.645 * np.stack([solution.std(t, x) for t in TIMES])).mean())
    assert 0.7 < np.mean(held)


@pytest.mark.parametrize(("setting", "reason"), [
    ("dynamics.equation=false", "dynamics.equation"), ("data.frames=3", "data have 3 frames"),
    ("decoder.modulation=[shift]", "linear solve"),
])
def test_a_reason_is_given_where_no_law_is_looked_for(data, tmp_path, setting, reason):
    extra = ["encoding.method=adam"] if "modulation" in setting else []
    with run_on(data[0], tmp_path, setting, *extra) as run:
        assert reason in LawRecipe().applies(run.problem, None)


@pytest.mark.parametrize(("places", "coordinates"), [(40, ("x",)), (20, ("x",)), (40, ("x", "y"))])
def test_a_law_of_one_series_is_looked_for_at_fewer_places_on_a_line(tmp_path, places, coordinates):
    random, t = np.random.default_rng(0), np.arange(30.0)
    write_trajectories(tmp_path / "one.h5", t, random.uniform(size=(places, len(coordinates))),
                       random.normal(size=(1, 30, places, 1)), Description("one", ("u",), coordinates))
    other = SimpleNamespace(explained=False, score=SimpleNamespace(error=1.0))
    with run_on(tmp_path / "one.h5", tmp_path) as run:
        reason = LawRecipe().applies(run.problem, other)
    assert reason is None if places == 40 and coordinates == ("x",) else "few dozen places" in reason
