"""Data makers: every one is registered under its own name, and writes what the engine reads."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest

from benchmarks.makers import __main__ as makers
from benchmarks.makers.base import PROBLEMS, load, problem
from inrflow.data.formats.trajectory_file import TrajectoryFile


def made(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["makers", *map(str, arguments)])
    makers.main()


def test_problems_and_single_channels_are_written_alike_every_time(monkeypatch, tmp_path):
    asked = "sine_gordon_circle:v", "wave_speeds", "waves_own"
    made(monkeypatch, tmp_path / "a", *asked)
    made(monkeypatch, tmp_path / "b", *asked)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {f"{name.replace(':', '_')}_{part}.h5" for name in asked for part in ("train", "test")}
    for name in names:
        with TrajectoryFile(tmp_path / "a" / name) as file:
            assert file.description.channels == (("v",) if name.startswith("sine") else ("u", "v"))
        with h5py.File(tmp_path / "a" / name) as first, h5py.File(tmp_path / "b" / name) as second:
            np.testing.assert_array_equal(first["u"][()], second["u"][()])


def test_unknown_and_doubled_names_are_refused(monkeypatch, tmp_path, capsys):
    load()
    assert len(PROBLEMS) > 150
    with pytest.raises(SystemExit):
        made(monkeypatch, tmp_path, "rods")
    assert "no problem is called rods" in capsys.readouterr().err
    with pytest.raises(ValueError, match="two problems are called rod"):
        problem(name="rod")(lambda generator, count: None)
