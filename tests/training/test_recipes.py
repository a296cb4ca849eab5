"""Recipes by name, and whole trainings by them: decisions that repeat a run, a configuration that is only read."""

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
from rotations import RATES, Stub, candidate, write_rotations
from runs import run_on, trained_on
from safetensors.torch import load_file

from inrflow.config.train_schema import StepsConfig
from inrflow.dynamics.fields.linear import LinearTerm
from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.errors import UserError
from inrflow.model.store import MODEL_FILE
from inrflow.model.surrogate import Surrogate
from inrflow.training.judge import Judge
from inrflow.training.recipes.neural import NeuralRecipe
from inrflow.training.run import Recipe
from inrflow.training.train import RECIPES, recipes_named, register_recipe, train

QUICK = ("training.minutes=0.02", "training.optimiser=adamw", "decoder.width=16", "dynamics.width=16",
         "dynamics.depth=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rotations(tmp_path_factory.mktemp("data") / "train.h5")


# ---- by name ----


def test_auto_is_all_recipes_and_every_one_has_a_name_of_its_own():
    names = [recipe.name for recipe in recipes_named("auto")]
    assert names[0] == "law" and len(set(names)) == len(names) == len(RECIPES)
    assert all(isinstance(recipe, Recipe) for recipe in RECIPES)
    for name in names:
        assert [recipe.name for recipe in recipes_named(name)] == [name]
    for alias, name in (("coral", "auto_decoding"), ("local_equation", "law"), ("translation_equivariant", "law")):
        assert [recipe.name for recipe in recipes_named(alias)] == [name]


def test_an_unknown_recipe_is_refused_with_the_names_that_exist():
    with pytest.raises(UserError, match="recipe=corall is not known; choose from auto, law, .*coral"):
        recipes_named("corall")


def test_a_registered_recipe_is_tried_last_and_found_by_its_name(data, tmp_path, registries):
    stub = register_recipe(Stub("rotations", (RATES, 1e-3)))
    assert recipes_named("auto")[-1] is stub and recipes_named("rotations") == [stub]
    with run_on(data, tmp_path) as run:
        surrogate = train(run, recipes_named("rotations"))
    assert surrogate.training["dynamics"] == "rates of error 0.001"
    surrogate.save(tmp_path)
    assert torch.equal(Surrogate.load(tmp_path).field.linear.matrix, RATES)


# ---- the neural path ----


@pytest.fixture(scope="module")
def neural(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("neural")
    said = []
    surrogate = trained_on(data, folder, "recipe=neural", "training.steps.decoder=60", "training.steps.rollout=250",
                           *QUICK, said=said)
    return surrogate, said, json.loads((folder / "candidates.json").read_text())


def test_the_neural_recipe_trains_a_network_and_searches_for_no_closed_form(neural):
    surrogate, said, record = neural
    assert [type(term) for term in surrogate.field.summands] == [NetworkTerm]
    assert surrogate.decoder.structure()["width"] == 16
    assert [row["recipe"] for row in record["candidates"]] == ["neural"] and record["not_applied"] == []
    assert record["candidates"][0]["validation_error"] < 0.05
    assert not any("linear" in line or "equation" in line for line in said)


def test_gradients_flow_from_the_field_at_a_later_time_to_every_weight(neural):
    surrogate, _, _ = neural
    field, decoder = surrogate.field, surrogate.decoder.double()
    start = torch.full((1, decoder.code_size), 0.3, dtype=torch.float64, requires_grad=True)
    x = torch.linspace(0, 0.9, 7, dtype=torch.float64)[:, None]

    def loss() -> torch.Tensor:
        path = surrogate.integrator(field, start, torch.tensor([[0.0, 1.3]]).double())
        return decoder(x, path[0, -1]).square().mean()

    weights = [*field.parameters(), *decoder.parameters()]
    assert all(weight.grad is None for weight in weights)  # training leaves none behind
    for weight in weights:
        weight.requires_grad_(True)
    loss().backward()
    assert all(bool(torch.isfinite(p.grad).all()) and float(p.grad.abs().max()) > 0 for p in [*weights, start])
    weight = next(p for p in field.parameters() if p.dim() == 2)
    expected, h = float(weight.grad[0, 0]), 1e-6
    values = []
    with torch.no_grad():
        for step in (h, -2 * h):
            weight[0, 0] += step
            values.append(float(loss()))
        weight[0, 0] += h
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_neural_recipe_trains_a_field_of_ones_own(data, tmp_path):
    recipe = NeuralRecipe(field=lambda size: VectorField(size, [LinearTerm(size)]))
    settings = ("training.steps.decoder=50", "training.steps.rollout=600", "decoder.code_size=2", *QUICK)
    with run_on(data, tmp_path, *settings) as run:
        assert recipe.applies(run.problem, None) is None
        surrogate = train(run, [recipe])
    found = torch.linalg.eigvals(surrogate.field.linear.matrix.detach()) / surrogate.scale.unit
    expected = torch.linalg.eigvals(RATES)
    assert float((found[found.imag.argsort()] - expected[expected.imag.argsort()]).abs().max()) < 0.1


# ---- decisions ----


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / MODEL_FILE)


@pytest.mark.parametrize("recipe", ["auto", "neural", "coral"])
def test_a_run_with_recorded_decisions_repeats_bit_for_bit(recipe, data, tmp_path):
    codes = ["decoder.modulation=[shift]", "encoding.method=gradient_steps"] if recipe == "coral" else []
    settings = [f"recipe={recipe}", *codes, *QUICK]
    trained_on(data, tmp_path / "first", *settings).save(tmp_path / "first")
    decisions = json.loads((tmp_path / "first" / "decisions.json").read_text())
    assert decisions and set(decisions) <= {field.name for field in fields(StepsConfig)}
    record = json.loads((tmp_path / "first" / "candidates.json").read_text())
    assert record["decisions"] == decisions
    # given in the configuration, under another budget
    given = [f"training.steps.{name}={value}" for name, value in decisions.items()]
    trained_on(data, tmp_path / "second", *settings, "training.minutes=1", *given).save(tmp_path / "second")
    others = ["second"]
    if recipe == "auto":  # left by a run that was stopped, which recipes cannot tell from given ones
        (tmp_path / "third").mkdir()
        shutil.copy(tmp_path / "first" / "decisions.json", tmp_path / "third")
        trained_on(data, tmp_path / "third", *settings).save(tmp_path / "third")
        others.append("third")
    first = tensors(tmp_path / "first")
    for other in others:
        again = tensors(tmp_path / other)
        assert again.keys() == first.keys() and all(torch.equal(again[key], first[key]) for key in first)
        record = json.loads((tmp_path / other / "candidates.json").read_text())
        assert record["decisions"] == decisions


def test_the_configuration_goes_before_what_a_stopped_run_has_decided(data, tmp_path):
    (tmp_path / "decisions.json").write_text('{"copies": 7, "rollout": 30}')
    with run_on(data, tmp_path, "training.steps.rollout=50") as run:
        assert [run.budget.decisions.get(name) for name in ("copies", "rollout", "decoder")] == [7, 50, None]


# ---- the configuration ----


class Probe(Stub):
    """A recipe that notes the configuration of the run, in memory and on disk."""

    def __init__(self, name: str, path: Path, **options) -> None:
        super().__init__(name, **options)
        self.path, self.seen = path, []

    def applies(self, problem, best):
        self.seen.append((asdict(problem.config), self.path.read_bytes()))
        return self.reason


@pytest.mark.usefixtures("unreported")
def test_the_configuration_is_not_written_while_training(
    data, tmp_path, registries, inrflow_command, monkeypatch
):
    monkeypatch.setattr(Judge, "enough", lambda self, best: None)  # all recipes are asked
    path = tmp_path / "run" / "config.yaml"
    before, after = Probe("before", path, reason="a probe"), Probe("after", path, reason="a probe")
    RECIPES[:] = [before, *RECIPES, after]
    outcome = inrflow_command("train", f"data.train={data}", f"output={tmp_path / 'run'}", *QUICK)
    assert outcome.code == 0, outcome.err
    assert before.seen == after.seen and len(after.seen) == 1
    assert path.read_bytes() == before.seen[0][1]
    rows = json.loads((tmp_path / "run" / "candidates.json").read_text())["candidates"]
    assert len(rows) > 1  # there was something to decide


def test_a_candidate_counts_its_memory_and_codes(data, tmp_path):
    with run_on(data, tmp_path) as run:
        assert (candidate(run).memory, candidate(run, memory=True).memory, candidate(run).code_size) == (0, 1, 2)
