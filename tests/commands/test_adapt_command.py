"""`inrflow adapt` from a family of advected fields to a velocity not seen, and what every command makes of it."""

import io
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import inrflow
from inrflow.adaptation.context import adapt_context, batches_of
from inrflow.adaptation.further import Step, adapt_further
from inrflow.commands.adapt import tell
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.model.family import Family
from inrflow.pdes.generate import generate
from tests.conftest import without_report

SETTINGS = {"grid": 24, "dimensions": 1, "dt": 0.05}
VELOCITIES = [0.2, 0.3, 0.4, 0.5]
NEW = {"velocity_x": 0.34}


@pytest.fixture(scope="module")
def family(tmp_path_factory, inrflow_command):
    """A run trained on four velocities, and files of a fifth to adapt to and to test on."""
    folder = tmp_path_factory.mktemp("family")
    train = generate("advection", folder / "train.h5", trajectories=12, frames=6, parameters={"velocity_x": VELOCITIES},
                     environments=4, seed=0, **SETTINGS)
    few = generate("advection", folder / "few.h5", trajectories=5, frames=8, parameters=NEW, seed=5, **SETTINGS)
    test = generate("advection", folder / "test.h5", trajectories=2, frames=8, parameters=NEW, seed=6, **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        outcome = inrflow_command("train", f"data.train={train}", f"output={folder / 'run'}", "training.minutes=0.02",
                                  "decoder.harmonics=8", "data.copies=4", "dynamics.depth=0",
                                  "dynamics.equation=false")  # from scratch it would be found from one trajectory
    assert outcome.code == 0, outcome.err
    return folder / "run", few, test


@pytest.fixture(scope="module")
def adapted(family, tmp_path_factory, inrflow_command):
    run, few, test = family
    folder = tmp_path_factory.mktemp("adapted") / "run"
    outcome = inrflow_command("adapt", f"run={run}", f"data.train={few}", "data.frames=6", "data.trajectories=1",
                              f"data.test={test}", "adapt.scratch_minutes=0.02", f"output={folder}")
    assert outcome.code == 0, outcome.err
    return folder, outcome


@pytest.fixture(scope="module")
def damped(family, tmp_path_factory):
    """Files of a system that decays besides: no context of the family has that."""
    folder = tmp_path_factory.mktemp("damped")
    paths = []
    for path in family[1:]:
        with TrajectoryFile(path) as file:
            t, x = file.read(0).t, file.read(0).x
            u = [file.read(s).u * np.exp(-0.8 * t)[:, None, None] for s in range(file.trajectories)]
            write_trajectories(folder / path.name, t, x[0] if x.ndim == 3 else x, np.stack(u), file.description)
        paths.append(folder / path.name)
    return paths


@pytest.fixture(scope="module")
def everything(family, damped, tmp_path_factory, inrflow_command):
    """The family adapted to the damped system with decoder and field."""
    folder = tmp_path_factory.mktemp("all") / "run"
    outcome = inrflow_command("adapt", f"run={family[0]}", f"data.train={damped[0]}", "data.frames=6",
                              "data.trajectories=3", "adapt.strength=all", "adapt.copies=2", f"output={folder}")
    assert outcome.code == 0, outcome.err
    return folder, outcome


def test_one_number_is_found_and_the_velocity_is_read_off(adapted):
    folder, outcome = adapted
    told = json.loads((folder / "adaptation.json").read_text())
    assert told["adapted_numbers"] == 1 and told["seconds"] < 5 and not told["outside_training"]
    assert told["parameters"]["velocity_x"]["mean"] == pytest.approx(0.34, rel=0.01)
    assert "adapted 1 number to 1 trajectory of 6 frames" in outcome.err and "velocity_x = 0.34" in outcome.err


def test_adapted_forecasts_beat_the_mean_and_the_nearest_context(adapted):
    errors = json.loads((adapted[0] / "adaptation.json").read_text())["errors"]
    best = errors["adapted"]["all"]
    assert 10 * best < errors["mean context (before)"]["all"]
    assert 10 * best < errors["nearest training environment"]["all"]


def test_one_of_several_physics_is_adapted_as_it_is_alone(adapted, family, tmp_path, inrflow_command):
    run, few, _ = family
    Family({"advection": inrflow.Surrogate.load(run)}).save(tmp_path / "several")
    outcome = inrflow_command("adapt", f"run={tmp_path / 'several'}", f"data.train={few}", "data.frames=6",
                              "data.trajectories=1", f"output={tmp_path / 'new'}")
    assert outcome.code == 0, outcome.err
    told, alone = (json.loads((folder / "adaptation.json").read_text()) for folder in (tmp_path / "new", adapted[0]))
    assert told["parameters"]["velocity_x"] == pytest.approx(alone["parameters"]["velocity_x"])
    assert inrflow.Surrogate.load(tmp_path / "new").context_size == 1


def test_training_from_scratch_on_the_same_frames_is_told(adapted):
    errors = json.loads((adapted[0] / "adaptation.json").read_text())["errors"]
    assert 10 * errors["adapted"]["all"] < errors["from scratch, the same frames"]["all"]
    assert "from scratch, the same frames" in adapted[1].out + adapted[1].err


def _adapts_beside_no_other(family, folder, inrflow_command, told):
    """Adapts, tells why there are no errors of what is trained from scratch, and has its own."""
    run, few, test = family
    outcome = inrflow_command("adapt", f"run={run}", f"data.train={few}", "data.frames=6", "data.trajectories=1",
                              f"data.test={test}", f"output={folder / 'run'}")
    assert outcome.code == 0 and told in outcome.err
    errors = json.loads((folder / "run" / "adaptation.json").read_text())["errors"]
    assert "adapted" in errors and "from scratch, the same frames" not in errors


def test_where_nothing_can_be_trained_from_scratch_the_adapted_run_is_reported(
    family, tmp_path, inrflow_command, monkeypatch
):
    def fails(*_):
        raise UserError("no model was found for few.h5")

    monkeypatch.setattr("inrflow.commands.adapt.train_from_scratch", fails)
    _adapts_beside_no_other(family, tmp_path, inrflow_command, "no model was found for few.h5")


def test_where_what_is_trained_from_scratch_lies_elsewhere_the_adapted_run_is_reported(
    family, tmp_path, inrflow_command, monkeypatch
):
    def elsewhere(surrogate, *rest, **further):
        if not surrogate.context_size:
            raise UserError("3 % of its points lie outside")
        return evaluate(surrogate, *rest, **further)

    without = type("Scratch", (), {"context_size": 0, "horizon": 0.0})()
    monkeypatch.setattr("inrflow.commands.adapt.train_from_scratch", lambda *_: without)
    monkeypatch.setattr("inrflow.commands.adapt.evaluate", elsewhere)
    _adapts_beside_no_other(family, tmp_path, inrflow_command, "3 % of its points lie outside")


def test_decoder_and_field_are_fitted_to_what_no_context_explains(everything, family, damped):
    surrogate = inrflow.Surrogate.load(family[0])
    with TrajectoryFile(damped[0]) as few, TrajectoryFile(damped[1]) as test:
        batches = batches_of(surrogate, TrajectorySource(few, 6), np.arange(3), 2, 0)
        models = [
            adapt_context(surrogate, batches).surrogate,
            adapt_further(surrogate, batches, field_too=False)[0].surrogate,
            inrflow.Surrogate.load(everything[0]),
        ]
        context, decoder, field = (
            evaluate(model, test, Observe(), with_std=False).report["mse"]["all"] for model in models
        )
    assert 4 * field < context and decoder < 1.05 * context


def test_more_strength_is_told_with_its_numbers_and_reasons(everything):
    folder, outcome = everything
    told = json.loads((folder / "adaptation.json").read_text())
    assert told["strength"] == "all" and told["adapted_numbers"] > 100 and "errors" not in told
    assert [step["part"] for step in told["steps"]] == ["decoder", "field"]
    field = told["steps"][1]
    assert field["pull"] is not None and field["after"] < field["before"] and "field: refitted" in outcome.err
    assert inrflow.Surrogate.load(folder).training["adapted"] == "all"


def test_the_adapted_run_is_a_run_as_any(adapted, family, inrflow_command, tmp_path):
    folder, test = adapted[0], family[2]
    assert inrflow_command("inspect", folder).code == 0
    outcome = inrflow_command("evaluate", f"run={folder}", f"data.test={test}", f"output={tmp_path / 'report'}")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    told = json.loads((folder / "adaptation.json").read_text())
    assert report["mse"]["all"] == pytest.approx(told["errors"]["adapted"]["all"], rel=0.05)
    assert report["contexts"]["from"] == "unknown"
    assert report["contexts"]["parameters"]["velocity_x"]["mean_relative_error"] < 0.01


def test_an_adaptation_that_was_stopped_is_begun_again_and_none_is_resumed_as_a_training(
    adapted, family, tmp_path, inrflow_command, monkeypatch
):
    def stops(*_):
        raise KeyboardInterrupt

    run, few, _ = family
    arguments = ("adapt", f"run={run}", f"data.train={few}", "data.frames=6", "data.trajectories=1",
                 f"output={tmp_path / 'run'}")
    with monkeypatch.context() as patched:
        patched.setattr("inrflow.commands.adapt.write_json", stops)
        assert inrflow_command(*arguments).code == 130
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert inrflow_command(*arguments).code == 0
    assert inrflow_command(*arguments).code == 2  # it holds a run now
    outcome = inrflow_command("train", f"resume={adapted[0]}")
    assert outcome.code == 2 and "inrflow adapt has written" in outcome.err


def test_examples_tell_the_context_without_a_run_of_their_own(adapted, family):
    surrogate, alone = inrflow.Surrogate.load(family[0]), inrflow.Surrogate.load(adapted[0])
    with TrajectoryFile(family[1]) as file, TrajectoryFile(family[2]) as test:
        def seen(source, trajectory, frames):
            read = source.read(trajectory, slice(0, frames))
            return inrflow.Observations(read.t, read.x, read.u)

        examples = [seen(file, s, 6) for s in range(1, 5)]
        truth = test.read(0)
        forecast = surrogate.assimilate(seen(test, 0, 1), examples=examples)
        told = surrogate.assimilate(seen(test, 0, 1), parameters=NEW)
        own = alone.assimilate(seen(test, 0, 1))
        window = surrogate.assimilate(seen(test, 0, 4))
    errors = [((one.frames(truth.t, truth.x) - truth.u) ** 2).mean() for one in (own, forecast, told, window)]
    assert max(errors[1:]) < 1.5 * errors[0] + 1e-7
    assert forecast.parameters["velocity_x"][0] == pytest.approx(0.34, rel=0.01)


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "data.train=FILE is missing"),
    (("data.train=few.h5", "adapt.strength=some"), "adapt.strength='some'"),
    (("data.train=few.h5", "data.trajectories=0"), "data.trajectories=0"),
    (("data.train=few.h5", "adapt.scratch_minutes=-1"), "adapt.scratch_minutes=-1"),
    (("data.train=few.h5", "adapt.strength=all", "data.trajectories=1", "data.frames=2"), "3 frames or more"),
    (("data.train=few.h5", "data.test=nowhere.h5"), "nowhere.h5"),
    (("data.train=nowhere.h5",), "nowhere.h5"),
])
def test_mistakes_are_one_clear_line(arguments, said, family, elsewhere, inrflow_command):
    shutil.copy(family[1], elsewhere / "few.h5")
    outcome = inrflow_command("adapt", f"run={family[0]}", "output=new", *arguments)
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert not (elsewhere / "new").exists()


