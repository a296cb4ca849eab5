"""The composite likelihood against scipy's Gaussian density, its gradient, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.fit import Conditionals, Samples, conditionals, fit_covariance, start

FORM = Form((1.5,), 0.5, (0, 1), (True, True))
TRUE = Covariance.of(FORM, [1e-3, 1.0], [5.0, 5.0], 0.1, [[0.6, 0.2]])


def draw(places: int, times: int, seed: int = 0) -> Samples:
    """A draw of TRUE at fixed places."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (places, 2))
    t, y = np.repeat(np.arange(float(times)), places), np.tile(x, (times, 1))
    tt, yy = torch.as_tensor(t), torch.as_tensor(y)
    covariance = TRUE(tt, yy, tt, yy).numpy() + 0.1 * np.eye(len(t))
    value = np.linalg.cholesky(covariance) @ random.standard_normal(len(t))
    return Samples(t, y, np.tile(np.arange(places), times), value)


def one(random: np.random.Generator, near: int) -> Conditionals:
    parts = [random.uniform(0, 3, 1), random.uniform(0, 1, (1, 2)), random.standard_normal(1),
             random.uniform(0, 3, (1, near)), random.uniform(0, 1, (1, near, 2)), random.standard_normal((1, near))]
    none = torch.zeros(1, near, dtype=torch.bool)
    return Conditionals(*(torch.as_tensor(part) for part in parts), none, torch.zeros(1, dtype=torch.long))


def test_a_conditional_density_is_a_ratio_of_joint_ones():
    data = one(np.random.default_rng(0), 6)
    t, y = torch.cat([data.t, data.near_t[0]]), torch.cat([data.y, data.near_y[0]])
    u = torch.cat([data.value, data.near_value[0]]).numpy()
    joint = TRUE(t, y, t, y).numpy() + 0.1 * np.eye(7)
    expected = multivariate_normal(cov=joint).logpdf(u) - multivariate_normal(cov=joint[1:, 1:]).logpdf(u[1:])
    assert float(data(TRUE)) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences():
    data = one(np.random.default_rng(1), 5)
    form = Form((2.5, 0.5), 1.5, (0, 1), (True, True), drift=True)
    covariance = Covariance.of(form, [0.2, 1.0, 0.4], [3.0, 2.0, 1.0], 0.1, [[0.6, 0.2], [0.1, 0.2]], [0.1, 0.2])
    assert torch.autograd.gradcheck(lambda theta: data(covariance.at(theta)),
                                    covariance.parameters.clone().requires_grad_(), eps=1e-5, atol=1e-5)


def test_the_covariance_of_a_drawn_field_is_found():
    samples = draw(40, 20)
    found = fit_covariance(samples, FORM.groups, FORM.moving, near=start(samples, FORM))
    assert 0.05 < float(found.nugget) < 0.2
    assert 1.5 < float(found.lengths[0, 0] / found.lengths[0, 1]) < 6.0
    far = draw(40, 20, seed=5)
    judge = conditionals(far, TRUE, np.random.default_rng(0))
    with torch.no_grad():
        assert float(judge(found).mean()) > float(judge(TRUE).mean()) - 0.03


def test_targets_are_predicted_from_other_places_or_earlier_times():
    samples = draw(12, 10)
    data = conditionals(samples, TRUE, np.random.default_rng(0))
    same = (data.near_y == data.y[:, None]).all(-1) & ~data.missing
    earlier = (data.near_t < data.t[:, None]) | data.missing
    assert bool((~same.any(1) | earlier.all(1)).all())
