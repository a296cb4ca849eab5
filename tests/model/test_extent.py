"""Where a query leaves the training data."""

import warnings

import numpy as np
import pytest

from inrflow.data.description import Description
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.domains.sphere import Sphere
from inrflow.errors import UserError
from inrflow.model.extent import Extent, Seen

ON_SPHERE = Description("air", ("T",), ("x", "y", "z"), geometry="sphere")


def band(count, south, north):
    random = np.random.default_rng(count)
    height = random.uniform(*np.sin(np.radians([south, north])), count)
    return lonlat_to_xyz(random.uniform(0, 360, count), np.degrees(np.arcsin(height)))


def test_off_the_band_in_which_a_sphere_was_seen_points_are_outside_with_and_without_a_law():
    seen = Seen.from_state(Seen.of(band(500, -15, 15)).state())
    asked = lonlat_to_xyz(np.array([20.0, 20.0, 130.0, 20.0]), np.array([5.0, 30.0, -14.0, -90.0]))
    for domain in (None, Sphere()):
        extent = Extent(ON_SPHERE, np.array([[-1.0] * 3, [1.0] * 3]), 1.0, domain=domain, seen=seen)
        assert extent.outside(asked).tolist() == [False, True, False, True]
        assert not extent.outside(band(5000, -15, 15)).any()


def test_many_places_are_stood_for_by_some_and_nothing_between_them_is_outside():
    seen = Seen.of(band(20_000, -90, 90))
    assert len(seen.places) == 1000 and not seen.away(band(5000, -90, 90)).any()


def test_coordinates_of_another_unit_are_told_where_a_period_hides_them_and_huge_ones_are_refused():
    extent = Extent(Description("ring", ("u",), ("s", "y"), period=(2.0, 0.0)), np.array([[0.0, 0.0], [1.9, 1.0]]), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extent.check_places(np.array([[-1.9, 0.5], [3.8, 70.0], [np.nan, np.nan]]))  # -180 to 180 for 0 to 360
    with pytest.warns(UserWarning, match=r"s reaches from 0 to 1900, more than a period \(2\)"):
        extent.check_places(np.array([[0.0, 0.5], [1900.0, 0.5]]))
    with pytest.raises(UserError, match=r"reach 1e\+300"):
        extent.check_places(np.array([[0.0, 0.0], [0.0, -1e300]]))
