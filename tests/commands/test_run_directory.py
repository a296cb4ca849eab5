"""A run on disk: its files are read whole or refused in one line."""

import errno
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from inrflow import Surrogate
from inrflow.commands import run_directory
from inrflow.commands.run_directory import RunDirectory, default_output, read_steps, report_evaluation
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import evaluate
from inrflow.evaluation.observe import Observe


def test_rows_of_metrics_come_by_stage_the_later_of_two_counts_and_damaged_ones_are_ignored(tmp_path):
    rows = [
        {"stage": "decoder", "step": 20, "loss": 0.4},
        {"stage": "decoder", "step": 0, "validation": 1.0},
        {"stage": "decoder", "step": 20, "loss": 0.3},
        {"stage": "dynamics", "step": 0},
        {"stage": ["decoder"], "step": 1}, {"stage": "decoder", "step": None}, {"step": 3}, 7,
    ]
    log = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row) for row in rows] + ["[" * 5000, "1" * 5000, '{"stage": "decoder", "st']
    log.write_text("\n".join(lines), encoding="utf-8")
    assert read_steps(log) == {
        "decoder": [{"stage": "decoder", "step": 0, "validation": 1.0}, {"stage": "decoder", "step": 20, "loss": 0.3}],
        "dynamics": [{"stage": "dynamics", "step": 0}],
    }
    assert RunDirectory(tmp_path).steps() == read_steps(log) and RunDirectory(tmp_path / "none").steps() == {}


def test_a_run_that_has_ended_keeps_models_and_no_states_of_training(tmp_path):
    states = ("checkpoints/decoder.safetensors", "checkpoints/rod/checkpoints/decoder.safetensors")
    for name in ("model.safetensors", "checkpoints/rod/model.safetensors", *states):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "checkpoints/decoder.safetensors").unlink()
    RunDirectory(tmp_path).finish()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "model.safetensors", "checkpoints/rod/model.safetensors"}
    (tmp_path / "checkpoints/rod/model.safetensors").rename(tmp_path / "checkpoints/rod.safetensors")
    (tmp_path / "checkpoints/rod").rmdir()
    RunDirectory(tmp_path).finish()
    assert not (tmp_path / "checkpoints").exists()


def test_a_new_run_takes_no_folder_that_holds_one(tmp_path):
    config = Config()
    config.output = "é"
    run = RunDirectory.new(str(tmp_path / "run"), "train")
    assert not run.begun
    run.write_config(config)
    assert run.begun and not run.finished and run.config() == config
    with pytest.raises(UserError, match="holds a run already"):
        RunDirectory.new(str(tmp_path / "run"), "train")


def test_the_default_output_is_a_folder_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_output("train")
    first.mkdir(parents=True)
    second = default_output("train")
    assert first.parent.as_posix() == "outputs/train" and second != first and not second.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 5000, "1" * 5000, "\x00"])
def test_json_that_is_damaged_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match="evaluation.json") as caught:
        RunDirectory(tmp_path).json("evaluation.json")
    assert "\n" not in str(caught.value) and RunDirectory(tmp_path).json("candidates.json") is None


def test_a_finished_run_has_files_of_these_names(tiny_run):
    names = ("CONFIG", "MODEL", "METRICS", "EVALUATION", "REFERENCES")
    assert all((tiny_run.run / getattr(run_directory, f"{name}_FILE")).exists() for name in names)
    assert RunDirectory(tiny_run.run).finished and RunDirectory(tiny_run.run).references() is not None


def test_data_that_are_converted_into_a_folder_that_cannot_be_made_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n1,0,2\n0,1,3\n1,1,4\n")

    def fails(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", fails)
    with pytest.raises(UserError, match="could not be written .Read-only file system.; choose a folder"):
        run_directory.as_trajectories(str(tmp_path / "a.csv"), "data.test", tmp_path / "out", Console())


def test_a_report_says_how_many_trajectories_have_their_errors(tiny_run, tmp_path, monkeypatch):
    """Standard deviations of large states take minutes; each block of trajectories is counted when it begins."""
    monkeypatch.setattr("inrflow.evaluation.evaluate._block_length", lambda *_: 1)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200)
    report_evaluation(Surrogate.load(tiny_run.run), tiny_run.test, Observe(), tmp_path, console, None)
    assert re.search("9 state dimensions: [0-2] of 3 trajectories", shown.getvalue())
    counts = list[int]()
    with TrajectoryFile(tiny_run.test) as file:
        evaluate(Surrogate.load(tiny_run.run), file, Observe(), progress=counts.append)
    assert counts == [0, 1, 2]
