"""`generate` writes files that the data layer reads back with everything that is known of them."""

import h5py
import numpy as np
import pytest

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.pdes.equations import EQUATIONS
from inrflow.pdes.generate import generate
from inrflow.pdes.simulate import simulate


@pytest.mark.parametrize("pde", EQUATIONS)
def test_files_hold_values_parameters_and_symmetries(pde, tmp_path):
    settings = {"grid": 8, "resolution": 16, "frames": 3, "dt": 0.5, "burn_in": 0.5}
    path = generate(pde, tmp_path / "data.h5", trajectories=3, seed=4, **settings)
    data = simulate(pde, 3, seed=4, **settings)
    file = TrajectoryFile(path)
    assert (file.trajectories, file.frames, file.points) == (3, 3, data.u.shape[2])
    assert file.description.name == pde and file.description.period == data.period
    assert file.description.channels == data.channels and file.description.coordinates == data.coordinates
    assert file.description.parameter_names == data.parameter_names
    assert "seed 4" in file.description.source
    np.testing.assert_array_equal(file.parameters, data.parameters)
    arrays = data.symmetries.arrays()
    for key in ("generators", "generators_channels", "maps", "maps_channels"):
        np.testing.assert_array_equal(getattr(file.description.symmetries, key), arrays[key])
    with h5py.File(path) as stored:
        np.testing.assert_array_equal(stored["u"], data.u)
        np.testing.assert_array_equal(stored["t"], data.t)
        np.testing.assert_array_equal(stored["x"], data.x)


def test_environments_jitter_points_and_gaps_are_written(tmp_path):
    path = generate("heat", tmp_path / "data.h5", trajectories=4, frames=3, grid=8, points=7, missing=0.3,
                    time_jitter=0.5, parameters={"diffusivity": [0.01, 0.02]})
    file = TrajectoryFile(path)
    assert file.environment.tolist() == [0, 1, 0, 1] and file.point_layout == "per_trajectory"
    with h5py.File(path) as stored:
        assert stored["t"].shape == (4, 3) and stored["x"].shape == (4, 7, 2)
        assert 0 < np.isnan(stored["u"][:]).mean() < 1


def test_a_file_that_exists_is_refused_before_anything_is_solved(tmp_path, monkeypatch):
    path = tmp_path / "data.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\nprecious")
    monkeypatch.setattr("inrflow.pdes.generate.simulate", lambda *a, **k: pytest.fail("solved"))
    for output in (path, tmp_path / "missing" / "data.h5"):
        with pytest.raises(UserError):
            generate("heat", output)
    assert path.read_bytes().endswith(b"precious")


def test_mistakes_leave_no_file(tmp_path):
    with pytest.raises(UserError, match="Unknown pde"):
        generate("nothing", tmp_path / "data.h5")
    assert list(tmp_path.iterdir()) == []
