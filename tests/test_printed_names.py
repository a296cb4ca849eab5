"""Names and paths as commands print them and take them."""

import os
import subprocess
import sys

import pytest

from inrflow.cli import RECIPES, WRITTEN, main
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


def test_names_that_are_known_before_torch_are_those_of_the_registries():
    from inrflow.data.formats.builtin import BUILTIN
    from inrflow.training.train import ALIASES
    from inrflow.training.train import RECIPES as REGISTERED

    own = [one.name for one in REGISTERED if type(one).__module__.startswith("inrflow.")]
    assert RECIPES[0] == "auto" and set(RECIPES[1:]) == {*own, *ALIASES}
    assert set(WRITTEN) == {suffix for kind in BUILTIN for suffix in kind.suffixes}


@pytest.mark.parametrize(("arguments", "said"), [
    (["train", "device=gpu"], "device=gpu; choose auto, cpu, cuda or cuda:N"),
    (["train", "recipe=nonsense"], "recipe=nonsense is not known; choose from auto, law"),
    (["forecast", "run=.", "observations=a.csv", "until=3", "to=a.xyz"], "by its suffix '.xyz'; use one of .csv"),
    (["forecast", "run=.", "observations=b.csv", "until=3"], "observations=b.csv does not exist; did you mean a.csv?"),
    (["convert", "a.csv", "a.nc"], "name it a.h5"),
])
def test_wrong_names_are_refused_before_torch_is_imported(arguments, said, tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "a.csv").write_text("t,u\n0,1\n")
    code = f"import sys; from inrflow.cli import main; rc = main({arguments}); print(rc, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"] and said in done.stderr
