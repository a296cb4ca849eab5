"""Sweeps: one run for every combination of settings, a table of results, and on again where they were stopped."""

import json

import pytest

from inrflow.commands.several.sweep import SWEEP_FILE
from inrflow.config.sweeps import choices


@pytest.mark.parametrize(("override", "expected"), [
    ("seed=0,1", ["seed=0", "seed=1"]),
    ("seed=range(2)", ["seed=0", "seed=1"]),
    ("data.read.channels=[u,v]", ["data.read.channels=[u,v]"]),
    ("data.train=a b/ü-1.h5", ["data.train=a b/ü-1.h5"]),
    ("data.train=a b.h5,c.h5", ["data.train=a b.h5", "data.train=c.h5"]),
    ("recipe=law,reduced_order", ["recipe=law", "recipe=reduced_order"]),
])
def test_commas_outside_of_brackets_are_choices(override, expected):
    assert choices(override) == expected


@pytest.mark.usefixtures("few_references")
def test_every_combination_is_trained_once_and_tabled(tiny_data, elsewhere, inrflow_command, quick_settings):
    settings = [f"data.train={tiny_data[0]}", f"data.test={tiny_data[1]}", *quick_settings, "recipe=reduced_order",
                "output=sweep"]
    swept = inrflow_command("train", "--multirun", "seed=0,1", *settings)
    assert swept.code == 0, swept.err
    rows = json.loads((elsewhere / "sweep" / SWEEP_FILE).read_text())["runs"]
    assert [row["settings"] for row in rows] == [["seed=0"], ["seed=1"]] and all(row["in_t"] > 0 for row in rows)
    assert "seed=1" in swept.out and "NMSE in-t" in swept.out
    assert "give one of them, such as sweep/0" in inrflow_command("inspect", "sweep").err
    models = [(elsewhere / "sweep" / str(k) / "model.safetensors").stat().st_mtime_ns for k in range(2)]
    again = inrflow_command("train", "-m", "seed=0,1", *settings)
    assert again.code == 0
    assert models == [(elsewhere / "sweep" / str(k) / "model.safetensors").stat().st_mtime_ns for k in range(2)]


def test_a_combination_that_cannot_be_is_refused_before_any_is_trained(tiny_data, elsewhere, inrflow_command):
    given = ["--multirun", "training.minutes=0.05,-1", f"data.train={tiny_data[0]}", "output=s"]
    refused = inrflow_command("train", *given)
    assert refused.code == 2 and "training.minutes=-1" in refused.err and not (elsewhere / "s").exists()
