"""What benchmarks share: rows are kept in a file that a later run goes on from, and exponents are slopes."""

import json
import math

import pytest

from benchmarks.common import Results, as_table, exponent


def table(rows):
    return as_table(("name", "error"), [[row["name"], row["error"]] for row in rows])


def test_rows_are_written_as_they_come_and_gone_on_from(tmp_path, capsys):
    path = tmp_path / "rows.json"
    Results(path, table).keep({"name": "first", "error": 0.125})
    assert json.loads(path.read_text())["rows"] == [{"name": "first", "error": 0.125}]
    assert capsys.readouterr().out.splitlines()[-1] == "| first | 0.125 |"
    again = Results(path, table)
    again.keep({"name": "second", "error": None})
    again.write(slope=2.0)
    report = json.loads(path.read_text())
    assert [row["name"] for row in report["rows"]] == ["first", "second"]
    assert report["slope"] == 2.0
    assert Results(path, table, fresh=True).rows == []


def test_exponent_is_the_slope_of_a_power_law():
    assert exponent([1, 2, 4, 8], [3 * s**1.5 for s in (1, 2, 4, 8)]) == pytest.approx(1.5)
    assert math.isnan(exponent([4], [1.0]))
