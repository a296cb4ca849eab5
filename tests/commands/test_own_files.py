"""From files as users have them to answers: a pattern of NetCDF files in, a report, a moved question, NetCDF out."""

import json

import numpy as np
import pytest
import xarray

from inrflow.commands.run_directory import EVALUATION_FILE
from inrflow.data.formats.convert import convert
from inrflow.data.formats.trajectory_file import TrajectoryFile


def write_months(folder):
    x = np.arange(16) / 16
    for month in range(2):
        hours = np.arange(month * 20, month * 20 + 20)
        values = np.sin(2 * np.pi * (x[None] - hours[:, None] / 20)) + 280
        times = np.datetime64("2020-01-01", "ns") + hours * np.timedelta64(1, "h")
        data = xarray.Dataset({"T": (("time", "x"), values.astype(np.float32))}, {"time": times, "x": x})
        data["time"].encoding["units"] = f"hours since {times[0]}"
        data.to_netcdf(folder / f"month{month}.nc")


@pytest.mark.usefixtures("few_references")
def test_a_pattern_of_files_is_trained_on_and_reported_and_answered_in_its_form(elsewhere, inrflow_command):
    write_months(elsewhere)
    trained = inrflow_command("train", "data.train=month*.nc", "data.read.period=[1]", "training.minutes=0.05",
                              "training.residual_field=off", "output=run")
    assert trained.code == 0, trained.err
    assert "2 files of NetCDF" in trained.err and "of the training data" in trained.err.replace("\n", " ")
    report = json.loads((elsewhere / "run" / EVALUATION_FILE).read_text())
    tried = json.loads((elsewhere / "run" / "candidates.json").read_text())
    assert report["held_out"]["nmse"]["in_t"] == tried["candidates"][tried["chosen"]]["validation_error"] > 0
    assert "inrflow, held-out forecasts" in trained.out
    assert report["in_sample"] and (elsewhere / "run" / "forecast_T.png").exists()
    tested = inrflow_command("evaluate", "run=run", "data.test=month1.nc", "output=report")  # read as the run says
    assert tested.code == 0 and not json.loads((elsewhere / "report" / EVALUATION_FILE).read_text())["in_sample"]
    asked = inrflow_command("query", "run=run", "observations=month0.nc", "points=month1.nc", "to=answer.nc")
    assert asked.code == 0, asked.err
    with xarray.open_dataset(elsewhere / "answer.nc") as answer:
        assert answer["T"].dims == ("time", "x")
        np.testing.assert_allclose(answer["T"], answer["T_observed"], atol=0.2)


def write_turning(path, first, calendar, epoch):
    """A wave that passes a line once in 20 days, from a day on, whose times count from another day."""
    x, t = np.arange(16) / 16, np.arange(first, first + 30.0)
    values = np.sin(2 * np.pi * (x[None] - t[:, None] / 20)) + np.sin(4 * np.pi * (x[None] + t[:, None] / 20))
    data = xarray.Dataset({"T": (("time", "x"), values.astype(np.float32))}, {"time": t - epoch, "x": x})
    data["time"].attrs.update(units=f"days since 2001-{1 + epoch // 30:02d}-01", calendar=calendar)
    data.to_netcdf(path)
    return values


@pytest.mark.usefixtures("few_references")
@pytest.mark.parametrize("calendar", ["360_day", "standard"])
def test_files_whose_times_count_from_other_days_are_of_the_same_times(calendar, elsewhere, inrflow_command):
    """In the standard calendar, January has 31 days."""
    pytest.importorskip("cftime")
    write_turning("train.nc", 0, calendar, 0)
    write_turning("test.nc", 40, calendar, 0)
    truth = write_turning("later.nc", 40, calendar, 30)
    shift = 0 if calendar == "360_day" else 1
    trained = inrflow_command("train", "data.train=train.nc", "data.test=later.nc", "data.read.period=[1]",
                              "recipe=series", "training.minutes=0.05", "training.residual_field=off", "output=run")
    assert trained.code == 0, trained.err
    with TrajectoryFile("run/data/data_test.h5") as file:
        np.testing.assert_allclose(file.times()[0], np.arange(40.0, 70.0) + shift)
    until = "until=2001-03-21"
    made = inrflow_command("forecast", "run=run", "observations=later.nc", until, "to=a.nc")
    assert made.code == 0, made.err
    with xarray.open_dataset("a.nc", use_cftime=calendar == "360_day") as answer:
        last = 70 if calendar == "360_day" else 71
        dates = [str(moment)[:10] for moment in answer["time"].values]
        assert dates[-1] == "2001-03-21" and len(dates) == (80 if calendar == "360_day" else 79) - last + 1
    asked = inrflow_command("query", "run=run", "observations=test.nc", "points=later.nc", "to=b.nc")
    assert asked.code == 0, asked.err
    with xarray.open_dataset("b.nc", decode_times=False) as answer:
        np.testing.assert_allclose(answer["T_observed"], truth, atol=1e-5)
        if calendar == "360_day":
            np.testing.assert_allclose(answer["T"], truth, atol=0.3)
    convert("later.nc", "schema.h5")
    refused = inrflow_command("evaluate", "run=run", "data.test=schema.h5", "output=c")
    assert refused.code == 2 and "counts times in days since 2001-02-01" in refused.err
