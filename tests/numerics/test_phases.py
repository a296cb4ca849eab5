"""Fourier features of time against differences in time."""

import torch

from inrflow.numerics.phases import phases_of, rotation


def test_rates_of_phases_are_a_rotation_of_them():
    t, step = torch.tensor([0.0, 0.3, 7.1], dtype=torch.float64), 1e-6
    later, earlier = (phases_of(t + shift, [2.0, 5.0], [3, 1]) for shift in (step, -step))
    rates = phases_of(t, [2.0, 5.0], [3, 1]) @ rotation([2.0, 5.0], [3, 1]).T
    torch.testing.assert_close(rates, (later - earlier) / (2 * step), rtol=0, atol=1e-7)
    assert rotation([], []).shape == (0, 0)
