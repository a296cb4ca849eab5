"""The commands of docs/five-minutes.md, on files of the names and kinds that it tells of."""

import re
import shlex
from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest
import xarray
from foam_cases import centres, listed, mesh, write

PAGE = (Path(__file__).parents[2] / "docs/five-minutes.md").read_text(encoding="utf-8")
SECTIONS = {name: re.findall(r"^    \$ inrflow (.*)$", text, re.MULTILINE)
            for name, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)}


def climate():
    lat, lon = np.linspace(60, -60, 10), np.arange(0, 360, 20.0)
    for first, day in enumerate(("2020-01-01", "2020-01-06", "2020-01-11")):
        turned = np.radians(lon) - 0.07 * (np.arange(40) + 40 * first)[:, None]
        values = 280 + 5 * np.cos(np.radians(lat))[:, None] * np.cos(turned)[:, None]
        times = np.datetime64(day, "ns") + 3 * np.arange(40) * np.timedelta64(1, "h")
        data = xarray.Dataset({"t2m": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})}, {
            "time": times, "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"})}, {"title": "a run"})
        data["time"].encoding["units"] = f"hours since {day}"
        data.to_netcdf(f"era_{day}.nc")


def sensors():
    random = np.random.default_rng(0)
    places = np.round(random.uniform([5, 45], [10, 49], (20, 2)), 3)
    lines = ["timestamp,station_id,lon,lat,temperature"]
    for hour in range(120):
        stamp = np.datetime64("2024-03-01", "h") + hour
        lines += [f"{stamp}:00,ST{k:02d},{lon},{lat},{10 + 5 * np.sin((hour - lon) / 24 * 2 * np.pi):.3f}"
                  for k, (lon, lat) in enumerate(places)]
    Path("stations.csv").write_text("\n".join(lines))


def cavity():
    mesh(Path("cavity"), 6, 6)
    x, y = centres(6, 6).T
    for step in range(11):
        turned = np.exp(-0.1 * step)
        rows = [f"({u} {v} 0)" for u, v in zip(turned * np.sin(y * 3), -turned * np.sin(x * 3), strict=True)]
        head = "internalField   nonuniform List<vector> \n"
        write(Path("cavity") / f"{0.05 * step:g}" / "U", "volVectorField", f"{head}{listed(rows)};\n")
        head = "internalField   nonuniform List<scalar> \n"
        values = [str(value) for value in turned**2 * np.cos(x) * np.cos(y)]
        write(Path("cavity") / f"{0.05 * step:g}" / "p", "volScalarField", f"{head}{listed(values)};\n")


def advection():
    x, t, random = (np.arange(64) + 0.5) / 64, 0.05 * np.arange(41), np.random.default_rng(0)
    for name, count in (("train", 16), ("test", 4)):
        a = random.uniform(0, 6.28, (count, 1, 1))
        values = np.sin(2 * np.pi * (x - 0.4 * t[:, None]) + a) + np.cos(4 * np.pi * (x - 0.4 * t[:, None]) - 2 * a)
        with h5py.File(f"1D_Advection_{name}.hdf5", "w") as file:
            file["tensor"], file["x-coordinate"] = values.astype(np.float32), x
            file["t-coordinate"] = np.append(t, t[-1] + 0.05)


def check_climate():
    with xarray.open_dataset("forecast.nc") as answer, xarray.open_dataset("era_2020-01-11.nc") as seen:
        assert answer["t2m_q50"].dims == seen["t2m"].dims and answer.attrs["title"] == "a run"
        assert answer["t2m_q50"].attrs["units"] == "K" and str(answer["time"].values[-1])[:10] == "2020-01-18"
        np.testing.assert_array_equal(answer["lat"], seen["lat"])
        lead = np.radians(seen["lon"].values) - 0.07 * (120 + np.arange(17))[:, None]
        truth = 280 + 5 * np.cos(np.radians(seen["lat"].values))[:, None] * np.cos(lead)[:, None]
        np.testing.assert_allclose(answer["t2m_q50"], truth, atol=0.5)


def check_sensors():
    rows = Path("forecast.csv").read_text().splitlines()
    given = Path("stations.csv").read_text().splitlines()
    assert rows[0].startswith("timestamp,station_id,lon,lat,temperature_q05")
    assert [row.split(",")[1:4] for row in rows[1:21]] == [row.split(",")[1:4] for row in given[1:21]]
    assert rows[1].startswith("2024-03-06T00:00,ST00")


def check_mesh():
    files = sorted(Path("forecast_files").iterdir())
    found = meshio.read(files[-1])
    assert set(found.point_data) >= {"U_x_q50", "p_q95"} and len(found.points) == 36


def check_advection():
    with h5py.File("forecast.h5") as file:  # in the layout of what was observed
        t, x, u = (file[name][...] for name in ("t-coordinate", "x-coordinate", "tensor"))
        assert len(u) == 4 and t[: u.shape[1]].max() == pytest.approx(3) and len(x) == u.shape[2] == 64


KINDS = [("A climate NetCDF, in several files", climate, check_climate), ("A table of sensors", sensors, check_sensors),
         ("A mesh series of a simulation", cavity, check_mesh),
         ("A published set of simulations", advection, check_advection)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("few_references")
@pytest.mark.parametrize(("section", "make", "check"), KINDS)
def test_from_the_file_to_a_forecast_in_its_form(section, make, check, elsewhere, inrflow_command, quick_settings):
    make()
    commands = [shlex.split(line) for line in SECTIONS[section]]
    assert [command[0] for command in commands] == ["inspect", "train", "forecast"]
    for command in commands:
        if command[0] == "train":
            quick = [item for item in quick_settings if not item.startswith(("data.frames", "decoder.harmonics"))]
            command = [item for item in command if not item.startswith("training.minutes")]
            command += [*quick, "recipe=reduced_order"]
        outcome = inrflow_command(*command)
        assert outcome.code == 0, outcome.err
        assert "UTC" not in outcome.err  # no file names a zone
    check()
