"""Names from files: as folder names they stay inside their folder, on a terminal they do nothing."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from inrflow.runtime.safe_names import printable, safe_name


@given(st.text(max_size=300))
def test_a_name_is_one_component_inside_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    path = folder / safe_name(name)
    assert path.parent == folder and path.resolve() != folder.resolve() and path.resolve().parent == folder.resolve()
    assert 0 < len(path.name.encode()) <= 120 and not path.name.startswith(".") and path.name.isprintable()


def test_ordinary_names_are_kept_and_different_ones_stay_different():
    for name in ("heat", "Navier-Stokes 2-D", "gray_scott (F=0.04)", "波動"):
        assert safe_name(name) == name
    unsafe = ["../../x", "/x", "..", ".", "", "a/b", "a_b", "a\\b", ".hidden", "a" * 200, "a" * 201, "\x1b[31m", "x "]
    assert len({safe_name(name) for name in unsafe}) == len(unsafe)
    assert Path(safe_name("../../x")).parts == (safe_name("../../x"),)


def test_no_name_is_that_of_another_part_of_a_run(tiny_run):
    for name in ("checkpoints", "Checkpoints", *(path.name for path in tiny_run.run.iterdir())):
        assert not (tiny_run.run / safe_name(name)).exists() and safe_name(name).startswith(f"{name}-"), name


def test_terminal_escapes_are_written_out():
    assert printable("a\x1b[31mb\nc\ud800é") == "a\\x1b[31mb\\nc\\ud800é"
