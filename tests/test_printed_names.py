"""Names and paths as commands print them and take them."""

import os

import pytest

from inrflow.cli import main
from inrflow.config.resolve import at_home
from inrflow.runtime.screen import screen


def test_brackets_of_units_and_folders_are_printed_as_they_are(capsys):
    screen().print("dp [hPa]/dt = 1 k [/s] in runs/[x]")
    assert "dp [hPa]/dt = 1 k [/s] in runs/[x]" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "taken"), [
    ("~/a.csv", "/H/a.csv"), ("data.train=~/a.csv", "data.train=/H/a.csv"),
    ("output=[~/a, ~/b]", "output=[/H/a, /H/b]"), ("output=a~/b", "output=a~/b"),
    ("output=./~/b", "output=./~/b"), ("output=~b", "output=~b"),
])
def test_the_home_folder_is_taken_at_the_start_of_a_path(given, taken, monkeypatch):
    monkeypatch.setenv("HOME", "/H")
    assert at_home(given) == taken


def test_a_command_finds_files_in_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["train", "data.train=~/absent.csv", "output=~/run"]) == 2
    assert f"{tmp_path / 'absent.csv'} does not exist" in capsys.readouterr().err
    assert not os.path.exists("~")
