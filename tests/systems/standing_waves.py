"""Standing waves on a periodic square grid, exact in time."""

import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description

SIDE, PERIOD = 8, 1.0
DESCRIPTION = Description("waves", ("u", "v"), ("x", "y"), period=(PERIOD, PERIOD))


def grid(side=SIDE):
    axis = torch.arange(side, dtype=torch.float64) * PERIOD / side
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, 1, -1, 2)


def waves(trajectories, frames, seed, wavenumbers=((1, 0), (0, 1), (1, 1)), dt=0.3, start=0.0):
    """Random standing waves u_tt = laplacian u, exact in time; channels u (hundredfold, about 7) and v = u_t."""
    random = torch.Generator().manual_seed(seed)
    x = grid()
    t = (start + dt * torch.arange(frames, dtype=torch.float64)).expand(trajectories, -1)
    u = torch.zeros(trajectories, frames, x.shape[2], 2, dtype=torch.float64)
    for k in wavenumbers:
        wave = torch.tensor(k, dtype=torch.float64)
        frequency = wave.norm()
        for phase in (0.0, torch.pi / 2):
            mode = torch.cos(2 * torch.pi * (x[0, 0] @ wave) + phase)
            a, b = torch.randn(2, trajectories, 1, generator=random, dtype=torch.float64)
            amplitude = a * torch.cos(frequency * t) + b * torch.sin(frequency * t)
            speed = frequency * (b * torch.cos(frequency * t) - a * torch.sin(frequency * t))
            u[..., 0] += amplitude[..., None] * mode
            u[..., 1] += speed[..., None] * mode
    return TrajectoryBatch(t, x, u * torch.tensor([100.0, 1.0]) + torch.tensor([7.0, 0.0]))


def relative(forecast, truth):
    return float(((forecast - truth).square().mean((0, 1, 2)) / truth.var((0, 1, 2))).max())
