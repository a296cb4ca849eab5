"""Writers: layouts grow as trajectories need them, files are complete or absent, the disk's failures are told."""

import resource
import signal
import sys

import h5py
import numpy as np
import pytest
from small_data import WAVE, field

from inrflow.data.description import Description
from inrflow.data.formats.tables import PointTable, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import TrajectoryWriter, write_scattered, write_trajectories
from inrflow.errors import UserError

T, X, U = field()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wave.h5"


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
@pytest.mark.parametrize("layout", ["shared", "own times and points", "moving", "rows"])
def test_other_programs_see_named_dimensions(path, layout, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)
    extra = {"triangles": np.array([[0, 1, 2], [1, 2, 3]]), "points": np.arange(3.0)}  # whose name is a dimension's
    if layout == "rows":
        del extra["triangles"]
        write_scattered(path, np.repeat([0, 1], 7), np.arange(14.0), np.tile(X, (2, 1)), U[0, :2].reshape(14, -1),
                        WAVE, extra=extra)
        axes = {"t": ("rows",), "x": ("rows", "coordinate"), "u": ("rows", "channel"), "points": ("points_0",)}
    else:
        shared = layout == "shared"
        t = T if shared else T + np.arange(3)[:, None]
        x = X if shared else X + np.arange(3)[:, None, None]
        x = np.repeat(x[:, None], 5, 1) if layout == "moving" else x
        write_trajectories(path, t, x, U, WAVE, np.ones((3, 2)), np.zeros(3), extra)
        frames = ("trajectories", "t" if shared else "times")
        points = {"shared": (), "moving": frames}.get(layout, frames[:1])
        axes = {"t": ("t",) if shared else frames, "x": (*points, "points_", "coordinate"),
                "u": (*frames, "points_", "channel"), "parameters": ("trajectories", "parameter"),
                "environment": ("trajectories",), "triangles": ("triangles_0", "triangles_1"), "points": ("points_0",)}
    with xarray.open_dataset(path, engine=engine) as seen, TrajectoryFile(path) as file:
        assert {name: seen[name].dims for name in axes} == axes
        assert seen.channel.values.tolist() == list(WAVE.channels)
        assert set(seen.variables) - set(axes) <= {"trajectory", "channel", "coordinate", "parameter"}
        assert set(file.extra) == set(extra)
        np.testing.assert_array_equal(seen.u.values.reshape(-1)[:7], file.read(0).u.reshape(-1)[:7])


def test_shared_points_and_times_are_stored_once(path):
    with TrajectoryWriter(path, WAVE) as writer:
        for u in U:
            writer.append(T, X, u)
    with h5py.File(path) as file:
        assert file["t"].shape == (5,) and file["x"].shape == (7, 2) and file["u"].shape == (3, 5, 7, 2)
        assert file["u"].compression == "gzip" and file["u"].dtype == np.float32


@pytest.mark.parametrize("second", ["other", "fewer", "more", "moving"])
@pytest.mark.parametrize("third", ["other", "fewer", "more", "moving", "shorter", "longer"])
def test_trajectories_of_any_sizes_follow_one_another(path, second, third):
    random = np.random.default_rng(0)

    def trajectory(kind):
        points = {"fewer": 4, "more": 9}.get(kind, 7)
        frames = {"shorter": 3, "longer": 8}.get(kind, 5)
        x = random.random((frames, points, 2) if kind == "moving" else (points, 2))
        return np.cumsum(random.random(frames) + 0.1), x, random.random((frames, points, 2)).astype(np.float32)

    written = [(T, X, U[0]), trajectory(second), trajectory(third)]
    with TrajectoryWriter(path, WAVE) as writer:
        for each in written:
            writer.append(*each)
    with TrajectoryFile(path) as file:
        assert file.point_layout == ("moving" if "moving" in (second, third) else "per_trajectory")
        for index, (t, x, u) in enumerate(written):
            frames = file.read(index)
            points = u.shape[1]
            np.testing.assert_array_equal(frames.t, t)
            np.testing.assert_array_equal(frames.u[:, :points], u)
            assert np.isnan(frames.u[:, points:]).all() and np.isfinite(frames.x).all()
            expected = np.broadcast_to(x, (len(t), *x.shape[-2:])) if frames.moving else x
            np.testing.assert_array_equal(frames.x[..., :points, :], expected)


def test_a_trajectory_may_come_in_parts(path):
    moving = np.random.default_rng(0).random((5, 7, 2))
    for x in (X, moving):
        with TrajectoryWriter(path, WAVE, overwrite=True) as writer:
            writer.append(T, x, U[0])
            for part in (slice(0, 2), slice(2, 3), slice(3, 5)):
                add = writer.append if part.start == 0 else writer.extend
                add(T[part], x if x.ndim == 2 else x[part], U[1, part])
        with TrajectoryFile(path) as file:
            assert file.shared_times and file.trajectories == 2
            np.testing.assert_array_equal(file.read(1).u, U[1])
            np.testing.assert_array_equal(file.read(1).x, x)
    with pytest.raises(UserError, match="must come later"), TrajectoryWriter(path, WAVE, overwrite=True) as writer:
        writer.append(T, X, U[0])
        writer.extend(T, X, U[0])


