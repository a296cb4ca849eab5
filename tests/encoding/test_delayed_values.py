"""Bases carried to the times of delayed values against the matrix exponential, and codes from such values."""

import torch
from small_decoders import SIZE, normal, points, prior, siren

from inrflow.data.batch import TrajectoryBatch
from inrflow.encoding.delayed_values import AffineMotion
from inrflow.encoding.encode import encode

MATRIX, BIAS = 0.5 * normal(SIZE, SIZE, seed=2), normal(SIZE, seed=3)


def flowed(z, delay):
    generator = torch.zeros(SIZE + 1, SIZE + 1).double()
    generator[1:, 1:], generator[1:, 0] = MATRIX, BIAS
    return torch.linalg.matrix_exp(generator * delay)[1:, 1:] @ z + torch.linalg.matrix_exp(generator * delay)[1:, 0]


def test_carried_bases_give_the_values_of_the_moved_code():
    decoder, x, z = siren("output"), points(3, 7), normal(SIZE)
    delay = normal(3, 7, seed=4) / 2
    with torch.no_grad():
        offset, basis = AffineMotion.of(MATRIX, BIAS).carried(*decoder.basis(x), delay)
        for g in range(3):
            for n in range(7):
                expected = decoder(x[g, n : n + 1], flowed(z, delay[g, n]))[0]
                torch.testing.assert_close(offset[g, n] + basis[g, n] @ z, expected, rtol=0, atol=1e-5)


def test_codes_of_delayed_values_are_those_of_the_frames_time():
    decoder, x, codes = siren("output"), points(2, 3, 30), normal(2, 3, SIZE)
    delay = normal(2, 3, 30, seed=4) / 2
    with torch.no_grad():
        u = torch.stack([decoder(x.reshape(-1, 1, 2)[i], flowed(codes.reshape(-1, SIZE)[i // 30], d))[0]
                         for i, d in enumerate(delay.flatten())]).reshape(2, 3, 30, 2)
    batch = TrajectoryBatch(torch.zeros(2, 3), x, u, delay)
    wide = prior(1e-8)
    found = encode(decoder, batch, wide, motion=AffineMotion.of(MATRIX, BIAS))
    torch.testing.assert_close(found, codes, rtol=0, atol=1e-3)
    assert float((encode(decoder, batch, wide) - codes).abs().max()) > 0.1


def test_groups_with_motions_of_their_own_are_carried_each_by_its_own():
    decoder, x, delay = siren("output"), points(3, 7), normal(3, 7, seed=4) / 2
    matrices, biases = 0.5 * normal(3, SIZE, SIZE, seed=8), normal(3, SIZE, seed=9)
    every = AffineMotion.of(matrices, biases)
    with torch.no_grad():
        basis = decoder.basis(x)
        together = every.carried(*basis, delay)
        for g in range(3):
            alone = AffineMotion.of(matrices[g], biases[g])
            rows = slice(g, g + 1)
            for found in (alone, every.of_groups(rows)):
                offset, carried = found.carried(basis[0][rows], basis[1][rows], delay[rows])
                # Products are in single precision, and processors round those of one group and of three differently.
                torch.testing.assert_close(together[0][rows], offset, rtol=1.3e-6, atol=1e-5)
                torch.testing.assert_close(together[1][rows], carried, rtol=1.3e-6, atol=1e-5)
