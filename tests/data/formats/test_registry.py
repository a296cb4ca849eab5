"""Formats by registration: a new one works in convert, inspect and query, and every one that writes reads back."""

import csv
import json
import shutil

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inrflow.data.description import Description
from inrflow.data.formats.columns import Columns, PointTable
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.registry import (
    FORMATS,
    TableWriter,
    expanded,
    format_for_writing,
    format_of,
    register_format,
    writable,
)
from inrflow.data.formats.table_format import TableFormat
from inrflow.data.formats.tables import read_observations, read_points, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

HEAT = Description("heat", ("u",), ("x",))


@pytest.fixture
def lines_format(registries):
    """A toy format: a JSON object on each line."""
    class LineColumns(Columns):
        def __init__(self, path):
            self._rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
            self.names = tuple(self._rows[0])

        def blocks(self, rows):
            for start in range(0, len(self._rows), rows):
                part = self._rows[start:start + rows]
                yield {name: np.array([row[name] for row in part]) for name in self.names}

        def close(self):
            pass

    class LineWriter(TableWriter):
        def _start(self, columns, grid):
            self._file = self._target.partial.open("w")
            self._file.write("lines\n")

        def _add(self, columns):
            for row in zip(*(values.tolist() for values in columns.values()), strict=True):
                self._file.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")

    @register_format
    class LinesFormat(TableFormat):
        name, about, suffixes = "lines", "JSON lines", (".lines",)

        def sniff(self, path, start):
            return start.startswith(b"lines\n")

        def open_columns(self, path, wanted=()):
            return LineColumns(path)

        def open_writer(self, path, description, overwrite):
            return LineWriter(path, description, overwrite)


def test_a_registered_format_is_inspected_converted_and_queried(tmp_path, lines_format):
    path = tmp_path / "a.lines"
    rows = [{"t": t, "x": x, "u": 10 * t + x} for t in (0.0, 1.0) for x in (0.0, 0.5, 1.0)]
    path.write_text("lines\n" + "\n".join(map(json.dumps, rows)))
    shown = dict(describe(path))
    assert shown["format"] == "lines" and shown["rows"] == "6" and shown["read as"] == "channels u at coordinates x"
    convert(path, tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read(0).u[..., 0], [[0, 0.5, 1], [10, 10.5, 11]])
    assert len(read_observations(path, HEAT)[0]) == 6
    answer = tmp_path / "answer.lines"
    write_points(answer, read_points(path, HEAT), {"u_std": np.arange(6.0)})
    assert json.loads(answer.read_text().splitlines()[-1]) == {"t": 1.0, "x": 1.0, "u": 11.0, "u_std": 5.0}


def test_every_suffix_has_its_writer_and_others_are_named(tmp_path):
    assert {".csv", ".h5", ".nc"} <= set(writable())
    with pytest.raises(UserError, match=r"suffix '.vtu'; use one of .csv"):
        format_for_writing(tmp_path / "a.vtu")


def read_back(tmp_path, suffix, data):
    """Write random rows to a file of this suffix, and compare what is read from it."""
    rows = data.draw(st.integers(1, 20))
    number = st.floats(-1e30, 1e30, width=64)
    t, x = (data.draw(arrays(np.float64, rows, elements=number)) for _ in range(2))
    u = data.draw(arrays(np.float32, rows, elements=st.floats(width=32, allow_infinity=False)))
    trajectory = data.draw(arrays(np.int64, rows, elements=st.integers(0, 5)))
    text = [f"station {i}, \"north\"" for i in range(rows)]
    columns = {"trajectory": trajectory, "t": t, "x": x, "name": np.array(text, object)}
    path = tmp_path / f"a{suffix}"
    shutil.rmtree(path, ignore_errors=True)  # of Zarr, which is not written over
    write_points(path, PointTable(trajectory, t, x[:, None], columns), {"u": u}, HEAT, overwrite=True)
    assert suffix in format_of(path).suffixes
    table = read_points(path, HEAT)
    for name, values in (("trajectory", trajectory), ("t", t)):
        np.testing.assert_array_equal(getattr(table, name), values)
    np.testing.assert_array_equal(table.x[:, 0], x)
    stored = [float(v or "nan") for v in table.columns["u"]] if table.columns["u"].dtype == object else \
        table.columns["u"]
    np.testing.assert_array_equal(np.asarray(stored, np.float32), u)
    assert [str(v) for v in table.columns["name"]] == text


