"""The functions phi_k of exponential time differencing, against quadrature."""

import math

import numpy as np
import torch

from inrflow.numerics.etdrk4 import phi_functions, phi_matrix_functions


def phi_by_quadrature(k: int, z: complex) -> complex:
    """phi_k(z) = int_0^1 exp((1 - s) z) s^(k-1) / (k-1)! ds by Gauss and Legendre on 8 panels."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0j
    for panel in range(8):
        s = (nodes + 1 + 2 * panel) / 16
        total += np.sum(weights / 16 * np.exp((1 - s) * z) * s ** (k - 1) / math.factorial(k - 1))
    return total


Z = [0.0, 1e-9, -1e-3, 0.5, -0.99, -1.0, 1.01, -3.0, 4.0, -40.0, 0.3j, -1j, 12j, -0.6 + 0.7j, -5 + 20j]


def test_phi_functions_match_their_integrals():
    computed = phi_functions(torch.tensor(Z, dtype=torch.complex128))
    for k in (1, 2, 3):
        expected = torch.tensor([phi_by_quadrature(k, z) for z in Z], dtype=torch.complex128)
        torch.testing.assert_close(computed[k], expected, rtol=1e-13, atol=1e-14)


def test_real_and_matrix_arguments_give_the_same_functions():
    real = torch.tensor([z for z in Z if not isinstance(z, complex)], dtype=torch.float64)
    for ours, theirs in zip(phi_functions(real), phi_functions(real.to(torch.complex128)), strict=True):
        torch.testing.assert_close(ours, theirs.real, rtol=1e-14, atol=0)
    # A rotated diagonal matrix: phi acts on its eigenvalues.
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    eigenvalues = torch.tensor([-3.0, 0.25], dtype=torch.float64)
    matrices = phi_matrix_functions(turn @ torch.diag(eigenvalues) @ turn.T)
    for ours, values in zip(matrices, phi_functions(eigenvalues), strict=True):
        torch.testing.assert_close(ours, turn @ torch.diag(values) @ turn.T, rtol=1e-13, atol=1e-14)


def test_functions_of_large_stiff_matrices_act_on_their_eigenvalues():
    """Those of a circulant matrix, diffusion and transport along a circle, are the transforms of its first column."""
    wave = 2 * torch.pi * torch.fft.fftfreq(48, 1 / 48, dtype=torch.float64)
    symbol = torch.complex(-0.05 * wave**2, -7.0 * wave * (wave.abs() < 150))
    column = torch.fft.ifft(symbol).real
    matrix = torch.stack([column.roll(n) for n in range(48)], 1)
    assert float(matrix.abs().sum(1).max()) > 1000
    for ours, values in zip(phi_matrix_functions(matrix), phi_functions(symbol), strict=True):
        expected = torch.fft.ifft(values).real
        torch.testing.assert_close(ours, torch.stack([expected.roll(n) for n in range(48)], 1), rtol=1e-10, atol=1e-13)
