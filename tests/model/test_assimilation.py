"""Assimilation against the joint Gaussian posterior of the whole window, built densely and solved at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.model.assimilation import Dynamics, assimilate, assimilate_noisy
from inrflow.model.state_prior import StatePrior
from inrflow.model.store_v1 import Products

CHANNELS = 2
NOISE = np.array([0.02, 0.05])  # variances


class Waves(Decoder):
    """Affine in the code: every code dimension is a wave, the same in float64 numpy as `design`."""

    affine = True

    def __init__(self, code_size):
        super().__init__()
        self.code_size, self.channels = code_size, CHANNELS
        self.wave = torch.nn.Parameter(torch.linspace(0.5, 2.5, code_size * CHANNELS).double().reshape(CHANNELS, -1))

    def basis(self, x):
        return torch.cat([x, x**2], -1), torch.cos(x[..., None] * self.wave + self.wave.flip(0))

    def forward(self, x, z):
        offset, basis = self.basis(x)
        return offset + torch.einsum("...ncz,...z->...nc", basis, z)


class Bent(Waves):
    """Not affine: the codes enter through a sine."""

    affine = False

    def forward(self, x, z):
        offset, basis = super().basis(x)
        return offset + torch.einsum("...ncz,...z->...nc", basis, torch.sin(z))


def system(n, seed=0):
    """Matrix, bias, prior mean and covariance, process variance of n states."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((n, n))
    matrix = 0.7 * (matrix - matrix.T) - 0.1 * np.eye(n)
    root = random.standard_normal((n, n))
    return matrix, random.standard_normal(n), random.standard_normal(n), root @ root.T / n + 0.1 * np.eye(n), \
        random.uniform(0.01, 0.05, n)


def parts(n, size, seed=0, decoder=Waves):
    matrix, bias, mean, covariance, process = system(n, seed)
    field = VectorField.of(n).double()
    field.set_linear(torch.as_tensor(matrix), torch.as_tensor(bias))
    prior = StatePrior(torch.as_tensor(mean), torch.as_tensor(covariance), torch.as_tensor(NOISE),
                       torch.as_tensor(process), torch.ones(CHANNELS, dtype=torch.float64))
    return decoder(size), Dynamics(field, Integrator(step=0.02), prior.process), prior


def flow(matrix, bias, gap):
    """Affine map over `gap`: F and c."""
    n = len(bias)
    generator = np.zeros((n + 1, n + 1))
    generator[:n, :n], generator[:n, n] = matrix, bias
    whole = expm(generator * gap)
    return whole[:n, :n], whole[:n, n]


def posterior(system_parts, decoder, t, x, u, delay=None):
    """Mean (K, n) and covariance (K n, K n) of one trajectory's states given u (K, N, C) at x (N, 1) or (K, N, 1),
    seen `delay` (K, N) after the times t."""
    matrix, bias, mean, covariance, process = system_parts
    K, n = len(t), len(bias)
    means, blocks = [mean], [[None] * K for _ in range(K)]
    blocks[0][0] = covariance
    for k in range(1, K):
        F, c = flow(matrix, bias, t[k] - t[k - 1])
        means.append(F @ means[-1] + c)
        for j in range(k):
            blocks[k][j] = F @ blocks[k - 1][j]
            blocks[j][k] = blocks[k][j].T
        blocks[k][k] = F @ blocks[k - 1][k - 1] @ F.T + np.diag(process) * abs(t[k] - t[k - 1])
    prior_mean, prior_covariance = np.concatenate(means), np.block(blocks)
    rows, values, noise = [], [], []
    for k in range(K):
        points = x if x.ndim == 2 else x[k]
        with torch.no_grad():
            offset, basis = (part.numpy() for part in decoder.basis(torch.as_tensor(points)))
        for point, channel in np.argwhere(np.isfinite(u[k])):
            row = np.zeros(K * n)
            F, c = flow(matrix, bias, 0.0 if delay is None else delay[k, point])
            seen = np.pad(basis[point, channel], (0, n - decoder.code_size))
            row[k * n:(k + 1) * n] = seen @ F
            rows.append(row)
            values.append(u[k, point, channel] - offset[point, channel] - seen @ c)
            noise.append(NOISE[channel])
    if not rows:
        return prior_mean.reshape(K, n), prior_covariance
    H = np.array(rows)
    gain = prior_covariance @ H.T @ np.linalg.inv(H @ prior_covariance @ H.T + np.diag(noise))
    mean = prior_mean + gain @ (np.array(values) - H @ prior_mean)
    return mean.reshape(K, n), prior_covariance - gain @ H @ prior_covariance


