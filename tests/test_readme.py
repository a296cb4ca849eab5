"""The README and the page of commands say what works: their Python runs, their commands parse."""

import doctest
import inspect
import io
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import inrflow
from inrflow.cli import COMMANDS
from inrflow.config.resolve import resolve
from inrflow.config.schema import SCHEMAS
from inrflow.config.sweeps import choices
from inrflow.data.formats.trajectory_file import TrajectoryFile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, "commands.md": (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")}


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def command_lines(*pages):
    lines = [line for page in pages for block in blocks("bash", PAGES[page]) for line in block.splitlines()
             if not line.startswith("#")]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part.split(" -m ")[-1] for part in parts if part.startswith(("inrflow", "torchrun"))]


def test_the_python_example_is_short_and_runs(tiny_run, elsewhere):
    (code,) = blocks("python")
    assert len(code.splitlines()) < 10
    shutil.copytree(tiny_run.run, elsewhere / "runs" / "wave")
    shutil.copy(tiny_run.test, elsewhere / "test.h5")
    names: dict = {}
    exec(code, names)
    assert names["u"].shape == names["spread"].shape == (64, 2) and names["slopes"].shape == (64, 2, 2)
    assert np.isfinite(names["u"]).all() and (names["spread"] > 0).all()


def test_examples_in_the_help_run(tiny_run, elsewhere, monkeypatch):
    shutil.copytree(tiny_run.run, elsewhere / "runs" / "wave")
    with TrajectoryFile(tiny_run.test) as file:
        seen = file.read(0, [0, 1])
    helps, shown = [inspect.getdoc(one) for one in (inrflow, inrflow.train, inrflow.Observations)], io.StringIO()
    signature = inspect.signature(inrflow.train)
    monkeypatch.setattr(inrflow, "train", lambda *given, **named: signature.bind(*given, **named))
    names = {"inrflow": inrflow, "t": seen.t, "x": seen.x, "u": seen.u}
    for text in helps:
        test = doctest.DocTestParser().get_doctest(text, names, "help", None, None)
        assert test.examples
        doctest.DocTestRunner().run(test, out=shown.write, clear_globs=False)
        names = test.globs
    assert shown.getvalue() == "" and np.isfinite(names["values"]).all() and names["spread"].shape == (64, 2)


@pytest.mark.parametrize("line", command_lines(*PAGES))
def test_commands_parse(line):
    _, name, *arguments = shlex.split(line)
    assert name in COMMANDS
    if name == "inspect":
        assert len(arguments) == 1 and "=" not in arguments[0]
        return
    arguments = [item for item in arguments if item != "--multirun"]
    settings = [one for item in arguments if "=" in item for one in choices(item)]
    arguments = settings + [item for item in arguments if "=" not in item]
    assert len(arguments) - len(settings) == (2 if name == "convert" else 0)
    resolved = resolve(name, SCHEMAS[name], settings)
    assert isinstance(resolved, SCHEMAS[name])
    keys = {item.split("=")[0].split(".")[0] for item in settings}
    assert keys <= {item.name for item in fields(resolved)}


CHEAP = [line for line in dict.fromkeys(command_lines(*PAGES)) if re.match(
    r"inrflow (query|next|evaluate|inspect) .*(runs/wave|runs/stations |train\.h5)", line)]


def test_cheap_commands_run(tiny_run, elsewhere, inrflow_command):
    for name in ("wave", "stations"):
        shutil.copytree(tiny_run.run, elsewhere / "runs" / name)
    shutil.copy(tiny_run.test, "test.h5")
    shutil.copy(tiny_run.train, "train.h5")
    with TrajectoryFile(tiny_run.test) as file:
        frames, about = file.read(0, [0, 1]), file.description
    rows = np.column_stack([np.repeat(frames.t, len(frames.x)), np.tile(frames.x, (2, 1)), np.concatenate(frames.u)])
    for name in ("seen.csv", "stations.csv", "points.csv", "sites.csv"):
        np.savetxt(name, rows, "%.9g", ",", header=",".join(("t", *about.coordinates, *about.channels)), comments="")
    assert len(CHEAP) >= 6
    for line in CHEAP:
        done = inrflow_command(*shlex.split(line)[1:])
        assert done.code == 0, (line, done.err)
        for target in re.findall(r"to=(\S+)", line):
            Path(target).unlink()


def test_every_command_and_the_two_commands_of_a_fresh_machine_are_there():
    assert {shlex.split(line)[1] for line in command_lines("commands.md")} == set(COMMANDS)
    assert set(re.findall(r"^\| `inrflow (\w+)` \|", README, re.MULTILINE)) == set(COMMANDS)
    assert len(README.splitlines()) < 160  # the rest is in pages of its own
    commands = ("pip install . && inrflow train\n", 'pip install -e ".[test]" && pytest -n 2 --dist loadscope\n')
    assert all(one in README for one in commands)


def test_pictures_and_files_it_links_to_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists()
