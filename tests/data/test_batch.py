"""Batches of trajectories: parts of them, frames grouped by points, and symmetries that move points and turn values;
internal time."""

import numpy as np
import pytest
import torch

from inrflow.data.batch import TimeScale, TrajectoryBatch
from inrflow.data.transformations import Transformations

LAYOUTS = {"shared": (1, 1), "own points": (3, 1), "moving": (3, 4), "shared and moving": (1, 4)}


def batch(trajectory_points=1, frame_points=1, trajectories=3, frames=4, points=5, channels=2, seed=0):
    random = np.random.default_rng(seed)
    t = torch.as_tensor(np.cumsum(random.uniform(0.1, 1, (trajectories, frames)), 1))
    x = torch.as_tensor(random.standard_normal((trajectory_points, frame_points, points, 2)))
    u = torch.as_tensor(random.standard_normal((trajectories, frames, points, channels))).float()
    return TrajectoryBatch(t, x, u)


def point(one, s, k):
    """Points (N, d) of trajectory s at frame k."""
    return one.x[s if len(one.x) > 1 else 0, k if one.x.shape[1] > 1 else 0]


def test_a_frame_is_observed_where_it_has_a_time_and_a_value():
    one = batch()
    one.u[0, 1] = float("nan")
    one.u[1, 2, :, 0] = float("nan")
    one.u[2, 0, 1:] = float("nan")
    one.t[1, 3] = float("nan")
    expected = torch.ones(3, 4, dtype=torch.bool)
    expected[0, 1] = expected[1, 3] = False
    assert torch.equal(one.observed, expected)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_trajectories_begin_with_their_first_observed_frame(layout):
    one = batch(*layout)
    assert one.begun() is one
    one.u[1, :2], one.u[2, 1] = float("nan"), float("nan")
    other = one.begun()
    assert other.observed.tolist() == [[True] * 4, [True, True, False, False], [True, False, True, True]]
    for s, first in enumerate((0, 2, 0)):
        for k in range(4 - first):
            assert other.t[s, k] == one.t[s, k + first]
            torch.testing.assert_close(other.u[s, k], one.u[s, k + first], equal_nan=True)
            assert torch.equal(point(other, s, k), point(one, s, k + first))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_selections_keep_points_with_their_values(layout):
    one = batch(*layout)
    some = one.select(torch.tensor([2, 0]))
    assert len(some) == 2
    for new, old in enumerate((2, 0)):
        assert torch.equal(some.u[new], one.u[old]) and torch.equal(some.t[new], one.t[old])
        assert torch.equal(point(some, new, 3), point(one, old, 3))
    later = one.frames(slice(1, 3))
    assert torch.equal(later.u, one.u[:, 1:3]) and torch.equal(later.t, one.t[:, 1:3])
    assert torch.equal(point(later, 1, 0), point(one, 1, 1))
    assert torch.equal(one.first_frames(2).u, one.u[:, :2])
    assert torch.equal(point(one.first_frames(2), 1, 1), point(one, 1, 1))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_groups_hold_every_frame_once_with_its_points(layout):
    one = batch(*layout)
    x, u = one.groups()
    expected = {"(1, 1)": (1, 12), "(3, 1)": (3, 4), "(3, 4)": (12, 1), "(1, 4)": (12, 1)}[str(layout)]
    assert u.shape == (*expected, 5, 2) and x.shape == (expected[0], 5, 2)
    flat = u.flatten(0, 1)  # in the order of trajectories, then frames
    for s in range(3):
        for k in range(4):
            index = s * 4 + k
            assert torch.equal(flat[index], one.u[s, k])
            assert torch.equal(x[index // expected[1]], point(one, s, k))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_transformation_moves_points_and_turns_values_of_its_trajectory(layout):
    one, random = batch(*layout), np.random.default_rng(3)
    A, b, Q = random.standard_normal((3, 2, 2)), random.standard_normal((3, 2)), random.standard_normal((3, 2, 2))
    moved = Transformations(A, b, Q).moved(one)
    assert torch.equal(moved.t, one.t) and moved.u.dtype == one.u.dtype and moved.x.dtype == one.x.dtype
    for s in range(3):
        for k in range(4):
            np.testing.assert_allclose(point(moved, s, k), point(one, s, k).numpy() @ A[s].T + b[s], atol=1e-12)
            np.testing.assert_allclose(moved.u[s, k], one.u[s, k].numpy() @ Q[s].T, atol=1e-5)


def test_a_transformed_field_at_moved_points_is_the_field_where_they_came_from():
    """A quarter turn of a rotational flow, which it leaves unchanged."""
    one = batch(3, 1)
    one.u = torch.stack([-one.x[..., 1], one.x[..., 0]], -1).expand(3, 4, 5, 2).float()
    turn = np.tile([[0.0, -1.0], [1.0, 0.0]], (3, 1, 1))
    moved = Transformations(turn, np.zeros((3, 2)), turn).moved(one)
    expected = torch.stack([-moved.x[..., 1], moved.x[..., 0]], -1).expand(3, 4, 5, 2)
    torch.testing.assert_close(moved.u.double(), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(moved.x, one.x)


def test_missing_values_spread_only_to_channels_that_need_them():
    one = batch()
    one.u[0, 0, 0, 0] = float("nan")
    still, mixing = np.tile(np.eye(2), (3, 1, 1)), np.array([[[1.0, 0.0], [0.5, 1.0]], np.eye(2), np.eye(2)])
    moved = Transformations(still, np.zeros((3, 2)), mixing).moved(one)
    assert torch.isnan(moved.u).sum() == 2 and torch.isnan(moved.u[0, 0, 0]).all()
    plain = Transformations(still, np.zeros((3, 2)), still).moved(one)
    assert torch.isnan(plain.u).sum() == 1


def test_equal_steps_in_data_are_equal_in_internal_time_and_times_keep_their_gradients():
    t = torch.arange(20, dtype=torch.float64)[None] * 0.1 + 0.3
    assert len(torch.diff(t).unique()) > 1
    scale = TimeScale.of(t)
    assert len(torch.diff(scale.internal(t)).unique()) == 1
    asked = torch.tensor([0.3, 0.37123], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(scale.internal(asked).sum(), asked)
    assert torch.allclose(slope, torch.tensor(10.0, dtype=torch.float64))
    assert torch.allclose(scale.external(scale.internal(asked)), asked, rtol=0, atol=1e-9)


def test_a_time_is_not_after_its_own_internal_time() -> None:
    scale, times = TimeScale(0.1, 0.7), torch.arange(100, dtype=torch.float64) * 0.3 + 0.1
    later = torch.nextafter(times, times.new_tensor(1e9)) + 1e-6
    assert not any(scale.is_after(float(t), scale.internal(t)) for t in times)
    assert all(scale.is_after(float(t), scale.internal(one)) for t, one in zip(later, times, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_some_observed_frames_have_their_own_points_and_values(layout):
    one = batch(*LAYOUTS[layout])
    one.u[1, 2] = float("nan")
    x, u, seen = one.some_frames(7)
    assert len(u) == len(seen) == 7 and (1, 2) not in map(tuple, seen.tolist())
    for k, (s, t) in enumerate(seen.tolist()):
        torch.testing.assert_close(u[k], one.u[s, t])
        torch.testing.assert_close(x if x.dim() == 2 else x[k], point(one, s, t).float())


def test_a_mask_keeps_values_and_places_say_which_points_they_are_of():
    moving, fixed = batch(frame_points=4), batch()
    mask = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    kept, others = moving.at(mask), moving.at(~mask)
    assert torch.equal(torch.isfinite(kept.u).any(-1), torch.isfinite(moving.u).any(-1) & mask[:, :4])
    assert torch.equal(torch.where(torch.isfinite(kept.u), kept.u, others.u).nan_to_num(), moving.u.nan_to_num())
    x, known = moving.places()
    assert x.shape == (3, 4, 5, moving.x.shape[-1]) and known.shape == (3, 4, 5)
    x, known = fixed.places()
    np.testing.assert_array_equal(x, fixed.x[0, 0].double())
    assert known.all() and known.shape == (5,)


def test_later_frames_are_denser_at_early_leads():
    one = batch(frames=40)
    later, points = one.later(10, 5, 10**6)
    assert later.t[0].tolist() == one.t[0, [10, 11, 14, 22, 39]].tolist() and len(points) == 5
    # 30 ** (k / 4) frames after the tenth
    assert one.later(10, 5, 30)[0].u.shape == (3, 5, 3, 2)
