"""Damaged and hostile trajectory files: one sentence each, nothing read from elsewhere."""

import os
import re
import threading
import time
from functools import partial

import h5py
import numpy as np
import pytest
from instrument_files import exodus
from small_data import WAVE, field

from inrflow.data.formats import schema
from inrflow.data.formats.builtin.netcdf_table import open_netcdf
from inrflow.data.formats.schema import survives
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.errors import UserError

T, X, U = field()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wave.h5"


def test_values_damaged_within_the_file_are_named_when_they_are_read(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path) as file:
        chunk = file["u"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset:chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        TrajectoryFile(path)
    with TrajectoryFile(path, check=False) as file:  # as where the damage lies beyond what opening looks at
        np.testing.assert_array_equal(file.read(0).u, U[0])
        with pytest.raises(UserError, match="trajectory 2 cannot be read .*damaged"):
            file.read(2)


@pytest.mark.parametrize("triangles", [[[0, 1, 7]], [[-1, 1, 2]], [[0.0, 1.0, 2.0]], [[0, 1, 2, 3]], [0, 1, 2],
                                       [["a"] * 3], [[0, 0, 0], [1, 2, 1]]])
def test_triangles_that_are_no_corners_are_named(path, triangles):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        file["triangles"] = np.array(triangles, "S1" if triangles == [["a"] * 3] else None)
    with pytest.raises(UserError, match="triangles"):
        TrajectoryFile(path)


def test_data_in_other_files_are_refused(tmp_path, path):
    write_trajectories(path, T, X, U, WAVE)
    (tmp_path / "secret").write_bytes(bytes(U.nbytes))
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["t"] = T

    def external_link(file):
        del file["t"]
        file["t"] = h5py.ExternalLink(str(other), "t")

    def virtual(file):
        del file["t"]
        layout = h5py.VirtualLayout(T.shape, T.dtype)
        layout[:] = h5py.VirtualSource(str(other), "t", T.shape)
        file.create_virtual_dataset("t", layout)

    def external_storage(file):
        del file["u"]
        file.create_dataset("u", U.shape, U.dtype, external=[(str(tmp_path / "secret"), 0, U.nbytes)])

    whole = path.read_bytes()
    for change in (external_link, virtual, external_storage):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(UserError, match="other file|another file"):
            TrajectoryFile(path)


def test_links_that_lead_nowhere_are_passed_over(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        file["dangling"], file["loop"] = h5py.SoftLink("/none"), h5py.SoftLink("/loop")
    with TrajectoryFile(path) as file:
        assert file.extra == () and len(file.read(0)) == len(T)


def test_declared_sizes_that_nothing_is_stored_for_are_refused(path):
    write_trajectories(path, T, X, U, WAVE)
    with h5py.File(path, "r+") as file:
        file.create_dataset("big", (10**6, 10**6), np.float32, chunks=(1000, 1000))
    with pytest.raises(UserError, match="never filled"):
        TrajectoryFile(path)


def test_flipped_bytes_give_one_sentence(path, monkeypatch):
    monkeypatch.setattr(schema, "survives", partial(survives, seconds=1))  # some files let the library run for ever
    write_trajectories(path, T, X, U, WAVE)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in random.integers(0, min(len(content), 6000), 3):
            content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        try:
            with TrajectoryFile(path) as file:
                file.read(0)
        except UserError as error:
            assert "\n" not in str(error)


def test_what_ends_or_fails_in_an_orderly_way_survives():
    assert survives(lambda: None) and survives(lambda: 1 / 0)


def _for_ever():
    while True:
        pass


def test_what_does_not_end_or_ends_the_process_does_not_survive_beside_other_threads():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)  # as that of a progress display, beside which files are converted
    thread.start()
    try:
        began = time.process_time(), os.times().children_user
        assert not survives(_for_ever, seconds=1)
        assert time.process_time() - began[0] < 1 and os.times().children_user - began[1] < 2
        assert not survives(lambda: os.kill(os.getpid(), 9))
        assert survives(lambda: None)
    finally:
        stop.set()
        thread.join()


def test_a_damaged_list_of_variables_of_netcdf_is_one_sentence(path):
    exodus(path, "NETCDF4", True)  # with as many variables as are listed in a tree
    content = path.read_bytes()
    trees = [found.start() for found in re.finditer(b"BTHD", content)]
    assert trees
    for start in trees:
        path.write_bytes(content[:start + 12] + bytes([content[start + 12] ^ 255]) + content[start + 13:])
        with pytest.raises(UserError, match="damaged"):
            open_netcdf(path)
