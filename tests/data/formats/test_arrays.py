"""Named arrays on grids: npz with axes, npy, MATLAB's two formats and PyTorch's, as their own libraries write them."""

import contextlib
import os
import struct
import warnings
import zlib

import h5py
import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from inrflow.data.formats.builtin.matlab import MatlabFormat
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

T, X, Y = np.array([0.0, 0.5, 1.0]), np.linspace(0, 1, 4), np.linspace(-1, 1, 5)
FIELD = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)  # (S, T, X, Y)


def read(path, tmp_path, **options):
    """Times, points and values (S, T, N, C) of a converted file, and its description."""
    target = tmp_path / "converted.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(path, target, overwrite=True, **options)
    with TrajectoryFile(target) as file:
        frames = [file.read(index) for index in range(file.trajectories)]
        return frames[0].t, frames[0].x, np.stack([one.u for one in frames]), file.description


def expected(field=FIELD):
    return field.reshape(*field.shape[:2], -1, 1)


def test_few_values_at_the_end_are_channels_and_times_in_any_order_are_sorted(tmp_path):
    both = np.stack([np.repeat(FIELD, 2, axis=2)] * 2, -1)  # (S, T, X, Y, C)
    np.savez(tmp_path / "a.npz", velocity=both[:, ::-1], t=T[::-1])
    t, x, u, about = read(tmp_path / "a.npz", tmp_path)
    assert about.channels == ("velocity0", "velocity1") and x.shape == (40, 2) and t.tolist() == T.tolist()
    np.testing.assert_array_equal(u, both.reshape(2, 3, 40, 2))


