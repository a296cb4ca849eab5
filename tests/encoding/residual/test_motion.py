"""Velocities of fields that move as a whole, against those that made fields were carried with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Conditioned, ResidualField, Rows
from inrflow.encoding.residual.motion import common_velocity, displacement_path
from inrflow.encoding.residual.neighbours import Sites, krige
from inrflow.encoding.residual.places import Places

VELOCITY = np.array([0.05, -0.08])


def waves(t: np.ndarray, x: np.ndarray, velocity: np.ndarray, seed: int = 0) -> np.ndarray:
    """A sum of plane waves (R,) of lengths .3 to 1, carried with a velocity (d,)."""
    random = np.random.default_rng(seed)
    k = random.standard_normal((30, x.shape[1])) * 8
    phases = (x - t[:, None] * velocity) @ k.T + random.uniform(0, 2 * np.pi, 30)
    return np.cos(phases).sum(1) / np.sqrt(15)


def rows(frames: list[int], velocity: np.ndarray, moving_points: bool = False) -> tuple[np.ndarray, ...]:
    """Times, places and values of 400 random places in each frame."""
    random = np.random.default_rng(1)
    x = random.random((400, len(velocity)))
    parts = [random.random(x.shape) if moving_points else x for _ in frames]
    t, every = np.repeat(np.array(frames, float), len(x)), np.concatenate(parts)
    value = waves(t, every, velocity) + 0.05 * random.standard_normal(len(t))
    return t, every, value


@pytest.mark.parametrize("moving_points", (False, True))
def test_the_velocity_of_a_carried_field_is_found(moving_points: bool) -> None:
    found = common_velocity(*rows(list(range(8)), VELOCITY, moving_points), (True, True))
    assert found is not None and np.abs(found - VELOCITY).max() < 0.006


def test_along_a_line_and_with_a_gap() -> None:
    found = common_velocity(*rows([0, 1, 2, 5, 6, 7], np.array([0.01])), (True,))
    assert found is not None and abs(found[0] - 0.01) < 0.001


def test_fields_that_do_not_move_have_none() -> None:
    assert common_velocity(*rows(list(range(8)), np.zeros(2)), (True, True)) is None
    t, x, value = rows(list(range(8)), VELOCITY)
    random = np.random.default_rng(2)
    assert common_velocity(t, x, random.standard_normal(len(t)), (True, True)) is None  # noise
    few = x[:, 0] < 0.2
    assert common_velocity(t[few], x[few], value[few], (True, True)) is None  # few places
    assert common_velocity(t, x, value, (False, False)) is None  # on circles


def test_hidden_frames_are_told_by_what_moves_through_them() -> None:
    t, x, value = rows([0, 1, 2, 3, 6, 7, 8, 9], VELOCITY)
    found = common_velocity(t, x, value, (True, True))
    observed = Rows(t, x, value[:, None], np.tile(np.arange(400), 8))
    asked = x[:400][((x[:400] > 0.25) & (x[:400] < 0.75)).all(1)]
    when, errors = np.full(len(asked), 4.5), []
    for velocity in (found, []):
        form = Form((1.5, 1.5), 0.5, (0, 0), (True, True), drift=len(velocity) > 0)
        both = Covariance.of(form, [0.01, 1.0, 0.1], [50.0, 50.0, 5.0], 0.01, [[0.3], [0.1]], list(velocity))
        field = ResidualField(Places((0.0, 0.0)), (ChannelField(both.rigid()),))
        given = Conditioned(field, observed, np.zeros((len(t), 1)), lambda t, x: torch.empty(0))
        errors.append(np.mean((given.own(0, when, asked)[0].numpy() - waves(when, asked, VELOCITY)) ** 2))
    assert errors[0] < 0.2 * errors[1]


def freshening(frames: list[int]) -> tuple[np.ndarray, ...]:
    """Times, places, values and displacements of waves that accelerate from 0 to twice the velocity in 16 steps."""
    t, x, _ = rows(frames, VELOCITY)
    moved = t[:, None] ** 2 / 16 * VELOCITY
    return t, x, waves(np.ones(len(t)), x - moved + VELOCITY, VELOCITY), moved


def test_the_path_of_what_freshens_is_found_beside_its_common_velocity() -> None:
    t, x, value, moved = freshening([*range(7), *range(9, 17)])
    found = displacement_path(VELOCITY, t, x, value, (True, True))
    assert np.array_equal(found[:, 0], np.unique(t))
    away = found[:, 1:] + found[:, :1] * VELOCITY - moved[::400]
    assert np.abs(away).max() < 0.06 < 0.2 * np.abs(moved[::400] - found[:, :1] * VELOCITY).max()
    few = np.isin(np.arange(len(t)) % 400, np.arange(50))
    assert not len(displacement_path(VELOCITY, t[few], x[few], value[few], (True, True)))


def test_hidden_frames_of_what_freshens_are_told_along_its_path() -> None:
    t, x, value, _ = freshening([*range(12), *range(14, 17)])
    hidden, _, truth, _ = freshening([12, 13])
    inside = ((x[:400] > 0.25) & (x[:400] < 0.75)).all(1)
    covariance = Covariance.of(Form((1.5,), 1.5, (0, 1), (True, True), drift=True), [1e-3, 1.0], [9.0, 30.0], 1e-3,
                               [[0.3, 0.3]], VELOCITY.tolist())
    channel = ChannelField(covariance)
    observed = Rows(t, x, value[:, None], np.tile(np.arange(400), 15))
    one = Conditioned(ResidualField(Places((0.0, 0.0)), (channel,)), observed, np.zeros((len(t), 1)),
                      lambda t, x: torch.zeros(len(t), len(x), 1))
    given = one.own(0, hidden, np.tile(x[:400], (2, 1)))[0].numpy()
    straight = krige(Sites(t, x, covariance), torch.as_tensor(value), hidden, np.tile(x[:400], (2, 1)))[0].numpy()
    missed, otherwise = (np.mean((one - truth)[np.tile(inside, 2)] ** 2) for one in (given, straight))
    assert missed < 0.02 * truth.var() and missed < 0.3 * otherwise
