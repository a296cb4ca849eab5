"""A mesh of a rectangle, and Kovasznay's exact solution of the steady equations on it."""

import numpy as np

REYNOLDS = 40.0


def rectangle(columns=12, rows=8, low=(-0.5, -0.5), high=(1.0, 0.5), seed=0):
    """Nodes (V, 2), the inner ones displaced, and triangles of both orientations."""
    x, y = np.meshgrid(np.linspace(low[0], high[0], columns + 1), np.linspace(low[1], high[1], rows + 1))
    nodes = np.stack([x.ravel(), y.ravel()], axis=1)
    inner = np.all((nodes > np.array(low) + 1e-9) & (nodes < np.array(high) - 1e-9), axis=1)
    spacing = (np.array(high) - low) / (columns, rows)
    nodes[inner] += np.random.default_rng(seed).uniform(-0.15, 0.15, (inner.sum(), 2)) * spacing
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner + columns + 2, corner + 1, corner + columns + 1], axis=1)  # the other way round
    return nodes, np.concatenate([lower, upper])


def kovasznay(x):
    """u, v, p (..., 3) at points (..., 2); its viscosity is 1 / REYNOLDS."""
    rate = REYNOLDS / 2 - np.sqrt(REYNOLDS**2 / 4 + 4 * np.pi**2)
    growth, angle = np.exp(rate * x[..., 0]), 2 * np.pi * x[..., 1]
    v = rate / (2 * np.pi) * growth * np.sin(angle)
    return np.stack([1 - growth * np.cos(angle), v, (1 - growth**2) / 2], axis=-1)
