"""Embedded places, and how far points lie beyond the box of those of the data."""

import numpy as np
import pytest
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Conditioned, ResidualField, Rows
from inrflow.encoding.residual.places import Places, ranks_of_places, recurring

LINE_AND_CIRCLE = Places.of((0.0, 2.0), False, np.array([[1.0, 0.0], [5.0, 1.9]]))
KILOMETRES = Places.of((0.0, 0.0), False, np.array([[0.0, 0.0], [100.0, 2.0]]))


@pytest.mark.parametrize(("places", "point", "extents"), [
    (LINE_AND_CIRCLE, [3.0, 7.0], 0.0), (LINE_AND_CIRCLE, [7.0, 7.0], 0.5), (LINE_AND_CIRCLE, [-7.0, 0.3], 2.0),
    (KILOMETRES, [100.0, 2.0], 0.0), (KILOMETRES, [150.0, 6.0], (0.25 + 4) ** 0.5),
])
def test_points_lie_so_many_extents_beyond_the_places(places, point, extents):
    assert places.beyond(places(np.array(point))) == pytest.approx(extents**2, abs=1e-12)


def test_points_around_a_region_of_a_sphere_lie_beyond_it():
    angle = np.radians([[5, 45], [15, 45], [5, 52], [15, 52], [10, 48], [45, 48]])
    x = np.stack([np.cos(angle[:, 1]) * np.cos(angle[:, 0]), np.cos(angle[:, 1]) * np.sin(angle[:, 0]),
                  np.sin(angle[:, 1])], 1)
    places = Places.of((0.0, 0.0, 0.0), True, np.stack([x[:5].min(0), x[:5].max(0)]))
    beyond = places.beyond(places(x))
    assert (beyond[:5] == 0).all() and 3 < beyond[5] < 20  # three and a half regions to the east
    whole = Places.of((0.0, 0.0, 0.0), True, np.array([[-1.0, -1, -1], [1, 1, 1]]))
    assert (whole.beyond(whole(x)) == 0).all()


def test_deviations_grow_with_the_distance_from_all_places_of_training():
    covariance = Covariance.of(Form((1.5,), 0.5, (0, 1), (True, True)), [0.1, 1.0], [9.0, 9.0], 0.1, [[0.3, 0.3]])
    x = np.random.default_rng(0).uniform(0, 1, (20, 2))
    places = Places.of((0.0, 0.0), False, np.array([[0.0, 0.0], [1.0, 1.0]]))
    rows = Rows(np.zeros(20), x, np.random.default_rng(1).standard_normal((20, 1)), np.arange(20))
    known = Conditioned(ResidualField(places, (ChannelField(covariance),)), rows, np.zeros((20, 1)),
                        lambda t, x: torch.zeros(len(t), len(x), 1))
    asked = np.array([[0.5, 0.5], [1.0, 1.0], [3.0, 0.5], [9.0, 9.0]])
    mean, variance = known.own(0, np.zeros(4), asked)
    boundless = ResidualField(Places((0.0, 0.0), False, places.origin, places.unit), known.field.channels)
    usual = Conditioned(boundless, rows, np.zeros((20, 1)), lambda t, x: torch.zeros(len(t), len(x), 1)).own(
        0, np.zeros(4), asked)
    assert mean == pytest.approx(usual[0], abs=1e-12)
    assert variance - usual[1] == pytest.approx(torch.tensor([0, 0, 4.0, 128.0]).double() * 1.2, abs=1e-6)


def test_points_of_a_profile_are_of_one_place_and_those_of_sensors_that_move_of_none():
    random = np.random.default_rng(0)
    casts = np.repeat(random.uniform(size=(30, 2)), 8, 0)  # at new places each time, depths that do not recur
    profiles = np.column_stack([casts, random.uniform(0, 500, len(casts))])
    found = recurring(profiles)
    assert found is not None
    np.testing.assert_array_equal(found.reshape(30, 8), np.repeat(found[::8, None], 8, 1))
    assert len(np.unique(found)) == 30
    assert recurring(random.uniform(size=(240, 3))) is None
    line = np.repeat(random.uniform(size=(30, 1)), 8, 0)  # in the plane, one coordinate in common is no column
    assert recurring(np.column_stack([line, random.uniform(size=240)])) is None
    stations = np.tile(random.uniform(size=(8, 3)), (30, 1))
    np.testing.assert_array_equal(recurring(stations), np.tile(recurring(stations[:8].repeat(2, 0))[::2], 30))


def test_sensors_in_a_column_are_of_one_place_and_those_of_a_lattice_are_not():
    random = np.random.default_rng(0)
    probes = np.column_stack([random.uniform(size=(20, 2)).repeat(4, 0), np.tile([0.1, 0.2, 0.5, 1.0], 20)])
    for x in (probes, np.tile(probes, (50, 1))):  # at one time, and at many
        found = recurring(x)
        assert found is not None and len(np.unique(found)) == 20
        assert (found.reshape(-1, 4) == found[::4, None]).all()
    lattice = np.stack(np.meshgrid(*3 * [np.arange(5.0)], indexing="ij"), -1).reshape(-1, 3)
    assert recurring(lattice) is None
    assert len(np.unique(recurring(np.tile(lattice, (4, 1))))) == 125
    angle = np.radians(np.stack(np.meshgrid(np.arange(0, 360, 10), [-4, -2, 2, 4]), -1).reshape(-1, 2))
    globe = np.stack([np.cos(angle[:, 1]) * np.cos(angle[:, 0]), np.cos(angle[:, 1]) * np.sin(angle[:, 0]),
                      np.sin(angle[:, 1])], 1)
    assert recurring(globe) is None


def test_ranks_leave_out_whole_profiles():
    random = np.random.default_rng(1)
    casts = random.uniform(size=(12, 1, 2)).repeat(6, 1)
    x = np.concatenate([casts, random.uniform(size=(12, 6, 1))], 2)
    known = random.uniform(size=(12, 6)) < 0.8
    ranks = ranks_of_places(x, known, 0)
    assert sorted({tuple(set(rank[some].tolist())) for rank, some in zip(ranks, known, strict=True)}) == [
        (k,) for k in range(12)]
    scattered = ranks_of_places(random.uniform(size=(12, 6, 3)), known, 0)
    assert sorted(scattered.tolist()) == list(range(6))  # by index
