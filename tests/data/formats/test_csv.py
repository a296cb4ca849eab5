"""Text with a header: fast and slow ways to its cells agree, and damaged rows are named by their line."""

import csv
import io
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inrflow.data.formats.columns import column_numbers
from inrflow.data.formats.convert import convert
from inrflow.data.formats.streams.tidy import tidied
from inrflow.data.formats.texts.csv_table import CsvColumns, CsvFormat
from inrflow.errors import UserError

CELLS = st.sampled_from(["1", "2.5", "", " 3", "4 ", "nan", '"5"', '"a,b"', '"c\nd"', '"e""f"', "x;y", "é", "-1e3"])
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n \n"])


def read(path, rows):
    """Columns of text, or what is said."""
    try:
        with CsvColumns(path) as columns:
            blocks = list(columns.blocks(rows))
    except UserError as error:
        return str(error).split(" cells in a row")[-1]
    return {name: [cell for block in blocks for cell in block[name].tolist()] for name in columns.names}


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.lists(st.tuples(st.lists(CELLS, min_size=3, max_size=3), ENDS), max_size=12), rows=st.integers(1, 5),
       last=st.sampled_from(["", "\n", "7,8\n", "7,8,9,10"]))
def test_any_text_has_the_cells_that_the_standard_library_finds(tmp_path, table, rows, last):
    text = "a,b,c\n" + "".join(",".join(cells) + end for cells, end in table) + last
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))[1:]
    expected = [row for row in found if row not in ([], [""])]
    result = read(path, rows)
    if any(len(row) != 3 for row in expected):
        assert isinstance(result, str) and "but 3 columns" in result
    elif expected:
        assert result == {name: list(column) for name, column in zip("abc", zip(*expected, strict=True), strict=True)}


def test_rows_of_other_lengths_are_named_by_their_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("# made by hand\nsep=,\na,b\n" + "1,2\n" * 20 + '"1\n",2\n' + "3\n")
    with CsvColumns(path) as columns, pytest.raises(UserError, match=r"has 1 cells in a row \(3\) .*, at line 26;"):
        list(columns.blocks(7))


def test_a_table_of_many_rows_is_read_about_as_fast_as_its_text_is_split(tmp_path):
    rows = 40_000
    path = tmp_path / "table.csv"
    lines = (f"2020-01-01T{k // 2 % 24:02d}:00:00Z,{k // 48},{'uv'[k % 2]},{k}\n" for k in range(rows))
    path.write_text("time,x,variable,value\n" + "".join(lines))
    began = time.process_time()
    with path.open(newline="") as file:
        for column in zip(*csv.reader(file), strict=True):
            np.array(column)
    split, began = time.process_time() - began, time.process_time()
    with tidied(lambda: CsvColumns(path), path) as columns:
        found = next(columns.blocks(rows))
    assert time.process_time() - began < 10 * split
    assert len(found["u"]) == rows / 2 and found["v"].max() == rows - 1


@pytest.mark.parametrize("header", ["t,x,", "t,x,u", "a,b"])
def test_a_header_alone_is_told(header, tmp_path):
    (tmp_path / "a.csv").write_text(header)
    with pytest.raises(UserError, match="no rows"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")


def test_time_grows_as_the_number_of_columns_and_too_many_are_refused(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("t,x," + ",".join(f"c{k}" for k in range(4_001)) + "\n" + f"0,0{',1' * 4_001}\n")
    began = time.process_time()
    with pytest.raises(UserError, match="4001 channels are more than the 4000 that a file can name"):
        convert(path, tmp_path / "wide.h5")
    assert time.process_time() - began < 10  # 60 where each column is compared with all


def test_errors_of_spreadsheets_are_missing_and_what_is_no_number_is_named(tmp_path):
    rows = ["19,96", "Fehler", "#NV", "#DIV/0!", "1.013,25", "20,5"]
    lines = "\r\n".join(f"{hour};{hour % 2};{cell}" for hour, cell in enumerate(rows))
    (tmp_path / "a.csv").write_bytes(f"t;x;T\r\n{lines}\r\n".encode("cp1252"))
    with closing(CsvFormat().open_columns(tmp_path / "a.csv")) as columns:
        block = next(columns.blocks(99))
    np.testing.assert_array_equal(column_numbers(block["T"], "T", tmp_path, 0), [
        19.96, np.nan, np.nan, np.nan, 1013.25, 20.5])
    with pytest.raises(UserError, match="T is 'kaputt' in row 2;"):  # not 1,5, which is a number where all are
        column_numbers(np.array(["1,5", "kaputt", "2,5"], object), "T", tmp_path, 0)
    with pytest.raises(UserError, match="T is '2,5' in row 3;"):
        column_numbers(np.array(["1.5", "1.7", "2,5"], object), "T", tmp_path, 0)
