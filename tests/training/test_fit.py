"""Training from Python, as a user writes it."""

import json

import numpy as np
import pytest
import torch
from rotations import RATES, Stub, write_rotations
from torch import nn

import inrflow


@pytest.fixture
def data(tmp_path):
    return write_rotations(tmp_path / "train.h5", noise=0.001)


def test_a_surrogate_is_fitted_and_forecasts_in_ten_lines(data):
    problem = inrflow.Problem.open(data, "training.minutes=0.02", "data.frames=6")
    surrogate = inrflow.fit(problem, quiet=True)
    truth = problem.file.read(9)
    first = inrflow.Observations(truth.t[:1], truth.x, truth.u[:1])
    forecast = surrogate.assimilate(first)(truth.t[7:], truth.x)
    assert np.abs(np.asarray(forecast).reshape(-1) - truth.u[7:].reshape(-1)).max() < 0.03 * np.abs(truth.u).max()


def test_a_term_and_a_recipe_of_ones_own_are_fitted(data, tmp_path, registries, capfd):
    @inrflow.register_term("turning")
    class Turning(inrflow.FieldTerm):
        """w J z - r z, J a quarter turn."""

        def __init__(self) -> None:
            super().__init__()
            self.rates = nn.Parameter(torch.tensor([0.2, 0.3]))

        def forward(self, t, z, c=None):
            return self.rates[0] * torch.stack([z[..., 1], -z[..., 0]], -1) - self.rates[1] * z

    from inrflow.training.recipes.neural import NeuralRecipe

    problem = inrflow.Problem.open(data, "training.steps.decoder=0", "training.steps.rollout=510",
                                   "decoder.code_size=2", "training.optimiser=adam", "dynamics.step=0.5")
    recipe = NeuralRecipe(field=lambda size: inrflow.VectorField(size, [Turning()]))
    surrogate = inrflow.fit(problem, [recipe], tmp_path / "run")
    turning, decay = surrogate.field.terms["turning"].rates.tolist()
    assert abs(turning) == pytest.approx(0.5, abs=0.02) and decay == pytest.approx(0.1, abs=0.02)
    record = json.loads((tmp_path / "run" / "candidates.json").read_text())
    assert record["candidates"][0]["taken"] and "model: neural" in capfd.readouterr().err


def test_settings_are_checked_and_named(data):
    with pytest.raises(inrflow.UserError, match="training.minutess"):
        inrflow.Problem.open(data, "training.minutess=1")
    with pytest.raises(inrflow.UserError, match="encoding.method=closed_form needs"):
        inrflow.Problem.open(data, "decoder.modulation=[shift]")


def test_without_a_directory_nothing_is_left_behind(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    surrogate = inrflow.fit(inrflow.Problem.open(data), [Stub("one", (RATES, 0.1))], quiet=True)
    assert torch.equal(surrogate.field.linear.matrix, RATES)
    assert [path.name for path in tmp_path.iterdir()] == ["train.h5"]
