"""The documentation runs: every block of Python, every example, and what each promises."""

import importlib.util
import json
import re
import sys
import types
from dataclasses import fields as fields_of
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

import inrflow
from inrflow.cli import COMMANDS
from inrflow.config.resolve import keys, resolve
from inrflow.config.schema import SCHEMAS, Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.training import recorder
from inrflow.training import train as recipes
from inrflow.training.recorder import Recorder, Tried

ROOT = Path(__file__).parents[1]
MOST_LINES = 40
EXTENSIONS = ("decoder", "term", "recipe", "format", "metric", "reference", "logger", "pde")


def blocks(page: str) -> dict[str, str]:
    """Blocks of Python of a page by their titles."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r'^```python title="(\w+)"\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("```python")
    return dict(found)


def script(path: str) -> types.ModuleType:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(code: str, name: str = "documented") -> dict:
    """The names that a program leaves; it is a module, as dataclasses and registries expect."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(code, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module.__dict__


@pytest.fixture(autouse=True)
def without_residual_field(monkeypatch) -> None:
    """No search for a residual field, which has tests of its own and would take half of the time."""
    monkeypatch.setattr("inrflow.training.train.choose_residual_field", lambda surrogate, judged, run: surrogate)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders with the data that the blocks of a page find."""
    made = {page: tmp_path_factory.mktemp("documented") for page in ("extending.md", "neural.md")}
    for page, folder in made.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            run(blocks(page)["data"])
    return made


@pytest.fixture
def here(folders, monkeypatch, registries) -> None:
    """In the folder of extending.md."""
    monkeypatch.chdir(folders["extending.md"])


@pytest.fixture
def neural(folders, monkeypatch, registries) -> None:
    """In the folder of neural.md."""
    monkeypatch.chdir(folders["neural.md"])


def test_every_extension_is_short():
    assert set(blocks("extending.md")) == {"data", *EXTENSIONS}
    for name, code in blocks("extending.md").items():
        assert len(code.splitlines()) <= MOST_LINES, name


def test_a_decoder(here):
    names = run(blocks("extending.md")["decoder"])
    loaded = inrflow.Surrogate.load("bumps_run")
    assert type(loaded.decoder) is names["Bumps"]
    with TrajectoryFile("test.h5") as file:
        seen = file.read(0)
    solution = loaded.assimilate(inrflow.Observations(seen.t[:1], seen.x, seen.u[:1]))
    assert np.square(solution(seen.t[0], seen.x) - seen.u[0]).mean() < 0.3 * seen.u[0].var()


def test_a_term(here):
    names = run(blocks("extending.md")["term"])
    loaded = inrflow.Surrogate.load("saturation_run")
    term = loaded.field.get(names["Saturation"])
    assert list(loaded.field.terms) == ["linear", "saturation"]
    assert torch.equal(term.rate, names["surrogate"].field.get(names["Saturation"]).rate)
    assert float(term.rate.detach()) != pytest.approx(0.01)  # trained


def test_a_recipe(here):
    run(blocks("extending.md")["recipe"])
    tried = json.loads(Path("dmd_run/candidates.json").read_text())
    chosen = tried["candidates"][tried["chosen"]]
    assert chosen["recipe"] == "dmd" and chosen["taken"] and chosen["validation_error"] < 0.1
    assert inrflow.Surrogate.load("dmd_run").training["dynamics"] == "DMD of 8 modes"


def test_a_format(here):
    run(blocks("extending.md")["format"])
    with TrajectoryFile("waves.h5") as file:
        assert (file.trajectories, file.frames, file.points) == (1, 6, 20)
        assert file.description.channels == ("height",)
        assert np.allclose(file.read(0).u[..., 0], np.load("waves.npy")[0], atol=1e-6)


def test_a_metric(here, capsys):
    run(blocks("extending.md")["metric"])
    report = json.loads(Path("metric_run/evaluation.json").read_text())
    assert report["largest_error"] ** 2 > report["mse"]["all"]
    assert f"largest error {report['largest_error']:.2e}" in capsys.readouterr().out


def test_a_reference(here):
    run(blocks("extending.md")["reference"])
    errors = json.loads(Path("reference_run/evaluation.json").read_text())["references"]
    assert 0 < errors["damped_persistence"]["mse"]["all"] < errors["persistence"]["mse"]["all"]


def test_a_logger(here, monkeypatch):
    logged, begun = [], {}
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **given: begun.update(given) or types.SimpleNamespace(
        log=logged.append, finish=lambda: logged.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    made = run(blocks("extending.md")["logger"])["WandbLogger"]
    points = {"inrflow.loggers": [types.SimpleNamespace(name="wandb", load=lambda: made)]}
    monkeypatch.setattr(recorder, "entry_points", lambda group: points[group])
    Path("logged").mkdir()
    with Recorder(Path("logged"), Console(quiet=True), Config(seed=3)) as log:
        log.log("fit", 2, loss=0.5, note="text")
    assert begun["name"] == "logged" and begun["config"]["seed"] == 3
    assert logged == [{"fit/loss": 0.5, "fit/step": 2}, "finished"]


def test_an_equation(here):
    run(blocks("extending.md")["pde"])
    with TrajectoryFile("allen_cahn.h5") as file:
        assert file.description.source.startswith("u_t = width^2 lap u + u - u^3")
        u = np.stack([file.read(s).u for s in range(file.trajectories)])
    energy = np.square(u).mean((0, 2, 3))
    assert (np.diff(energy) > 0).all() and 0.5 < energy[-1] < 1 and np.abs(u[:, -1]).max() < 1.05  # phases separate


# ---- the neural path ----

QUICK = ('"training.steps.decoder=20", "training.steps.rollout=60", "decoder.code_size=8", "decoder.width=16", '
         '"data.copies=1"')


def quick(name: str) -> dict:
    """What a block of neural.md leaves, trained in a fixed number of steps."""
    code = blocks("neural.md")[name]
    assert name == "gradient" or '"training.minutes=1"' in code
    return run(code.replace('"training.minutes=1"', QUICK))


@pytest.mark.usefixtures("neural")
def test_the_neural_path_is_short_and_has_gradients():
    assert len([line for line in blocks("neural.md")["fit"].splitlines() if line]) <= 10
    quick("fit")
    names = quick("gradient")
    forecast, code = names["forecast"], names["code"]
    slopes = {name: p.grad for name, p in inrflow.Surrogate.load("neural_run").field.named_parameters()}
    assert slopes and all(p.grad is not None for p in forecast.field.parameters())
    assert max(float(p.grad.abs().max()) for p in forecast.field.parameters()) > 0

    model = names["Forecast"](inrflow.Surrogate.load("neural_run"))  # the weights before the step of the optimiser
    model.decoder.double()

    def loss(z):
        return float((model(z, names["times"], names["x"])[:, -1] - 0.5).square().mean().detach())

    step = torch.zeros_like(code)
    step[0, 0] = 1e-4
    slope = (loss(code.detach() + step) - loss(code.detach() - step)) / 2e-4
    assert float(code.grad[0, 0]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.usefixtures("neural")
def test_the_neural_path_takes_a_term_of_ones_own():
    names = quick("own")
    loaded = inrflow.Surrogate.load("rotation_run").field
    assert list(loaded.terms) == ["rotation", "network"]
    weight = loaded.get(names["Rotation"]).weight
    assert torch.equal(weight, names["surrogate"].field.get(names["Rotation"]).weight)
    assert bool((weight != 0).any())  # trained


# ---- pages and examples ----


def test_the_page_on_the_choice_of_a_model_is_up_to_date():
    generate = script("docs/generate.py")
    page = generate.PAGE.read_text(encoding="utf-8")
    assert page == generate.page(), "run python docs/generate.py"
    assert all(f"### `{recipe.name}`" in page for recipe in recipes.RECIPES)
    assert all(f"`{field.name}`" in page for field in fields_of(Tried))


def test_the_file_of_a_simulation_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/schema.md").read_text(encoding="utf-8"), re.DOTALL)
    run(code)
    with TrajectoryFile("decay.h5") as file:
        assert (file.trajectories, file.frames, file.points, file.description.channels) == (16, 20, 50, ("heat",))
        given = file.read(3)
    assert np.allclose(given.u[..., 0], 0.8 * np.exp(-given.t)[:, None] * np.sin(np.pi * given.x[:, 0]), atol=1e-6)


def test_pages_link_to_what_is_there():
    for page in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "examples/README.md",
                 *(ROOT / "benchmarks").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_and_settings_of_the_questions_are_there():
    text = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line.startswith("    inrflow ")]
    assert len(lines) >= 10
    for _, name, *arguments in lines:
        assert name in COMMANDS
        if name != "inspect":
            resolve(name, SCHEMAS[name], [item.replace("0,1,2", "0") for item in arguments if item != "--multirun"])
    known = {key for schema in SCHEMAS.values() for key, _ in keys(schema)}
    settings = set(re.findall(r"[`( ]([a-z_]+(?:\.[a-z_]+)*)=", text))
    assert len(settings) > 12 and settings <= known, settings - known
    assert all(recipe in {one.name for one in recipes.RECIPES} for recipe in re.findall(r"recipe=(\w+)", text))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == inrflow.__version__ and citation["authors"] == [{"name": "The inrflow project"}]


SMALL = ("training.steps.decoder=20", "training.steps.rollout=20", "decoder.code_size=6")


@pytest.mark.usefixtures("registries")
def test_the_example_of_the_neural_path(tmp_path):
    errors = script("examples/neural_wave.py").main(
        tmp_path / "out", *SMALL, "decoder.width=16", "dynamics.width=16", "data.copies=1", grid=8, trajectories=6
    )
    assert set(errors) == {"neural", "persistence"} and all(0 < error < 10 for error in errors.values())


@pytest.mark.usefixtures("registries")
def test_the_example_of_a_term(tmp_path):
    surrogate = script("examples/own_term.py").main(tmp_path / "out", *SMALL, "decoder.width=16", "data.copies=1",
                                                    grid=16, trajectories=16)
    state = torch.randn(1, 6, dtype=torch.float64)
    path = surrogate.integrator(surrogate.field, state, torch.arange(5, dtype=torch.float64)).detach()
    assert float((path[0, -1] - state).norm()) > 0.01 * float(state.norm())
    assert float(path[0, -1].norm()) == pytest.approx(float(state.norm()), rel=1e-2)


def test_the_example_of_a_query(tmp_path):
    answer = script("examples/assimilate_and_query.py").main(
        tmp_path / "out", *SMALL, "training.minutes=0.05", "recipe=reduced_order", "data.symmetries=none",
        "decoder.harmonics=4", "dynamics.depth=0", "dynamics.memory=0", grid=12,
    )
    assert {key: value.shape for key, value in answer.items()} == {
        "x": (5, 2), "u": (5, 1), "std": (5, 1), "dx": (5, 1, 2)
    }
    assert all(np.isfinite(value).all() for value in answer.values()) and (answer["std"] > 0).all()