SUFFIXES = [known.suffixes for known in FORMATS if known.suffixes and not known.fixed_points]


@pytest.mark.parametrize("suffix", [first for first, *_ in SUFFIXES])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_a_format_writes_it_reads_back(tmp_path, suffix, data):
    read_back(tmp_path, suffix, data)


@pytest.mark.parametrize("suffix", [other for _, *others in SUFFIXES for other in others])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_a_format_writes_under_its_other_suffixes_it_reads_back(tmp_path, suffix, data):
    read_back(tmp_path, suffix, data)


@pytest.mark.parametrize("content", [
    b"<?xml version='1.0'?>\n<html>\n", b"# Time 0\n", b"{a: 1}\n",
    b"/*---- C++ ----*/\n", b"  \n<VTKFile>\n", b"%PDF-1.4\n"])
def test_other_kinds_of_text_are_not_taken_for_csv(tmp_path, content):
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    for use in (describe, lambda p: convert(p, tmp_path / "b.h5")):
        with pytest.raises(UserError, match="unknown format"):
            use(path)


def test_a_zip_archive_of_other_things_is_no_npz(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "letter.docx", "w") as archive:
        archive.writestr("word/document.xml", b"\x80\x02")
    assert "which is not read; unpack it" in dict(describe(tmp_path / "letter.docx"))["note"]


def test_inspect_says_what_convert_would_refuse(tmp_path):
    with (tmp_path / "a.csv").open("w") as file:
        csv.writer(file).writerows([["when", "x", "u"], [0, 0, 1]])
    np.savez(tmp_path / "few.npz", t=np.zeros(3))
    for name, words in (("a.csv", "time=NAME"), ("few.npz", "expected t, x and u")):
        note = dict(describe(tmp_path / name))["note"]
        assert "is not read as it is" in note and words in note
        with pytest.raises(UserError, match=words):
            convert(tmp_path / name, tmp_path / "b.h5")
    convert(tmp_path / "a.csv", tmp_path / "b.h5", time="when")
    with TrajectoryFile(tmp_path / "b.h5") as file:
        assert file.times().tolist() == [[0.0]]


def test_terminal_escapes_in_names_are_not_printed(tmp_path):
    (tmp_path / "a.csv").write_text("t,x,\x1b[31mu\n0,0,1\n")
    assert all(text.isprintable() for _, text in describe(tmp_path / "a.csv"))
    convert(tmp_path / "a.csv", tmp_path / "b.h5")
    assert any("\\x1b[31mu" in label for label, _ in describe(tmp_path / "b.h5"))


def test_files_without_values_are_not_promised(tmp_path):
    np.savez(tmp_path / "a.npz", t=np.zeros(2), x=np.zeros((0, 1)), u=np.zeros((1, 2, 0, 1)))
    xarray.Dataset({"u": (("t", "x"), np.zeros((2, 0)))}, {"t": [0.0, 1.0], "x": np.zeros(0)}).to_netcdf(
        tmp_path / "a.nc", engine="h5netcdf")
    for name in ("a.npz", "a.nc"):
        assert "is not read as it is" in dict(describe(tmp_path / name))["note"]


def test_lists_and_patterns_of_files_stand_for_all_of_them(tmp_path):
    for name in ("b.csv", "a1.csv", "a2.csv"):
        (tmp_path / name).touch()
    found = expanded(f"[{tmp_path}/b.csv, {tmp_path}/a*.csv]")
    assert [path.name for path in found] == ["b.csv", "a1.csv", "a2.csv"]
    with pytest.raises(UserError, match="no file matches"):
        expanded(f"[{tmp_path}/b.csv,{tmp_path}/c*.csv]")
