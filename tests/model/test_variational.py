"""Windows of a chaotic system that one pass of a smoother loses, against states that an independent solver gives."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.model.assimilation import Dynamics, assimilate, assimilate_noisy
from inrflow.model.state_path import StatePath, with_process_of
from inrflow.model.state_prior import ContextPrior, StatePrior
from inrflow.model.store_v1 import Products

GAP, FRAMES, CONTEXT = 0.15, 12, 0.7
NOISE = 1e-6  # variance


class Ends(Decoder):
    """The first of three numbers at the point 0, the last one at 1."""

    affine = True

    def __init__(self):
        super().__init__()
        self.code_size, self.channels = 3, 1
        self.seen = torch.nn.Parameter(torch.eye(3).double()[[0, 2], None], requires_grad=False)

    def basis(self, x):
        return torch.zeros(2, 1), self.seen

    def forward(self, x, code):
        return code[..., [0, 2], None]


def lorenz(contexts):
    """Lorenz's system of 1963 with r = 28 + 4 c."""
    field = VectorField.of(3, context_size=contexts).double()
    field.set_linear(torch.tensor([[-10.0, 10, 0], [28, -1, 0], [0, 0, -8 / 3]]).double(), torch.zeros(3).double())
    products = Products(3, 2, contexts).double()
    weights = torch.tensor([[0.0, 0], [0, -1], [1, 0]]).double()
    further = [torch.zeros(contexts, 3, 2).double()] * bool(contexts)
    products.set(torch.tensor([0, 0]), torch.tensor([1, 2]), weights, *further)
    if contexts:
        change = torch.zeros(1, 3, 3).double()
        change[0, 1, 0] = 4.0
        field.linear.set_context(change, torch.zeros(1, 3).double())
    field.add(products)
    return field