@pytest.mark.parametrize("t, x, u, words", [
    (T[:4], X, U[0], "expected"),
    (T, X[:6], U[0], "expected"),
    (T, X, U[0, :, :, :1], "expected"),
    (T, X, U, "expected"),
    (T, X[:0], U[0, :, :0], "none of them empty"),
    (T[::-1], X, U[0], "times"),
    (np.where(T > 1, np.nan, T), X, U[0], "times"),
    (T, np.where(X > 0.5, np.nan, X), U[0], "coordinates"),
    (T, X, np.where(U[0] > 1, np.inf, U[0]), "infinite"),
])
def test_a_bad_trajectory_is_refused_and_nothing_is_left(path, t, x, u, words):
    with pytest.raises(UserError, match=words), TrajectoryWriter(path, WAVE) as writer:
        writer.append(t, x, u)
    assert not list(path.parent.iterdir())


def test_whole_arrays_that_do_not_fit_are_refused(path):
    for t, x, u, context in ((T[:4], X, U, {}), (T, X, U[0], {}), (T, X[:, 0], U, {}), (T, np.stack([X, X]), U, {}),
                             (T, X, U, {"parameters": [[1.0]]}), (T, X, U, {"environment": [1]})):
        with pytest.raises(UserError, match="wave.h5"):
            write_trajectories(path, t, x, u, WAVE, **context)
    rows = np.zeros(4, int), np.arange(4.0), np.zeros((4, 2)), np.zeros((4, 2))
    for index, value in ((0, np.zeros(4)), (1, np.arange(3.0)), (2, np.zeros((4, 3))), (3, np.zeros((4, 1))),
                         (1, np.full(4, np.nan)), (3, np.full((4, 2), np.inf))):
        changed = [*rows]
        changed[index] = value
        with pytest.raises(UserError, match="wave.h5"):
            write_scattered(path, *changed, WAVE)
    with pytest.raises(UserError, match="further dataset 't'"):
        write_trajectories(path, T, X, U, WAVE, extra={"t": T})
    with pytest.raises(UserError, match="no trajectory"), TrajectoryWriter(path, WAVE):
        pass
    assert not list(path.parent.iterdir())


def test_an_existing_file_is_not_written_over_unless_asked(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\nprecious")
    rows = np.zeros(4, int), np.arange(4.0), np.zeros((4, 2)), np.zeros((4, 2))
    with pytest.raises(UserError, match="exists already"):
        write_trajectories(path, T, X, U, WAVE)
    with pytest.raises(UserError, match="exists already"):
        write_scattered(path, *rows, WAVE)
    assert path.read_bytes().endswith(b"precious") and len(list(path.parent.iterdir())) == 1
    write_trajectories(path, T, X, U, WAVE, overwrite=True)
    assert h5py.is_hdf5(path)


def test_a_file_that_appears_meanwhile_is_not_written_over(path):
    with pytest.raises(UserError, match="exists already"), TrajectoryWriter(path, WAVE) as writer:
        writer.append(T, X, U[0])
        path.write_bytes(b"\x89HDF\r\n\x1a\nprecious")
    assert path.read_bytes().endswith(b"precious") and len(list(path.parent.iterdir())) == 1


def test_a_failure_on_the_way_leaves_what_was_there(path):
    write_trajectories(path, T, X, U, WAVE)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), TrajectoryWriter(path, WAVE, overwrite=True) as writer:
        writer.append(T, X, U[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        write_trajectories(tmp_path / "absent" / "a.h5", T, X, U, WAVE)
    with pytest.raises(UserError, match="is a folder"):
        write_trajectories(tmp_path, T, X, U, WAVE)


@pytest.fixture
def little_space(monkeypatch):
    """Files cannot grow beyond 100 kB: the system refuses to write, as on a full disk."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # compiled modules would be cut, too
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


NOISE = np.random.default_rng(0).random(60000)
BIG = {
    "frames": lambda folder: write_trajectories(folder / "a.h5", np.arange(20.0), NOISE[:1000, None],
                                                NOISE.reshape(3, 20, 1000, 1), Description("a", ("u",), ("x",))),
    "rows": lambda folder: write_scattered(folder / "a.h5", np.zeros(60000, int), NOISE, NOISE[:, None], NOISE[:, None],
                                           Description("a", ("u",), ("x",))),
    "extra": lambda folder: write_trajectories(folder / "a.h5", [0.0], [[0.0]], [[[[0.0]]]],
                                               Description("a", ("u",), ("x",)), extra={"more": NOISE}),
} | {suffix: lambda folder, suffix=suffix: write_points(
    folder / f"a.{suffix}", PointTable(np.zeros(60000, int), NOISE, NOISE[:, None], {"t": NOISE}), {"u": NOISE})
    for suffix in ("csv", "h5", "nc")}


@pytest.mark.parametrize("kind", BIG)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, little_space, kind, capfd):
    with pytest.raises(UserError, match="no space left on the disk"):
        BIG[kind](tmp_path)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""  # HDF5 does not repeat the failure while it cleans up
