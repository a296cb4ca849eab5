"""Columns and blocks: partial reads and writes agree with whole ones; formats are told by content."""

import h5py
import numpy as np
import pytest

from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.columns import TIMES, find_column
from inrflow.data.formats.layouts import blocks, gather, hyperslabs, spans
from inrflow.data.formats.registry import format_of
from inrflow.data.formats.table_format import HEIGHTS, axes_among
from inrflow.errors import UserError


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 1, 4, 2), (2, 7, 5)])
@pytest.mark.parametrize("values", [1, 3, 8, 1000])
def test_blocks_cover_everything_once_and_stay_small(shape, values):
    count = np.zeros(shape, int)
    for part in blocks(shape, values):
        count[part] += 1
        assert count[part].size <= max(values, 1)
    assert (count == 1).all()


def test_spans_join_neighbours_and_stay_short():
    indices = np.array([0, 1, 2, 10, 11, 40, 41, 42, 43, 44])
    assert [indices[a:b].tolist() for a, b in spans(indices, gap=8, longest=3)] == [
        [0, 1, 2], [10, 11], [40, 41, 42], [43, 44]]
    assert list(spans(indices, gap=100, longest=100)) == [(0, 10)]


@pytest.mark.parametrize("room", [1, 7, 100000])
@pytest.mark.parametrize("chunks", [None, (1, 2, 3, 2)])
def test_gather_is_the_outer_product_of_its_indices(tmp_path, room, chunks, monkeypatch):
    monkeypatch.setattr("inrflow.data.formats.layouts.VALUES_PER_BLOCK", room)
    values = np.random.default_rng(0).random((2, 6, 50, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("u", data=values, chunks=chunks)
        frames, points = np.array([5, 0, 3, 3]), np.array([49, 2, 3, 20, 2])
        np.testing.assert_array_equal(gather(dataset, 1, (1,), (frames, points)), values[1][np.ix_(frames, points)])
        np.testing.assert_array_equal(gather(dataset, 0, (), (np.array([1, 0]),)), values[[1, 0]])


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 3, 2)])
def test_hyperslabs_cut_any_range_of_an_array(shape):
    values = np.arange(np.prod(shape)).reshape(shape)
    for start in range(values.size):
        for stop in range(start + 1, values.size + 1):
            found = np.full(stop - start, -1)
            for slab, first, last in hyperslabs(shape, start, stop):
                found[first:last] = values[slab].ravel()
            np.testing.assert_array_equal(found, np.arange(start, stop))


def test_formats_are_told_by_content(tmp_path):
    path = tmp_path / "data.bin"
    path.write_text("t,x\n0,1\n")
    assert format_of(path).name == "CSV"
    with h5py.File(path, "w") as file:
        file["t"] = [0.0]
    assert format_of(path).name == "HDF5, flat"
    with path.open("wb") as file:
        np.savez(file, t=np.zeros(1))
    assert format_of(path).name == "npz"
    for content, words in ((b"", "empty"), (b"\x00\x01\x02", "unknown format")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            format_of(path)
    with pytest.raises(UserError, match="does not exist"):
        format_of(tmp_path / "absent")


@pytest.mark.parametrize(("names", "wanted", "found"), [
    (("Time (UTC)", "T (K)"), TIMES, "Time (UTC)"),
    (("T (K)", "p [hPa]"), TIMES, None),  # a temperature
    (("timestamp_utc", "t"), ("timestamp", "time"), "timestamp_utc"),
    (("Elev (m)", "elevation"), HEIGHTS, "elevation"),
    (("lon deg", "alt_m"), HEIGHTS, "alt_m"),
    (("lon", "elevation_m_asl"), HEIGHTS, "elevation_m_asl"),
])
def test_columns_are_found_before_their_units(names, wanted, found):
    assert find_column(names, wanted) == found


@pytest.mark.parametrize(("names", "axes"), [
    (("time", "easting_m", "northing_m", "elevation_m", "wind"), ["easting_m", "northing_m"]),
    (("Northing (km)", "Easting (km)", "time"), ["Easting (km)", "Northing (km)"]),
    (("x", "y", "easting", "northing"), ["x", "y"]),
    (("time", "easting", "height"), []),  # of one, a displacement
    (("time", "east", "north", "up"), []),  # displacements
])
def test_eastings_and_northings_are_places(names, axes):
    assert axes_among(names) == axes
