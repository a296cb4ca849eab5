"""Trajectory files that are not what they should be are named with their remedy."""

import h5py
import numpy as np
import pytest
from small_data import WAVE, field, scattered_rows, with_symmetries

from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError

T, X, U = field()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wave.h5"


def damage(path, change):
    write_trajectories(path, T, X, U, with_symmetries(), parameters=[[1.0], [2.0], [3.0]], environment=[0, 1, 2])
    with h5py.File(path, "r+") as file:
        change(file)


def replace(name, value):
    def change(file):
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
    return change


def attribute(name, value):
    def change(file):
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value
    return change


def at(name, index, value):
    def change(file):
        file[name][index] = value
    return change


OWN = np.tile(T, (3, 1))
HOLE = OWN.copy()
HOLE[1, 2] = np.nan
BAD_FILES = {
    "other format": (attribute("format", "the-well"), "format='the-well'.*inrflow convert"),
    "no format": (attribute("format", None), "no attribute format"),
    "other version": (attribute("version", 2), "version 2.*reads version 1"),
    "no version": (attribute("version", None), "version none"),
    "no channels": (attribute("channels", None), "no attribute channels"),
    "too many channel names": (attribute("channels", ["u", "v", "w"]), "u has 2 channels.*names 3: u, v, w|units"),
    "same channel twice": (attribute("channels", ["u", "u"]), "different"),
    "too many coordinates": (attribute("coordinates", ["x", "y", "z"]), "coordinates|period|symmetries"),
    "unknown geometry": (attribute("geometry", "torus"), "torus"),
    "sphere in 2-D": (attribute("geometry", "sphere"), "3"),
    "period that is text": (attribute("period", "long"), "period.*numbers"),
    "missing u": (replace("u", None), "u is missing"),
    "missing t": (replace("t", None), "t is missing"),
    "missing x": (replace("x", None), "x is missing"),
    "u of 3 axes": (replace("u", U[0]), "u has shape \\(5, 7, 2\\)"),
    "u of text": (replace("u", "abc"), "u has type"),
    "t of another length": (replace("t", T[:4]), "t has shape \\(4,\\) but u has shape \\(3, 5, 7, 2\\)"),
    "x of another length": (replace("x", X[:6]), "x has shape \\(6, 2\\)"),
    "x without axis": (replace("x", X[:, 0]), "x has shape"),
    "zero points": (lambda file: (replace("u", U[:, :, :0])(file), replace("x", X[:0])(file)), "zero points"),
    "zero trajectories": (replace("u", U[:0]), "zero trajectories"),
    "zero times": (lambda file: (replace("u", U[:, :0])(file), replace("t", T[:0])(file)), "zero times"),
    "NaN time": (at("t", 2, np.nan), "t holds nan at frame 2"),
    "NaN last shared time": (at("t", 4, np.nan), "t holds nan at frame 4"),
    "all times NaN": (replace("t", np.full(5, np.nan)), "t holds nan at frame 0"),
    "infinite time": (at("t", 2, np.inf), "t holds inf at frame 2"),
    "NaN within own times": (replace("t", HOLE), "t of trajectory 1 holds nan at frame 2.*padding at the end"),
    "duplicate times": (at("t", 2, T[1]), "the same time twice.*frames 1, 2"),
    "decreasing times": (at("t", 4, 0.0), "decreasing times"),
    "duplicate own times": (replace("t", np.where(np.arange(3)[:, None] == 2, 1.0, OWN)), "trajectory 2.*twice"),
    "NaN coordinate": (at("x", (3, 1), np.nan), "x holds coordinates that are not finite"),
    "infinite coordinate": (at("x", (3, 1), np.inf), "x holds coordinates that are not finite"),
    "all-NaN channel": (at("u", (..., 1), np.nan), "no value at all in channel v"),
    "parameters of another length": (replace("parameters", np.zeros((2, 1))), "parameters has shape"),
    "NaN parameters": (replace("parameters", np.full((3, 1), np.nan)), "parameters.*not finite"),
    "environment of floats": (replace("environment", np.zeros(3)), "environment has type float64"),
    "symmetries of another shape": (replace("symmetries/generators", np.zeros((2, 3, 4))), "symmetries"),
    "symmetries that are a dataset": (replace("symmetries", np.zeros(3)), "symmetries is a dataset"),
    "names that do not fit": (lambda file: file["parameters"].attrs.update({"names": ["a", "b"]}), "parameters.*names"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_what_was_found(path, case):
    change, words = BAD_FILES[case]
    damage(path, change)
    with pytest.raises(UserError, match=words) as caught:
        TrajectoryFile(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    path.unlink()  # not held open


BAD_ROWS = {
    "rows of other lengths": (replace("t", np.zeros(59)), "t has shape \\(59,\\), expected \\(60,\\)"),
    "another number of coordinates": (replace("x", np.zeros((60, 3))), "x has shape \\(60, 3\\)"),
    "trajectory of floats": (replace("trajectory", np.zeros(60)), "trajectory has type float64"),
    "negative trajectory": (at("trajectory", 7, -1), "trajectory holds -1"),
    "NaN time": (at("t", 7, np.nan), "t holds nan in row 7"),
    "NaN coordinate": (at("x", 7, np.nan), "x holds .* in row 7"),
    "all-NaN channel": (at("u", (..., 0), np.nan), "channel u"),
    "no rows": (lambda file: [replace(name, file[name][:0])(file) for name in ("trajectory", "t", "x", "u")],
                "shape \\(0"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_scattered_rows_are_named(path, case):
    change, words = BAD_ROWS[case]
    write_scattered(path, *scattered_rows(), WAVE)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=words) as caught:
        TrajectoryFile(path)
    assert str(path) in str(caught.value)


def test_points_off_the_sphere_are_named(path):
    globe = Description("globe", ("u", "v"), ("x", "y", "z"), geometry="sphere")
    x = np.random.default_rng(0).standard_normal((7, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    write_trajectories(path, T, x, U, globe)
    TrajectoryFile(path).close()
    write_trajectories(path, T, 2 * x, U, globe, overwrite=True)
    with pytest.raises(UserError, match="not unit vectors"):
        TrajectoryFile(path)
    rows = scattered_rows()
    write_scattered(path, rows[0], rows[1], np.ones((60, 3)), rows[3], globe, overwrite=True)
    with pytest.raises(UserError, match="not unit vectors"):
        TrajectoryFile(path)


@pytest.mark.parametrize("dataset", ["frames", "scattered"])
def test_infinite_values_are_named_when_they_are_read(path, dataset):
    if dataset == "frames":
        write_trajectories(path, T, X, U, WAVE)
    else:
        write_scattered(path, *scattered_rows(), WAVE)
    with h5py.File(path, "r+") as file:
        file["u"][0] = np.inf
    with TrajectoryFile(path) as file, pytest.raises(UserError, match="u holds infinite values in trajectory 0"):
        file.read(0)


def test_what_is_no_hdf5_file_is_named(tmp_path):
    for content, words in ((b"t,x,u\n0,0,0\n", "not an HDF5 file"), (b"", "empty")):
        (tmp_path / "data.h5").write_bytes(content)
        with pytest.raises(UserError, match=words):
            TrajectoryFile(tmp_path / "data.h5")
    with pytest.raises(UserError, match="does not exist"):
        TrajectoryFile(tmp_path / "nothing.h5")
    with pytest.raises(UserError, match="is a folder"):
        TrajectoryFile(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match="no attribute format and the datasets data"):
        TrajectoryFile(tmp_path / "other.h5")


def test_a_truncated_file_is_named(path):
    write_trajectories(path, T, X, U, WAVE)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="damaged|incomplete"):
        TrajectoryFile(path)


def test_the_suffix_does_not_matter(tmp_path):
    write_trajectories(tmp_path / "wave.dat", T, X, U, WAVE)
    with TrajectoryFile(tmp_path / "wave.dat") as file:
        assert file.trajectories == 3


def test_meshes_are_of_all_trajectories_or_of_each(tmp_path):
    x, tetrahedra = np.random.default_rng(0).uniform(size=(2, 5, 3)), np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
    about, u = Description("solid", ("u",), ("x", "y", "z")), np.zeros((2, 3, 5, 1))
    write_trajectories(tmp_path / "one.h5", np.arange(3.0), x[0], u, about, extra={"tetrahedra": tetrahedra})
    with TrajectoryFile(tmp_path / "one.h5") as file:
        np.testing.assert_array_equal(file.cells_of(1), tetrahedra)
    each = np.stack([tetrahedra, [[0, 1, 2, 4], [-1] * 4]])
    write_trajectories(tmp_path / "each.h5", np.arange(3.0), x, u, about, extra={"tetrahedra": each})
    with TrajectoryFile(tmp_path / "each.h5") as file:
        assert file.meshes_differ and file.cells is None
        np.testing.assert_array_equal(file.cells_of(1), [[0, 1, 2, 4]])
