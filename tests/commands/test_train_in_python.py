"""`inrflow.train`: the command as a function, with its run directory, and its errors in one sentence."""

import numpy as np
import pytest

import inrflow
from inrflow.commands import train as module
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import INTERRUPTED


def test_a_run_directory_is_written_and_its_surrogate_returned(tiny_data, elsewhere, quick_settings):
    train, test = tiny_data
    surrogate = inrflow.train(train, *quick_settings, test=str(test), output=elsewhere / "run", minutes=0.02,
                              recipe="reduced_order", data={"validation": 0.25}, seed=3)
    written = {path.name for path in (elsewhere / "run").iterdir()}
    assert {"config.yaml", "model.safetensors", "candidates.json", "evaluation.json"} <= written
    config = module.RunDirectory(elsewhere / "run").config()
    assert (config.seed, config.data.frames, config.data.validation, config.recipe) == (3, 5, 0.25, "reduced_order")
    with TrajectoryFile(test) as file:
        seen = file.read(0)
    first = inrflow.Observations(seen.t[:1], seen.x, seen.u[:1])
    values = surrogate.assimilate(first)(seen.t[2], seen.x)
    assert np.array_equal(values, inrflow.Surrogate.load("run").assimilate(first)(seen.t[2], seen.x))
    with pytest.raises(inrflow.UserError, match="holds a run already"):
        inrflow.train(train, output="run")


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        ("gone.h5", {}, "gone.h5"),
        ("gone.h5", {"frames": 10}, "unknown key 'frames'; did you mean data.frames"),
        ("gone.h5", {"minutes": "five"}, "training.minutes=five"),
        ("gone.h5", {"training": {"minutes": -1}}, "training.minutes=-1"),
        ("gone.h5", {"data": {"symmetries": ["a, b", "c"], "framess": 3}}, "data.framess"),
        (["a.h5", "b.h5"], {}, "data.train is a list"),
        (np.zeros(3), {}, "data.train is a ndarray; expected the name of a file"),
        (..., {"data": {"train": ["a.h5", "b.h5"]}}, "by the command inrflow train"),
        (..., {"resume": "nowhere"}, "resume=nowhere"),
        (None, {}, "data.train is None; give the name of a file"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_nothing_is_written(given, settings, told, elsewhere):
    with pytest.raises(inrflow.UserError) as caught:
        inrflow.train(given, **settings)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert list(elsewhere.iterdir()) == []
    with pytest.raises(inrflow.UserError, match="5"):
        inrflow.train("train.h5", 5)


def test_settings_are_those_of_the_command_line(monkeypatch, elsewhere):
    seen = {}

    def interrupted(arguments):
        seen["config"] = resolve("train", Config, arguments)
        return INTERRUPTED

    monkeypatch.setattr(module, "run_alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inrflow.train("a=b [1].nc", "data.points=0.5", dynamics={"equation": False, "memory": None},
                      data={"read": {"channels": ["t2m", "it's"], "select": {"plev": 0}}})
    config = seen["config"]
    assert config.data.train == "a=b [1].nc" and config.data.points == 0.5 and config.dynamics.equation is False
    assert config.data.read.channels == ["t2m", "it's"] and config.data.read.select == {"plev": 0}
    assert config.output.startswith("outputs/train/") and config.dynamics.memory is None
