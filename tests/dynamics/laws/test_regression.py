"""Misfits of normal equations, and laws on all harmonics of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from inrflow.domains import Box
from inrflow.dynamics.laws import regression
from inrflow.dynamics.laws.fit import fit_law
from inrflow.dynamics.laws.regression import (
    NormalEquations,
    _squares,
    left_out_frames,
    normal_equations,
    sparse_laws,
)
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.numerics.effort import effort


def test_misfits_weigh_shells_by_the_variance_of_their_codes():
    """Two shells of 10 and 30 equations y = 2 a + e, of which the second are twice as large and miss a half."""
    gram, right = np.array([[[[10.0]], [[30.0]]]]), np.array([[[[20.0]], [[60.0]]]])
    total, count = np.array([[[40.0], [240.0]]]), np.array([[10.0, 30.0]])
    equations = NormalEquations(gram, right, total, count, np.ones((2, 1)), np.zeros((2, 1)), np.array([[3.0], [0.5]]))
    missed = equations.unexplained(0, [0], np.array([2.0]))
    assert missed == 0.5 * (0.5 * 30) / (3 * 10 + 0.5 * 30)


def test_solutions_count_as_effort_whatever_they_take_on_a_machine() -> None:
    """Contexts take thousands of small solutions; if not counted, measured time decides, differently in each run."""
    gram, one = np.eye(3)[None, None], np.ones((1, 1, 3, 1))
    equations = NormalEquations(gram, one, np.full((1, 1, 1), 4.0), np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1)),
                                np.ones((1, 1)))
    spent = []
    for active in ([0, 1, 2], [0, 1, 2], [0]):
        before = effort.spent
        equations.solve(0, active, np.ones(1))
        spent.append(effort.spent - before)
    assert spent[0] == pytest.approx(spent[1], rel=1e-6) and spent[0] > spent[2] > 2e-5


def test_all_harmonics_of_a_grid_are_taken_where_256_leave_much():
    """Rough fields that are carried along: u(t, x) = f(x - t), modes up to 180 of a circle, of amplitudes 1 / mode."""
    generator, n, modes = np.random.default_rng(0), 400, np.arange(1, 181)
    x, t = np.arange(n) / n, np.arange(10) * 4e-4
    part = generator.standard_normal((6, 2, len(modes))) / modes
    angle = 2 * np.pi * modes * (x[:, None] - t[:, None, None])
    u = np.einsum("sm,tnm->stn", part[:, 0], np.cos(angle)) + np.einsum("sm,tnm->stn", part[:, 1], np.sin(angle))
    law = fit_law(t / t[1], x[:, None], u[..., None], Box([0.0], [1.0], ["periodic"]), seconds=5.0)
    assert law.codes.harmonics.count >= 360
    later = law.rollout(law.encode(x[:, None], u[:, :1, :, None])[:, 0], t / t[1])
    error = law.decode(later, x[:, None])[..., 0] - u
    assert (error**2).mean() < 1e-5 * u.var()


def test_shells_of_hardly_any_energy_do_not_outweigh_others_that_they_contradict() -> None:
    """Two shells say y = 2 a to a tenth, a third, of a billionth of their energy, y = -5 a to a millionth."""
    random, size = np.random.default_rng(0), np.array([1.0, 0.3, 1e-5])
    a = size[:, None] * random.standard_normal((3, 400))
    y = np.array([2.0, 2.0, -5.0])[:, None] * a
    y = y + np.array([0.2, 0.2, 1e-6])[:, None] * y.std(1, keepdims=True) * random.standard_normal(a.shape)
    equations = NormalEquations((a * a).sum(1)[None, :, None, None], (a * y).sum(1)[None, :, None, None],
                                (y * y).sum(1)[None, :, None], np.full((1, 3), 400.0),
                                np.array([[4.0], [0.4], [1e-14]]), np.zeros((3, 1)), size[:, None] ** 2)
    weights = equations.weights(0, [0])
    np.testing.assert_allclose(equations.solve(0, [0], weights)[0], 2.0, atol=0.05)
    assert weights[2] == 0


def test_shells_whose_codes_are_noise_do_not_shrink_coefficients() -> None:
    """Two shells say y = 2 a; six of a thousandth of their energy have a and y of noise alone, rates amplify it."""
    random, size = np.random.default_rng(0), np.array([1.0, 0.7, *[0.03] * 6])
    a = size[:, None] * random.standard_normal((8, 400))
    y = np.where(size[:, None] > 0.1, 2 * a, 0.1 * size[:, None] * random.standard_normal(a.shape))
    y = y + 0.1 * y.std(1, keepdims=True) * random.standard_normal(a.shape)
    equations = NormalEquations((a * a).sum(1)[None, :, None, None], (a * y).sum(1)[None, :, None, None],
                                (y * y).sum(1)[None, :, None], np.full((1, 8), 400.0),
                                (y * y).mean(1)[:, None], np.zeros((8, 1)), size[:, None] ** 2)
    np.testing.assert_allclose(equations.solve(0, [0], equations.weights(0, [0]))[0], 2.0, atol=0.05)


@pytest.mark.parametrize("kept", [[], list(range(2, 60, 3))])
def test_supports_of_many_terms_are_those_of_inverses_of_their_own(kept: list[int]) -> None:
    """Sixty terms of which five explain a channel: misfits left out are those of least squares without each fold, also
    where some terms are kept."""
    random, weights = np.random.default_rng(0), np.array([0.5, 2.0])
    a = random.standard_normal((3, 2, 200, 60)) @ (np.eye(60) + 0.3 * random.standard_normal((60, 60)))
    y = a[..., :5] @ np.arange(1.0, 6.0) + 0.1 * random.standard_normal(a.shape[:-1])
    equations = NormalEquations(np.einsum("flni,flnj->flij", a, a), np.einsum("flni,fln->fli", a, y)[..., None],
                                (y**2).sum(2)[..., None], np.full((3, 2), 200.0), np.ones((2, 1)), np.zeros((2, 1)),
                                np.ones((2, 1)))
    path = equations.eliminations(0, [j for j in range(60) if j not in kept], weights, kept)
    few = next(set(support) for support, _ in path if len(support) == 5 + len(kept) - (2 in kept))
    assert few == {0, 1, 2, 3, 4, *kept}
    for support, misfit in path[::7]:
        missed = 0.0
        for fold in range(3):
            rest, rows = [f for f in range(3) if f != fold], np.sqrt(weights)[:, None]
            design, target = a[rest][..., support] * rows[..., None], y[rest] * rows
            theta = np.linalg.lstsq(design.reshape(-1, len(support)), target.ravel(), rcond=None)[0]
            missed += (weights @ ((a[fold][..., support] @ theta - y[fold]) ** 2).sum(1)) / 1200
        np.testing.assert_allclose(misfit, missed, rtol=1e-6)


def test_the_terms_of_a_law_stay_where_others_nearly_stand_for_them() -> None:
    """Sixty terms, 40 of them sums of the others but for two in ten thousand: digits are lost that supports need."""
    random = np.random.default_rng(0)
    a = random.standard_normal((4, 3, 1000, 60))
    a[..., 20:] = a[..., :20] @ random.standard_normal((20, 40)) + 2e-4 * a[..., 20:]
    y = a[..., [1, 5, 9]] @ np.array([1.0, -2.0, 0.5]) + 1e-3 * random.standard_normal((4, 3, 1000))
    equations = NormalEquations(np.einsum("flni,flnj->flij", a, a), np.einsum("flni,fln->fli", a, y)[..., None],
                                (y**2).sum(2)[..., None], np.full((4, 3), 1000.0), np.ones((3, 1)), np.zeros((3, 1)),
                                np.ones((3, 1)))
    path = equations.eliminations(0, list(range(60)), np.ones(3))
    assert next(sorted(support) for support, _ in path if len(support) == 3) == [1, 5, 9]


def test_shells_added_by_their_weights_eliminate_the_same_terms() -> None:
    """Coefficients of weighted least squares, and misfits with and without folds, are those of all shells."""
    random, weights = np.random.default_rng(0), np.array([2.0, 0.5, 0.0])
    a, noise = random.standard_normal((4, 3, 40, 5)), random.standard_normal((4, 3, 40))
    y = a @ np.array([1.0, -2.0, 0.0, 0.5, 0.0]) + 0.1 * noise
    equations = NormalEquations(np.einsum("flei,flej->flij", a, a), np.einsum("flei,fle->fli", a, y)[..., None],
                                (y * y).sum(-1)[..., None], np.full((4, 3), 40.0), *np.ones((3, 3, 1)))
    added, every = equations.added_shells(weights), [*range(5)]
    scaled = np.sqrt(weights)[:, None]
    design, rates = (a * scaled[..., None]).reshape(-1, 5), (y * scaled).ravel()
    exact = np.linalg.lstsq(design, rates, rcond=None)[0]
    np.testing.assert_allclose(added.solve(0, every, np.ones(1))[0], exact, rtol=1e-9)
    for alone, together in zip(added.eliminations(0, every, np.ones(1)),
                               equations.eliminations(0, every, weights), strict=True):
        assert alone[0] == together[0] and alone[1] == pytest.approx(together[1], rel=1e-9)


def test_equations_of_one_trajectory_tell_terms_from_noise():
    """Of which none is left out: all supports had the same misfit, and the shortest has no term."""
    random, size = np.random.default_rng(0), 6
    features = random.standard_normal((60, size))
    changes = features[:, :2] @ [1.0, -0.5] + 0.1 * random.standard_normal(60)
    one = np.ones((1, 1))
    equations = NormalEquations(
        (features.T @ features)[None, None], (features.T @ changes)[None, None, :, None],
        np.array([[[changes @ changes]]]), np.array([[60.0]]), one, 1e-12 * one, one)
    laws = sparse_laws(equations, [list(range(size))], size)
    assert laws[1][0] == ((0, 1),)
    np.testing.assert_allclose(laws[1][1][:2, 0], [1.0, -0.5], atol=0.05)


def test_huge_coefficients_that_cancel_explain_nothing() -> None:
    generator = np.random.default_rng(0)
    columns = generator.standard_normal((300, 1)) + 1e-9 * generator.standard_normal((300, 6))
    changes = generator.standard_normal(300)
    gram, right, total = (columns.T @ columns)[None], (columns.T @ changes)[None], np.array([changes @ changes])
    for _ in range(50):
        theta = 1e10 * generator.standard_normal(6)
        theta -= theta.mean()
        true = float(((changes - columns @ theta) ** 2).sum())
        found = float(_squares(gram, right, total, list(range(6)), theta)[0])
        assert true >= 0.5 * total and found > 0.05 * true


def test_errors_of_splines_of_many_frames_are_those_of_all_of_them_from_a_few() -> None:
    t = np.arange(120.0)
    path = np.sin(0.5 * t[:, None] * (1 + np.arange(3)) + np.arange(3))
    each = [(make_interp_spline(np.delete(t, n), np.delete(path, n, 0), k=5)(t[n]) - path[n]) ** 2
            for n in range(40, 80)]
    assert left_out_frames(t[None], path[None, :, None])[0] == pytest.approx(np.mean(each, 0), rel=0.2)


def test_a_channel_of_one_value_does_not_keep_others_from_their_law() -> None:
    """Diffusion on a circle beside a velocity that is zero, as that across the plane of a flow."""
    random, x, t = np.random.default_rng(0), np.arange(48) / 48, np.arange(8) * 0.5
    wave, modes = 2 * np.pi * np.arange(1, 5), random.standard_normal((6, 2, 4))
    decay = np.exp(-2e-3 * wave**2 * t[:, None])
    u = np.einsum("sm,tm,mn->stn", modes[:, 0], decay, np.cos(wave[:, None] * x)) + np.einsum(
        "sm,tm,mn->stn", modes[:, 1], decay, np.sin(wave[:, None] * x))
    law = fit_law(t / t[1], x[:, None], np.stack([u, 0 * u], -1), Box([0.0], [1.0], ["periodic"]), seconds=1.0)
    later = law.rollout(law.encode(x[:, None], np.stack([u, 0 * u], -1)[:, :1])[:, 0], t / t[1])
    found = law.decode(later, x[:, None])
    assert ((found[..., 0] - u) ** 2).mean() < 1e-6 * u.var() and np.abs(found[..., 1]).max() < 1e-6


def test_a_constant_that_all_frames_share_does_not_hide_the_waves_of_its_shell() -> None:
    """Decaying waves of mean zero, whose first code points tell as little as rounding, weigh as they did."""
    random, circle = np.random.default_rng(0), Box([0.0], [1.0], ["periodic"]).harmonics(7)
    t, rates = np.tile(0.1 * np.arange(8.0), (5, 1)), -0.01 * circle.eigenvalues
    codes = random.standard_normal((5, 1, 1, 7)) * np.exp(t[:, :, None, None] * rates)
    codes[..., 0], known = 0.0, np.array([[0.4, *[1.0] * 6]])
    (equations,) = normal_equations([Term((((0, VALUE),),), 1)], circle, t, codes, 0 * codes[:, 0], known, (False,))
    assert equations.weights(0, [0])[0] > 0
    np.testing.assert_allclose(equations.solve(0, [0], equations.weights(0, [0]))[0], 0.01, rtol=1e-4)


def test_fast_waves_that_frames_hardly_resolve_stay_in_equations_of_second_order() -> None:
    """Waves u_tt = lap u in closed form, whose shortest turn by 2.3 radians from frame to frame."""
    random, gap, harmonics = np.random.default_rng(0), 0.06, Box([0.0], [1.0], ["walled"]).harmonics(13, "natural")
    speed, t = np.sqrt(harmonics.eigenvalues), np.tile(gap * np.arange(12), (16, 1))
    size = random.standard_normal((2, 16, 1, 13)) / (1 + np.arange(13))
    codes = (size[0] * np.cos(speed * t[..., None]) + size[1] * np.sin(speed * t[..., None]))[:, :, None]
    waves = Term((((0, VALUE),),), 1)
    (equations,) = normal_equations([waves], harmonics, t, codes, np.zeros((16, 1, 13)), np.ones((1, 13)), (False,),
                                    rates=(0,))
    assert np.isfinite(equations.least).all() and speed[-1] * gap > 2
    assert equations.solved([[0]], 1)[0][0, 0] == pytest.approx(1.0, rel=1e-2)


def test_long_intervals_between_irregular_frames_do_not_bias_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes of u_t = .03 u_xx - u in closed form at 12 of 20 frames: splines through them err over the gaps."""
    circle, random = Box([0.0], [2 * np.pi], ["periodic"]).harmonics(13, "natural"), np.random.default_rng(0)
    t = np.stack([np.sort(random.permutation(20)[:12]) for _ in range(12)]) * 0.2
    decay = 0.03 * circle.eigenvalues + 1.0
    codes = (random.standard_normal((12, 1, 13)) * np.exp(-decay * t[..., None]))[:, :, None]
    errors = []
    for power in (regression._OF_LENGTH, 0):
        monkeypatch.setattr(regression, "_OF_LENGTH", power)
        (equations,) = normal_equations([Term((((0, VALUE),),), 1), Term((((0, VALUE),),))], circle, t, codes,
                                        0 * codes[:, 0], np.ones((1, 13)), (False,))
        theta = equations.solve(0, [0, 1], np.ones(equations.gram.shape[1]))[0]
        errors.append(np.abs(theta / [0.03, -1.0] - 1).max())
    assert errors[0] < 1e-4 and errors[0] < 0.1 * errors[1]