def observations(decoder, trajectories=3, frames=5, points=6, own_points=False, own_times=False, seed=4):
    """t (S, K), x (S or 1, 1, N, 1) and u (S, K, N, C) of arbitrary numbers: a posterior needs no truth."""
    random = np.random.default_rng(seed)
    gaps = random.uniform(0.2, 1.5, (trajectories if own_times else 1, frames))
    t = np.broadcast_to(np.cumsum(gaps, 1), (trajectories, frames)).copy()
    x = random.uniform(-2, 2, (trajectories if own_points else 1, 1, points, 1))
    u = random.standard_normal((trajectories, frames, points, CHANNELS))
    return t, x, u


def assimilated(pieces, t, x, u, delay=None, **options):
    delayed = None if delay is None else torch.as_tensor(delay)
    window = TrajectoryBatch(torch.as_tensor(t), torch.as_tensor(x), torch.as_tensor(u), delayed)
    return assimilate(*pieces, window, **options)


def compare(estimate, n, system_parts, decoder, t, x, u, smooth=True, tolerance=1e-6, delay=None):
    for s in range(len(t)):
        points = x[s if len(x) > 1 else 0]
        points = points[0] if len(points) == 1 else points
        for k in range(t.shape[1]):
            stop = t.shape[1] if smooth else k + 1
            seen_at = points if points.ndim == 2 else points[:stop]
            late = None if delay is None else delay[s, :stop]
            mean, covariance = posterior(system_parts, decoder, t[s, :stop], seen_at, u[s, :stop], late)
            np.testing.assert_allclose(estimate.mean[s, k], mean[k], atol=tolerance)
            found = estimate.covariance[k]
            block = slice(k * n, (k + 1) * n)
            np.testing.assert_allclose(found[s if len(found) > 1 else 0], covariance[block, block], atol=tolerance)


CASES = {
    "shared points and times": {},
    "points of each trajectory": {"own_points": True},
    "times of each trajectory": {"own_times": True},
    "points and times of each trajectory": {"own_points": True, "own_times": True},
    "fewer values than codes": {"points": 1},
}


@pytest.mark.parametrize("smooth", [False, True], ids=["filter", "smoother"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_states_are_those_of_the_joint_posterior(case, smooth):
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0], **case)
    estimate = assimilated(pieces, t, x, u, smooth=smooth)
    compare(estimate, 3, system(3), pieces[0], t, x, u, smooth)


@pytest.mark.parametrize("smooth", [False, True], ids=["filter", "smoother"])
@pytest.mark.parametrize("own_points", [False, True])
def test_missing_values_points_and_frames(own_points, smooth):
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0], own_points=own_points)
    u[0, 1] = np.nan  # a frame of one trajectory
    u[:, 3] = np.nan  # a frame of all
    u[1, 0, :4] = np.nan  # points of the first frame
    u[2, 2, :, 1] = np.nan  # a channel
    estimate = assimilated(pieces, t, x, u, smooth=smooth)
    compare(estimate, 3, system(3), pieces[0], t, x, u, smooth)


@pytest.mark.parametrize("trajectories", [1, 3])
def test_many_values_say_the_same_as_as_many_as_codes_that_they_are_turned_to(trajectories, monkeypatch):
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0], trajectories)
    u[:, 2, :4], u[:, 3, 5, 1] = np.nan, np.nan
    before = assimilated(pieces, t, x, u)
    monkeypatch.setattr("inrflow.decoders.base._MANY", 0)
    turned = assimilated(pieces, t, x, u)
    assert not torch.equal(turned.mean, before.mean)
    torch.testing.assert_close(turned.mean, before.mean, rtol=0, atol=1e-9)
    compare(turned, 3, system(3), pieces[0], t, x, u)


@pytest.mark.parametrize("trajectories", [1, 3])
def test_values_seen_before_and_after_the_times_of_their_states(trajectories):
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0], trajectories, own_points=True)
    u[0, 1, 2:] = np.nan
    delay = np.random.default_rng(5).uniform(-0.1, 0.1, u.shape[:3])
    estimate = assimilated(pieces, t, x, u, delay)
    # The carried basis is formed in single precision.
    compare(estimate, 3, system(3), pieces[0], t, x, u, tolerance=1e-5, delay=delay)


