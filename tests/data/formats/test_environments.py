"""Which trajectories share a system, from what a file says of them."""

import h5py
import numpy as np
import pytest

from inrflow.data.formats.trajectory_file import TrajectoryFile, environments_of, named_parameters
from inrflow.errors import UserError
from inrflow.pdes.generate import generate


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Six waves of three speeds, and the same file without its parameters."""
    folder = tmp_path_factory.mktemp("families")
    path = generate("wave", folder / "speeds.h5", trajectories=6, frames=3, grid=8, resolution=16,
                    parameters={"speed": [0.04, 0.06, 0.05]}, environments=3)
    bare = folder / "bare.h5"
    bare.write_bytes(path.read_bytes())
    with h5py.File(bare, "r+") as file:
        del file["parameters"]
    return path, bare


def test_equal_parameters_are_one_environment(families):
    with TrajectoryFile(families[0]) as file:
        found = environments_of(file)
        assert found is not None and found.kind == "parameters" and found.names == ("speed",) and len(found) == 3
        np.testing.assert_allclose(found.parameters[found.index][:, 0], file.parameters[:, 0])
        assert environments_of(file, "environment").parameters is None
        np.testing.assert_allclose(named_parameters(file, ("speed",)), file.parameters)
        assert named_parameters(file, ("viscosity",)) is None


def test_without_parameters_ids_tell_and_each_trajectory_may_be_its_own(families):
    with TrajectoryFile(families[1]) as file:
        found = environments_of(file)
        assert found is not None and found.kind == "environment" and found.index.tolist() == [0, 1, 2, 0, 1, 2]
        assert len(environments_of(file, "trajectory")) == 6 and environments_of(file, "none") is None
        with pytest.raises(UserError, match="no parameters that vary"):
            environments_of(file, "parameters")
        with pytest.raises(UserError, match="choose from"):
            environments_of(file, "speed")


def test_one_system_needs_no_context(tiny_data):
    with TrajectoryFile(tiny_data[0]) as file:
        assert environments_of(file) is None
        with pytest.raises(UserError, match="one environment"):
            environments_of(file, "environment")
