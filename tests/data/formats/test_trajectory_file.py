"""Trajectory files: what is written is read, only as far as asked."""

import tracemalloc

import h5py
import numpy as np
import pytest
from small_data import WAVE, field, scattered_rows, with_symmetries

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


def test_misspelt_attributes_are_told(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        file.attrs["periods"], file.attrs["author"] = [1.0, 1.0], "someone"
    with pytest.warns(UserWarning, match="attribute periods is not known and has no effect; period is") as told:
        TrajectoryFile(path).close()
    assert len(told) == 1


def test_require_frames(path):
    write_trajectories(path, T[:1], X, U[:, :1], WAVE)
    with TrajectoryFile(path) as file:
        assert file.frames == 1
        with pytest.raises(UserError, match="1 frame in a trajectory at most, training needs at least 2"):
            file.require_frames(2, "training")
        file.require_frames(1)


# ---- the scattered layout ----

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
