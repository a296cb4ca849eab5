"""Numbers that stand for missing values are told from values, and are not values where a table is read."""

import warnings

import numpy as np
import pytest

from inrflow.data.batch import Markers, blanked
from inrflow.data.formats.trajectory_file import TrajectoryFile

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("marker", [-9999, -999.9, 9999, -99, 1e20, -32768, 9.96921e36])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_conventional_number_far_from_all_values_is_a_marker(marker, kind):
    u = RNG.normal(280, 10, (40, 6, 2)).astype(kind)
    u[7:9, 2, 1] = marker
    markers = Markers(("a", "b")).look(u)
    assert list(markers.found) == [1] and markers.found[1] == pytest.approx([marker], rel=1e-6)
    with pytest.warns(UserWarning, match="2 of 240 values of b are .* they are taken as missing"):
        kept = blanked(u, markers.fill_values("here"))
    assert np.isnan(kept).sum() == 2 and np.isnan(kept[7:9, 2, 1]).all() and np.isfinite(u).all()


@pytest.mark.parametrize("values", [
    RNG.uniform(990, 1030, 50).round(), np.append(RNG.normal(0, 400, 50), 999.0), np.append(RNG.normal(0, 1, 50), 50.0),
    np.array([1012.1, 1012.3, 1011.9, 999.0]), np.append(np.zeros(50), -9999.0), np.full(9, 9999.0), np.full(3, np.nan),
], ids=["pressure", "within reach", "no convention", "a pressure", "nothing else varies", "constant", "nothing"])
def test_other_values_are_no_markers(values):
    u = values[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert blanked(u, Markers(("a",)).look(u).fill_values("here")) is u


def test_blocks_tell_what_the_whole_does_and_several_numbers_may_stand_for_missing_values():
    u = RNG.normal(280, 10, (40, 6, 1))
    u[3, 2], u[30, 1] = -9999, 9999
    blocks = Markers(("a",))
    for block in np.array_split(u, 7):
        blocks.look(block)
    assert sorted(blocks.found[0]) == sorted(Markers(("a",)).look(u).found[0]) == [-9999, 9999]
    with pytest.warns(UserWarning, match="2 of 240 values of a are"):
        assert np.isnan(blanked(u, blocks.fill_values("here"))).sum() == 2


def test_a_day_of_markers_in_a_table_is_missing_and_does_not_reach_the_hours_around_it(tmp_path):
    from inrflow.data.formats.convert import convert

    hours, rows = np.arange(72), ["time,x,y,temp"]
    for place in range(4):
        values = 10 + place + np.sin(hours / 4)
        if place == 2:
            values[24:48] = -9999
        rows += [f"{h + 0.01 * (h % 3):.2f},{place},{place % 2},{v:.3f}" for h, v in zip(hours, values, strict=True)]
    (tmp_path / "hours.csv").write_text("\n".join(rows))
    with pytest.warns(UserWarning, match="24 of 288 values of temp are -9999, where all others lie between"):
        convert(tmp_path / "hours.csv", tmp_path / "hours.h5")
    with TrajectoryFile(tmp_path / "hours.h5") as file:
        u = file.read(0).u
    assert np.nanmin(u) > 8 and 22 <= np.isnan(u).sum() <= 26
