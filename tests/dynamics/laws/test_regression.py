"""Misfits of normal equations, and laws on all harmonics of a grid."""

from __future__ import annotations

import numpy as np

from inrflow.domains import Box
from inrflow.dynamics.laws.fit import fit_law
from inrflow.dynamics.laws.regression import NormalEquations


def test_misfits_weigh_shells_by_the_variance_of_their_codes():
    """Two shells of 10 and 30 equations y = 2 a + e, of which the second are twice as large and miss a half."""
    gram, right = np.array([[[[10.0]], [[30.0]]]]), np.array([[[[20.0]], [[60.0]]]])
    total, count = np.array([[[40.0], [240.0]]]), np.array([[10.0, 30.0]])
    equations = NormalEquations(gram, right, total, count, np.ones((2, 1)), np.zeros((2, 1)), np.array([[3.0], [0.5]]))
    missed = equations.missed(0, [0], np.array([2.0]))
    assert missed == 0.5 * (0.5 * 30) / (3 * 10 + 0.5 * 30)


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
