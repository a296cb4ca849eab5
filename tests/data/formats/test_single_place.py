"""Series without any place: through tables, NetCDF, answers and Python, and what needs places says so."""

import numpy as np
import pandas
import pytest
import xarray

import inrflow
from inrflow.cli import main
from inrflow.data.formats.convert import convert
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from tests.conftest import with_persistence_alone

HOURS = 400
HOURS_AT_FIRST = int((np.datetime64("2024-01-01") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h"))


@pytest.fixture(scope="module")
def series():
    hour, random = np.arange(HOURS), np.random.default_rng(0)
    values = 10 + 5 * np.sin(2 * np.pi * hour / 24) + 0.05 * random.standard_normal(HOURS)
    return pandas.DataFrame({"time": pandas.Timestamp("2024-01-01") + pandas.to_timedelta(hour, "h"),
                             "temperature": values, "logger": "A7"})


@pytest.fixture(scope="module")
def run(series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    series.to_csv(folder / "one.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        with_persistence_alone(patch)
        assert main(["train", f"data.train={folder / 'one.csv'}", "data.frames=360", "training.minutes=0.05",
                     f"output={folder / 'run'}"]) == 0
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".nc"])
def test_a_table_without_places_is_a_series(series, tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    table = series.drop(columns="logger")
    {".csv": lambda: table.to_csv(path, index=False), ".parquet": lambda: table.to_parquet(path),
     ".nc": lambda: table.set_index("time").to_xarray().to_netcdf(path)}[suffix]()
    with pytest.warns(UserWarning, match="a series at a single place, with the channels temperature"):
        convert(path, tmp_path / "one.h5")
    with TrajectoryFile(tmp_path / "one.h5") as file:
        assert (file.trajectories, file.frames, file.points) == (1, HOURS, 1) and file.description.placeless
        np.testing.assert_allclose(file.read(0).u[:, 0, 0], series["temperature"], rtol=1e-6)


def test_coordinates_may_be_channels(tmp_path):
    lines = [f"{k},{t},{t + k},{t * k},{t}" for k in range(2) for t in range(5)]
    (tmp_path / "a.csv").write_text("\n".join(["trajectory,t,x,y,z", *lines]))
    with pytest.raises(UserError, match=r"none of them is a channel; name them with channels=\[\.\.\.\]"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")
    with pytest.warns(UserWarning, match="single"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5", channels=["x", "y", "z"])
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.trajectories == 2 and file.description.channels == ("x", "y", "z")


def test_several_sensors_without_places_are_refused(tmp_path):
    rows = [f"2024-01-01T{hour:02d}:00,{sensor},{hour}" for hour in range(9) for sensor in "AB"]
    (tmp_path / "a.csv").write_text("\n".join(["time,sensor,temperature", *rows]))
    with pytest.warns(UserWarning), pytest.raises(UserError, match="18 rows have 9 times, as those of several sensors"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")


@pytest.mark.usefixtures("elsewhere")
def test_answers_have_no_column_of_places(run, capsys):
    table, until = run / "one.csv", "2024-01-19T00:00"
    assert main(["forecast", f"run={run / 'run'}", f"observations={table}", f"until={until}",
                 f"to={run / 'f.csv'}"]) == 0
    found = pandas.read_csv(run / "f.csv")
    assert list(found) == ["time", "logger", "temperature_q05", "temperature_q50", "temperature_q95", "extrapolated"]
    assert len(found) == 33 and set(found["logger"]) == {"A7"}
    hour = HOURS + np.arange(33)
    truth = 10 + 5 * np.sin(2 * np.pi * hour / 24)
    assert np.abs(found["temperature_q50"] - truth).max() < 0.5
    (run / "asked.csv").write_text("time,note\n2024-01-10T05:30,a\n2024-01-02T06:00,b\n")
    assert main(["query", f"run={run / 'run'}", f"observations={table}", f"points={run / 'asked.csv'}", "std=true",
                 "derivatives=true", f"to={run / 'q.csv'}"]) == 0
    assert list(pandas.read_csv(run / "q.csv")) == ["time", "note", "temperature", "temperature_std", "dtemperature_dt",
                                                    "extrapolated"]
    assert main(["forecast", f"run={run / 'run'}", f"observations={table}", f"until={until}",
                 f"to={run / 'f.npz'}"]) == 2  # of text
    frame = pandas.read_csv(table)
    np.savez(run / "one.npz", t=HOURS_AT_FIRST + np.arange(len(frame)), temperature=frame["temperature"])
    assert main(["forecast", f"run={run / 'run'}", f"observations={run / 'one.npz'}", f"until={until}",
                 f"to={run / 'f.npz'}"]) == 0
    with np.load(run / "f.npz") as arrays:
        assert set(arrays) == {"t", *(f"temperature_q{level}" for level in ("05", "50", "95")), "extrapolated"}
        median, told = (one["temperature_q50"].astype(np.float32) for one in (arrays, found))  # 9 digits give it back
        np.testing.assert_array_equal(median, told)
    np.savez(run / "other.npz", t=HOURS_AT_FIRST + np.arange(9), pressure=np.ones(9))
    assert main(["forecast", f"run={run / 'run'}", f"observations={run / 'other.npz'}", f"until={until}"]) == 2
    assert "other.npz has channels pressure, expected temperature" in capsys.readouterr().err
    assert main(["next", f"run={run / 'run'}", f"observations={table}", "count=1"]) == 2
    assert "further sensors are chosen among places, and one has a single one" in capsys.readouterr().err


def test_dimensions_of_netcdf_come_back(run, series):
    series.drop(columns="logger").set_index("time").to_xarray().to_netcdf(run / "one.nc")
    assert main(["forecast", f"run={run / 'run'}", f"observations={run / 'one.nc'}", "until=2024-01-19T00:00",
                 f"to={run / 'f.nc'}"]) == 0
    with xarray.open_dataset(run / "f.nc") as found:
        assert dict(found.sizes) == {"time": 33} and found["time"].values[0] == np.datetime64("2024-01-17T16:00")


@pytest.mark.parametrize("levels", [0, 2])
def test_dimensions_of_one_entry_are_a_single_place(levels, tmp_path):
    t, u = np.arange("2024-01-01", "2024-01-03", 6, "datetime64[h]").astype("M8[ns]"), np.arange(8, dtype=np.float32)
    dims, sizes = ("time", *["plev"] * bool(levels), "lat", "lon"), (8, *[levels] * bool(levels), 1, 1)
    field = np.broadcast_to(u.reshape(8, *[1] * (len(sizes) - 1)), sizes)
    issued = ("time", t - np.timedelta64(1, "h"))
    xarray.Dataset({"t2m": (dims, field), "issued": issued}, {"time": t, "lat": [47.0], "lon": [8.0]}).to_netcdf(
        tmp_path / "one.nc")
    with pytest.warns(UserWarning, match="issued holds text or further dates and is left out"):
        convert(tmp_path / "one.nc", tmp_path / "one.h5", select={"plev": 1} if levels else {})
    with TrajectoryFile(tmp_path / "one.h5") as file:
        assert file.description.channels == ("t2m",) and file.points == 1
        np.testing.assert_array_equal(file.read(0).u[:, 0, 0], u)


def test_python_needs_no_places(run, series, tmp_path, inrflow_command):
    surrogate = inrflow.Surrogate.load(run / "run")
    solution = surrogate.assimilate(series)
    times = ["2024-01-10T05", "2024-01-10T06", "2024-01-18T07"]
    values = solution(times)
    assert values.shape == (3, 1) and solution(times[0]).shape == (1,) and solution.std(times).shape == (3, 1)
    np.testing.assert_allclose(values, solution(times, np.zeros((3, 1))))
    found = solution.to_xarray(times)
    assert found["temperature"].dims == ("time",)
    np.testing.assert_allclose(found["temperature"], values[:, 0])
    assert found["extrapolated"].values.tolist() == [int(one) for one in solution.extrapolated(times)]
    found.to_netcdf(tmp_path / "answers.nc")
    assert inrflow_command("convert", tmp_path / "answers.nc", tmp_path / "answers.h5").code == 0
    with TrajectoryFile(tmp_path / "answers.h5") as file:  # standard deviations are no channels
        assert file.description.channels == ("temperature",)
    observed = inrflow.Observations(series["time"], None, series["temperature"].to_numpy()[:, None])
    np.testing.assert_allclose(surrogate.assimilate(observed)(times), values)
    observed = inrflow.Observations.from_dataframe(series, ["temperature"], [])
    np.testing.assert_allclose(surrogate.assimilate(observed)(times), values)
    assert "temperature of t;" in repr(solution)
    with pytest.raises(UserError, match="chosen among places"):
        solution.where_next(np.zeros((2, 1)))


def test_a_station_on_the_sphere_is_not_away_from_itself(series, tmp_path):
    from inrflow.data.formats.sphere import lonlat_to_xyz
    from inrflow.model.extent import Seen

    place = lonlat_to_xyz(np.array([8.2134567]), np.array([47.1234567]))
    assert not Seen.from_state(Seen.of(place).state()).away(place).any()
    assert Seen.of(place).away(lonlat_to_xyz(np.array([8.22]), np.array([47.12]))).all()


@pytest.mark.usefixtures("unreported")
def test_trajectories_of_an_oscillator(tmp_path, capsys):
    t, rows = np.arange(40) * 0.2, []
    for number, phase in enumerate(np.linspace(0, 6, 8)):
        angle = phase + 0.7 * t
        rows += [(number, *row) for row in zip(t, np.cos(angle), -0.7 * np.sin(angle), strict=True)]
    table = pandas.DataFrame(rows, columns=["trajectory", "t", "position", "velocity"])
    table.to_csv(tmp_path / "a.csv", index=False)
    assert main(["train", f"data.train={tmp_path / 'a.csv'}", "training.minutes=0.05", f"output={tmp_path / 'run'}"]
                ) == 0
    surrogate = inrflow.Surrogate.load(tmp_path / "run")
    seen = pandas.DataFrame({"t": [0.0], "position": [np.cos(0.4)], "velocity": [-0.7 * np.sin(0.4)]})
    found = surrogate.assimilate(seen)(t)
    np.testing.assert_allclose(found[:, 0], np.cos(0.4 + 0.7 * t), atol=0.05)
