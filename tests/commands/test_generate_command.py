import numpy as np
import pytest

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.pdes import NAMES
from inrflow.pdes.equations import EQUATIONS

SMALL = ("trajectories=2", "grid=8", "resolution=16", "frames=3")


def test_options_and_parameters_reach_the_file(elsewhere, inrflow_command):
    outcome = inrflow_command("generate", "pde=heat", "output=heat.h5", "dimensions=1", "parameters.diffusivity=1e-3",
                              "dt=0.25", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "heat" in outcome.out
    with TrajectoryFile(elsewhere / "heat.h5") as file:
        assert file.description.coordinates == ("x",) and file.points == 8 and file.trajectories == 2
        np.testing.assert_allclose(file.parameters[:, 0], 1e-3)
        np.testing.assert_allclose(file.times()[0], [0, 0.25, 0.5])


def test_parameters_may_be_ranges_and_lists_and_points_a_number(elsewhere, inrflow_command):
    ranged = inrflow_command("generate", "pde=heat", "output=a.h5", "parameters.diffusivity={low: 1e-3, high: 2e-3}",
                             "points=5", *SMALL)
    listed = inrflow_command("generate", "pde=heat", "output=b.h5", "parameters.diffusivity=[1e-3,2e-3]", *SMALL)
    assert ranged.code == 0 and listed.code == 0, ranged.err + listed.err
    with TrajectoryFile("a.h5") as file:
        assert file.points == 5 and ((file.parameters > 1e-3) & (file.parameters < 2e-3)).all()
    with TrajectoryFile("b.h5") as file:
        assert file.environment.tolist() == [0, 1]


def test_equations_are_listed_where_none_is_meant(elsewhere, inrflow_command):
    missing, unknown = inrflow_command("generate"), inrflow_command("generate", "pde=wav")
    assert list(EQUATIONS) == NAMES and all(name in missing.out for name in NAMES)
    for outcome in (missing, unknown):
        assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
        assert all(name in outcome.err for name in NAMES)


def test_without_a_name_the_file_goes_to_a_folder_of_its_own(elsewhere, inrflow_command):
    assert inrflow_command("generate", "pde=heat", *SMALL).code == 0
    assert len(list(elsewhere.glob("outputs/generate/*/heat.h5"))) == 1


@pytest.mark.parametrize(("argument", "said"), [
    ("trajectoris=3", "did you mean trajectories?"),
    ("trajectories=2.5", "trajectories=2.5"),
    ("trajectories=0", "trajectories"),
    ("parameters.viscosity=1", "choose from diffusivity"),
    ("parameters.diffusivity=-1", "diffusivity"),
    ("points=some", "points"),
    ("noise=-1", "noise"),
    ("protocol=none", "protocol"),
    ("output=nowhere/a.h5", "no folder"),
])
def test_mistakes_are_one_clear_line_and_nothing_is_written(argument, said, elsewhere, inrflow_command):
    outcome = inrflow_command("generate", "pde=heat", "output=a.h5", argument)
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()) == 1
    assert not list(elsewhere.iterdir())
