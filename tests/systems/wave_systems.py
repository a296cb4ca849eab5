"""Codes of waves on a circle by their closed form, noisy if wanted, in environments of several speeds."""

from __future__ import annotations

import math

import numpy as np
import torch
from local_systems import harmonic_decoder

from inrflow.dynamics.fitting.alternate import ContextFit
from inrflow.dynamics.states import CodeData

WAVES, CHANNELS = 3, 2
SPEEDS = (0.5, 0.7, 0.9, 1.1)
DECODER = harmonic_decoder(CHANNELS, (2 * math.pi,), WAVES)
HARMONICS = DECODER.features_size


def wavenumbers():
    """Of every feature: the constant, sines and cosines, as the decoder orders them (told from its own slopes)."""
    x = torch.linspace(0, 2 * math.pi, 64, dtype=torch.float64)[:-1, None]
    basis = DECODER.basis(x)[1][:, 0, :HARMONICS].detach()
    power = torch.fft.rfft(basis, dim=0).abs()
    return power.argmax(0).double()


def wave_motion(speed, time):
    """Exact map (Z, Z) of codes, u of all harmonics first: u_t = v, v_t = speed^2 u_xx."""
    omega = speed * wavenumbers()
    c, s = torch.cos(omega * time), torch.sin(omega * time)
    over = torch.where(omega > 0, s / omega.clamp(min=1e-300), time)
    return torch.cat([torch.cat([c.diag(), over.diag()], 1), torch.cat([(-omega * s).diag(), c.diag()], 1)])


def waves(each=6, frames=8, gap=0.5, noise=0.0, seed=0, speeds=SPEEDS):
    random = np.random.default_rng(seed)
    codes = []
    for speed in speeds:
        for _ in range(each):
            start = torch.tensor(random.standard_normal(CHANNELS * HARMONICS))
            codes.append(torch.stack([wave_motion(speed, torch.tensor(gap * i)) @ start for i in range(frames)]))
    found = torch.stack(codes)
    found = found + noise * torch.tensor(random.standard_normal(found.shape))
    t = gap * torch.arange(frames).double().expand(len(found), -1)
    data = CodeData(found, t, torch.ones(len(found), frames, dtype=torch.bool))
    return data, torch.arange(len(speeds)).repeat_interleave(each)


def exact(speed):
    """Generator (Z, Z) of the wave equation."""
    k = wavenumbers()
    zero, eye = torch.zeros(HARMONICS, HARMONICS).double(), torch.eye(HARMONICS).double()
    return torch.cat([torch.cat([zero, eye], 1), torch.cat([-(speed * k).square().diag(), zero], 1)])


def error_beyond(fit: ContextFit, speed=1.5):
    """Largest error of the operator at a speed beyond those of training: contexts are affine in its square."""
    squares = torch.tensor(SPEEDS).double().square()
    design = torch.stack([torch.ones_like(squares), squares], 1)
    weights = torch.linalg.lstsq(design, fit.contexts).solution
    context = torch.tensor([1.0, speed**2]).double() @ weights
    return float((fit.generators(context[None])[0, 1:, 1:] - exact(speed)).abs().max())
