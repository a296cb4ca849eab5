"""Trajectory files: what is written is read, only as far as asked, and every bad file is named with its remedy."""

import tracemalloc

import h5py
import numpy as np
import pytest
from small_data import WAVE, field, with_symmetries

from inrflow.data.description import Description
from inrflow.data.formats import layouts
from inrflow.data.formats.layouts import blocks
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError

T, X, U = field()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wave.h5"


def places(layout):
    random = np.random.default_rng(1)
    return {"shared": X, "per_trajectory": random.random((3, 7, 2)), "moving": random.random((3, 5, 7, 2))}[layout]


# ---- reading what is there ----

@pytest.mark.parametrize("layout", ["shared", "per_trajectory", "moving"])
@pytest.mark.parametrize("own_times", [False, True])
def test_both_kinds_of_times_and_all_kinds_of_points_come_back(path, layout, own_times):
    t = np.sort(np.random.default_rng(2).random((3, 5)), axis=1) if own_times else T
    x = places(layout)
    write_trajectories(path, t, x, U, with_symmetries())
    with TrajectoryFile(path) as file:
        assert (file.trajectories, file.frames, file.points) == (3, 5, 7)
        assert (file.layout, file.point_layout, file.shared_times) == ("frames", layout, not own_times)
        assert file.description == with_symmetries()
        np.testing.assert_array_equal(file.times(), np.broadcast_to(t, (3, 5)))
        np.testing.assert_array_equal(file.box, [x.reshape(-1, 2).min(0), x.reshape(-1, 2).max(0)])
        for trajectory in range(3):
            frames = file.read(trajectory)
            np.testing.assert_array_equal(frames.t, t[trajectory] if own_times else t)
            np.testing.assert_array_equal(frames.x, x if layout == "shared" else x[trajectory])
            np.testing.assert_array_equal(frames.u, U[trajectory])
            assert frames.moving == (layout == "moving")
            assert (frames.t.dtype, frames.x.dtype, frames.u.dtype) == (np.float64, np.float64, np.float32)


@pytest.mark.parametrize("layout", ["shared", "per_trajectory", "moving"])
@pytest.mark.parametrize("frames, points", [
    (slice(1, 4), None), (slice(None, None, 2), np.array([0, 6])), ([3, 0], np.array([5, 1, 5])), ([-1], None),
    (None, np.array([2])),
])
def test_chosen_frames_and_points(path, layout, frames, points):
    x = places(layout)
    write_trajectories(path, T, x, U, WAVE)
    with TrajectoryFile(path) as file:
        found = file.read(1, frames, points)
    f = np.arange(5)[slice(None) if frames is None else frames]
    p = np.arange(7) if points is None else points
    np.testing.assert_array_equal(found.t, T[f])
    np.testing.assert_array_equal(found.u, U[1][np.ix_(f, p)])
    expected = {"shared": lambda: x[p], "per_trajectory": lambda: x[1][p], "moving": lambda: x[1][np.ix_(f, p)]}
    np.testing.assert_array_equal(found.x, expected[layout]())


def test_indices_that_do_not_exist_raise_index_errors(path):
    write_trajectories(path, T, X, U, WAVE)
    with TrajectoryFile(path) as file:
        for arguments in ((3,), (-4,), (0, [5]), (0, slice(5, None)), (0, None, np.array([7])), (0, [])):
            with pytest.raises(IndexError):
                file.read(*arguments)


def test_missing_values_stay_missing(path):
    u = U.copy()
    u[0, 1, 2, 0] = u[2, :, 3] = np.nan
    write_trajectories(path, T, X, u, WAVE)
    with TrajectoryFile(path) as file:
        np.testing.assert_array_equal(np.stack([file.read(s).u for s in range(3)]), u)


def test_shorter_trajectories_end_in_padding_that_is_not_read(path):
    t = np.stack([T, T, T])
    t[1, 3:] = np.nan
    u = U.copy()
    u[1, 3:] = np.nan
    moving = places("moving")
    moving[1, 3:] = np.nan
    for x in (X, moving):
        write_trajectories(path, t, x, u, WAVE, overwrite=True)
        with TrajectoryFile(path) as file:
            assert not file.shared_times
            np.testing.assert_array_equal(file.times(), t)
            assert len(file.read(1)) == 3 and len(file.read(0)) == 5
            np.testing.assert_array_equal(file.read(1, slice(-1, None)).u, u[1, 2:3])
            with pytest.raises(IndexError):
                file.read(1, [3])


