"""Commands write in the named target, or the folder of the output, alone: opened, made, renamed and removed paths."""

import os
import shutil
import sys

import pytest

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree"}
_changed: set[str] | None = None  # paths, while a command runs


def _note(event, arguments):
    if _changed is None or not (event == "open" or event in _CHANGES):
        return
    writes = event != "open" or isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    for path in arguments[: 1 if event == "open" else 2] if writes else ():
        if isinstance(path, str | bytes | os.PathLike):
            _changed.add(os.path.abspath(os.fsdecode(path)))


@pytest.fixture(scope="module", autouse=True)
def noted():
    sys.addaudithook(_note)  # for the life of the process


@pytest.mark.parametrize(("arguments", "target"), [
    (("query", "run=run", "observations=seen.h5", "points=seen.h5"), "to=answer.csv"),
    (("convert", "seen.h5"), "answer.h5"),
    (("generate", "pde=heat", "dimensions=1", "trajectories=2", "frames=3", "grid=16"), "output=made.h5"),
    (("evaluate", "run=run", "data.test=seen.h5"), "output=report"),
    (("query", "run=run", "observations=seen.h5", "points=seen.h5"), None),
])
def test_nothing_is_written_outside_of_the_target(tiny_run, elsewhere, inrflow_command, arguments, target):
    global _changed
    shutil.copytree(tiny_run.run, "run")
    shutil.copy(tiny_run.test, "seen.h5")
    _changed = set()
    try:
        done = inrflow_command(*arguments, *([target] if target else []))
    finally:
        changed, _changed = _changed, None
    assert done.code == 0, done.err
    name = (target or "outputs").rpartition("=")[2]
    places = str(elsewhere / name), str(elsewhere / f".{name.partition('.')[0]}.")  # temporary files are beside it
    caches = ("/dev/", os.path.expanduser("~/.cache/matplotlib"), os.path.expanduser("~/.config/matplotlib"))
    assert changed and not [path for path in changed if not path.startswith((*places, *caches))
                            and "__pycache__" not in path]
