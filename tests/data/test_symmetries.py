"""Symmetries: names, closed forms of the sampled group elements, missing values, storage and mistakes."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inrflow.data.description import Description, Symmetries
from inrflow.data.transformations import Augmentation, Transformations
from inrflow.errors import UserError

PLANE = Description("plane", ("u", "v"), ("x", "y"), period=(2.0, 0.0))
SPHERE = Description("globe", ("sst",), ("x", "y", "z"), geometry="sphere")


def declared(generators=(), maps=(), turning=None, turned=None, d=2, channels=2):
    generators, maps = np.array(generators, float).reshape(-1, d, d + 1), np.array(maps, float).reshape(-1, d, d + 1)
    turning = np.zeros((len(generators), channels, channels)) if turning is None else np.array(turning, float)
    turned = np.tile(np.eye(channels), (len(maps), 1, 1)) if turned is None else np.array(turned, float)
    return Symmetries(generators, turning, maps, turned)


def test_names_are_inferred_from_the_arrays():
    rotation = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    screw = [[0, -1, -2, 0], [1, 0, 0, 0], [2, 0, 0, 0]]
    assert declared([rotation, screw], d=3).names == ("rotation_z", "generator_1")
    found = declared([[[0, 0, 3], [0, 0, 0]], [[0, 0, 1], [0, 0, -1]], [[0, 1, 0], [0, 0, 0]]],
                     [[[-1, 0, 1], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]], [[-1, 0, 0], [0, -1, 0]]])
    assert found.names == ("translation_x", "translation_xy", "generator_2", "reflection_x", "exchange_xy", "map_2")


def test_equal_names_are_told_apart():
    twice = declared(maps=[[[-1, 0, 0], [0, 1, 0]], [[-1, 0, 1], [0, 1, 0]]])
    assert len(set(twice.names)) == 2 and all(name.startswith("reflection_x") for name in twice.names)


def test_by_name_makes_the_arrays():
    found = Symmetries.by_name(["translation", "reflection"], PLANE, box=np.array([[0.0, 1.0], [2.0, 4.0]]))
    assert found.names == ("translation_x", "translation_y", "reflection_x", "reflection_y")
    np.testing.assert_array_equal(found.generators, [[[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]])
    # About the origin where periodic (x), about the middle of the box where not (y).
    np.testing.assert_array_equal(found.maps, [[[-1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, -1, 5]]])
    assert Symmetries.by_name("rotation_z", SPHERE).names == ("rotation_z",)
    cube = Description("cube", ("u",), ("x", "y", "z"), period=(1.0, 1.0, 2.0))
    assert Symmetries.by_name("exchange", cube).names == ("exchange_xy",)


@pytest.mark.parametrize("name, description", [("turning", PLANE), ("rotation_z", PLANE), ("translation", SPHERE),
                                               ("exchange", SPHERE), ("exchange", PLANE)])
def test_by_name_refuses_what_the_domain_cannot_have(name, description):
    with pytest.raises(UserError, match=name):
        Symmetries.by_name([name], description)


def test_only_and_without_take_labels_and_families():
    found = Symmetries.by_name(["translation", "reflection"], PLANE)
    assert found.only("reflection").names == ("reflection_x", "reflection_y")
    assert found.only(["translation_y", "reflection_x"]).names == ("translation_y", "reflection_x")
    assert found.without("translation").names == ("reflection_x", "reflection_y")
    assert found.without("reflection_x").without("translation").maps[0].tolist() == [[1, 0, 0], [0, -1, 0]]
    assert len(found.without(["translation", "reflection"])) == 0
    with pytest.raises(UserError, match="exchange.*translation_x"):
        found.only("exchange")


def test_storage_as_json_gives_the_same_back():
    for symmetries in (Symmetries.by_name(["translation", "reflection"], PLANE), Symmetries.empty(3, 1)):
        assert Symmetries.from_dict(json.loads(json.dumps(symmetries.to_dict()))) == symmetries
    assert Symmetries.empty(2, 2) != Symmetries.by_name("reflection", PLANE)


@pytest.mark.parametrize("arrays", [
    (np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2))),
    (np.zeros((1, 2, 3)), np.zeros((2, 2, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2))),
    (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2))),
    (np.zeros((2, 3)), np.zeros((1, 2, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2))),
    (np.full((1, 2, 3), np.nan), np.zeros((1, 2, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2))),
    (np.zeros((0, 2, 3)), np.zeros((0, 2, 2)), np.zeros((1, 2, 3)), np.zeros((1, 2, 2))),
])
def test_wrong_arrays_are_refused(arrays):
    with pytest.raises(UserError, match="symmetries/"):
        Symmetries(*arrays)


def test_translations_cover_the_period_or_a_tenth_of_the_extent():
    translations = Symmetries.by_name("translation", PLANE)
    found = Augmentation(translations, [2.0, 5.0], PLANE.period).sample(np.random.default_rng(0), 4000)
    np.testing.assert_array_equal(found.A, np.broadcast_to(np.eye(2), (4000, 2, 2)))
    assert 0 <= found.b[:, 0].min() < 0.01 and 1.99 < found.b[:, 0].max() <= 2.0
    assert -0.5 <= found.b[:, 1].min() < -0.49 and 0.49 < found.b[:, 1].max() <= 0.5
    assert abs(found.b[:, 0].mean() - 1.0) < 0.05 and abs(found.b[:, 0].std() - 2.0 / np.sqrt(12)) < 0.02


def test_a_rotation_turns_points_and_vectors_by_the_same_full_range_of_angles():
    turn = [[0.0, -1.0], [1.0, 0.0]]
    vectors = declared([[[0, -1, 0], [1, 0, 0]]], turning=[turn])
    assert vectors.names == ("rotation_xy",)
    found = Augmentation(vectors, 1.0).sample(np.random.default_rng(1), 500)
    np.testing.assert_allclose(found.A, found.Q, atol=1e-12)
    angle = np.arctan2(found.A[:, 1, 0], found.A[:, 0, 0])
    closed = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], 1)
    np.testing.assert_allclose(found.A, closed, atol=1e-12)
    assert angle.min() < -3.0 and angle.max() > 3.0
    np.testing.assert_array_equal(found.b, 0.0)


def test_a_general_generator_is_exponentiated():
    generator = np.array([[0.3, 1.0, 0.5], [0.0, -0.2, 0.1]])
    found = Augmentation(declared([generator]), 1.0).sample(np.random.default_rng(2), 20)
    low, high = found.A[:, 0, 0].argmin(), found.A[:, 0, 0].argmax()
    for index in (low, high):
        s = np.log(found.A[index, 0, 0]) / 0.3
        assert abs(s) <= 0.1 / np.linalg.norm(generator[:, :2], 2) + 1e-12
        expected = expm(s * np.vstack([generator, np.zeros(3)]))
        np.testing.assert_allclose(found.A[index], expected[:2, :2], rtol=1e-10)
        np.testing.assert_allclose(found.b[index], expected[:2, 2], rtol=1e-8)


def test_discrete_maps_act_half_of_the_time_and_in_both_orders():
    both = declared(maps=[[[-1, 0, 0.25], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]]], turned=[[[1, 0], [0, -1]], np.eye(2)])
    found = Augmentation(both, 1.0).sample(np.random.default_rng(3), 4000)
    reflected = found.Q[:, 1, 1] < 0
    assert abs(reflected.mean() - 0.5) < 0.03
    exchanged = found.A[:, 0, 0] == 0
    assert abs(exchanged.mean() - 0.5) < 0.03
    # Reflection then exchange puts the offset on y, the other order leaves it on x.
    assert abs((found.b[reflected & exchanged][:, 0] > 0).mean() - 0.5) < 0.05


def test_same_seed_same_elements():
    symmetries = Symmetries.by_name(["translation", "reflection"], PLANE)
    first, second = (Augmentation(symmetries, 1.0, PLANE.period).sample(np.random.default_rng(7), 5) for _ in range(2))
    np.testing.assert_array_equal(first.b, second.b)
    np.testing.assert_array_equal(first.A, second.A)


def test_no_symmetries_sample_the_identity():
    found = Augmentation(Symmetries.empty(2, 1), 1.0).sample(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(found.A, np.broadcast_to(np.eye(2), (3, 2, 2)))
    assert len(found) == 3 and found.Q.shape == (3, 1, 1)


def test_apply_moves_points_and_turns_values():
    random = np.random.default_rng(4)
    A, b, Q = random.random((2, 3, 3)), random.random((2, 3)), random.random((2, 2, 2))
    x, u = random.random((2, 4, 5, 3)), random.random((2, 4, 5, 2)).astype(np.float32)
    moved, turned = Transformations(A, b, Q).apply(x, u)
    np.testing.assert_allclose(moved[1, 2, 3], A[1] @ x[1, 2, 3] + b[1], rtol=1e-12)
    np.testing.assert_allclose(turned[0, 1, 4], Q[0] @ u[0, 1, 4], rtol=1e-6)
    assert moved.dtype == np.float64 and turned.dtype == np.float32
    moved_torch, turned_torch = Transformations(A, b, Q).apply(torch.as_tensor(x), torch.as_tensor(u))
    np.testing.assert_allclose(moved_torch.numpy(), moved, rtol=1e-12)
    np.testing.assert_allclose(turned_torch.numpy(), turned, rtol=1e-5)
    assert turned_torch.dtype == torch.float32


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_missing_value_spoils_only_the_channels_that_need_it(kind):
    Q = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 2.0]]])
    _, u = Transformations(np.eye(1)[None], np.zeros((1, 1)), Q).apply(kind([[[0.0]]]), kind([[[np.nan, 3.0, 4.0]]]))
    np.testing.assert_array_equal(np.asarray(u)[0, 0], [3.0, np.nan, np.nan])


def test_the_sampled_elements_map_solutions_to_solutions():
    """A plane wave of the 2-D wave equation on the unit torus stays a solution: frequency and wave number are kept."""
    torus = Description("torus", ("u",), ("x", "y"), period=(1.0, 1.0))
    symmetries = Symmetries.by_name(["translation", "reflection", "exchange"], torus)
    k = 2 * np.pi * np.array([1.0, 2.0])

    def solution(t, x):
        return np.cos(x @ k - np.linalg.norm(k) * t)

    x = np.random.default_rng(5).random((1, 6, 2)).repeat(8, 0)
    found = Augmentation(symmetries, 1.0, torus.period).sample(np.random.default_rng(6), 8)
    moved, _ = found.apply(x, solution(0.3, x)[..., None])
    # u'(t, A x + b) = u(t, x): the moved wave has wave vector A k and phase -A k b.
    for index in range(8):
        k_moved = found.A[index] @ k
        wave = np.cos((moved[index] - found.b[index]) @ k_moved - np.linalg.norm(k_moved) * 0.3)
        np.testing.assert_allclose(wave, solution(0.3, x[index]), atol=1e-10)
        np.testing.assert_allclose(k_moved / (2 * np.pi), np.round(k_moved / (2 * np.pi)), atol=1e-12)  # still periodic


def test_those_asked_for_are_the_declared_ones_some_of_them_none_or_others_by_name():
    plain, box = Description("line", ("u",), ("x",), period=(1.0,)), np.array([[0.0], [1.0]])
    known = Symmetries.by_name(["translation", "reflection"], plain)
    line = Description("line", ("u",), ("x",), period=(1.0,), symmetries=known)
    assert Symmetries.asked("declared", line, box).names == ("translation_x", "reflection_x")
    assert len(Symmetries.asked("none", line, box)) == len(Symmetries.asked(None, plain, box)) == 0
    assert Symmetries.asked(["reflection_x"], line, box).names == ("reflection_x",)
    assert Symmetries.asked("reflection", plain, box).names == ("reflection_x",)
    with pytest.raises(UserError, match="unknown symmetry 'rotation'"):
        Symmetries.asked(["rotation"], line, box)