def test_a_first_frame_without_any_value_is_the_prior_that_later_frames_correct():
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0])
    u[:, 0] = np.nan
    compare(assimilated(pieces, t, x, u), 3, system(3), pieces[0], t, x, u)
    estimate = assimilated(pieces, t, x, u, smooth=False)
    np.testing.assert_allclose(estimate.mean[:, 0], np.tile(system(3)[2], (3, 1)), atol=1e-9)


def test_points_that_move_between_frames():
    pieces = parts(3, 3)
    t, _, u = observations(pieces[0])
    x = np.random.default_rng(8).uniform(-2, 2, (3, 5, 6, 1))
    compare(assimilated(pieces, t, x, u), 3, system(3), pieces[0], t, x, u)


@pytest.mark.parametrize("smooth", [False, True], ids=["filter", "smoother"])
def test_memory_that_no_frame_shows_is_found_as_the_joint_posterior_finds_it(smooth):
    pieces = parts(5, 3)
    t, x, u = observations(pieces[0], own_times=True)
    compare(assimilated(pieces, t, x, u, smooth=smooth), 5, system(5), pieces[0], t, x, u, smooth)


def test_memory_converges_to_the_truth_from_a_window():
    """Positions of a pendulum: one frame says nothing of its velocity, a few frames say all."""
    matrix = torch.tensor([[0.0, 1.0], [-0.49, 0.0]], dtype=torch.float64)
    field = VectorField.of(2).double()
    field.set_linear(matrix, torch.zeros(2))
    prior = StatePrior(torch.zeros(2).double(), torch.eye(2).double(), torch.full((2,), 1e-8).double(),
                       torch.full((2,), 1e-10).double(), torch.ones(2).double())
    decoder = Waves(1)
    t = torch.arange(4.0).double().expand(1, 4)
    truth = torch.stack([torch.linalg.matrix_exp(matrix * one) @ torch.tensor([0.3, 0.8]).double() for one in t[0]])
    x = torch.linspace(-1, 1, 5).double().reshape(1, 1, 5, 1)
    with torch.no_grad():
        u = torch.stack([decoder(x[0, 0], z[:1]) for z in truth])[None]
    pieces = decoder, Dynamics(field, Integrator(step=0.02), prior.process), prior
    one = assimilate(*pieces, TrajectoryBatch(t[:, :1], x, u[:, :1]))
    window = assimilate(*pieces, TrajectoryBatch(t, x, u))
    assert abs(float(one.mean[0, 0, 1]) - 0.8) > 0.5 and float(one.covariance[0][0, 1, 1]) > 0.9
    torch.testing.assert_close(window.mean[0], truth, rtol=0, atol=1e-3)
    assert float(window.covariance[0][0, 1, 1]) < 1e-6


def test_hidden_memory_of_a_nonlinear_field_converges_to_the_truth_from_a_window():
    """Positions of an oscillator u'' = -u + u^2: one linearisation around guessed velocities misses them."""
    field = VectorField.of(2)
    field.add(Products(2, 1))
    field.double()
    field.set_linear(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), torch.zeros(2))
    field.term(Products).weight.data.copy_(torch.tensor([[0.0], [1.0]]).reshape_as(field.term(Products).weight))
    prior = StatePrior(torch.zeros(2).double(), torch.eye(2).double(), torch.full((2,), 1e-10).double(),
                       torch.full((2,), 1e-12).double(), torch.ones(2).double())
    dynamics, decoder = Dynamics(field, Integrator(step=0.02), prior.process), Waves(1)
    t = torch.tensor([[0.0, 0.9, 1.8]]).double()
    truth = dynamics.flow(torch.tensor([[0.5, -1.2]]).double(), t)
    x = torch.linspace(-1, 1, 5).double().reshape(1, 1, 5, 1)
    with torch.no_grad():
        u = torch.stack([decoder(x[0, 0], z[:1]) for z in truth[0]])[None]
    window = TrajectoryBatch(t, x, u)
    once = assimilate(decoder, dynamics, prior, window).mean - truth
    again = assimilate_noisy(decoder, dynamics, prior, window).mean - truth
    assert once.abs().max() > 1e-2 > 1e-3 > again.abs().max()


