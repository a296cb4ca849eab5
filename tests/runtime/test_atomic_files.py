"""Files are written aside: nothing is lost and nothing is left behind when writing fails."""

import errno
import os
import stat

import pytest

from inrflow.errors import UserError
from inrflow.runtime.atomic_files import write_aside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_complete_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.txt"
    assert write_aside(path, lambda p: p.write_text("all")) == path
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
