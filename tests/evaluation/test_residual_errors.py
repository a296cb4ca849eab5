"""Factors on standard deviations of a residual field, from errors of left-out values."""

from __future__ import annotations

import numpy as np
import pytest

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Rows
from inrflow.encoding.residual.places import Places
from inrflow.evaluation.residual_errors import with_factor_in_gaps

PLACES = Places((0.0, 0.0))


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 1.0), (0.25, 2.0), (4.0, 1.0)])
def test_the_factor_in_gaps_makes_up_for_variances_that_are_too_small_but_not_for_large_ones(scale, factor):
    """Of a Gaussian process drawn by numpy, whose variances are taken for `scale` times the true ones."""
    random = np.random.default_rng(0)
    x, t = random.uniform(0, 1, (20, 2)), np.arange(150.0)
    distance = 3**0.5 * np.linalg.norm((x[:, None] - x) / 0.5, axis=-1)
    roots = [np.linalg.cholesky(one + 1e-9 * np.eye(len(one)))
             for one in (0.1 + (1 + distance) * np.exp(-distance), np.exp(-np.abs(t[:, None] - t) / 5))]
    u = roots[1] @ random.standard_normal((150, 20)) @ roots[0].T + 0.3 * random.standard_normal((150, 20))
    u[random.random(u.shape) < 0.1] = np.nan
    frame, place = np.nonzero(np.isfinite(u))
    rows = Rows(t[frame], x[place], u[frame, place][:, None], place)
    form = Form((1.5,), 0.5, PLACES.groups, PLACES.moving)
    covariance = Covariance.of(form, [0.1 * scale, scale], [5.0, 5.0], 0.09 * scale, [[0.5, 0.5]])
    channel = with_factor_in_gaps(ChannelField(covariance, spread=3.0), 0, PLACES, rows)
    assert channel.within == pytest.approx(factor, rel=0.05) and channel.spread == 3.0