def observed(r, seed, gap=GAP):
    """States (T, 3) by another solver, and the window that shows two of their numbers."""
    random = np.random.default_rng(seed)

    def rate(_, s):
        return [10 * (s[1] - s[0]), s[0] * (r - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    t = gap * np.arange(FRAMES)
    settled = solve_ivp(rate, (0, 20), random.standard_normal(3) + [0, 0, 25], rtol=1e-9, atol=1e-9).y[:, -1]
    states = solve_ivp(rate, (0, t[-1]), settled, t_eval=t, rtol=1e-10, atol=1e-10).y.T
    u = states[:, [0, 2]] + np.sqrt(NOISE) * random.standard_normal((FRAMES, 2))
    return states, TrajectoryBatch(torch.as_tensor(t)[None], torch.tensor([0.0, 1.0]).double().reshape(1, 1, 2, 1),
                                   torch.as_tensor(u)[None, ..., None])


def parts(contexts):
    size = 3 + contexts
    mean = torch.zeros(size).double()
    mean[2] = 23.5
    covariance = torch.tensor([62.0, 81.0, 74.0, 1.0][:size]).double().diag()
    prior = StatePrior(mean, covariance, torch.tensor([NOISE]).double(), torch.full((size,), 1e-9).double(),
                       torch.ones(1).double())
    prior.process[3:] = 0.0
    return Ends(), Dynamics(lorenz(contexts), Integrator(step=0.01), prior.process), prior


@pytest.mark.parametrize(("contexts", "seed"), [(0, 0), (1, 1)])
def test_the_state_and_the_context_of_a_chaotic_window_are_found(contexts, seed):
    states, window = observed(28.0 + 4.0 * CONTEXT * contexts, seed)
    decoder, dynamics, prior = parts(contexts)
    context = ContextPrior(prior.mean[3:], prior.covariance[3:, 3:]) if contexts else None
    once = assimilate(decoder, dynamics, prior, window, context=context)
    assert float(once.factor) > 1000 and np.abs(once.mean[0, :, :3].numpy() - states).max() > 0.1
    found = assimilate_noisy(decoder, dynamics, prior, window, context=context)
    assert float(found.factor) < 4
    np.testing.assert_allclose(found.mean[0, :, :3], states, atol=0.02)
    std = torch.stack([one[0].diagonal() for one in found.covariance]).sqrt()
    assert np.abs((found.mean[0, :, :3].numpy() - states) / std[:, :3].numpy()).max() < 5
    if contexts:
        assert abs(float(found.mean[0, -1, 3]) - CONTEXT) < min(5 * float(std[-1, 3]), 1e-3)


def test_noise_far_above_that_of_training_is_no_reason_to_leave_the_flow():
    states, window = observed(28.0, 3)
    noisy = window.u + 0.5 * torch.as_tensor(np.random.default_rng(4).standard_normal(window.u.shape))
    decoder, dynamics, prior = parts(0)
    found = assimilate_noisy(decoder, dynamics, prior, TrajectoryBatch(window.t, window.x, noisy))
    assert np.sqrt(np.mean((found.mean[0].numpy() - states) ** 2)) < 0.5


def test_gross_errors_are_left_out_of_a_window_and_noise_is_not():
    _, window = observed(28.0, 3, gap=0.03)
    decoder, dynamics, prior = parts(0)
    spoiled = window.u.clone()
    spoiled[0, 4, 0], spoiled[0, 9, 1] = spoiled[0, 4, 0] + 3, spoiled[0, 9, 1] - 2
    without = window.u.clone()
    without[0, 4, 0] = without[0, 9, 1] = torch.nan
    with pytest.warns(UserWarning, match="2 of 24 observed values contradict"):
        found = assimilate_noisy(decoder, dynamics, prior, window.with_values(spoiled), screened=True)
    expected = assimilate_noisy(decoder, dynamics, prior, window.with_values(without))
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-5)
    noisy = window.u + 0.5 * torch.as_tensor(np.random.default_rng(4).standard_normal(window.u.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = assimilate_noisy(decoder, dynamics, prior, window.with_values(noisy), screened=True)
    torch.testing.assert_close(kept.mean, assimilate_noisy(decoder, dynamics, prior, window.with_values(noisy)).mean)


def test_misfits_like_those_of_the_roughest_training_frame_are_no_gross_errors():
    _, window = observed(28.0, 3, gap=0.03)
    decoder, dynamics, prior = parts(0)
    spoiled = window.u.clone()
    spoiled[0, 4, 0], spoiled[0, 9, 1] = spoiled[0, 4, 0] + 3, spoiled[0, 9, 1] - 0.02
    for rough, count in ((None, "[23]"), (torch.full((1,), 1e-4, dtype=torch.float64), 1)):
        with pytest.warns(UserWarning, match=f"{count} of 24 observed values contradict"):
            assimilate_noisy(decoder, dynamics, replace(prior, roughest=rough), window.with_values(spoiled),
                             screened=True)


def test_states_before_the_first_frame_of_a_chaotic_window_are_those_of_another_solver(monkeypatch):
    monkeypatch.setattr("inrflow.model.state_path._EARLIER", GAP / 2)
    states, window = observed(28.0, 0)
    decoder, dynamics, prior = parts(0)
    early = 4
    later = TrajectoryBatch(window.t[:, early:], window.x, window.u[:, early:])
    estimate = assimilate_noisy(decoder, dynamics, prior, later)
    path, times = StatePath(dynamics, estimate, prior), window.t[0, :early]
    mean = path.mean(times)
    std = torch.cat([one.diagonal(dim1=1, dim2=2).sqrt() for one in path.covariance(times, mean)])
    missed = np.abs(mean[0].numpy() - states[:early])
    assert missed[-1].max() < 0.01 and missed.max() < 2.0 and (missed / std.numpy()).max() < 4


def test_changes_of_another_system_are_told_and_widen_its_process_noise():
    decoder, dynamics, prior = parts(0)
    _, window = observed(28.0, 3, gap=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_process_of(dynamics, assimilate_noisy(decoder, dynamics, prior, window)) is dynamics
    other = TrajectoryBatch(1.2 * window.t, window.x, window.u)  # a fifth slower
    with pytest.warns(UserWarning, match="change unlike the trained dynamics"):
        found = with_process_of(dynamics, assimilate_noisy(decoder, dynamics, prior, other))
    assert bool((found.process >= prior.process).all())
    assert float(found.process.sum()) > 1e3 * float(prior.process.sum())
