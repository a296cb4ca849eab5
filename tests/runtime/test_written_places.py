"""Commands write in the named target, or the folder of the output, alone: opened, made, renamed and removed paths."""

import os
import shutil

import pytest
from written import written


@pytest.mark.parametrize(("arguments", "target"), [
    (("query", "run=run", "observations=seen.h5", "points=seen.h5"), "to=answer.csv"),
    (("convert", "seen.h5"), "answer.h5"),
    (("generate", "pde=heat", "dimensions=1", "trajectories=2", "frames=3", "grid=16"), "output=made.h5"),
    (("evaluate", "run=run", "data.test=seen.h5"), "output=report"),
    (("query", "run=run", "observations=seen.h5", "points=seen.h5"), None),
])
def test_nothing_is_written_outside_of_the_target(tiny_run, elsewhere, inrflow_command, arguments, target):
    shutil.copytree(tiny_run.run, "run")
    shutil.copy(tiny_run.test, "seen.h5")
    written.clear()
    done = inrflow_command(*arguments, *([target] if target else []))
    changed = written.copy()
    assert done.code == 0, done.err
    name = (target or "outputs").rpartition("=")[2]
    places = str(elsewhere / name), str(elsewhere / f".{name.partition('.')[0]}.")  # temporary files are beside it
    caches = ("/dev/", os.path.expanduser("~/.cache/matplotlib"), os.path.expanduser("~/.config/matplotlib"))
    assert changed and not [path for path in changed if not path.startswith((*places, *caches))
                            and "__pycache__" not in path]