def test_padding_may_be_longer_than_any_trajectory(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        del file["t"]
        file["t"] = np.tile(np.append(T[:4], np.nan), (3, 1))
    with TrajectoryFile(path) as file:
        assert file.frames == 4 and file.times().shape == (3, 4)


def test_parameters_environment_and_extra_datasets_are_kept(path):
    about = Description("wave", ("u", "v"), ("x", "y"), parameter_names=("speed",))
    write_trajectories(path, T, X, U, about, parameters=[[1.0], [2.0], [3.0]], environment=[0, 0, 4],
                       extra={"triangles": np.array([[0, 1, 2]]), "labels": np.array(["a", "é"])})
    with TrajectoryFile(path) as file:
        assert file.description.parameter_names == ("speed",)
        assert file.parameters.tolist() == [[1.0], [2.0], [3.0]] and file.environment.tolist() == [0, 0, 4]
        assert sorted(file.extra) == ["labels", "triangles"]
        np.testing.assert_array_equal(file.read_extra("triangles"), [[0, 1, 2]])
        assert [text.decode() for text in file.read_extra("labels")] == ["a", "é"]


def test_names_stored_as_bytes_are_read_as_text(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        file.attrs["channels"] = np.array([b"u", b"v"])
        file.attrs["format"] = np.bytes_(b"inrflow-trajectories")
    with TrajectoryFile(path) as file:
        assert file.description.channels == ("u", "v")


def test_require_frames(path):
    write_trajectories(path, T[:1], X, U[:, :1], WAVE)
    with TrajectoryFile(path) as file:
        assert file.frames == 1
        with pytest.raises(UserError, match="1 frame in a trajectory at most, training needs at least 2"):
            file.require_frames(2, "training")
        file.require_frames(1)


# ---- the scattered layout ----

def scattered_rows(seed=3, rows=60):
    random = np.random.default_rng(seed)
    trajectory = random.choice([0, 2, 5], rows)
    trajectory[:3] = [0, 2, 5]
    return (trajectory, random.integers(0, 6, rows) / 4.0, random.random((rows, 2)),
            random.standard_normal((rows, 2)).astype(np.float32))


def expected_frames(trajectory, t, x, u, number):
    """The rows of one trajectory by time, as sets of (x, u) rows."""
    mine = trajectory == number
    return {time: {tuple(row) for row in np.concatenate([x[mine & (t == time)], u[mine & (t == time)]], 1)}
            for time in np.unique(t[mine])}


def found_frames(frames):
    known = ~np.isnan(frames.u).all(-1)
    return {time: {tuple(row) for row in np.concatenate([frames.x[f][known[f]], frames.u[f][known[f]]], 1)}
            for f, time in enumerate(frames.t)}


@pytest.mark.parametrize("ordered", [True, False])
def test_scattered_rows_are_grouped_into_padded_frames(path, ordered, monkeypatch):
    rows = scattered_rows()
    write_scattered(path, *rows, WAVE, parameters=[[1.0], [2.0], [3.0]])
    if not ordered:
        with h5py.File(path, "r+") as file:
            for name, value in zip(("trajectory", "t", "x", "u"), rows, strict=True):
                file[name][...] = value
        monkeypatch.setattr(layouts, "blocks", lambda shape, values=16: blocks(shape, values))  # many small blocks
    with TrajectoryFile(path) as file:
        assert (file.layout, file.point_layout) == ("scattered", "moving")
        assert file.ids.tolist() == [0, 2, 5] and file.trajectories == 3
        counts = [len(np.unique(rows[1][rows[0] == number])) for number in (0, 2, 5)]
        assert file.frames == max(counts) and np.isfinite(file.times()).sum(1).tolist() == counts
        for index, number in enumerate((0, 2, 5)):
            frames = file.read(index)
            assert np.isfinite(frames.x).all() and frames.u.shape[:2] == frames.x.shape[:2]
            assert found_frames(frames) == expected_frames(*rows, number)
        expected = expected_frames(*rows, 2)
        late = file.read(1, slice(-2, None))
        assert found_frames(late) == {time: expected[time] for time in sorted(expected)[-2:]}
        sizes = [len(frame) for number in (0, 2, 5) for frame in expected_frames(*rows, number).values()]
        assert file.points == max(sizes)
        chosen = file.read(0, None, np.array([0, file.points - 1]))
        assert chosen.u.shape[1] == 2 and np.isfinite(chosen.x).all()


def test_rows_come_in_the_order_of_the_file(path):
    trajectory, t, x, u = scattered_rows()
    write_scattered(path, trajectory, t, x, u, WAVE)
    order = np.lexsort((t, trajectory))
    with TrajectoryFile(path) as file:
        assert file.rows == 60
        for found, expected in zip(file.read_rows(10, 30), (trajectory, t, x, u), strict=True):
            np.testing.assert_array_equal(found, expected[order][10:30])


# ---- what is read lazily ----

def test_reading_a_part_of_a_large_file_takes_little_memory(path):
    u = np.zeros((4, 100, 4096, 1), np.float32)  # 6.5 MB
    u[:, :, :, 0] = np.arange(100)[:, None]
    write_trajectories(path, np.arange(100.0), np.random.default_rng(0).random((4096, 2)), u,
                       Description("big", ("u",), ("x", "y")))
    tracemalloc.start()
    with TrajectoryFile(path, check=False) as file:
        found = file.read(2, slice(40, 42), np.arange(0, 4096, 512))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.u[..., 0], [[40.0] * 8, [41.0] * 8])
    assert peak < 1_000_000


def test_values_are_checked_in_blocks(path, monkeypatch):
    u = np.full((3, 5, 7, 2), np.nan, np.float32)
    u[2, 4, 6] = 1.0
    write_trajectories(path, T, X, u, WAVE)
    seen = []
    monkeypatch.setattr(layouts, "blocks", lambda shape, values=10: seen.append(shape) or blocks(shape, values))
    TrajectoryFile(path).close()
    assert (3, 5, 7, 2) in seen


# ---- files that are not what they should be ----

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
