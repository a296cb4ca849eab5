"""Units in brackets at the end of a column's name are the channel's units; the name stays the user's."""

import numpy as np
import pytest

from inrflow.data.formats.convert import convert
from inrflow.data.formats.registry import format_for_writing
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.units import unit_in


@pytest.mark.parametrize(("name", "unit"), [
    ("NO2 [µg/m³]", "µg/m³"), ("NO2 [µg\u2215m³]", "µg/m³"), ("Temp (°C)", "°C"), ("Temp(°C)", "°C"), ("T [K]", "K"),
    ("T (K)", "K"), ("wind (m s-1)", "m s-1"), ("flux [kg m-2 s-1]", "kg m-2 s-1"), ("rain (mm/h)", "mm/h"),
    ("humidity (%)", "%"), ("rad [W m**-2]", "W m**-2"), ("flow (m^3/s)", "m^3/s"), ("rate [1/s]", "1/s"),
    ("Leitf. (µS/cm)", "µS/cm"), ("c [mg·m⁻³]", "mg·m⁻³"), ("T (deg C)", "deg C"), ("O3 (ppb)", "ppb")])
def test_known_units_are_found(name, unit):
    assert unit_in(name) == unit


@pytest.mark.parametrize("name", ["u(x)", "u(s)", "sin(2)", "CO(GT)", "PT08.S1(CO)", "T (min)", "flow (in)", "wind (N)",
                                  "u", "u [1]", "a[0]", "v (x, y)", "NO2 (raw)", "[m]", "q(m)", "T [ref]", "PM(10)"])
def test_other_words_in_brackets_are_parts_of_names(name):
    assert unit_in(name) == ""


def test_a_table_goes_in_with_its_units_and_out_with_its_header(tmp_path):
    header = "Zeit,x,NO2 [µg/m³],Temp (°C),u(x)"
    rows = [f"2024-03-01T{hour:02d}:00,{x},{hour + x},{hour},{x}" for hour in range(4) for x in (0.0, 1.0, 2.5)]
    (tmp_path / "luft.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="Zeit"):
        convert(tmp_path / "luft.csv", tmp_path / "luft.h5")
    with TrajectoryFile(tmp_path / "luft.h5") as file:
        about = file.description
    assert about.units == ("µg/m³", "°C", "")
    seen = read_observations(tmp_path / "luft.csv", about)[0].frames()
    assert np.array_equal(seen.u[:, :, 1], np.arange(4.0)[:, None] + np.zeros(3))
    answer = tmp_path / "answer.csv"
    writer = format_for_writing(answer).open_writer(answer, about, False)
    writer.append({name: np.zeros(1) for name in about.channels}, None)
    writer.close()
    assert answer.read_text(encoding="utf-8").splitlines()[0] == header.removeprefix("Zeit,x,")
