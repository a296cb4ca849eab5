"""When training takes values between the observed points from the equation of a flow, and when it does not."""


import numpy as np
import pytest
from meshes import REYNOLDS, kovasznay, rectangle
from runs import run_on

from inrflow.data.description import Description
from inrflow.data.formats.writing import TrajectoryWriter
from inrflow.errors import UserError
from inrflow.mesh_flow.source import completed_by_flow

FLOW = Description("flow", ("u", "v", "p"), ("x", "y"), units=("m/s", "m/s", "m2/s2"))


def stage(folder, field, *settings, description=FLOW, mesh=True, points=0.8, trajectories=1):
    """The stage's result on frames of a field (N, C) that stands still, and what it said."""
    x, triangles = rectangle(14, 10)
    u = np.repeat(field(x)[None], 9, axis=0).astype(np.float32)
    path = folder / "flow.h5"
    with TrajectoryWriter(path, description, extra={"triangles": triangles} if mesh else None) as writer:
        for _ in range(trajectories):
            writer.append(np.linspace(0, 0.8, 9), x, u)
    said: list[str] = []
    with run_on(path, folder, f"data.points={points}", *settings, said=said) as run:
        problem = run.problem
        return problem, completed_by_flow(problem.source, problem.train, run.config, 0.25, said.append), said


@pytest.mark.parametrize("trajectories", [1, 2])
def test_a_flow_is_completed_at_all_nodes_of_its_mesh(tmp_path, trajectories):
    problem, completed, said = stage(tmp_path, kovasznay, trajectories=trajectories)
    assert completed is not None and said[0].endswith("; used between the observed points")
    batch = completed[0].batch(np.arange(trajectories), normalised=False)
    x, _ = rectangle(14, 10)
    assert len(batch) == trajectories and completed[0].shared_points
    np.testing.assert_array_equal(batch.x[0, 0, : len(x)], x)
    seen = problem.source.observed_points(0)
    true = kovasznay(x)
    np.testing.assert_allclose(batch.u[0, :, seen], np.repeat(true[None, seen], 9, axis=0), atol=1e-6)
    unseen = np.setdiff1d(np.arange(len(x)), seen)
    error = np.square(batch.u[0, -1].numpy()[unseen] - true[unseen]).mean(0) / true.var(0)
    assert error.mean() < 0.01
    expected = completed[1](batch.x[0, 0, unseen])
    at_observed = float(completed[1](batch.x[0, 0, seen]).max())
    assert (expected > 0).all() and at_observed < 1e-6 * float(expected.min())
    assert problem.observed is problem.source and problem.observed.batch([0]).u.shape[2] == len(seen)
    assert float(said[0].split("viscosity ")[1].split(":")[0]) == pytest.approx(1 / REYNOLDS, rel=0.1)


def test_what_smooth_interpolation_knows_as_well_is_left_to_it(tmp_path):
    random = np.random.default_rng(0)
    _, completed, said = stage(tmp_path, lambda x: random.normal(size=(len(x), 3)))
    assert completed is None and all(line.endswith("; left out") for line in said)


@pytest.mark.parametrize(
    "changed",
    [{"description": Description("flow", ("u", "v", "w"), ("x", "y"))}, {"mesh": False}, {"points": 1.0},
     {"description": Description("flow", ("u", "v", "p"), ("x", "y"), period=(1.5, 0.0))}],
)
def test_other_data_are_left_alone_unless_the_equation_is_asked_for(tmp_path, changed):
    _, completed, said = stage(tmp_path, kovasznay, **changed)
    assert completed is None and not said
    (tmp_path / "flow.h5").unlink()
    with pytest.raises(UserError, match="data.completion"):
        stage(tmp_path, kovasznay, "data.completion=incompressible_flow", **changed)


def test_it_can_be_forbidden_and_must_fit_into_the_time(tmp_path):
    _, completed, said = stage(tmp_path, kovasznay, "data.equation=none")
    assert completed is None and not said
    (tmp_path / "flow.h5").unlink()
    _, completed, said = stage(tmp_path, kovasznay, "training.minutes=0.001")
    assert completed is None and "minutes" in said[0]


def test_an_unknown_equation_is_a_mistake(inrflow_command, tiny_data, elsewhere):
    outcome = inrflow_command("train", f"data.train={tiny_data[0]}", "data.equation=heat")
    assert outcome.code == 2 and "data.completion" in outcome.err and "incompressible_flow" in outcome.err