def test_padded_frames_do_not_change_the_others():
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0], own_times=True)
    full = assimilated(pieces, t[1:2, :3], x, u[1:2, :3])
    t[1, 3:], u[1, 3:] = np.nan, np.nan
    padded = assimilated(pieces, t, x, u)
    torch.testing.assert_close(padded.mean[1, :3], full.mean[0], rtol=0, atol=1e-8)
    for k in range(3):
        torch.testing.assert_close(padded.covariance[k][1], full.covariance[k][0], rtol=0, atol=1e-8)


def test_means_do_not_depend_on_whether_covariances_are_asked_for():
    pieces = parts(3, 3)
    t, x, u = observations(pieces[0])
    with_them, without = (assimilated(pieces, t, x, u, covariance=asked) for asked in (True, False))
    torch.testing.assert_close(with_them.mean, without.mean)
    assert without.covariance is None
    single = assimilated(pieces, t[:, :1], x, u[:, :1], covariance=False)
    assert single.covariance is None and single.mean.shape == (3, 1, 3)


def test_a_single_frame_is_its_encoding():
    pieces = parts(4, 3)
    t, x, u = observations(pieces[0], frames=1)
    compare(assimilated(pieces, t, x, u), 4, system(4), pieces[0], t, x, u)


def test_covariances_are_symmetric_and_positive():
    pieces = parts(5, 3)
    t, x, u = observations(pieces[0], own_points=True, frames=8)
    for covariance in assimilated(pieces, t, x, u).covariance:
        torch.testing.assert_close(covariance, covariance.transpose(1, 2), rtol=0, atol=1e-12)
        assert float(torch.linalg.eigvalsh(covariance).min()) > 0


# ---- decoders and fields that are not affine ----


def test_a_decoder_that_is_not_affine_gives_the_most_probable_states_of_exact_data():
    decoder, dynamics, prior = parts(2, 2, decoder=Bent)
    prior.noise = torch.full((2,), 1e-6, dtype=torch.float64)
    dynamics.process = torch.full((2,), 1e-8, dtype=torch.float64)
    start = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    t = torch.tensor([[0.0, 0.3, 0.5]], dtype=torch.float64)
    truth = dynamics.flow(start, t)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 9, 1)
    with torch.no_grad():
        u = decoder(x[0, 0], truth)
    estimate = assimilate(decoder, dynamics, prior, TrajectoryBatch(t, x, u))
    torch.testing.assert_close(estimate.mean, truth, rtol=0, atol=5e-3)


def random_field(std, seed, size=3, **sizes):
    """A field with all products of its components and other terms, all parameters of which are random."""
    torch.manual_seed(seed)
    count = size * (size + 1) // 2
    field = VectorField.of(size, **sizes)
    field.add(Products(size, count))
    field.double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=std)
    left, right = torch.triu_indices(size, size)
    field.term(Products).left.copy_(left)
    field.term(Products).right.copy_(right)
    return field


def nonlinear_field():
    field = random_field(0.4, 0, depth=1, width=6, forcing_period=4.0)
    field.term(Products).weight.data.mul_(0.5)
    return field


def test_delayed_values_under_nonlinear_dynamics_give_the_states_they_came_from():
    """The prior's mean is far away: motion linearised there would carry values wrongly."""
    decoder, dynamics, prior = parts(3, 3)
    dynamics.field = random_field(0.3, 1)
    prior.mean, prior.noise = torch.zeros(3).double(), torch.full((2,), 1e-6).double()
    dynamics.process = torch.full((3,), 1e-6).double()
    start = torch.tensor([[0.9, -0.7, 0.5], [-0.4, 0.8, 0.6]]).double()
    t = torch.tensor([[0.0, 0.3, 0.5, 0.9]]).double().expand(2, -1)
    truth = dynamics.flow(start, t)
    random = np.random.default_rng(2)
    delay = torch.as_tensor(random.uniform(-0.05, 0.05, (2, 4, 8)))
    x = torch.as_tensor(random.uniform(-2, 2, (2, 4, 8, 1)))
    u = torch.empty(2, 4, 8, CHANNELS).double()
    for s, k, n in np.ndindex(2, 4, 8):
        ends = torch.stack([torch.zeros(1).double(), delay[s, k, n, None]], 1)
        state = dynamics.flow(truth[s, k, None], ends)[:, 1]
        u[s, k, n] = decoder(x[s, k, n, None], state[0])[0].detach()
    window = TrajectoryBatch(t, x, u, delay)
    errors = {}
    for name, around in {"prior": prior.mean.expand(2, 4, 3), "forecasts": None}.items():
        errors[name] = float((assimilate(decoder, dynamics, prior, window, around=around).mean - truth).abs().max())
    errors["second pass"] = float((assimilate_noisy(decoder, dynamics, prior, window).mean - truth).abs().max())
    # What is left is of second order in the delays.
    assert errors["second pass"] <= errors["forecasts"] < 0.05 * errors["prior"], errors
    assert errors["second pass"] < 2e-3


