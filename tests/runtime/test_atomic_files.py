"""Files are written aside: nothing is lost and nothing is left behind when writing fails."""

import errno
import os
import stat
import subprocess
import sys

import h5py
import pytest

from inrflow.errors import UserError
from inrflow.runtime.atomic_files import (
    LOCK_FILE,
    AtomicFile,
    damage_as_user_error,
    locked_folder,
    replaced_atomically,
    written_hdf5,
)


def write_aside(path, write):
    with replaced_atomically(path) as aside:
        write(aside)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_complete_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.txt"
    write_aside(path, lambda p: p.write_text("all"))
    assert path.read_text() == "all" and names(path.parent) == ["a.txt"]


def test_the_file_is_filled_aside_in_the_same_folder_with_the_same_suffix(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("old")
    seen = []

    def write(aside):
        seen.append((aside, path.read_text()))
        aside.write_text("new")

    write_aside(path, write)
    aside, during = seen[0]
    assert aside.parent == tmp_path and aside.suffix == ".h5" and aside != path and during == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "input/output error")])
def test_a_failure_leaves_the_old_file_whole_and_no_partial_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(aside):
        aside.write_text("half of the ne")
        raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        write_aside(path, write)
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   OSError(errno.EDQUOT, "Disk quota exceeded"), OSError(errno.EFBIG, "File too large"),
                                   RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
                                   RuntimeError("Error while serializing: I/O error: No space left on device (os 28)")])
def test_a_full_disk_is_the_users_to_mend(tmp_path, error):
    def write(aside):
        raise error

    with pytest.raises(UserError, match="no space left on the disk"):
        write_aside(tmp_path / "a.txt", write)
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_the_users_to_mend(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_aside(tmp_path / "a" / "b.txt", lambda p: p.write_text(""))


def test_the_mode_is_that_of_any_new_file(tmp_path):
    previous = os.umask(0o027)
    try:
        write_aside(tmp_path / "a.txt", lambda p: p.write_text(""))
        assert os.umask(0o027) == 0o027  # the mask itself is as before
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, words in (("pipe", "pipe or socket"), ("folder", "is a folder"), ("link", "pipe or socket")):
        with pytest.raises(UserError, match=words):
            AtomicFile(tmp_path / name, overwrite=True)
    assert names(tmp_path) == ["folder", "link", "pipe"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(tmp_path):
    (tmp_path / "a").write_text("kept")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    write_aside(tmp_path / "b", lambda p: p.write_text("new"))
    assert (tmp_path / "a").read_text() == "kept" and (tmp_path / "b").read_text() == "new"


def test_what_a_check_refuses_replaces_nothing(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\ngood")

    def check(partial):
        with h5py.File(partial) as file:
            raise UserError(f"{list(file)} is not what was expected")

    with pytest.raises(UserError, match="is not what"), written_hdf5(path, overwrite=True, check=check) as file:
        file["t"] = [0.0]
    assert path.read_bytes().endswith(b"good") and names(tmp_path) == ["a.h5"]


def test_leftovers_of_a_killed_process_are_removed_and_files_in_use_are_not(tmp_path):
    script = ("import sys, time; sys.path[:0] = sys.argv[2:]\n"
              "from inrflow.runtime.atomic_files import AtomicFile\n"
              "AtomicFile(sys.argv[1]).partial.write_text('half'); print('ready', flush=True); time.sleep(600)")
    path = tmp_path / "a.csv"
    killed, living = (subprocess.Popen([sys.executable, "-c", script, path, *sys.path], stdout=subprocess.PIPE)
                      for _ in range(2))
    try:
        for process in (killed, living):
            assert process.stdout.readline() == b"ready\n"
        assert len(names(tmp_path)) == 2
        killed.kill()
        killed.wait()
        (tmp_path / ".b.csv.01234567.partial.csv").write_text("of another target")
        write_aside(path, lambda p: p.write_text("all"))
        left = names(tmp_path)
        assert len(left) == 3 and "a.csv" in left and ".b.csv.01234567.partial.csv" in left
    finally:
        living.kill()
        living.wait()
    write_aside(path, lambda p: p.write_text("all"))
    assert names(tmp_path) == [".b.csv.01234567.partial.csv", "a.csv"]


@pytest.mark.parametrize("length", [236, 240, 255])
def test_names_may_be_as_long_as_the_system_allows(tmp_path, length):
    path = tmp_path / ("é" * ((length - 4) // 2) + "a" * (length % 2) + ".csv")
    assert length - 1 <= len(os.fsencode(path.name)) <= length
    write_aside(path, lambda p: p.write_text("all"))
    assert path.read_text() == "all"
    with pytest.raises(UserError, match="name is too long"):
        write_aside(tmp_path / ("a" * 256), lambda p: p.write_text(""))
    assert names(tmp_path) == [path.name]


def test_discarding_in_a_folder_that_became_read_only_hides_nothing(tmp_path, monkeypatch):
    file = AtomicFile(tmp_path / "a.h5")

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refused)
    file.discard()
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UserError, match="Read-only file system"):
        AtomicFile(tmp_path / "b.h5")


def test_data_replace_only_data(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0")
    with pytest.raises(UserError, match="neither HDF5 nor NetCDF and is not written over"), \
            written_hdf5(tmp_path / "config.yaml", overwrite=True):
        pass
    assert names(tmp_path) == ["config.yaml"] and (tmp_path / "config.yaml").read_text() == "seed: 0"


def test_a_folder_is_written_by_one_process_whose_name_the_other_one_is_told(tmp_path):
    folder = tmp_path / "run"
    script = ("import sys; sys.path[:0] = sys.argv[2:]\nfrom inrflow.runtime.atomic_files import locked_folder\n"
              "with locked_folder(sys.argv[1]):\n    print('ready', flush=True); sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", script, folder, *sys.path], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(UserError, match=f"written by process {other.pid} on .* since"), locked_folder(folder):
            pass
        assert (folder / LOCK_FILE).exists()
    finally:
        other.kill()
        other.communicate()
    (folder / ".model.01234567.partial.safetensors").touch()
    with pytest.warns(UserWarning, match=f"process {other.pid} on .* stopped before its end; its lock is taken over"), \
            locked_folder(folder):
        (folder / "result").touch()
    assert names(folder) == ["result"]


def test_a_folder_that_nothing_was_written_to_goes_and_one_with_a_link_is_refused(tmp_path):
    with locked_folder(tmp_path / "empty"):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "run" / "metrics.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="metrics.jsonl is a link, through which"), locked_folder(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["run", "victim"] and names(tmp_path / "run") == ["metrics.jsonl"]


def test_errors_of_the_library_of_grib_are_of_damaged_files_and_those_of_programs_are_not(tmp_path):
    ours, theirs = type("Ours", (Exception,), {}), type("Theirs", (Exception,), {"__module__": "gribapi.errors"})
    with pytest.raises(UserError, match=r"a\.grib2 cannot be read \(wrong grid\)"), damage_as_user_error(
            tmp_path / "a.grib2"):
        raise theirs("wrong grid")
    with pytest.raises(ours), damage_as_user_error(tmp_path / "a.grib2"):
        raise ours
