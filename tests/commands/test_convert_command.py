import pytest

from inrflow.data.formats.trajectory_file import TrajectoryFile

CSV = "t,x,y,p\n0,0,0,1\n0,1,0,2\n1,0,0,3\n1,1,0,4\n"


@pytest.fixture
def table(elsewhere):
    path = elsewhere / "table.csv"
    path.write_text(CSV)
    return path


def test_a_table_becomes_a_trajectory_file_with_what_the_user_adds(table, elsewhere, inrflow_command):
    outcome = inrflow_command("convert", table, "out.h5", "name=a test (mine)", "units=[Pa]", "time_units=s",
                              "period=[2.0,0.0]")
    assert outcome.code == 0, outcome.err
    assert "a test (mine)" in outcome.out
    with TrajectoryFile(elsewhere / "out.h5") as file:
        about = file.description
        assert (about.name, about.units, about.time_units) == ("a test (mine)", ("Pa",), "s")
        assert about.period == (2.0, 0.0) and file.read(0).u.ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("arguments", "said"), [
    (("table.csv",), "SOURCE TARGET"),
    (("nowhere.csv", "out.h5"), "does not exist"),
    (("table.csv", "table.csv"), "onto itself"),
    (("table.csv", "out.h5", "unit=[Pa]"), "did you mean units?"),
    (("table.csv", "out.h5", "channels=[q]"), "q"),
    (("table.csv", "nowhere/out.h5"), "no folder"),
])
def test_mistakes_are_one_clear_line_and_nothing_is_written(arguments, said, table, elsewhere, inrflow_command):
    outcome = inrflow_command("convert", *arguments)
    assert outcome.code == 2 and said in outcome.err and len(outcome.err.splitlines()) == 1
    assert [item.name for item in elsewhere.iterdir()] == ["table.csv"] and table.read_text() == CSV


def test_an_existing_target_is_kept_unless_told_otherwise(table, elsewhere, inrflow_command):
    before = b"\x89HDF\r\n\x1a\n mine"
    (elsewhere / "out.h5").write_bytes(before)
    outcome = inrflow_command("convert", table, "out.h5")
    assert outcome.code == 2 and (elsewhere / "out.h5").read_bytes() == before
    assert inrflow_command("convert", table, "out.h5", "overwrite=true").code == 0


def test_names_of_files_may_hold_an_equals_sign(table, elsewhere, inrflow_command):
    (elsewhere / "run=2").mkdir()
    table.rename(elsewhere / "run=2" / "a=b.csv")
    for target in ("out.h5", "run=2/out=1.h5"):
        assert inrflow_command("convert", "run=2/a=b.csv", target, "name=mine").code == 0
        assert (elsewhere / target).exists()
