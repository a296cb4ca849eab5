"""Settings that Hydra's types let pass are refused in one sentence before anything is read or written."""

import os

import pytest

from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import locked_folder
from inrflow.training.problem import check_settings


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("device=cuda:99", "device="),
        ("data.points=0", "data.points="),
        ("data.frames=1", "data.frames=1"),
        ("data.validation=1.0", "data.validation="),
        ("training.minutes=0", "training.minutes="),
        ("training.optimiser=sgd", "training.optimiser="),
        ("dynamics.method=euler", "dynamics.method="),
        ("decoder.name=grid", "decoder.name="),
        ("decoder.modulation=[twist]", "decoder.modulation="),
        ("decoder.modulation=[shift]", "encoding.method=closed_form"),
        ("encoding.method=guess", "encoding.method="),
        ("training.joint=true", "training.joint=true"),
        ("seed=-1", "seed=-1"),
    ],
)
def test_a_setting_that_cannot_work_is_named(override, told):
    with pytest.raises(UserError) as caught:
        check_settings(resolve("train", Config, [override]))
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("experiment", ["dino", "coral", "shift_scale"])
def test_shipped_recipes_pass(experiment):
    check_settings(resolve("train", Config, [f"experiment={experiment}"]))


def test_a_run_that_another_process_writes_is_left_alone_and_so_is_what_a_link_leads_to(
        tiny_data, elsewhere, inrflow_command):
    with locked_folder("run") as folder:
        outcome = inrflow_command("train", f"data.train={tiny_data[0]}", "output=run")
        assert outcome.code == 2 and f"run is being written by process {os.getpid()}" in outcome.err
        assert [path.name for path in folder.iterdir()] == [".lock"]
    (elsewhere / "victim").write_text("kept")
    (elsewhere / "planted").mkdir()
    (elsewhere / "planted" / "metrics.jsonl").symlink_to(elsewhere / "victim")
    outcome = inrflow_command("train", f"data.train={tiny_data[0]}", "output=planted")
    assert outcome.code == 2 and "metrics.jsonl is a link" in outcome.err
    assert sorted(path.name for path in elsewhere.iterdir()) == ["planted", "victim"]
