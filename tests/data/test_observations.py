"""Observations: every accepted shape gives the same frames; what does not fit is named."""

import numpy as np
import pytest
import torch
from small_data import field

from inrflow.data.observations import Observations
from inrflow.errors import UserError

T, X, U = field(1, 4, 6)
U = U[0]


def rows():
    return np.repeat(T, 6), np.tile(X, (4, 1)), U.reshape(24, 2)


def assert_whole_field(observations):
    frames = observations.frames()
    np.testing.assert_array_equal(frames.t, T)
    np.testing.assert_array_equal(frames.x, X)
    np.testing.assert_array_equal(frames.u, U)
    assert frames.t.dtype == frames.x.dtype == np.float64 and frames.u.dtype == np.float32


def test_frames_rows_and_moving_points_are_the_same_field():
    for given in ((T, X, U), rows(), (T, np.tile(X, (4, 1, 1)), U)):
        frames = Observations(*given).frames()
        np.testing.assert_array_equal(frames.t, T)
        np.testing.assert_array_equal(np.broadcast_to(frames.x, (4, 6, 2)), np.tile(X, (4, 1, 1)))
        np.testing.assert_array_equal(frames.u, U)
    assert_whole_field(Observations(T, X, U))
    assert_whole_field(Observations(*rows()))


def test_order_of_rows_and_frames_does_not_matter():
    order = np.random.default_rng(0).permutation(4)
    assert_whole_field(Observations(T[order], X, U[order]))
    t, x, u = rows()
    by_time = np.argsort(-t, kind="stable")
    assert_whole_field(Observations(t[by_time], x[by_time], u[by_time]))


def test_one_frame_and_one_channel_may_leave_out_their_axes():
    for t, u in ((0.5, U[0]), (np.array([0.5]), U[0]), (0.5, U[:1]), (torch.tensor(0.5), U[0].tolist())):
        frames = Observations(t, X, u).frames()
        assert frames.t.tolist() == [0.5]
        np.testing.assert_array_equal(frames.u, U[:1])
    for given in ((0.5, X, U[0, :, 0]), (T, X, U[..., 0]), (np.repeat(T, 6), np.tile(X, (4, 1)), U[..., 0].ravel())):
        assert Observations(*given).channels == 1
        np.testing.assert_array_equal(Observations(*given).frames().u[0, :, 0], U[0, :, 0])


def test_remembers_numpy_or_torch():
    assert Observations(T, X, U).kind == "numpy" and Observations(T, X, U).device is None
    observations = Observations(torch.tensor(T), torch.tensor(X), torch.tensor(U, requires_grad=True))
    assert observations.kind == "torch" and observations.device == torch.device("cpu")
    assert_whole_field(observations)


def test_frames_of_different_sizes_are_padded():
    t, x, u = rows()
    keep = np.ones(24, bool)
    keep[[6, 7, 13]] = False
    frames = Observations(t[keep], x[keep], u[keep]).frames()
    assert frames.moving and frames.u.shape == (4, 6, 2) and np.isfinite(frames.x).all()
    assert (~np.isnan(frames.u)).all(-1).sum(1).tolist() == [6, 4, 5, 6]
    np.testing.assert_array_equal(frames.u[1, :4], U[1, 2:])
    np.testing.assert_array_equal(frames.x[1, 4:], X[[2, 2]])  # padding repeats a point of the frame


def test_rows_and_points_without_any_value_are_dropped_and_partial_ones_kept():
    t, x, u = (value.copy() for value in rows())
    u[3] = np.nan
    u[4, 0] = np.nan
    x[3] = np.nan  # the place of nothing
    observations = Observations(t, x, u)
    assert len(observations) == 23
    assert np.isnan(observations.frames().u[0]).any(-1).sum() == 2  # the partial row and the padding
    holes = U.copy()
    holes[:, 2] = np.nan
    holes[3] = np.nan
    frames = Observations(T, X, holes).frames()
    np.testing.assert_array_equal(frames.x, np.delete(X, 2, 0))
    np.testing.assert_array_equal(frames.u, np.delete(U[:3], 2, 1))


def test_frames_of_one_time_are_joined():
    frames = Observations(np.array([1.0, 0.0, 1.0]), X, U[:3]).frames()
    assert frames.t.tolist() == [0.0, 1.0] and frames.u.shape == (2, 12, 2)
    assert np.isnan(frames.u[0]).all(-1).sum() == 6
    np.testing.assert_array_equal(frames.u[1], np.concatenate([U[0], U[2]]))


def test_a_square_u_is_rows():
    frames = Observations(np.zeros(2), X[:2], U[0, :2]).frames()
    np.testing.assert_array_equal(frames.u, U[:1, :2])
    assert Observations(np.arange(2.0), X[:2], U[:2, :2, :1]).channels == 1


@pytest.mark.parametrize("given, words", [
    ((T[:3], X, U), "expected rows"),
    ((T, X[:, 0], U), "expected rows"),
    ((T[:, None], X, U), "expected rows"),
    ((np.tile(T, 6), X, U), "expected rows"),
    ((T, np.tile(X, (3, 1, 1)), U), "expected rows"),
    ((np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2))), "empty"),
    ((T, X, np.full_like(U, np.nan)), "every u is NaN"),
    ((T, X, np.where(U > 1, np.inf, U)), "infinities"),
    ((np.where(T > 1, np.nan, T), X, U), "times"),
    ((T, np.where(X > 0.5, np.nan, X), U), "coordinates"),
    ((T, X, [["a"]]), "numbers"),
])
def test_what_does_not_fit_is_named(given, words):
    with pytest.raises(UserError, match=words):
        Observations(*given)


def test_later_observations_are_added_to_places_and_replace_those_of_the_same_time():
    x = np.array([[0.0], [1.0], [2.0]])
    ours = Observations([0.0, 1.0], x, np.arange(6.0).reshape(2, 3, 1))
    rows = [2.0, 1.0, 2.0, 1.0], [[1.0], [0.0], [3.0], [1.0]], [[7.0], [9.0], [8.0], [np.nan]]
    frames = ours.with_later(Observations(*rows)).frames()
    assert frames.x[:, 0].tolist() == [0, 1, 2, 3] and frames.t.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(frames.u[..., 0], [[0, 1, 2, np.nan], [9, 4, 5, np.nan], [np.nan, 7, np.nan, 8]])
    moving = Observations(*rows).with_later(Observations([2.0], [[1.0]], [[5.0]]))
    assert moving.frames().moving and sorted(moving.frames().rows()[2][:, 0].tolist()) == [5.0, 8.0, 9.0]
    with pytest.raises(UserError, match="of 2 channels"):
        ours.with_later(Observations([0.0], [[1.0]], [[1.0, 2.0]]))
