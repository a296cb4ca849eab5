"""Answers in the layout of the file of points: PDEBench, The Well, named arrays, and tables with their separators,
decimal commas and dates."""

import gzip

import h5py
import numpy as np
import pandas
import pytest
import xarray
from known_files import pdebench_fields, pdebench_groups, pdebench_tensor, the_well

from inrflow.data.calendar import dates_to_numbers, numbers_to_texts
from inrflow.data.description import Description
from inrflow.data.formats.continued import Places
from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import PointReader, PointTable, PointWriter, read_observations, read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError


def answered(make, tmp_path, source, drop=None):
    """An answer at all points of a source, with medians, and what was known of the source."""
    known = make(tmp_path / source)
    options = {key: value.strip("[]").split(",") for key, value in (one.split("=") for one in known.options)}
    convert(tmp_path / source, tmp_path / "known.h5", **options)
    with TrajectoryFile(tmp_path / "known.h5") as file:
        about = file.description
    rows = read_points(tmp_path / source, about, options)
    kept = {name: values for name, values in rows.columns.items() if name not in about.channels}
    columns = {f"{name}_q50": rows.columns[name] + 1 for name in about.channels}
    columns |= {f"{name}_q05": rows.columns[name] for name in about.channels}
    chosen = np.arange(len(rows)) if drop is None else np.flatnonzero(rows.trajectory != drop)
    order = chosen[np.random.default_rng(0).permutation(len(chosen))]
    order = order[np.argsort(rows.trajectory[order], kind="stable")]  # of one trajectory in any order
    target = tmp_path / f"answer{source[source.index('.'):]}"
    with PointWriter(target, about, asked=tmp_path / source) as writer:
        for part in np.array_split(order, 5):
            writer.append(PointTable(rows.trajectory[part], rows.t[part], rows.x[part],
                                     {name: values[part] for name, values in kept.items()}),
                          {name: values[part] for name, values in columns.items()}
                          | {"extrapolated": np.zeros(len(part), np.int8)})
    return target, known, about


@pytest.mark.parametrize(("make", "source"), [
    (pdebench_tensor, "a.hdf5"), (pdebench_fields, "a.h5"), (pdebench_groups, "a.h5"), (the_well, "a.hdf5")])
def test_the_layout_and_its_names_hold_medians_and_quantiles_beside(make, source, tmp_path):
    target, known, about = answered(make, tmp_path, source)
    with h5py.File(target) as new, h5py.File(tmp_path / source) as old:
        def check(name, item):
            if not isinstance(item, h5py.Dataset):
                return
            if name.rpartition("/")[2] in ("x", "y", "t", "time", "x-coordinate", "y-coordinate", "t-coordinate"):
                np.testing.assert_array_equal(new[name][()], item[()])
                return
            np.testing.assert_allclose(new[name][()], item[()] + 1, rtol=1e-6)
            np.testing.assert_array_equal(new[f"{name}_q05"][()], item[()])
            assert dict(new[name].attrs) == dict(item.attrs) and new[name].dtype == np.float32
        old.visititems(check)
        assert set(old) <= set(new) and set(old.attrs) <= set(new.attrs)
    names = {pdebench_tensor: ["tensor_q05"], pdebench_fields: ["Vx_q05", "density_q05"],
             the_well: ["height_q05", "velocity_q05_x", "velocity_q05_y"]}
    if make in names:
        convert(target, tmp_path / "back.h5", channels=names[make])
        with TrajectoryFile(tmp_path / "back.h5") as file:
            np.testing.assert_array_equal(file.read(1).u, known.u[1])


def test_a_part_of_the_trajectories_keeps_the_scalars_that_are_theirs(tmp_path):
    def varied(path):
        known = the_well(path)
        with h5py.File(path, "r+") as file:
            file["scalars/nu"] = np.array([0.1, 0.2])
            file["boundary_conditions/walls/mask"] = np.ones(5, bool)
            file["t0_fields/ground"] = np.ones((5, 3))
            file["t0_fields/ground"].attrs.update(time_varying=False, sample_varying=False)
        return known

    target, _, _ = answered(varied, tmp_path, "a.hdf5", drop=0)
    with h5py.File(target) as file:
        assert file["scalars/nu"][()].tolist() == [0.2] and file.attrs["n_trajectories"] == 1
        assert file["boundary_conditions/walls/mask"].shape == (5,) and file["t0_fields/ground"].shape == (5, 3)
        assert {"height", "height_q05", "extrapolated"} <= set(file["t0_fields"].attrs["field_names"])
        assert file["t1_fields/velocity_q05"].shape == (1, 4, 5, 3, 2)


