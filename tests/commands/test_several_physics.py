"""Several physics in one run: trained together, told apart by every command, and joined by another one later."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import inrflow
from inrflow.commands.run_directory import REFERENCES_FILE, RunDirectory, load_run
from inrflow.domains import Box
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.errors import UserError
from inrflow.model.family import Family
from inrflow.model.surrogate import Surrogate
from inrflow.pdes.generate import generate

NAMES = ("heat", "burgers")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three equations on a line."""
    folder = tmp_path_factory.mktemp("physics")
    settings = {"trajectories": 4, "frames": 6, "grid": 16, "dimensions": 1}
    return {name: generate(name, folder / f"{name}.h5", **settings) for name in (*NAMES, "wave")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path], inrflow_command) -> Path:
    directory = tmp_path_factory.mktemp("several") / "run"
    listed = f"[{files['heat']},{files['burgers']}]"
    outcome = inrflow_command("train", f"data.train={listed}", f"output={directory}", "training.minutes=0.05")
    assert outcome.code == 0, outcome.err
    return directory


def fields_agree(one: Surrogate, other: Surrogate) -> None:
    states = torch.randn(3, one.code_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    zero = torch.zeros(()).double()
    torch.testing.assert_close(one.field(zero, states), other.field(zero, states), atol=1e-9, rtol=1e-9)


def test_laws_of_several_physics_share_their_terms(run: Path) -> None:
    """The library holds each term once, and gives every physics the field that was fitted to it alone."""
    library = Family.load(run).library
    assert list(library.theta) == list(NAMES)
    (diffusion,) = (j for j, term in enumerate(library.terms) if term == Term((((0, VALUE),),), 1).state())
    assert all(bool(theta[diffusion]) for theta in library.theta.values())
    for name in NAMES:
        fields_agree(Surrogate.load(run, physics=name), Surrogate.load(run / "checkpoints" / name))


@pytest.mark.usefixtures("unreported")
def test_a_physics_without_a_law_keeps_a_field_of_its_own(
    run: Path, files: dict[str, Path], tmp_path: Path, inrflow_command
) -> None:
    outcome = inrflow_command("train", f"data.train={files['wave']}", "dynamics.equation=false", "decoder.code_size=8",
                              "training.residual_field=off", "training.steps.decoder=20",
                              f"output={tmp_path / 'wave'}")
    assert outcome.code == 0, outcome.err
    wave = Surrogate.load(tmp_path / "wave")
    family = Family({"wave": wave, "burgers": Surrogate.load(run, physics="burgers")})
    assert list(family.library.theta) == ["burgers"] and family.about.endswith("; wave without a law")
    family.save(tmp_path)
    for name, one in family.members.items():
        fields_agree(Surrogate.load(tmp_path, physics=name), one)
    assert Family({"wave": wave}).about == "nothing: no physics follows a law"


def test_physics_must_be_named_in_python(run: Path) -> None:
    with pytest.raises(UserError, match="give physics=NAME, one of heat, burgers"):
        inrflow.Surrogate.load(run)
    with pytest.raises(UserError, match="physics=plasma is unknown"):
        inrflow.Surrogate.load(run, physics="plasma")


def test_evaluate_finds_the_physics_from_the_file(
    run: Path, files: dict[str, Path], tmp_path: Path, inrflow_command
) -> None:
    assert load_run(str(run), data=str(files["burgers"])).description.name == "burgers"
    outcome = inrflow_command("evaluate", f"run={run}", f"data.test={files['burgers']}", f"output={tmp_path / 'own'}")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "own" / "evaluation.json").read_text())
    still = RunDirectory(run).references("burgers")
    assert still is not None and set(report["references"]) == set(still.fitted) >= {"persistence", "pod_dmd"}
    outcome = inrflow_command("evaluate", f"run={run}", f"data.test={files['wave']}", f"output={tmp_path / 'other'}")
    assert outcome.code == 2
    assert "no physics has these channels; give physics=NAME, one of heat, burgers" in outcome.err


def test_inspect_lists_the_physics(run: Path, inrflow_command) -> None:
    outcome = inrflow_command("inspect", run)
    assert outcome.code == 0, outcome.err
    assert "heat, burgers" in outcome.out and "a library of" in outcome.out and "lap u" in outcome.out


def test_files_of_one_name_are_refused(files: dict[str, Path], tmp_path: Path, inrflow_command) -> None:
    listed = f"[{files['heat']},{files['heat']}]"
    outcome = inrflow_command("train", f"data.train={listed}", f"output={tmp_path / 'run'}")
    assert outcome.code == 2
    assert "the same name heat as another file" in outcome.err


def test_adapt_adds_a_physics_and_leaves_the_others(
    run: Path, files: dict[str, Path], tmp_path: Path, inrflow_command
) -> None:
    directory = tmp_path / "adapted"
    outcome = inrflow_command(
        "adapt", f"run={run}", f"data.train={files['wave']}", f"output={directory}"
    )
    assert outcome.code == 0, outcome.err
    family = Family.load(directory)
    assert family.names == ["heat", "burgers", "wave"]
    assert RunDirectory(directory).config().training.minutes == 0.025  # as each of the others had
    fields_agree(Surrogate.load(run, physics="burgers"), Surrogate.load(directory, physics="burgers"))
    assert all((directory / name / REFERENCES_FILE).exists() for name in family.names)
    same = [(folder / "burgers" / REFERENCES_FILE).read_bytes() for folder in (run, directory)]
    assert same[0] == same[1]
    again = inrflow_command("adapt", f"run={directory}", f"data.train={files['wave']}", f"output={tmp_path / 'again'}")
    assert again.code == 2
    assert "contains already" in again.err


def test_what_is_shared_is_told_term_by_term(run: Path) -> None:
    """A term counts as the same whichever channel it acts on, and what a physics adds is told."""
    family = Family.load(run)
    assert family.forms["lap a"] == list(NAMES) and family.forms["a da/dx"] == ["burgers"]
    assert family.known_from("burgers") == "of the terms of burgers, 1 are known: lap a (heat); 1 are new: a da/dx"
    assert family.known_from("plasma") == ""


def test_the_terms_of_a_law_with_contexts_are_told(run: Path) -> None:
    """Also those that the mean system does not have."""
    terms = [Term((((0, VALUE),),), 1), Term((((0, VALUE),),)), Term((((0, VALUE), (0, VALUE)),))]
    law = LawTerm(Box([0.0], [1.0], ["walled"]).state(), "natural", 4, [term.state() for term in terms],
                  [[0.1], [0.0], [0.0]], by_context=[[[0.0], [1.0], [0.0]]])
    growth = SimpleNamespace(field=VectorField(4, [law], 1))
    family = Family({"burgers": Surrogate.load(run, physics="burgers"), "growth": growth})
    assert family.forms == {"lap a": ["burgers", "growth"], "a da/dx": ["burgers"], "a": ["growth"]}
    assert family.about == "a library of 3 terms (burgers 2, growth 2), 1 of them in several laws"
