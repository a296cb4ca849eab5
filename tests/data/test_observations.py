"""Observations: every accepted shape gives the same frames; what does not fit is named."""

import numpy as np
import pandas
import pytest
import torch
import xarray
from small_data import field

from inrflow.data.description import Description
from inrflow.data.observations import Observations, window_of
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
    grid = X.reshape(2, 3, 2)
    assert_whole_field(Observations(T, grid, U.reshape(4, 2, 3, 2)))
    assert Observations(T, grid, U.reshape(4, 2, 3, 2)[..., 0]).channels == 1
    np.testing.assert_array_equal(Observations(0.0, grid, U[0].reshape(2, 3, 2)).frames().u, U[:1])


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
    frames = ours.updated_with(Observations(*rows)).frames()
    assert frames.x[:, 0].tolist() == [0, 1, 2, 3] and frames.t.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(frames.u[..., 0], [[0, 1, 2, np.nan], [9, 4, 5, np.nan], [np.nan, 7, np.nan, 8]])
    moving = Observations(*rows).updated_with(Observations([2.0], [[1.0]], [[5.0]]))
    assert moving.frames().moving and sorted(moving.frames().rows()[2][:, 0].tolist()) == [5.0, 8.0, 9.0]
    with pytest.raises(UserError, match="of 2 channels"):
        ours.updated_with(Observations([0.0], [[1.0]], [[1.0, 2.0]]))


def test_tables_and_datasets_of_any_names_are_the_observations_of_their_arrays():
    times, x = pandas.date_range("2020-01-01", periods=3, freq="6h"), np.array([[10.0, 50.0], [20.0, -30.0]])
    u = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    u[1, 1] = np.nan
    expected = Observations(times.to_numpy(), x, u).frames()
    table = pandas.DataFrame({"when": np.repeat(times, 2), "E": np.tile(x[:, 0], 3), "N": np.tile(x[:, 1], 3),
                              "a": u[..., 0].ravel(), "b": u[..., 1].ravel(), "remark": "x"})
    texts = table.assign(when=table["when"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    zoned = table.assign(when=table["when"].dt.tz_localize("UTC").dt.tz_convert("Europe/Helsinki"))
    data = xarray.Dataset({"a": (("when", "site"), u[..., 0]), "b": (("when", "site"), u[..., 1])},
                          {"when": times, "E": ("site", x[:, 0]), "N": ("site", x[:, 1])})
    names = ["a", "b"], ["E", "N"], "when"
    for made in (*(Observations.from_dataframe(one, *names) for one in (table, texts, zoned)),
                 Observations.from_xarray(data, *names)):
        assert made.time_units == "hours since 1970-01-01"
        t, places, values = made.frames().rows()
        for found, known in zip((t, places, values), expected.rows(), strict=True):
            np.testing.assert_array_equal(found, known)
    numbers = Observations.from_dataframe(table.assign(when=np.repeat([0.0, 6.0, 12.0], 2)), *names)
    assert numbers.time_units is None and numbers.frames().t.tolist() == [0, 6, 12]


def test_columns_that_are_missing_or_hold_other_things_are_named():
    table = pandas.DataFrame({"t": ["soon"], "x": [0.0], "u": ["1"]})
    for made, words in (
        (lambda: Observations.from_dataframe(table, ["v"], ["x"], "t"), "no column v, but t, x, u"),
        (lambda: Observations.from_dataframe(table, "u", ["x"], "t"), "give lists"),
        (lambda: Observations.from_dataframe(table, ["u"], ["x"], "t"), "times hold 'soon', which is not an ISO date"),
        (lambda: Observations.from_dataframe(table.assign(t=0, u="a"), ["u"], ["x"], "t"), "array of numbers"),
        (lambda: Observations.from_xarray(xarray.Dataset({"u": ("x", [1.0])}), ["u"], ["x"]), "has no time, x, but u"),
    ):
        with pytest.raises(UserError, match=words):
            made()


def test_long_windows_of_one_place_keep_their_frames_where_states_are_known_at_steps_alone():
    hours = np.arange(900.0)
    about = Description("air", ("temperature",), ("x",))
    observed = Observations(hours, np.zeros((1, 1)), np.sin(hours)[:, None, None])
    window = window_of(observed, about, 1.0, in_steps=True)
    assert window.delay is None and window.t.shape == (1, 900)
    torch.testing.assert_close(window.u[0, :, 0, 0], torch.as_tensor(np.sin(hours)).float())
    assert window_of(observed, about, 1.0).t.shape == (1, 400)
