"""Every configuration that is shipped composes and builds; the wheel holds all it needs and works from anywhere."""

import os
import subprocess
import sys
import zipfile
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from inrflow.cli import COMMANDS
from inrflow.config.resolve import ALIASES, config_directory, from_yaml, keys, resolve, to_yaml
from inrflow.config.schema import SCHEMAS, Config, EvaluateConfig, GenerateConfig
from inrflow.errors import UserError

ROOT = Path(__file__).parents[2]
EXPERIMENTS = [path.stem for path in sorted((config_directory() / "experiment").glob("*.yaml"))]


def test_every_command_but_inspect_has_a_configuration_whose_settings_are_explained():
    assert set(SCHEMAS) == set(COMMANDS) - {"inspect"}

    def explained(schema):
        assert schema.__doc__
        for item in fields(schema):
            if "about" not in item.metadata:
                explained(item.default_factory().__class__)
            else:
                assert item.metadata["about"].endswith(".") or "[" in item.metadata["about"], item.name

    for schema in SCHEMAS.values():
        explained(schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_without_overrides_a_configuration_is_that_of_its_dataclass(name):
    needed = {"evaluate": ["run"], "query": ["run", "observations", "points"], "plot": ["run"],
              "export": ["run"], "explore": ["run"],
              "forecast": ["run", "observations", "until"], "next": ["run", "observations"],
              "update": ["run", "data.train"],
              "adapt": ["run", "data.train"]}.get(name, [])
    expected = SCHEMAS[name]()
    for count, key in enumerate(needed):
        with pytest.raises(UserError, match=f"{key}=.* is missing"):
            resolve(name, SCHEMAS[name], [f"{given}=a" for given in needed[:count]])
        setattr(expected.data if "." in key else expected, key.split(".")[-1], "a")
    assert resolve(name, SCHEMAS[name], [f"{key}=a" for key in needed]) == expected


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_sets_what_its_file_says(name):
    content = yaml.safe_load((config_directory() / "experiment" / f"{name}.yaml").read_text())

    def compare(values, found):
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, getattr(found, key))
            else:
                assert getattr(found, key) == value, key

    compare(content, resolve("train", Config, [f"experiment={name}"]))


@pytest.mark.parametrize("name", ["neural", "coral", "dino"])
def test_a_recipe_brings_the_settings_of_its_experiment_unless_another_is_given(name):
    assert resolve("train", Config, [f"recipe={name}"]) == resolve("train", Config, [f"experiment={name}"])
    assert resolve("train", Config, [f"recipe={name}", "decoder.width=7"]).decoder.width == 7
    other = resolve("train", Config, [f"recipe={name}", "experiment=shift_scale"])
    assert other.recipe == name and other.decoder.modulation == ["shift", "scale", "output"]


@pytest.mark.parametrize("name", ["auto", "law", "reduced_order"])
def test_other_recipes_change_no_setting_but_their_own(name):
    expected = Config()
    expected.recipe = name
    assert resolve("train", Config, [f"recipe={name}"]) == expected


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_old_keys_are_read_on_the_command_line_and_in_files_of_runs(old, new, tmp_path):
    known = dict(keys(Config))
    assert old not in known and new in known
    assert resolve("train", Config, ["data.equation=none"]).data.completion == "none"
    retired = "decoder: {codes: harmonics, width: 64}"
    (tmp_path / "config.yaml").write_text(f"data: {{equation: none, points: 0.5}}\n{retired}\nseed: 3\n")
    read = from_yaml(tmp_path / "config.yaml", Config)
    assert (read.data.completion, read.data.points, read.seed, read.recipe) == ("none", 0.5, 3, "auto")
    assert read.decoder.width == 64


@pytest.mark.parametrize("text", ["é.h5", "日本", "true", "1e3", "a b (1).h5", "${oc.env:HOME}", "a\\${b}", "it's",
                                  "a\\", "a,b", "x=y", "{a}", "~/a", "nul", '"', "a'b\"c"])
def test_text_is_taken_as_it_is_and_read_back_so(text, tmp_path):
    built = resolve("train", Config, [f"output={text}"] if text != '"' else ["output='\"'"])
    assert built.output == text
    (tmp_path / "config.yaml").write_text(to_yaml(built), encoding="ascii")
    assert from_yaml(tmp_path / "config.yaml", Config) == built


def test_lists_of_text_are_taken_as_they_are():
    built = resolve("train", Config, ["data.train=[é 1.h5, 'b,c.h5',5]", "decoder.modulation=shift"])
    assert built.data.train == ["é 1.h5", "b,c.h5", "5"] and built.decoder.modulation == ["shift"]
    assert resolve("train", Config, ["output=null"]).output is None


@pytest.mark.parametrize(("override", "said"), [
    ("seed=${oc.env:HOME}", "refers to a variable"),
    ("output='a", "not closed"),
    ("data.train=[a", "not closed"),
    ("data.equaton=none", "did you mean data.completion?"),
    ("seed=many", "seed=many; give a whole number"),  # not the first setting, whose value is a letter of the message
    ("experiment=null", "choose one of coral"),
])
def test_values_that_cannot_be_meant_are_told(override, said):
    with pytest.raises(UserError) as caught:
        resolve("train", Config, ["decoder.name=a", override])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_variables_in_entries_of_dictionaries_are_not_looked_up_either():
    assert resolve("generate", GenerateConfig, ["parameters.speed=2"]).parameters == {"speed": 2}
    with pytest.raises(UserError, match="refers to a variable"):
        resolve("generate", GenerateConfig, ["parameters.speed=${oc.env:HOME}"])


@pytest.mark.parametrize("content", [
    "a: &a [1, 1]\nb: &b [*a, *a]\noutput: [*b, *b]", "output: " + "[" * 1000, "seed: .inf", "training: 3", "- 1", "3",
    "data: {points: !!python/object:os.system {}}", "seed: &a\n  b: *a", "\x00", "seed: 1e400", "data: {equation: 3}",
    "output: \xff", "seed: " + "9" * 5000,
])
def test_a_file_of_settings_that_is_damaged_or_hostile_is_told_in_one_line(content, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        from_yaml(tmp_path / "config.yaml", Config)
    assert "config.yaml is not a configuration" in str(caught.value) and "\n" not in str(caught.value)


def test_evaluation_observes_one_whole_frame_by_default():
    built = resolve("evaluate", EvaluateConfig, ["run=a"])
    assert (built.observe.frames, built.observe.points) == (None, 1.0)
    assert (Config().observe.frames, Config().observe.points) == (None, None)


def test_a_configuration_is_read_back_as_it_was_written(tmp_path):
    built = resolve("train", Config, ["training.minutes=3", "data.train=some file (1).h5", "seed=4"])
    (tmp_path / "config.yaml").write_text(to_yaml(built))
    assert from_yaml(tmp_path / "config.yaml", Config) == built and built.data.train == "some file (1).h5"


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
