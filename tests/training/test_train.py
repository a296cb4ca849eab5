"""The loop over recipes: which candidate is taken, what is recorded of the others, what does not apply."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rotations import RATES, Stub, write_rotations
from runs import run_on

import inrflow.training.train as train_module
from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import effort
from inrflow.training.judge import Judge
from inrflow.training.train import train

STILL = torch.zeros(2, 2).double()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rotations(tmp_path_factory.mktemp("data") / "train.h5")


def trained(data, folder, *recipes) -> tuple[Surrogate, dict]:
    """The surrogate and candidates.json of these recipes."""
    with run_on(data, folder) as run:
        surrogate = train(run, recipes)
    return surrogate, json.loads((folder / "candidates.json").read_text())


def rates(surrogate: Surrogate) -> torch.Tensor:
    return surrogate.field.linear.matrix.detach()


def test_the_best_candidate_of_a_recipe_becomes_the_surrogate_and_every_row_says_why(data, tmp_path):
    surrogate, record = trained(
        data, tmp_path, Stub("one", (STILL, 0.4), (0.9 * RATES, 0.1), (RATES, 0.099)),
        Stub("other", reason="the domain is a torus"),
    )
    assert torch.equal(rates(surrogate), 0.9 * RATES)  # the last is better by less than the margin
    assert [row["taken"] for row in record["candidates"]] == [False, True, False] and record["chosen"] == 1
    assert [row["why"] for row in record["candidates"]] == [
        "smaller held-out error of rates of error 0.1", "",
        "not clearly better than rates of error 0.1",
    ]
    assert [row["validation_error"] for row in record["candidates"]] == [0.4, 0.1, 0.099]
    assert {(row["recipe"], row["code_size"], row["unknowns"], row["floor"]) for row in record["candidates"]} == \
        {("one", 2, 4, 1e-4)}
    assert record["not_applied"] == [{"recipe": "other", "why": "the domain is a torus"}]
    assert surrogate.training["dynamics"] == "rates of error 0.1"


@pytest.mark.parametrize(("special", "general", "taken"), [
    (RATES, STILL, "special"), (STILL, RATES, "general"), (RATES, RATES, "general"),
])
def test_recipes_are_compared_in_the_data_whatever_their_scores_on_codes(special, general, taken, data, tmp_path):
    first, second = Stub("special", (special, 0.3)), Stub("general", (general, 0.3))
    _, record = trained(data, tmp_path, first, second)
    assert [row["recipe"] for row in record["candidates"] if row["taken"]] == [taken]
    assert first.best_before == [None] and [best.recipe for best in second.best_before] == ["special"]


def test_a_recipe_that_finds_nothing_does_not_end_the_search(data, tmp_path):
    surrogate, record = trained(data, tmp_path, Stub("empty"), Stub("full", (RATES, 0.1)))
    assert torch.equal(rates(surrogate), RATES) and [row["recipe"] for row in record["candidates"]] == ["full"]


def test_where_no_recipe_applies_the_error_names_all_reasons(data, tmp_path):
    with pytest.raises(UserError, match=r"no model was found for .*train\.h5 \(one: no waves; other: no time\)"):
        trained(data, tmp_path, Stub("one", reason="no waves"), Stub("other", reason="no time"))
    record = json.loads((tmp_path / "candidates.json").read_text())
    assert record["chosen"] is None and record["candidates"] == [] and len(record["not_applied"]) == 2


def test_where_no_recipe_finds_a_model_the_error_says_so(data, tmp_path):
    with pytest.raises(UserError, match="none was found in the time"):
        trained(data, tmp_path, Stub("empty"))
    with pytest.raises(UserError, match="every model diverged"):
        trained(data, tmp_path, Stub("far", (RATES, float("nan"))))


def test_after_a_law_that_explains_the_data_other_recipes_are_not_asked(data, tmp_path, monkeypatch):
    last = Stub("last", (RATES, 0.1))
    monkeypatch.setattr(Judge, "enough", lambda self, best: None if best is None else "law explains the data")
    _, record = trained(data, tmp_path, Stub("law", (RATES, 0.1)), last)
    assert record["not_applied"] == [{"recipe": "last", "why": "law explains the data"}] and last.best_before == []


def test_a_recipe_that_fails_numerically_is_passed_over_and_said_so(data, tmp_path):
    class Singular(Stub):
        def propose(self, run):
            raise torch.linalg.LinAlgError("the matrix is singular")

    surrogate, record = trained(data, tmp_path, Singular("one"), Stub("other", (RATES, 0.1)))
    assert torch.equal(rates(surrogate), RATES)
    assert record["not_applied"] == [{"recipe": "one", "why": "failed: the matrix is singular"}]


def test_a_late_recipe_comes_last_and_none_begins_when_the_time_is_over(data, tmp_path):
    late, first, second = Stub("late", (STILL, 0.9)), Stub("first", (RATES, 0.1)), Stub("second", (RATES, 0.2))
    late.is_late = lambda problem: len(problem.validation) > 0
    quick = Stub("quick", (STILL, 0.3))
    quick.is_quick = lambda problem: problem.source.shared_points
    now = [0.0]

    def finished():
        now[0] = 1e9
        yield from Stub.propose(second, run)

    second.propose = lambda _: finished()
    with run_on(data, tmp_path, clock=lambda: now[0]) as run:
        surrogate = train(run, [late, first, second, quick])
    record = json.loads((tmp_path / "candidates.json").read_text())
    assert [row["recipe"] for row in record["candidates"]] == ["first", "second", "quick"]
    assert record["not_applied"] == [{"recipe": "late", "why": "the time budget is spent"}]
    assert torch.equal(rates(surrogate), RATES)


def test_channels_that_are_taken_for_amounts_are_told_before_training(data, tmp_path):
    rain = np.maximum(np.random.default_rng(3).standard_normal((4, 8, 16, 1)) - 1, 0)
    about = Description("wet", ("rain",), ("x",), period=(1.0,))
    write_trajectories(tmp_path / "wet.h5", np.arange(8.0), np.arange(16)[:, None] / 16, rain, about)
    told: list[str] = []
    with run_on(tmp_path / "wet.h5", tmp_path / "wet", said=told):
        assert told == ["rain: never negative in the data and often near 0, so quantiles are cut off at 0"]
    told.clear()
    with run_on(data, tmp_path / "other", said=told):
        assert not told


def test_a_search_for_a_residual_field_that_takes_too_long_is_given_up(data, tmp_path, monkeypatch):
    def endless(surrogate, judged, run):
        while True:
            effort.add(calls=1)

    monkeypatch.setattr("inrflow.training.train.choose_residual_field", endless)
    with run_on(data, tmp_path, "training.minutes=0.01") as run:
        surrogate = train(run, [Stub("one", (0.9 * RATES, 0.1))])
    assert torch.equal(rates(surrogate), 0.9 * RATES) and surrogate.residual is None


@pytest.mark.parametrize(
    ("validation", "unexplained", "looked"), (((), 0.1, True), ((3,), 0.1, False), ((), 0.0, False)))
def test_what_explains_frames_that_stand_in_for_rows_of_one_trajectory_keeps_no_residual_field_away(
    monkeypatch, validation, unexplained, looked
):
    best = SimpleNamespace(explained=True, score=SimpleNamespace(error=0.0))
    config = SimpleNamespace(training=SimpleNamespace(residual_field="auto"))
    run = SimpleNamespace(config=config, problem=SimpleNamespace(validation=validation, unexplained=unexplained),
                          budget=SimpleNamespace(clock=time.perf_counter, seconds=lambda *_: 9.0))
    monkeypatch.setattr(train_module, "assemble", lambda _: SimpleNamespace(prior=None))
    monkeypatch.setattr(train_module, "pooled", lambda *_: None)
    monkeypatch.setattr(train_module, "choose_residual_field", lambda *_: "with a residual field")
    found = train_module._with_residual_field(SimpleNamespace(prior=None), best, run)
    assert (found == "with a residual field") == looked
