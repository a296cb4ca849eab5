"""Temporary folders: gone at the end, and after a process that was killed by the next one."""

import os
import signal
import tempfile

import pytest

from inrflow.runtime.temporary import temporary_folder


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_folders_of_killed_processes_are_removed_by_the_next_and_those_in_use_stay(tmp_path):
    with temporary_folder() as held:
        (held / "data.h5").write_text("kept")
        child = os.fork()
        if not child:
            with temporary_folder() as left:
                (left / "data.h5").write_text("left")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert len([one for one in tmp_path.iterdir() if one.is_dir()]) == 2
        with temporary_folder() as other:
            assert {one for one in tmp_path.iterdir() if one.is_dir()} == {held, other}
            assert other.stat().st_mode & 0o777 == 0o700
        assert (held / "data.h5").read_text() == "kept"
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), temporary_folder() as folder:
        (folder / "sub").mkdir()
        raise KeyError
    assert not list(tmp_path.iterdir())
