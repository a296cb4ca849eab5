import pytest

from inrflow.runtime.told import keep_told, teller


def tell(text, run, capsys):
    show = teller(run)
    show(text, UserWarning, "file.py", 1)
    return capsys.readouterr().err


def test_what_was_told_in_training_is_not_told_again(tmp_path, capsys):
    assert "A, B are left out" in tell("stations.csv: A, B are left out", None, capsys)
    keep_told(tmp_path)
    assert tell("today.csv: A, B are left out", str(tmp_path), capsys) == ""
    assert "left out" in tell("today.csv: A, B, C are left out", str(tmp_path), capsys)  # something else
    assert "left out" in tell("today.csv: A, B are left out", str(tmp_path / "other"), capsys)


@pytest.mark.parametrize("held", ["", "[]", "{}", '{"warnings": 5}', '{"warnings": [[]]}'])
def test_a_damaged_list_hides_nothing(held, tmp_path, capsys):
    (tmp_path / "warnings.json").write_text(held)
    assert "left out" in tell("a.csv: B is left out", str(tmp_path), capsys)