def matlab_73(path, arrays):
    """As MATLAB writes it: a header of 128 bytes in a user block of 512, arrays with their axes in reverse."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=np.asarray(value).T).attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("layout", ["samples first", "one sample", "time last", "channels last"])
@pytest.mark.parametrize("kind", ["npz", "mat", "mat 7.3"])
def test_axes_are_found_by_sizes(kind, layout, tmp_path):
    field = {"samples first": FIELD, "one sample": FIELD[0], "time last": np.moveaxis(FIELD, 1, -1),
             "channels last": np.stack([FIELD, -FIELD], -1)}[layout]
    path = tmp_path / f"a.{kind[:3]}"
    arrays = {"t": T, "x": X, "y": Y, "vorticity": field}
    {"npz": lambda: np.savez(path, **arrays), "mat": lambda: savemat(path, arrays),
     "mat 7.3": lambda: matlab_73(path, {**arrays, "t": T[None], "x": X[None]})}[kind]()
    t, x, u, about = read(path, tmp_path)
    assert np.array_equal(t, T) and np.allclose(x[7], [X[1], Y[2]])
    wanted = expected(FIELD[:1] if layout == "one sample" else FIELD)
    assert np.array_equal(u[..., :1], wanted) and about.coordinates == ("x", "y")
    if layout == "channels last":
        assert about.channels == ("vorticity0", "vorticity1") and np.array_equal(u[..., 1:], -wanted)
    else:
        assert about.channels == ("vorticity",)


def test_published_matlab_layout_without_places(tmp_path):
    """The Navier-Stokes set of the Fourier neural operator: u (S, X, Y, T), t (1, T), and an initial field a."""
    square = np.random.default_rng(1).standard_normal((2, 4, 4, 3))
    savemat(tmp_path / "ns.mat", {"a": square[..., 0], "u": square, "t": T[None]})
    with pytest.warns(UserWarning, match="unit box"):
        convert(tmp_path / "ns.mat", tmp_path / "ns.h5")
    _, x, u, about = read(tmp_path / "ns.mat", tmp_path, period=[1, 1])
    assert np.array_equal(u, np.moveaxis(square, -1, 1).reshape(2, 3, 16, 1).astype(np.float32))
    assert x[5].tolist() == [0.25, 0.25] and about.channels == ("u",) and about.period == (1.0, 1.0)
    assert any("u (2, 4, 4, 3)" in text for _, text in describe(tmp_path / "ns.mat"))


def test_tensors_of_pytorch_and_single_arrays(tmp_path):
    pair = torch.tensor(FIELD[:, :2])
    torch.save({"x": pair[:, 0].clone(), "y": pair[:, 1].clone()}, tmp_path / "pairs.pt")
    t, _, u, _ = read(tmp_path / "pairs.pt", tmp_path)
    assert np.array_equal(u, expected(FIELD[:, :2])) and t.tolist() == [0, 1]
    torch.save(torch.tensor(FIELD), tmp_path / "tensor.pt")
    np.save(tmp_path / "a.npy", FIELD)
    for name in ("tensor.pt", "a.npy"):
        _, _, u, about = read(tmp_path / name, tmp_path, coordinates=["lat", "depth"], channels=["w"])
        assert np.array_equal(u, expected()) and about.coordinates == ("lat", "depth") and about.channels == ("w",)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_matlab_are_those_that_scipy_reads(packed, tmp_path):
    random = np.random.default_rng(0)
    arrays = {"a": random.standard_normal((2, 3, 4)), "small": np.array([[7]], np.uint8), "text": "no number",
              "whole": np.arange(6, dtype=np.int16).reshape(2, 3), "c": np.array([1j]), "cell": np.array([{}], object)}
    savemat(tmp_path / "a.mat", arrays, do_compression=packed)
    known = {name: value for name, value in loadmat(tmp_path / "a.mat").items()
             if isinstance(value, np.ndarray) and value.dtype.kind in "fiuc"}
    found = MatlabFormat().arrays(tmp_path / "a.mat")
    assert not found.pop("cell").size
    assert set(found) == set(known) == {"a", "small", "whole", "c"}
    assert all(np.array_equal(found[name], known[name]) for name in known)


def test_damaged_files_of_arrays_are_one_sentence(tmp_path):
    savemat(tmp_path / "a.mat", {"t": T, "x": X, "u": FIELD[0, :, :, 0]})
    torch.save({"u": torch.tensor(FIELD)}, tmp_path / "b.pt")
    random = np.random.default_rng(0)
    np.save(tmp_path / "c.npy", FIELD)
    for name in ("a.mat", "b.pt", "c.npy"):
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(60):
            data = whole.copy()
            data[random.integers(0, min(len(data), 700), 3)] = random.integers(0, 256, 3)
            (tmp_path / f"damaged_{name}").write_bytes(data.tobytes())
            with contextlib.suppress(UserError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                convert(tmp_path / f"damaged_{name}", tmp_path / "out.h5", overwrite=True)


@pytest.mark.parametrize("content", [b"", struct.pack("<II", 14, 0), struct.pack("<IIIIII", 14, 16, 6, 8, 6, 0)])
def test_matlab_files_without_the_elements_that_they_announce_are_one_sentence(content, tmp_path):
    savemat(tmp_path / "a.mat", {"u": X})
    packed = zlib.compress(content)
    header = (tmp_path / "a.mat").read_bytes()[:128]
    (tmp_path / "b.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    for call in (describe, lambda path: convert(path, tmp_path / "out.h5")):
        with pytest.raises(UserError) as told:
            call(tmp_path / "b.mat")
        assert "\n" not in str(told.value)


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hostile > executed",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"u": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(UserError, match="without running code"):
        convert(tmp_path / "hostile.pt", tmp_path / "out.h5")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out.h5").exists()


def test_what_does_not_fit_is_one_sentence_with_the_shapes(tmp_path):
    savemat(tmp_path / "few.mat", {"t": T, "x": X, "u": np.zeros((7, 9))})
    with pytest.raises(UserError, match=r"u \(7, 9\).*do not fit axes of 4 points and 3 times"):
        convert(tmp_path / "few.mat", tmp_path / "out.h5")
    savemat(tmp_path / "none.mat", {"t": T})
    with pytest.raises(UserError, match="fields of one shape"):
        convert(tmp_path / "none.mat", tmp_path / "out.h5")
    np.savez(tmp_path / "a.npz", t=T, x=X, u=FIELD[0, :, :, 0][None])
    with pytest.raises(UserError, match="no vector depth"):
        convert(tmp_path / "a.npz", tmp_path / "out.h5", coordinates=["x", "depth"])


def test_records_of_numpy_are_a_table(tmp_path):
    rows = [(t, x, 10 * t + x) for t in range(3) for x in range(4)]
    np.save(tmp_path / "a.npy", np.array(rows, [("t", "f8"), ("x", "f4"), ("u", "f8")]))
    convert(tmp_path / "a.npy", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read(0).u[..., 0], 10 * np.arange(3)[:, None] + np.arange(4))


@pytest.mark.parametrize("called, named", [("tvec", True), ("sampled_at", False)])
def test_a_vector_whose_size_fits_the_frames_holds_their_times(called, named, tmp_path):
    t, x, y = np.array([0.0, 0.1, 0.4, 0.5]), np.linspace(0, 1, 4), np.linspace(-1, 1, 5)  # as many times as places
    field = np.random.default_rng(1).standard_normal((4, 5, 4)).astype(np.float32)  # (X, Y, T)
    matlab_73(tmp_path / "a.mat", {"U": field, called: t[None], "xg": x[:, None], "yg": y[None]})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(tmp_path / "a.mat", tmp_path / "a.h5", coordinates=["xg", "yg"])
    texts = [str(one.message) for one in told]
    assert sum(f"they are those in {called}" in text for text in texts) == (not named) == len(texts) - 1
    assert sum("(4, 5, 4) have the same length, and are taken as xg, yg, " in text for text in texts) == 1
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.read(0).t.tolist() == t.tolist()
        np.testing.assert_array_equal(file.read(0).u[..., 0], field.reshape(20, 4).T)


@pytest.mark.parametrize("names", ["XY", "xy"])
@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_matrices_of_a_square_grid_say_which_axis_is_which(names, indexing, tmp_path):
    line = np.arange(5) / 5
    x, y = np.meshgrid(line, line + 1, indexing=indexing)
    u = np.stack([x + 10 * y + time for time in range(3)])
    np.savez(tmp_path / "a.npz", t=np.arange(3.0), u=u, **dict(zip(names, (x, y), strict=True)))
    _, places, values, about = read(tmp_path / "a.npz", tmp_path)
    assert about.coordinates == ("x", "y")
    np.testing.assert_allclose(values[0, 2, :, 0], places @ [1, 10] + 2, rtol=1e-6)


def test_of_two_vectors_of_one_size_the_one_that_begins_with_t_is_of_times(tmp_path):
    x, y, t = np.linspace(0, 1, 4), np.linspace(-1, 1, 5), np.array([0.0, 0.1, 0.4, 0.5])
    matlab_73(tmp_path / "a.mat", {"U": np.zeros((4, 5, 4)) + t, "t_fine": t[None], "xg": x[:, None], "yg": y[None]})
    read_t, read_x, u, about = read(tmp_path / "a.mat", tmp_path)
    assert read_t.tolist() == t.tolist() and about.coordinates == ("xg", "yg")
    assert sorted(set(read_x[:, 0])) == x.tolist() and np.allclose(u[0, :, 0, 0], t)


def test_names_with_slashes_and_objects_beside_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", field=FIELD[..., 0], settings=np.array({"a": 1}, object),
             **{"time (s)": T, "grid/x": X})
    with pytest.warns(UserWarning, match="settings holds Python objects, which are not read"):
        convert(tmp_path / "a.npz", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.read(1).x[:, 0].tolist() == X.tolist() and file.read(1).t.tolist() == T.tolist()
        np.testing.assert_array_equal(file.read(1).u[..., 0], FIELD[1, ..., 0])


@pytest.mark.parametrize("layout", ["(T, N)", "(N, T)", "(S, T, N)"])
def test_values_of_one_channel_at_an_array_of_points_need_no_axis_of_channels(layout, tmp_path):
    x = np.random.default_rng(2).uniform(0, 1, (7, 2))
    u = np.random.default_rng(3).standard_normal((2, 3, 7)).astype(np.float32)  # (S, T, N)
    given = {"(T, N)": u[0], "(N, T)": u[0].T, "(S, T, N)": u}[layout]
    np.savez(tmp_path / "a.npz", t=T, x=x, u=given)
    t, read_x, values, about = read(tmp_path / "a.npz", tmp_path)
    assert t.tolist() == T.tolist() and about.channels == ("u",) and about.coordinates == ("x", "y")
    np.testing.assert_array_equal(read_x, x)
    np.testing.assert_array_equal(values[..., 0], u[: len(values)])
    assert len(values) == (2 if layout == "(S, T, N)" else 1)
