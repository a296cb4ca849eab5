"""Several physics in one run: trained together, told apart by every command, and joined by another one later."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import inrflow
from inrflow.commands.run_directory import load_run
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
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
    outcome = inrflow_command("train", f"data.train={listed}", f"output={directory}")
    assert outcome.code == 0, outcome.err
    return directory


def test_contexts_span_the_operators_exactly(run: Path) -> None:
    """The shared field at a physics' context, on its slots, is the field that was fitted to it alone."""
    for name in NAMES:
        shared, own = Surrogate.load(run, physics=name), Surrogate.load(run / "checkpoints" / name)
        states = torch.randn(3, own.code_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        zero = torch.zeros(()).double()
        torch.testing.assert_close(shared.field(zero, states), own.field(zero, states), atol=1e-9, rtol=1e-9)
    family = Family.load(run)
    assert family.equation is not None and family.operators is None
    assert family.equation.contexts.shape == (2, 1) and max(family.lost.values()) < 1e-12


def test_fewer_contexts_share_dynamics(run: Path) -> None:
    """Without contexts there is one equation for all, and what it misses of each is told."""
    alone = {name: Surrogate.load(run / "checkpoints" / name) for name in NAMES}
    family = Family.of(alone, context_size=0)
    assert family.equation is not None and family.equation.contexts.shape == (2, 0)
    assert max(family.lost.values()) > 1e-3


def test_physics_without_an_equation_share_a_quadratic_field_beside_it(
    run: Path, files: dict[str, Path], tmp_path: Path, inrflow_command
) -> None:
    directory = tmp_path / "mixed"
    listed = f"[{files['heat']},{files['wave']}]"
    outcome = inrflow_command("train", f"data.train={listed}", "dynamics.equation=false", f"output={directory}")
    assert outcome.code == 0, outcome.err
    plain = Family.load(directory)
    assert plain.equation is None and plain.operators is not None and max(plain.lost.values()) < 1e-12
    mixed = Family.of({"wave": plain.surrogate("wave"), "burgers": Family.load(run).surrogate("burgers")})
    assert mixed.equation is not None and mixed.operators is not None and list(mixed.lost) == ["burgers", "wave"]
    mixed.save(tmp_path)
    states = torch.randn(2, mixed.members["wave"].code_size, generator=torch.Generator().manual_seed(1)).double()
    zero = torch.zeros(()).double()
    before, after = plain.surrogate("wave"), Surrogate.load(tmp_path, physics="wave")
    torch.testing.assert_close(after.field(zero, states), before.field(zero, states), atol=1e-9, rtol=1e-9)


def test_physics_must_be_named_in_python(run: Path) -> None:
    with pytest.raises(UserError, match="give physics=NAME, one of heat, burgers"):
        inrflow.Surrogate.load(run)
    with pytest.raises(UserError, match="physics=plasma is unknown"):
        inrflow.Surrogate.load(run, physics="plasma")


def test_evaluate_finds_the_physics_from_the_file(
    run: Path, files: dict[str, Path], tmp_path: Path, inrflow_command
) -> None:
    assert load_run(str(run), data=str(files["burgers"])).description.name == "burgers"
    outcome = inrflow_command("evaluate", f"run={run}", f"data.test={files['wave']}", f"output={tmp_path / 'other'}")
    assert outcome.code == 2
    assert "no physics has its channels; give physics=NAME, one of heat, burgers" in outcome.err


def test_inspect_lists_the_physics(run: Path, inrflow_command) -> None:
    outcome = inrflow_command("inspect", run)
    assert outcome.code == 0, outcome.err
    assert "heat, burgers" in outcome.out


def test_files_of_one_name_are_refused(files: dict[str, Path], tmp_path: Path, inrflow_command) -> None:
    listed = f"[{files['heat']},{files['heat']}]"
    outcome = inrflow_command("train", f"data.train={listed}", f"output={tmp_path / 'run'}")
    assert outcome.code == 2
    assert "named heat as another file is" in outcome.err


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
    before, after = Surrogate.load(run, physics="burgers"), Surrogate.load(directory, physics="burgers")
    states = torch.randn(3, before.code_size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    zero = torch.zeros(()).double()
    torch.testing.assert_close(after.field(zero, states), before.field(zero, states), atol=1e-9, rtol=1e-9)
    again = inrflow_command("adapt", f"run={directory}", f"data.train={files['wave']}", f"output={tmp_path / 'again'}")
    assert again.code == 2
    assert "knows already" in again.err


def test_a_new_physics_takes_the_terms_of_a_known_one_where_they_suffice(
    run: Path, tmp_path: Path, inrflow_command
) -> None:
    """Burgers' equation of another viscosity, under another name, from two trajectories."""
    settings = {"trajectories": 2, "frames": 6, "grid": 16, "dimensions": 1, "parameters": {"viscosity": 0.035}}
    with TrajectoryFile(generate("burgers", tmp_path / "burgers.h5", seed=5, **settings)) as file:
        parts = [file.read(i) for i in range(2)]
        write_trajectories(
            tmp_path / "traffic.h5", file.times()[0], parts[0].x, np.stack([np.asarray(part.u) for part in parts]),
            replace(file.description, name="traffic"),
        )
    directory = tmp_path / "adapted"
    outcome = inrflow_command("adapt", f"run={run}", f"data.train={tmp_path / 'traffic.h5'}", f"output={directory}")
    assert outcome.code == 0, outcome.err
    report = json.loads((directory / "adaptation.json").read_text())
    assert report["dynamics"] == "terms of burgers" and report["scores"]["terms of burgers"] < 1e-3
    assert "u u_x" in Surrogate.load(directory, physics="traffic").training["equation"][0]