@pytest.mark.parametrize(("change", "problem"), [
    ({"x": np.full(4, 0.33)}, "not those of the grid"), ({"name": np.array(list("abcd"), object)}, "name holds text"),
    ({"trajectory": np.array([0, 1, 0, 1])}, "not together"), ({"t": np.arange(4.0)}, "different times")])
def test_what_does_not_fit_the_layout_is_one_sentence(change, problem, tmp_path):
    pdebench_tensor(tmp_path / "a.h5")
    about = Description("a", ("u",), ("x",))
    columns = {"trajectory": np.array([0, 1, 1, 1]), "t": np.zeros(4), "x": np.full(4, 0.25), **change}
    with pytest.raises(UserError, match=problem), PointWriter(tmp_path / "b.h5", about, asked=tmp_path / "a.h5") as one:
        one.append(PointTable(columns["trajectory"], columns["t"], columns["x"][:, None], columns), {"u": np.ones(4)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5"]


@pytest.mark.parametrize("suffix", ["npz", "mat", "pt", "pth"])
@pytest.mark.parametrize("grid", [True, False])
def test_named_arrays_read_back(suffix, grid, tmp_path):
    axes = np.meshgrid([0, 2], [0.5, 0.75, 1.5], [0.0, 0.1, 0.3], [1.0, 2.0, 3.0, 4.0], indexing="ij")
    number, t, x, y = (one.ravel() for one in axes)
    y = y if grid else y + x
    u = np.random.default_rng(0).standard_normal(len(t))
    u[5] = np.nan
    order = np.argsort(number + np.random.default_rng(1).random(len(t)) / 2)
    columns = {name: values[order] for name, values in (("trajectory", number), ("t", t), ("x", x), ("y", y))}
    about = Description("a", ("u",), ("x", "y"))
    with PointWriter(tmp_path / f"a.{suffix}", about) as writer:
        places = np.stack([columns["x"], columns["y"]], -1)
        writer.append(PointTable(columns["trajectory"], columns["t"], places, columns), {"u_q50": u[order]})
    convert(tmp_path / f"a.{suffix}", tmp_path / "b.h5")
    with TrajectoryFile(tmp_path / "b.h5") as file:
        assert file.description.channels == ("u_q50",) and file.trajectories == 2
        one = file.read(0)
        places = np.lexsort(np.round(one.x.T, 6))
        known = np.lexsort(np.round(np.stack([x[:12], y[:12]]), 6))
        np.testing.assert_array_equal(one.t, [0.5, 0.75, 1.5])
        np.testing.assert_allclose(one.x[places], np.stack([x[:12], y[:12]], -1)[known], atol=1e-12)
        np.testing.assert_array_equal(one.u[:, places, 0], u[:36].reshape(3, 12)[:, known].astype(np.float32))


@pytest.mark.parametrize(("source", "target", "separator", "decimal"), [
    ("a.csv", "b.csv", ";", ","), ("a.csv", "b.csv", "|", "."), ("a.csv", "b.csv", ",", "."),
    ("a.csv.gz", "b.csv.gz", ";", ","), ("a.tsv", "b.tsv", "\t", ","), ("a.csv", "b.tsv", ";", ",")])
def test_tables_keep_separators_and_decimal_commas(source, target, separator, decimal, tmp_path):
    frame = pandas.DataFrame({"t": [0.0, 0.5], "x": [0.25, 0.75], "u": [1.5, np.nan], "name": ["a. b", "c, d"]})
    frame.to_csv(tmp_path / source, sep=separator, decimal=decimal, index=False)
    about = Description("a", ("u",), ("x",))
    with PointWriter(tmp_path / target, about, asked=tmp_path / source) as writer:
        writer.append(read_points(tmp_path / source, about), {"u_std": np.array([0.125, 2.0])})
    found = pandas.read_csv(tmp_path / target, sep="\t" if target == "b.tsv" else separator, decimal=decimal)
    pandas.testing.assert_frame_equal(found, frame.assign(u_std=[0.125, 2.0]))
    opened = gzip.open if target.endswith(".gz") else open
    with opened(tmp_path / target, "rt") as file:
        assert ("0,125" in file.read()) == (decimal == ",")


@pytest.mark.parametrize("date", [
    "31.01.2024 18:00", "31.01.2024 18:00:30", "1.2.2024", "31-Jan-2024 06:00", "2024/01/31 18:00",
    "2024-01-31T18:00:00Z",
    "2024-01-31 18:00:00+01:00", "2024-01-31 18:00:00.000125", "2024-01-31", "31 JAN 2024 06:00", "2024-01-31T18",
    "Jan 31 2024", "Jan 31, 2024 18:00"])
def test_dates_are_written_as_those_of_the_table(date):
    units = "hours since 2024-01-01"
    t = dates_to_numbers([date], units)
    (written,) = numbers_to_texts(t, units, date)
    assert dates_to_numbers([written], units) == pytest.approx(t, abs=1e-9)
    (later,) = numbers_to_texts(t + 24, units, date)
    assert [part.isdigit() for part in later] == [part.isdigit() for part in written]
    if date not in ("1.2.2024", "2024-01-31 18:00:00+01:00", "2024-01-31T18"):
        assert written == date


def test_an_underscore_makes_no_thousands(tmp_path):
    about = Description("a", ("u",), ("x",))
    (tmp_path / "a.csv").write_text("t,x,u\n" + "".join(f"{k},{k % 2},{k}.5\n" for k in range(99)) + "99,1,1_000\n")
    for use in (lambda path: convert(path, tmp_path / "a.h5"), lambda path: read_observations(path, about)):
        with pytest.raises(UserError, match="u is '1_000' in row 100; expected a number"):
            use(tmp_path / "a.csv")


def test_parquet_keeps_categories_and_zones(tmp_path):
    frame = pandas.DataFrame({
        "time": pandas.date_range("2024-01-31T18:00:00.000125", periods=2, freq="h", tz="Europe/Zurich"),
        "x": [0.25, 0.75], "u": [1.5, np.nan], "station": pandas.Categorical(["b", "a"])})
    frame.to_parquet(tmp_path / "a.parquet")
    about = Description("a", ("u",), ("x",), time_units="hours since 2024-01-01")
    rows = read_points(tmp_path / "a.parquet", about)
    assert rows.t[0] == pytest.approx(30 * 24 + 17 + 0.000125 / 3600, rel=1e-14)
    with PointWriter(tmp_path / "b.parquet", about, asked=tmp_path / "a.parquet") as writer:
        writer.append(rows, {"u_std": np.array([0.125, 2.0])})
    found = pandas.read_parquet(tmp_path / "b.parquet")
    pandas.testing.assert_frame_equal(found, frame.assign(u_std=[0.125, 2.0]), check_categorical=False)
    assert found["station"].dtype == "category"


def own_file(path, layout):
    """A file of the schema in a layout of points: t (S, T), x and u, NaN where nothing was observed."""
    random = np.random.default_rng(0)
    S, T, N = 3, 4, 5
    t = np.array([[0, 1, 2, 3], [0, 2, 4, 6], [1, 2, 3, np.nan]])
    u = random.standard_normal((S, T, N, 2)).astype(np.float32)
    x = random.uniform(0, 1, {"shared": (N, 2), "per trajectory": (S, N, 2), "moving": (S, T, N, 2)}[layout])
    u[0, 1, 2] = np.nan
    about = Description("own", ("u", "v"), ("x", "y"), units=("m", "s"), time_units="s", period=(2.0, 0.0),
                        parameter_names=("nu",))
    write_trajectories(path, t, x, u, about, np.array([[0.1], [0.2], [0.3]]), np.array([4, 4, 7]),
                       {"triangles": np.array([[0, 1, 2]]), "note": np.array([1.0])})
    return about, t, x, u


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("layout", ["shared", "per trajectory", "moving"])
def test_answers_to_the_projects_file_are_such_files(layout, shuffled, tmp_path):
    about, t, x, u = own_file(tmp_path / "own.h5", layout)
    rows = read_points(tmp_path / "own.h5", about)
    order = np.arange(len(rows))
    if shuffled and layout != "moving":  # whose points have no order but that of the rows
        order = order[np.random.default_rng(1).permutation(len(rows))]
        order = order[np.argsort(rows.trajectory[order], kind="stable")]
    table = PointTable(rows.trajectory[order], rows.t[order], rows.x[order], {
        name: values[order] for name, values in rows.columns.items()})
    new = {name: np.nan_to_num(table.columns[name]) + 1 for name in ("u", "v")}
    new |= {"u_std": new["u"] * 2, "v_std": new["v"] * 2, "du_dx": new["u"] * 3,
            "extrapolated": np.ones(len(table), np.int8)}
    with PointWriter(tmp_path / "answer.h5", about, asked=tmp_path / "own.h5") as writer:
        for part in np.array_split(np.arange(len(table)), 4):
            writer.append(PointTable(table.trajectory[part], table.t[part], table.x[part], {
                name: values[part] for name, values in table.columns.items()}),
                {name: values[part] for name, values in new.items()})
    with TrajectoryFile(tmp_path / "answer.h5") as file, h5py.File(tmp_path / "answer.h5") as stored:
        assert file.description == about and file.parameters.ravel().tolist() == [0.1, 0.2, 0.3]
        assert file.environment.tolist() == [4, 4, 7] and file.read_extra("note").tolist() == [1.0]
        np.testing.assert_array_equal(file.times(), t)
        for s in range(3):
            count = np.isfinite(t[s]).sum()
            frames = file.read(s)
            own = x if layout == "shared" else x[s] if layout == "per trajectory" else x[s, :count]
            places = np.arange(5)
            if shuffled and layout != "moving":
                places = np.array([int(np.flatnonzero((own == place).all(1))[0]) for place in frames.x])
                own = own[places]
            np.testing.assert_array_equal(frames.x, own)
            wanted = np.nan_to_num(u[s, :count][:, places]) + 1
            np.testing.assert_array_equal(frames.u, wanted)
            np.testing.assert_array_equal(stored["u_std"][s, :count], 2 * wanted)
            np.testing.assert_array_equal(stored["u_observed"][s, :count], u[s, :count][:, places])
            np.testing.assert_array_equal(stored["du_dx"][s, :count], 3 * wanted[..., 0])
    with xarray.open_dataset(tmp_path / "answer.h5", engine="h5netcdf") as data:
        assert data["u_std"].dims == data["u"].dims and data["du_dx"].dims == data["u"].dims[:-1]
    assert read_observations(tmp_path / "answer.h5", about)[2].frames().t.tolist() == [1, 2, 3]


def test_forecasts_beside_the_projects_rows_are_rows_or_frames(tmp_path):
    about = Description("rows", ("u",), ("x",))
    number, t, x = np.array([0, 0, 0, 3, 3]), np.array([0.0, 0.5, 0.2, 1.0, 2.0]), np.arange(5.0)[:, None]
    write_scattered(tmp_path / "rows.h5", number, t, x, x, about)
    for name, kept, times in (("rows", slice(None), t), ("frames", [0, 1, 3, 4], np.array([5.0, 6, 5, 6]))):
        with PointWriter(tmp_path / f"as_{name}.h5", about, asked=tmp_path / "rows.h5") as writer:
            places = x[kept] if name == "rows" else np.zeros((4, 1))
            columns = {"trajectory": number[kept], "t": times, "x": places[:, 0]}
            writer.append(PointTable(number[kept], times, places, columns), {
                "u_q50": times, "u_q05": times - 1})
        with TrajectoryFile(tmp_path / f"as_{name}.h5") as file:
            assert file.layout == ("scattered" if name == "rows" else "frames")
            held = file.read(0)
            np.testing.assert_array_equal(held.u.ravel()[np.isfinite(held.u.ravel())], np.sort(times[:3 if name ==
                                          "rows" else 2]).astype(np.float32))
    with h5py.File(tmp_path / "as_rows.h5") as source, h5py.File(tmp_path / "as_frames.h5") as frames:
        assert source["u"].shape == (5, 1) and frames["u_q05"].shape == (2, 2, 1, 1)


def test_whole_times_stay_whole(tmp_path):
    about = Description("ms", ("p",), ("x",), time_units="milliseconds since 1970-01-01")
    lines = [f"{1709251200000 + 250 * k},{place},1.5" for k in range(3) for place in (0, 7)]
    (tmp_path / "a.csv").write_text("time,x,p\n" + "\n".join(lines) + "\n")
    table = read_points(tmp_path / "a.csv", about)
    known = Places.of_table(table, about)
    for every, wanted in ((250.0, ["1709251200750", "1709251201000"]), (0.5, ["1709251200500.5", "1709251200501.0"])):
        t = np.repeat(1709251200500 + every * np.arange(1, 3), 2)
        with PointWriter(tmp_path / "b.csv", about, overwrite=True, asked=tmp_path / "a.csv") as writer:
            writer.append(known.rows(t, np.tile(known.x, (2, 1)), about, 0, False, "text"), {"p_q50": t})
        cells = [line.split(",")[:2] for line in (tmp_path / "b.csv").read_text().splitlines()[1:]]
        assert cells == [[wanted[k // 2], "07"[k % 2]] for k in range(4)]


@pytest.mark.parametrize("layout", ["padded", "scattered", "wide"])
def test_answers_to_all_rows_of_the_schema_are_written_as_they_come(layout, tmp_path):
    about, random = Description("a", ("p", "q"), ("x",)), np.random.default_rng(0)
    source, target = tmp_path / "asked.h5", tmp_path / "answer.h5"
    if layout == "scattered":
        number, t = np.repeat([0, 1], [7, 5]), np.sort(random.random(12))
        write_scattered(source, number, t, random.random((12, 1)), random.random((12, 2)), about)
    else:
        points = 20000 if layout == "wide" else 6
        t = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, np.nan]])
        u = random.random((2, 3, points, 2))
        u[1, 2] = np.nan
        write_trajectories(source, t, random.random((points, 1)), u, about, parameters=np.array([[1.0], [2.0]]))
    with PointWriter(target, about, asked=source) as writer:
        for table in PointReader(source, about, rows=5 if layout == "padded" else 16384):
            values = table.t + 10 * table.x[:, 0] + 100 * table.trajectory
            writer.append(table, {"p": values, "p_std": values + 1, "q": 2 * values, "q_std": 3 * values,
                                  "extrapolated": (values > 100).astype(np.int8)})
    with TrajectoryFile(source) as old, TrajectoryFile(target) as new:
        assert new.layout == old.layout and set(new.extra) >= {"u_std", "u_observed", "extrapolated"}
        held = {name: new.read_extra(name) for name in ("u_std", "u_observed", "extrapolated")}
        for index in range(old.trajectories):
            one, answer = old.read(index), new.read(index)
            wanted = (one.t[:, None] + 10 * one.x[..., 0] + 100 * index).astype(np.float32)
            shown = np.isfinite(one.u[..., 0])
            np.testing.assert_allclose(answer.u[..., 0][shown], wanted[shown], rtol=1e-6)
            np.testing.assert_allclose(answer.u[..., 1][shown], 2 * wanted[shown], rtol=1e-6)
            if layout != "scattered":
                own = slice(0, len(one.t))
                np.testing.assert_allclose(held["u_std"][index, own, :, 1], 3 * wanted, rtol=1e-6)
                np.testing.assert_allclose(held["u_observed"][index, own], one.u, rtol=1e-6)
                np.testing.assert_array_equal(held["extrapolated"][index, own], wanted > 100)
        if layout != "scattered":
            np.testing.assert_array_equal(new.parameters, [[1.0], [2.0]])


@pytest.mark.parametrize("suffix", ["csv", "npz", "nc", "pvd"])
def test_what_answers_add_to_values_is_no_channel_of_theirs(suffix, tmp_path):
    about = Description("a", ("u",), ("x", "y"))
    t, x, y = (one.ravel() for one in np.meshgrid([0.0, 1.0], [0.0, 0.3, 0.8], [0.0, 0.5], indexing="ij"))
    table = PointTable(np.zeros(len(t), int), t, np.stack([x, y], 1), {"t": t, "x": x, "y": y})
    added = ["u_std", "du_dx", "extrapolated"], ["u_q05", "u_q95", "u_z_score", "extrapolated"]
    for values, names in zip(["u", "u_q50"], added, strict=True):
        target = tmp_path / f"{values}.{suffix}"
        with PointWriter(target, about) as writer:
            writer.append(table, {values: x + t, **dict.fromkeys(names[:-1], y), names[-1]: (t > 0).astype(np.int8)})
        with pytest.warns(UserWarning, match=r"answers of inrflow.* left out") as told:
            convert(target, tmp_path / f"{values}.h5")
        assert all(name in str([one.message for one in told]) for name in names)
        with TrajectoryFile(tmp_path / f"{values}.h5") as file:
            assert file.description.channels == (values,)
    with pytest.raises(UserError, match=r"medians"):  # a forecast is no observation
        read_observations(target, about)
