"""From files as users have them to answers: a pattern of NetCDF files in, a report, a moved question, NetCDF out."""

import json

import numpy as np
import xarray

from inrflow.commands.run_directory import EVALUATION_FILE


def write_months(folder):
    x = np.arange(16) / 16
    for month in range(2):
        hours = np.arange(month * 20, month * 20 + 20)
        values = np.sin(2 * np.pi * (x[None] - hours[:, None] / 20)) + 280
        times = np.datetime64("2020-01-01", "ns") + hours * np.timedelta64(1, "h")
        data = xarray.Dataset({"T": (("time", "x"), values.astype(np.float32))}, {"time": times, "x": x})
        data["time"].encoding["units"] = f"hours since {times[0]}"
        data.to_netcdf(folder / f"month{month}.nc")


def test_a_pattern_of_files_is_trained_on_and_reported_and_answered_in_its_form(elsewhere, inrflow_command):
    write_months(elsewhere)
    trained = inrflow_command("train", "data.train=month*.nc", "data.read.period=[1]", "training.minutes=0.1",
                              "output=run")
    assert trained.code == 0, trained.err
    assert "2 files of NetCDF" in trained.err and "data that the model has seen" in trained.err.replace("\n", " ")
    report = json.loads((elsewhere / "run" / EVALUATION_FILE).read_text())
    assert report["in_sample"] and (elsewhere / "run" / "forecast_T.png").exists()
    tested = inrflow_command("evaluate", "run=run", "data.test=month1.nc", "output=report")  # read as the run says
    assert tested.code == 0 and not json.loads((elsewhere / "report" / EVALUATION_FILE).read_text())["in_sample"]
    asked = inrflow_command("query", "run=run", "observations=month0.nc", "points=month1.nc", "to=answer.nc")
    assert asked.code == 0, asked.err
    with xarray.open_dataset(elsewhere / "answer.nc") as answer:
        assert answer["T"].dims == ("time", "x")
        np.testing.assert_allclose(answer["T"], answer["T_observed"], atol=0.2)
