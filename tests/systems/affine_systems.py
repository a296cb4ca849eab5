"""An affine system of four unknowns and its generator."""

import numpy as np
import torch

A = np.array([[-0.05, 0.9, 0.0, 0.1], [-0.9, -0.05, 0.2, 0.0], [0.0, 0.0, -0.3, 0.4], [0.1, 0.0, -0.4, -0.3]])
B = np.array([0.3, -0.2, 0.1, 0.05])


def affine(matrix, bias):
    generator = np.zeros((len(bias) + 1, len(bias) + 1))
    generator[1:, 1:], generator[1:, 0] = matrix, bias
    return generator


def tensor(value):
    return torch.as_tensor(value, dtype=torch.float64)