def test_a_run_without_contexts_says_so(tiny_run, elsewhere, inrflow_command):
    outcome = inrflow_command("adapt", f"run={tiny_run.run}", f"data.train={tiny_run.test}", "output=new")
    assert outcome.code == 2 and "no contexts" in outcome.err


@pytest.mark.usefixtures("unreported")
def test_what_two_systems_leave_open_of_a_parameter_is_told(tmp_path, inrflow_command):
    velocities, two = {"velocity_x": [0.2, 0.5]}, {"trajectories": 8, "environments": 2, "frames": 6, "seed": 0}
    train = generate("advection", tmp_path / "train.h5", parameters=velocities, **two, **SETTINGS)
    few = generate("advection", tmp_path / "few.h5", trajectories=1, frames=6, parameters=NEW, seed=5, **SETTINGS)
    run = inrflow_command("train", f"data.train={train}", f"output={tmp_path / 'run'}", "training.minutes=0.02")
    assert run.code == 0, run.err
    told = inrflow_command("adapt", f"run={tmp_path / 'run'}", f"data.train={few}", "adapt.strength=context",
                           "adapt.scratch_minutes=0", f"output={tmp_path / 'adapted'}")
    assert told.code == 0, told.err
    assert "velocity_x = 0.34" in told.err and "mostly since only 2 training systems show its effect" in told.err


def test_a_part_whose_forecasts_diverge_is_told_as_unchanged_and_has_no_error_in_the_report():
    said = io.StringIO()
    adaptation = SimpleNamespace(estimate=None, numbers=1, seconds=0.1)
    told = tell(SimpleNamespace(contexts=None), adaptation, [Step("coefficients of the law", None, 1e-3, math.inf)],
                "all", (1, 10), Console(file=said, width=200))
    assert json.loads(json.dumps(told, allow_nan=False))["steps"][0]["after"] is None
    assert "coefficients of the law: unchanged" in said.getvalue()
