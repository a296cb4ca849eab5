"""GRIB files: damaged ones are refused, and read by a process whose end is told."""

import gc
import os
import signal
import time

import numpy as np
import pytest
from grib_files import write_grib

from inrflow.data.formats.streams import grib
from inrflow.errors import UserError

KEYS = {"Ni": 4, "Nj": 3, "latitudeOfFirstGridPointInDegrees": 20, "latitudeOfLastGridPointInDegrees": 0,
        "longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 30,
        "iDirectionIncrementInDegrees": 10, "jDirectionIncrementInDegrees": 10, "shortName": "2t"}
FIELDS = 280 + np.arange(36.0).reshape(3, 3, 4)


def written(folder, edition=2, keys=KEYS, fields=FIELDS):
    path = folder / "a.grib"
    write_grib(path, fields.reshape(len(fields), -1), f"regular_ll_sfc_grib{edition}", keys)
    return path


@pytest.mark.parametrize("edition", [1, 2])
def test_values_and_parts_of_them_are_those_of_eccodes(edition, tmp_path):
    data = grib.open_grib(written(tmp_path, edition))
    np.testing.assert_allclose(data["t2m"].values, FIELDS, rtol=1e-3)
    assert np.array_equal(data["t2m"][1:, ::-1, [3, 0]].values, data["t2m"].values[1:, ::-1, [3, 0]])
    assert data["t2m"].attrs["units"] == "K" and {"time", "latitude", "longitude", "step"} <= set(data.coords)
    data.close()


@pytest.mark.parametrize("edition", [1, 2])
def test_a_message_that_is_cut_or_longer_than_it_says_is_named(edition, tmp_path):
    path = written(tmp_path, edition)
    whole = path.read_bytes()
    last = whole.rfind(b"GRIB")
    path.write_bytes(b"\r\r\n" + whole[:last] + b"\0" * 30 + whole[last:])  # between messages anything may lie
    assert grib.open_grib(path).sizes["time"] == 3
    for damaged in (whole[:-1], whole[:-60], whole[: last + 3] + b"B" + whole[last + 4 : last + 10],
                    whole[: last + 90] + b"\0" + whole[last + 90 :]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"message at byte {last} of {len(damaged)} does not end where its length"):
            grib.open_grib(path)


def test_messages_of_2_to_the_24_bytes_of_the_first_edition_are_whole_or_cut(tmp_path):
    field = np.linspace(0, 1, 3000 * 3000).reshape(1, 3000, 3000)
    path = written(tmp_path, 1, {"Ni": 3000, "Nj": 3000, "bitsPerValue": 16}, np.repeat(field, 2, 0))
    grib._check_messages(path)
    size, last = path.stat().st_size, path.read_bytes().rfind(b"GRIB")
    assert last > 1 << 24
    os.truncate(path, size - 5)
    with pytest.raises(UserError, match=f"byte {last} of {size - 5}"):
        grib._check_messages(path)


@pytest.mark.parametrize("end", [
    lambda path: os.kill(os.getpid(), signal.SIGKILL), lambda path: [None for _ in iter(int, 1)],
    lambda path: bytearray(1 << 60)])
def test_the_end_of_the_reading_process_is_told(end, tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.setattr(grib, "_of_all_levels", end)
    monkeypatch.setattr(grib, "_SECONDS", 1)
    with pytest.raises(UserError, match=r"a\.grib cannot be read \(.*\); it is damaged"):
        grib.open_grib(path)


def test_the_reading_process_ends_with_its_data_and_with_the_process_that_began_it(tmp_path, monkeypatch):
    path, began = written(tmp_path), []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: began.append(fork()) or began[-1])
    data, other = grib.open_grib(path), grib.open_grib(path)
    data.close()
    del data, other
    gc.collect()
    for child in began:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    reading, writing = os.pipe()
    parent = fork()
    if not parent:
        grib.open_grib(path), grib.open_grib(path)
        os.write(writing, b" ".join(str(child).encode() for child in began[2:]))
        os.kill(os.getpid(), signal.SIGKILL)
    children = [int(child) for child in os.read(reading, 99).split()]
    os.waitpid(parent, 0)
    assert len(children) == 2
    deadline = time.monotonic() + 20
    while alive(children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(processes):
    """Those of some processes, of no parent here, that have not ended."""
    states = [open(f"/proc/{one}/stat").read().split()[2] for one in processes if os.path.exists(f"/proc/{one}")]
    return [state for state in states if state != "Z"]
