"""Every format: a file that its own library wrote from the published layout goes in, and comes back without loss.

In each case `make` writes the source and tells what is in it; the source is converted by one command, its rows are
written as an answer with a new column, and the answer is read by the library of its own format.
"""


import h5py
import meshio
import numpy as np
import pandas
import pyarrow.parquet
import pytest
import xarray
from known_files import CASES, TRIANGLES, grib, pp

from inrflow.data.calendar import parse_units
from inrflow.data.formats import elsewhere as named_alone
from inrflow.data.formats.columns import find_column
from inrflow.data.formats.meshes.mesh_series import VtkBinaryFormat, VtkFormat
from inrflow.data.formats.registry import FORMATS, format_of
from inrflow.data.formats.sphere import xyz_to_lonlat
from inrflow.data.formats.tables import read_points, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile


def seconds(known):
    """Times since the first."""
    if known.moments is None:
        return known.t - known.t[0]
    return (known.moments - known.moments[0]).astype(np.int64) / 1e6


def units_of(about):
    calendar = parse_units(about.time_units)
    return 1.0 if calendar is None else calendar[0]


def measured(x, u):
    """Rows of frame, place and values where there is one, in their order."""
    frame = np.broadcast_to(np.arange(len(u))[:, None], u.shape[:2])
    rows = np.concatenate([frame[..., None], np.broadcast_to(x, (*u.shape[:2], x.shape[-1])), u], -1)
    rows = rows[np.isfinite(u).any(-1)]
    return rows[np.lexsort(np.round(rows[:, x.shape[-1]::-1], 6).T)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "source", "target"), CASES, ids=[f"{one[1]}-{one[2]}" for one in CASES])
def test_a_file_goes_in_by_one_command_and_comes_back_without_loss(make, source, target, elsewhere, inrflow_command):
    known = make(elsewhere / source)
    outcome = inrflow_command("convert", source, "data.h5", *known.options)
    assert outcome.code == 0, outcome.err
    with TrajectoryFile(elsewhere / "data.h5") as file:
        about, frames = file.description, [file.read(number) for number in range(file.trajectories)]
    assert about.channels == known.channels and about.units == known.units
    for one, u in zip(frames, known.u, strict=True):
        np.testing.assert_allclose(one.t - one.t[0], seconds(known) / units_of(about), rtol=0, atol=1e-9)
        found, expected = (measured(place, held) for place, held in ((one.x, one.u), (known.x, u)))
        np.testing.assert_allclose(found[:, :-u.shape[-1]], expected[:, :-u.shape[-1]], rtol=0, atol=1e-7)
        np.testing.assert_array_equal(found[:, -u.shape[-1]:], expected[:, -u.shape[-1]:])

    read = dict(option.split("=") for option in known.options)
    rows = read_points(elsewhere / source, about, {key: value.strip("[]").split(",") for key, value in read.items()})
    write_points(elsewhere / target, rows, {"predicted": np.arange(len(rows), dtype=np.float32)}, about)
    READERS[target.partition(".")[2]](elsewhere / target, elsewhere / source, known, rows)


@pytest.mark.filterwarnings("ignore")
def test_every_format_is_tried_two_ways(elsewhere):
    tried = set()
    for make, source, _ in CASES:
        if make not in (grib, pp) and not (elsewhere / source).exists():
            make(elsewhere / source)
            tried.add(format_of(elsewhere / source).name)
    every = {known.name for known in FORMATS if not isinstance(known, named_alone.Elsewhere)}
    tried |= {"NDBC", "GHCN-daily", "ODV"}  # a single place, and profiles: test_networks
    tried |= {VtkFormat.name, VtkBinaryFormat.name}  # also where VTK is not installed
    assert every <= tried | {"GRIB", "PP", "DaVis", "CFX"}  # a file of the last two is one frame: test_instruments


# ---- answers, read by the libraries of their formats ----

def sorted_rows(number, t, x, *columns):
    """Columns in the order of trajectory, time and place."""
    order = np.lexsort([*np.round(np.asarray(x, float), 6).T, np.asarray(t), np.asarray(number)])
    return [np.asarray(one)[order] for one in columns]