def test_a_forecast_that_diverges_is_forgotten_and_the_next_frame_stands_for_itself():
    decoder, dynamics, prior = parts(3, 3)
    dynamics.field = random_field(5.0, 1)
    t = torch.tensor([[0.0, 50.0]]).double()
    x = torch.linspace(-2, 2, 8).double()[None, None, :, None].expand(1, 2, 8, 1)
    u = decoder(x, torch.tensor([[[0.9, -0.7, 0.5], [-0.4, 0.8, 0.6]]]).double()).detach()
    assert not bool(torch.isfinite(dynamics.flow(torch.ones(1, 3).double(), t, check=False)).all())
    found = assimilate(decoder, dynamics, prior, TrajectoryBatch(t, x, u))
    alone = assimilate(decoder, dynamics, prior, TrajectoryBatch(t[:, 1:], x[:, 1:], u[:, 1:]))
    torch.testing.assert_close(found.mean[:, 1], alone.mean[:, 0], rtol=1e-6, atol=1e-6)


def compare_with_finite_differences(field, states):
    t, h = torch.rand(len(states)).double(), 1e-6
    found = field.jacobian(t, states)
    for j in range(states.shape[1]):
        shift = h * torch.eye(states.shape[1]).double()[j]
        with torch.no_grad():
            difference = (field(t, states + shift) - field(t, states - shift)) / (2 * h)
        torch.testing.assert_close(found[:, :, j], difference, rtol=0, atol=1e-8)


def test_the_jacobian_of_a_field_is_that_of_finite_differences():
    compare_with_finite_differences(nonlinear_field(), torch.randn(4, 3).double())


def test_the_jacobian_of_products_and_contexts_is_that_of_finite_differences():
    field = random_field(0.4, 0, context_size=2, depth=1, width=4)
    compare_with_finite_differences(field, torch.randn(4, 5).double())


def test_covariance_moves_through_a_nonlinear_field_as_a_cloud_of_states_does():
    field = nonlinear_field()
    dynamics = Dynamics(field, Integrator(step=0.02), torch.zeros(3).double())
    start, t = torch.tensor([[0.3, -0.2, 0.5]]).double(), torch.tensor([[0.0, 0.1]]).double()
    root = 1e-3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
    ends = dynamics.flow(start, t)
    moved, _ = dynamics.propagate(root @ root.T[None], start, ends[:, 1], t[:, 0], t[:, 1])
    cloud = torch.cat([start + root.T, start - root.T])
    cloud = dynamics.flow(cloud, t.expand(6, 2))[:, 1]
    difference = (cloud[:3] - cloud[3:]) / 2
    expected = difference.T @ difference
    torch.testing.assert_close(moved[0], expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_a_window_of_less_noise_than_training_but_not_without_is_assimilated_with_its_own():
    matrix, bias, mean, *_ = system(3)
    decoder, dynamics, prior = parts(3, 3)
    white = torch.full((CHANNELS,), 4.0, dtype=torch.float64)
    noisy = replace(prior, noise=prior.noise + white, white=white, roughest=prior.noise + white)
    random = np.random.default_rng(6)
    t, x = 0.3 * np.arange(8), random.uniform(-2, 2, (40, 1))
    whole, rest = flow(matrix, bias, 0.3)
    states = [mean + 0.3 * random.standard_normal(3)]
    for _ in t[1:]:
        states.append(whole @ states[-1] + rest)
    with torch.no_grad():
        u = decoder(torch.as_tensor(x)[None, None], torch.as_tensor(np.stack(states))[None]).double()
    u = u + 0.7 * torch.as_tensor(random.standard_normal(u.shape))
    window = TrajectoryBatch(torch.as_tensor(t)[None], torch.as_tensor(x)[None, None], u)
    found = assimilate_noisy(decoder, dynamics, noisy, window)
    assert found.quieter.all() and found.louder.all() and 0.3 < float(found.factor) < 2
    apart = found.mean[0].numpy() - states
    std = torch.stack([one[0].diagonal() for one in found.covariance]).sqrt().numpy()
    assert (apart / std).std() < 1.5
