"""Files that commands are given: of the schema as they are, others converted into the output as settings say."""

import os

import numpy as np
import pytest
from rich.console import Console

from inrflow.commands.run_directory import as_trajectories
from inrflow.config.train_schema import ReadConfig
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

QUIET = Console(quiet=True)


def table(path, column="t"):
    rows = [f"{t},{x},{t + x}" for t in range(3) for x in range(4)]
    path.write_text("\n".join([f"{column},x,u", *rows]))
    return str(path)


def test_a_table_becomes_a_trajectory_file_in_the_output(tmp_path):
    path = as_trajectories(table(tmp_path / "a.csv"), "data.train", tmp_path / "run", QUIET)
    assert path == str(tmp_path / "run" / "data" / "data_train.h5")
    with TrajectoryFile(path) as file:
        np.testing.assert_array_equal(file.read(0).t, range(3))
    assert as_trajectories(path, "data.train", tmp_path / "other", QUIET) == path
    assert not (tmp_path / "other").exists()


def test_settings_say_how_it_is_read_and_messages_name_them(tmp_path):
    given = table(tmp_path / "a.csv", "stamp")
    with pytest.raises(UserError, match=r"data\.train: .* with data\.read\.time=NAME"):
        as_trajectories(given, "data.train", tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()
    path = as_trajectories(given, "data.train", tmp_path / "run", QUIET, ReadConfig(time="stamp"))
    with TrajectoryFile(path) as file:
        assert file.description.channels == ("u",)


def test_a_resumed_run_reads_again_what_has_changed(tmp_path):
    given = table(tmp_path / "a.csv")
    path = as_trajectories(given, "data.train", tmp_path / "run", QUIET)
    first = os.stat(path).st_mtime_ns
    assert os.stat(as_trajectories(given, "data.train", tmp_path / "run", QUIET, kept=True)).st_mtime_ns == first
    os.utime(given, ns=(first + 10**9, first + 10**9))
    assert os.stat(as_trajectories(given, "data.train", tmp_path / "run", QUIET, kept=True)).st_mtime_ns > first


def test_refusals_of_a_training_name_the_file_that_was_given(elsewhere, inrflow_command):
    rows = [f"{t},{x},{t + x},{'' if t < 4 else 1}" for t in range(8) for x in range(4)]
    (elsewhere / "mine.csv").write_text("\n".join(["t,x,u,v", *rows]))
    refused = inrflow_command("train", "data.train=mine.csv", "data.frames=4", "output=run")
    assert refused.code == 2 and "data_train.h5" not in refused.err.splitlines()[-1]
    assert "mine.csv: no value of channel 'v' is observed in the training frames" in refused.err.replace("\n", " ")
    path = as_trajectories("mine.csv", "data.train", elsewhere / "other", QUIET)
    with TrajectoryFile(path) as file:
        assert (str(file.path), file.location) == ("mine.csv", os.path.abspath(path))
    (elsewhere / "test.csv").write_text("\n".join(["t,x,w", *[f"{t},{x},{t + x}" for t in range(3) for x in range(4)]]))
    refused = inrflow_command("train", "data.train=mine.csv", "data.test=test.csv", "output=run")
    assert refused.code == 2 and "data.test=test.csv has channels w" in refused.err.replace("\n", " ")
