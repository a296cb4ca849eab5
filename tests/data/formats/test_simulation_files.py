"""Published layouts of simulations (PDEBench's three, The Well) are read with their names, periods and parameters."""

import h5py
import numpy as np
import pytest

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

X, Y, T = np.linspace(0, 1, 5), np.linspace(0, 3, 4), np.arange(6) / 2
LINE = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)
PLANE = np.arange(2 * 6 * 5 * 4, dtype=np.float32).reshape(2, 6, 5, 4)
GRID = np.stack(np.meshgrid(X, Y, indexing="ij"), -1).reshape(-1, 2)


def converted(tmp_path, **options):
    convert(tmp_path / "a.hdf5", tmp_path / "b.h5", **options)
    with TrajectoryFile(tmp_path / "b.h5") as file:
        return file.description, [file.read(index) for index in range(file.trajectories)], file.parameters


def test_pdebench_tensor(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"], file["x-coordinate"] = LINE, X.astype(np.float32)
        file["t-coordinate"] = np.append(T, 3.0)  # one time more than frames, as its files have
    about, frames, _ = converted(tmp_path, period=[1.25])
    assert (about.channels, about.coordinates, about.period) == (("u",), ("x",), (1.25,))
    np.testing.assert_array_equal(frames[1].u[..., 0], LINE[1])
    np.testing.assert_array_equal(frames[1].t, T)


def test_pdebench_fields_by_name(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for index, name in enumerate(("Vx", "density")):
            file[name] = PLANE + index
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = X, Y, T
    about, frames, _ = converted(tmp_path, channels=["density"])
    assert about.channels == ("density",)
    np.testing.assert_array_equal(frames[0].x, GRID)
    np.testing.assert_array_equal(frames[0].u[..., 0], PLANE[0].reshape(6, -1) + 1)
    assert ("format", "PDEBench") in describe(tmp_path / "a.hdf5")


def test_pdebench_groups(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for index in range(2):
            group = file.create_group(f"{index:04d}")
            group["data"] = np.stack([PLANE[index], 2 * PLANE[index]], -1)
            group["grid/x"], group["grid/y"], group["grid/t"] = X, Y, T
    about, frames, _ = converted(tmp_path, channels=["h", "v"])
    assert about.channels == ("h", "v")
    np.testing.assert_array_equal(frames[1].u[..., 1], 2 * PLANE[1].reshape(6, -1))


def test_a_steady_problem_of_pdebench_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = LINE[:, 0], X, T
    with pytest.raises(UserError, match="without times"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.h5")


def well(path):
    with h5py.File(path, "w") as file:
        file.attrs.update(grid_type="cartesian", n_trajectories=2, dataset_name="toy")
        sizes = file.create_group("dimensions")
        sizes.attrs["spatial_dims"] = ["x", "y"]
        sizes["x"], sizes["y"], sizes["time"] = X, Y, T
        varying = {"time_varying": True, "sample_varying": True}
        file["t0_fields/height"] = PLANE
        file["t0_fields/bed"] = PLANE[0, 0]
        file["t1_fields/velocity"] = np.stack([PLANE + 1, PLANE + 2], -1)
        for name in ("t0_fields/height", "t1_fields/velocity"):
            file[name].attrs.update(varying)
        file["t0_fields/bed"].attrs.update({"time_varying": False, "sample_varying": False})
        file["scalars/viscosity"], file["scalars/gravity"] = np.array([0.1, 0.2]), 9.81
        condition = file.create_group("boundary_conditions/x_periodic")
        condition.attrs.update(bc_type="PERIODIC", associated_dims=["x"])


def test_the_well(tmp_path):
    well(tmp_path / "a.hdf5")
    about, frames, parameters = converted(tmp_path)
    assert about.channels == ("height", "velocity_x", "velocity_y")
    assert about.period == (1.25, 0.0) and about.parameter_names == ("viscosity",)
    np.testing.assert_array_equal(parameters[:, 0], [0.1, 0.2])
    np.testing.assert_array_equal(frames[1].u[..., 2], PLANE[1].reshape(6, -1) + 2)
    np.testing.assert_array_equal(frames[1].x, GRID)


def test_links_out_of_groups_are_refused(tmp_path):
    well(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["t0_fields/height"]
        file["t0_fields/height"] = h5py.ExternalLink("/etc/passwd", "x")
    with pytest.raises(UserError, match="link to another file"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.h5")


def test_scalars_of_a_file_of_the_well_are_parameters_beside_those_of_others(tmp_path):
    for name, value in (("a", 0.1), ("b", 0.3)):
        well(tmp_path / f"{name}.hdf5")
        with h5py.File(tmp_path / f"{name}.hdf5", "a") as file:
            del file["scalars/viscosity"], file["scalars/gravity"]
            file["scalars/alpha"] = value
            file["t2_fields/stress"] = np.stack([PLANE] * 4, -1).reshape(*PLANE.shape, 2, 2)
    with pytest.warns(UserWarning, match="stress is a tensor and left out"):
        convert([tmp_path / "a.hdf5", tmp_path / "b.hdf5"], tmp_path / "c.h5")
        convert(tmp_path / "b.hdf5", tmp_path / "d.h5")
    for name, wanted in (("c", [0.1, 0.1, 0.3, 0.3]), ("d", [0.3, 0.3])):
        with TrajectoryFile(tmp_path / f"{name}.h5") as file:
            assert file.description.parameter_names == ("alpha",)
            np.testing.assert_allclose(file.parameters[:, 0], wanted)
    with h5py.File(tmp_path / "b.hdf5", "a") as file:
        file.move("scalars/alpha", "scalars/beta")
    with pytest.raises(UserError, match="has the parameters beta"):
        convert([tmp_path / "a.hdf5", tmp_path / "b.hdf5"], tmp_path / "e.h5")
