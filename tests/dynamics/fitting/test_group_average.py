"""Operators averaged over symmetries against operators that commute with them by construction."""

import numpy as np
import torch

from inrflow.dynamics.fitting.group_average import OperatorAverage

ANGLES = np.random.default_rng(0).uniform(0, 2 * np.pi, 16)


def rotations(angles):
    """Motion of [1, s] by rotations of two planes of codes, one twice as fast as the other: translations of a circle
    move the harmonics 1 and 2 so."""
    moves = np.zeros((len(angles), 5, 5))
    moves[:, 0, 0] = 1
    for plane in (1, 2):
        c, s = np.cos(plane * angles), np.sin(plane * angles)
        block = slice(2 * plane - 1, 2 * plane + 1)
        moves[:, block, block] = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    return torch.tensor(moves)


def commuting(parts):
    """[bias, matrix] (4, 5) that commute with them: a dilation and a rotation of each plane, no bias."""
    result = np.zeros((4, 5))
    for plane, (a, b) in enumerate(parts):
        result[2 * plane : 2 * plane + 2, 2 * plane + 1 : 2 * plane + 3] = [[a, -b], [b, a]]
    return result


def test_what_commutes_stays_and_the_rest_goes():
    random = np.random.default_rng(1)
    exact = torch.tensor(np.stack([commuting(random.standard_normal((2, 2))) for _ in range(2)]))
    noise = torch.tensor(random.standard_normal((2, 4, 5)))
    average = OperatorAverage(rotations(ANGLES))
    torch.testing.assert_close(average(exact), exact, atol=1e-12, rtol=0)
    found = average(exact + noise) - exact
    # The mean of the noise's blocks that commutes: (a11 + a22) / 2 and (a21 - a12) / 2 of each plane.
    blocks = [noise[:, i : i + 2, i + 1 : i + 3] for i in (0, 2)]
    parts = [((n[:, 0, 0] + n[:, 1, 1]) / 2, (n[:, 1, 0] - n[:, 0, 1]) / 2) for n in blocks]
    left = np.stack([commuting([(float(a[k]), float(b[k])) for a, b in parts]) for k in range(2)])
    assert float((found - torch.tensor(left)).norm()) < 0.05 * float((noise - torch.tensor(left)).norm())


def test_only_whole_multiplets_are_kept():
    average = OperatorAverage(rotations(ANGLES))
    assert [average.keeps(size) for size in range(6)] == [False, False, True, False, True, False]
