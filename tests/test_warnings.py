"""Warnings of the command line: each is told once, and of a run's files none that was told when it was trained."""

import warnings

import pytest

from inrflow.cli import _told_once
from inrflow.commands.run_directory import RunDirectory
from inrflow.config.schema import ReadConfig


@pytest.fixture
def keep_told(monkeypatch):
    """What writes the warnings told last beside a run."""
    def keep(folder):
        RunDirectory(folder).write_config(ReadConfig())

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    return keep


def tell(text, run, capsys):
    warnings.showwarning = _told_once(run)
    warnings.showwarning(text, UserWarning, "file.py", 1)
    return capsys.readouterr().err


def test_what_was_told_in_training_is_not_told_again(tmp_path, capsys, keep_told):
    assert "A, B are left out" in tell("stations.csv: A, B are left out", None, capsys)
    keep_told(tmp_path)
    assert tell("today.csv: A, B are left out", str(tmp_path), capsys) == ""
    assert "left out" in tell("today.csv: A, B, C are left out", str(tmp_path), capsys)  # something else
    assert "left out" in tell("today.csv: A, B are left out", str(tmp_path / "other"), capsys)


def test_the_same_marker_of_missing_values_is_not_told_again(tmp_path, capsys, keep_told):
    said = "{}: {} of 240 values of b are {}, where all others lie between {} and 5; they are taken as missing"
    tell(said.format("stations.csv", 20, -9999, -3), None, capsys)
    keep_told(tmp_path)
    assert tell(said.format("today.csv", 2, -9999, 1.5), str(tmp_path), capsys) == ""
    assert "-99 " in tell(said.format("today.csv", 2, "-99 ", 1.5), str(tmp_path), capsys)


def test_counts_in_parts_of_a_series_are_told_once(capsys, keep_told):
    tell("8 of 288 values of the series depart", None, capsys)
    warnings.showwarning("3 of 96 values of the series depart", UserWarning, "file.py", 1)
    warnings.showwarning("a.csv: 3 of 96 values of b are -99", UserWarning, "file.py", 1)
    warnings.showwarning("b.csv: 4 of 96 values of b are -99", UserWarning, "file.py", 1)
    assert "96 values of the series" not in (told := capsys.readouterr().err) and told.count("values of b") == 2


@pytest.mark.parametrize("held", ["", "[]", "{}", '{"warnings": 5}', '{"warnings": [[]]}'])
def test_a_damaged_list_hides_nothing(held, tmp_path, capsys, keep_told):
    (tmp_path / "warnings.json").write_text(held)
    assert "left out" in tell("a.csv: B is left out", str(tmp_path), capsys)