def check_rows(held, known, number, t, x):
    """Columns of an answer by their names against all that is known of trajectories `number` at times and places."""
    expected = known.u.reshape(-1, known.u.shape[-1])
    times = np.repeat(known.t if known.moments is None else known.moments.astype(np.int64), known.u.shape[2])
    times, places = np.tile(times, len(known.u)), np.tile(known.x, (len(known.u) * known.u.shape[1], 1))
    numbers = np.repeat(np.arange(len(known.u)), known.u.shape[1] * known.u.shape[2])
    seen = np.isfinite(known.u).any((0, 1, 3))
    kept = np.tile(seen, len(known.u) * known.u.shape[1]) if len(t) < len(times) else slice(None)
    (when,) = sorted_rows(numbers[kept], times[kept], places[kept], times[kept])
    (found,) = sorted_rows(number, t, x, t)
    np.testing.assert_allclose(found, when, rtol=0, atol=1e-9 if known.moments is None else 0)
    for c, name in enumerate(known.channels):
        (one,) = sorted_rows(numbers[kept], times[kept], places[kept], expected[kept, c])
        (own,) = sorted_rows(number, t, x, held[name])
        np.testing.assert_array_equal(own.astype(np.float32), one)


def check_labelled(path, source, known, rows):
    opened = (lambda one: xarray.open_zarr(one)) if path.suffix == ".zarr" else xarray.open_dataset
    with opened(path) as answer:
        if known.dims is None:  # a table of rows, or the project's own arrays
            held = {name: answer[name].values.ravel() for name in answer.variables}
            check_rows(held, known, held["trajectory"], held["t"], np.stack([held["x"], held["y"]], -1))
            return
        name, attributes = known.channels[0], known.attributes or {"units": known.units[0]}
        assert answer[name].dims == answer["predicted"].dims == known.dims
        assert {key: answer[name].attrs[key] for key in attributes} == attributes
        assert answer.attrs["Conventions"].startswith("CF")
        np.testing.assert_array_equal(answer[name].values, known.u.reshape(answer[name].shape))
        time = find_column(map(str, answer.variables), ("time",))
        if path.suffix == ".nc" and known.moments is not None:
            np.testing.assert_array_equal(answer[time].values.astype("M8[us]"), known.moments)
        degrees = xyz_to_lonlat(known.x)
        for axis, words in enumerate((("lon", "longitude", "clon", "face_x", "XLONG"),
                                      ("lat", "latitude", "clat", "face_y", "XLAT"))):
            place = answer[find_column(map(str, answer.variables), words)]
            place = np.degrees(place) if place.attrs.get("units") == "radian" else place
            spread = np.broadcast_to(np.moveaxis(np.asarray(answer[name].isel({known.dims[0]: 0}) * 0 + place), 0, 0),
                                     answer[name].shape[1:]).ravel()
            known_here = np.isfinite(spread)
            np.testing.assert_allclose(np.cos(np.radians(spread - degrees[:, axis]))[known_here], 1, atol=1e-9)


def check_pvd(path, source, known, rows):
    folder = path.with_name("answer_files")
    times = [float(part.split('"')[0]) for part in path.read_text().split('timestep="')[1:]]
    np.testing.assert_array_equal(times, known.t)
    for step, one in enumerate(sorted(folder.iterdir())):
        found = meshio.read(one)
        if source.name != "cavity":
            np.testing.assert_array_equal(found.cells_dict["triangle"], TRIANGLES)
        np.testing.assert_array_equal(found.points[:, :2], known.x)
        for c, name in enumerate(known.channels):
            np.testing.assert_array_equal(found.point_data[name].astype(np.float32), known.u[0, step, :, c])


def check_flat(path, source, known, rows):
    with h5py.File(path) as file:
        held = {name: file[name][()] for name in file}
        if known.units:
            assert [file[name].attrs["units"] for name in known.channels] == list(known.units)
    places = np.stack([held[name] for name in ("x", "y")[: known.x.shape[1]]], -1)
    check_rows(held, known, held.get("trajectory", np.zeros(len(places))), held["t"], places)


def check_table(frame, known, moments):
    time = next(name for name in ("time", "TIMESTAMP", "datetime") if name in frame)
    moments = pandas.to_datetime(frame[time], format="ISO8601").to_numpy().astype("M8[us]").astype(np.int64)
    check_rows(frame, known, np.zeros(len(frame)), moments, frame[["x", "y"]].to_numpy())
    assert frame["station"].tolist() == [f"Süd, {k}" for k in range(5)] * 4
    assert frame["predicted"].tolist() == list(range(20))


def check_text(path, source, known, rows):
    check_table(pandas.read_csv(path, sep="\t" if ".tsv" in path.name else ","), known, False)


def check_parquet(path, source, known, rows):
    stored = pyarrow.parquet.read_table(path)
    check_table(stored.to_pandas(), known, True)


READERS = {"nc": check_labelled, "zarr": check_labelled, "pvd": check_pvd, "h5": check_flat, "csv": check_text,
           "tsv": check_text, "csv.gz": check_text, "parquet": check_parquet}
