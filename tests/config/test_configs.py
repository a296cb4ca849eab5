"""Every configuration that is shipped composes and builds; the wheel holds all it needs and works from anywhere."""

import os
import subprocess
import sys
import zipfile
from dataclasses import is_dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from inrflow.config import schema as config
from inrflow.config.resolve import config_directory, from_yaml, resolve, to_yaml

ROOT = Path(__file__).parents[2]
OTHERS = ("evaluate", "query", "plot", "convert", "generate", "adapt")
SCHEMAS = {"train": config.Config} | {name: getattr(config, f"{name.capitalize()}Config") for name in OTHERS}
CHOICES = [f"{path.parent.name}={path.stem}" for path in sorted(config_directory().glob("*/*.yaml"))]


def test_there_is_a_file_for_every_schema_and_no_other():
    assert {path.stem for path in config_directory().glob("*.yaml")} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_top_level_configurations_build_their_dataclass(name):
    built = resolve(name, SCHEMAS[name], [])
    assert isinstance(built, SCHEMAS[name])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_a_group_builds_and_sets_what_its_file_says(choice):
    built = resolve("train", config.Config, [choice])
    assert is_dataclass(built)
    group, name = choice.split("=")
    content = yaml.safe_load((config_directory() / group / f"{name}.yaml").read_text()) or {}
    place = built if group == "experiment" else getattr(built, group)

    def compare(values, found):
        for key, value in values.items():
            if key == "defaults":
                continue
            if isinstance(value, dict):
                compare(value, getattr(found, key))
            else:
                assert getattr(found, key) == value, key

    compare(content, place)


def test_a_configuration_is_read_back_as_it_was_written(tmp_path):
    built = resolve("train", config.Config, ["training.minutes=3", "data.train=some file (1).h5", "seed=4"])
    (tmp_path / "config.yaml").write_text(to_yaml(built))
    assert from_yaml(tmp_path / "config.yaml", config.Config) == built and built.data.train == "some file (1).h5"


@pytest.mark.skipif(find_spec("hatchling") is None, reason="the wheel is built where hatchling is installed")
def test_the_wheel_holds_configurations_and_works_from_an_unrelated_folder(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    shipped = {f"inrflow/configs/{path.relative_to(config_directory()).as_posix()}"
               for path in config_directory().rglob("*.yaml")}
    assert shipped | {"inrflow/py.typed", "inrflow_kernels/__init__.py"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    ask = "import inrflow, inrflow.cli, sys; print(inrflow.__file__); sys.exit(inrflow.cli.main(sys.argv[1:]))"
    (tmp_path / "unrelated").mkdir()
    outcome = subprocess.run(
        [sys.executable, "-c", ask, "generate", "pde=heat", "output=a.h5", "trajectories=1", "grid=8", "resolution=16",
         "frames=2"], cwd=tmp_path / "unrelated", env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=True)
    assert str(tmp_path / "site") in outcome.stdout and (tmp_path / "unrelated" / "a.h5").exists()
