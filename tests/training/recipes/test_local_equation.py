"""Training on periodic domains finds the local equation that made the data, and takes it where validation says so."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from runs import run_on, trained_on

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.model.surrogate import Surrogate
from inrflow.pdes.generate import generate
from inrflow.training.candidate import Candidate
from inrflow.training.complete import complete
from inrflow.training.recipes.local_equation import LocalEquationRecipe
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe

BURGERS = {"grid": 24, "dimensions": 1, "dt": 0.05, "frames": 8}


class Found(NamedTuple):
    """A candidate and the surrogate that it is completed to."""

    candidate: Candidate
    surrogate: Surrogate


def found_on(path: Path, folder: Path, *overrides: str) -> Found | None:
    recipe = LocalEquationRecipe()
    with run_on(path, folder, "training.steps.equation=300", *overrides) as run:
        if recipe.applies(run.problem, None) is not None:
            return None
        candidates = list(recipe.propose(run))
        return Found(candidates[-1], complete(candidates[-1], run.log)) if candidates else None


@pytest.fixture(scope="module")
def burgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("burgers")
    train = generate("burgers", folder / "train.h5", trajectories=6, seed=0, parameters={"viscosity": 0.05}, **BURGERS)
    test = generate("burgers", folder / "test.h5", trajectories=2, seed=1, parameters={"viscosity": 0.05}, **BURGERS)
    found = found_on(train, folder / "run")
    assert found is not None
    return folder, train, test, found


def weights(line: str) -> dict[str, float]:
    parts = line.split(" = ")[1].replace(" +", "|").replace(" -", "|-").split("|")
    return {name: float(weight) for weight, _, name in (part.partition(" ") for part in parts)}


def test_the_equation_of_the_data_is_found_told_and_trusted(burgers):
    _, _, _, found = burgers
    assert found.candidate.explained and found.surrogate.training["dynamics"] == "local equation"
    told = weights(found.surrogate.training["equation"][0])
    assert told["u u_x"] == pytest.approx(-1, abs=0.02)
    assert told.get("lap u", told.get("u_xx")) == pytest.approx(0.05, rel=0.03)


def test_new_initial_conditions_are_forecast_and_the_saved_model_does_the_same(burgers, tmp_path):
    _, _, test, found = burgers
    found.surrogate.save(tmp_path)
    loaded = Surrogate.load(tmp_path)
    with TrajectoryFile(test) as file:
        report = evaluate(found.surrogate, file, Observe(), with_std=False).report
        assert report["nmse"]["all"] < 1e-4
        batch = TrajectorySource(file).batch(np.array([0, 1]), normalised=False).first_frames(1)
    times = torch.tensor([0.0, 0.7, 3.0]).double().expand(2, -1)
    paths = []
    for one in (found.surrogate, loaded):
        state = one.estimate(batch, covariance=False).mean[:, -1]
        paths.append(one.dynamics.flow(state, times))
    assert torch.equal(paths[0], paths[1])


def test_environments_with_one_trajectory_each_are_judged_in_time(tmp_path):
    values = {"viscosity": [0.03, 0.05, 0.08]}
    path = generate("burgers", tmp_path / "few.h5", trajectories=3, seed=0, parameters=values, **BURGERS)
    found = found_on(path, tmp_path / "run", "dynamics.context=environment", "dynamics.context_size=1")
    assert found is not None and found.candidate.explained
    known = found.surrogate.contexts
    assert known is not None and found.surrogate.context_size == 1 and len(known.values) == 3
    line = np.polyfit(known.values[:, 0].numpy(), [0.03, 0.05, 0.08], 1)
    assert np.polyval(line, known.values[:, 0].numpy()) == pytest.approx([0.03, 0.05, 0.08], rel=0.02)


def test_a_linear_equation_leaves_the_last_word_to_a_comparison(tmp_path):
    path = generate("wave", tmp_path / "wave.h5", trajectories=5, frames=6, grid=16, dimensions=1, seed=0)
    found = found_on(path, tmp_path / "run")
    assert found is not None and found.candidate.field.is_linear_at_context
    assert ReducedOrderRecipe().applies(found.candidate.problem, found.candidate) is None
    assert [line.split(" = ")[0] for line in found.surrogate.training["equation"]] == ["du/dt", "dv/dt"]


@pytest.mark.parametrize("override", ["dynamics.equation=false", "dynamics.memory=4", "decoder.periodic=false"])
def test_settings_that_exclude_an_equation_are_obeyed(burgers, tmp_path, override):
    assert found_on(burgers[1], tmp_path / "run", override) is None


def test_without_harmonics_there_is_no_equation_and_codes_on_them_are_refused(burgers, tmp_path):
    _, train, _, _ = burgers
    assert found_on(train, tmp_path / "run", "decoder.harmonics=0") is None
    with pytest.raises(UserError, match="decoder.harmonics=0"):
        trained_on(train, tmp_path / "codes", "decoder.harmonics=0", "decoder.codes=harmonics")
