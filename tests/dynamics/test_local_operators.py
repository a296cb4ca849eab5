"""Operators held to a local equation, against waves that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from local_systems import harmonic_decoder

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.context_fit import ContextFit, refine, whitened
from inrflow.dynamics.context_moments import moments_of
from inrflow.dynamics.context_search import FREE, ContextSearch
from inrflow.dynamics.local_operators import LocalOperators
from inrflow.dynamics.local_terms import isotropic_terms
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


def test_an_equation_is_found_exactly_and_at_contexts_beyond_those_of_training():
    data, environment = waves()
    start = whitened(torch.tensor(SPEEDS).double()[:, None])[0]
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    fit = refine(moments_of(data, environment, len(SPEEDS)), start, 1e-14, 60, solve=local.solve)
    assert error_beyond(fit) < 1e-5


def test_noise_does_less_to_a_few_numbers_than_to_whole_matrices():
    data, environment = waves(noise=1e-3)
    squares = whitened(torch.tensor(SPEEDS).double()[:, None].square())[0]
    moments = moments_of(data, environment, len(SPEEDS))
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    free, held = refine(moments, squares, 1e-12), refine(moments, squares, 1e-14, solve=local.solve)
    assert error_beyond(held) < 0.5 * error_beyond(free)


def test_held_out_trajectories_of_an_equation_prefer_it():
    data, environment = waves(noise=1e-3)
    held, held_environment = waves(each=2, noise=1e-3, seed=1)
    search = ContextSearch(
        data, environment, len(SPEEDS), held, held_environment, torch.tensor(SPEEDS).double()[:, None],
        local=LocalOperators.lists(DECODER),
    )
    found = search.search([CHANNELS * HARMONICS], [1])
    assert found.candidate.form == "isotropic"
    assert error_beyond(found.fit) < 0.02


def test_operators_that_no_equation_has_stay_free():
    random = torch.Generator().manual_seed(3)
    size = CHANNELS * HARMONICS
    raw = torch.randn(size, size, generator=random, dtype=torch.float64) * 0.3
    motion = torch.linalg.matrix_exp(0.5 * (raw - raw.T))
    start = torch.randn(40, size, generator=random, dtype=torch.float64)
    codes = torch.stack([start @ torch.linalg.matrix_power(motion, i).T for i in range(6)], 1)
    data = CodeData(codes, 0.5 * torch.arange(6).double().expand(40, -1), torch.ones(40, 6, dtype=torch.bool))
    environment = torch.arange(40) % 2
    search = ContextSearch(data, environment, 2, data, environment, local=LocalOperators.lists(DECODER))
    assert search.search([size], [1]).candidate.form == FREE


def test_fewer_codes_have_the_leading_block():
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    small = local.truncated(4)
    torch.testing.assert_close(small.matrices, local.matrices[:, :4, :5])


@pytest.mark.parametrize("period", [None, (0.0,)])
def test_a_domain_that_does_not_repeat_has_none(period):
    decoder = ModulatedSiren(make_embedding([0.0], [1.0], period, None, 2, 0), 1, 3, 8, 1)
    assert LocalOperators.of(decoder, isotropic_terms(1)) is None
    assert LocalOperators.lists(decoder) == {}
