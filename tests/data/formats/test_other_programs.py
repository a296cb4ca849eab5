"""Files of other programs: GRIB by eccodes, Tecplot by meshio; what is not read is named with what to do."""

import pickle

import meshio
import numpy as np
import pytest
from grib_files import write_grib

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

NODES = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], float)
TRIANGLES = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def test_grib_goes_in_and_is_asked(tmp_path):
    values = 280 + np.random.default_rng(0).normal(size=(3, 5 * 8))
    write_grib(tmp_path / "t.grib2", values, "regular_ll_sfc_grib2", {
        "Ni": 8, "Nj": 5, "latitudeOfFirstGridPointInDegrees": 60.0, "shortName": "2t",
        "latitudeOfLastGridPointInDegrees": -60.0, "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 315.0, "iDirectionIncrementInDegrees": 45.0,
        "jDirectionIncrementInDegrees": 30.0, "bitsPerValue": 24})
    convert(tmp_path / "t.grib2", tmp_path / "t.h5")
    with TrajectoryFile(tmp_path / "t.h5") as file:
        about, frames = file.description, file.read(0)
    assert about.channels == ("t2m",) and about.units == ("K",) and about.geometry == "sphere"
    np.testing.assert_allclose(frames.u[..., 0], values, atol=1e-4)
    np.testing.assert_allclose(np.diff(frames.t) / (frames.t[1] - frames.t[0]), [1, 1])
    given = read_observations(tmp_path / "t.grib2", about)[0].frames()
    np.testing.assert_allclose(np.sort(given.u.ravel()), np.sort(values.ravel()), atol=1e-4)


def test_tecplot_goes_in_by_a_pattern(tmp_path):
    for step in range(3):
        mesh = meshio.Mesh(NODES, [("triangle", TRIANGLES)], {"p": NODES[:, 0] + step})
        meshio.tecplot.write(str(tmp_path / f"s_{step}.dat"), mesh)
    convert(str(tmp_path / "s_*.dat"), tmp_path / "s.h5")
    with TrajectoryFile(tmp_path / "s.h5") as file:
        frames = file.read(0)
        assert np.array_equal(file.cells_of(0), TRIANGLES)
    assert frames.t.tolist() == [0, 1, 2] and np.array_equal(frames.x, NODES)
    np.testing.assert_allclose(frames.u[..., 0], NODES[:, 0] + np.arange(3)[:, None])
    whole = (tmp_path / "s_1.dat").read_text()
    (tmp_path / "two.dat").write_text(whole + whole[whole.upper().index("ZONE"):])
    with pytest.raises(UserError, match="other than one zone"):
        convert(tmp_path / "two.dat", tmp_path / "two.h5")


@pytest.mark.parametrize(("start", "words"), [
    (b"#!TDV112" + bytes(20), "ASCII"), (b"C Binary" + bytes(200), "give the case"),
    (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml" + bytes(9), "as CSV"),
    (b"PK\x03\x04" + bytes(26) + b"docProps/app.xml" + bytes(9), "as CSV"),  # as pandas writes them by openpyxl
    (b"PK\x03\x04" + bytes(26) + b"u.npy" + bytes(9), "copy or write it again"), (pickle.dumps([1.5]), "numpy.savez"),
    (b'{"type": "FeatureCollection"}', "to_csv"), (b'[{"t": 0}]', "to_csv"),
])
def test_what_is_not_read_is_named_with_what_to_do(start, words, tmp_path):
    (tmp_path / "file").write_bytes(start)
    told = dict(describe(tmp_path / "file"))
    assert words in told["note"] and "not read" in told["note"] and "data.read" not in told["note"]
    with pytest.raises(UserError, match=words):
        convert(tmp_path / "file", tmp_path / "file.h5")
