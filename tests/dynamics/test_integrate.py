"""The integrator against exact flows, itself at other step sizes, and what it says when a trajectory diverges."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from scipy.linalg import expm

from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import IntegrationError, Integrator
from inrflow.errors import UserError

A = torch.tensor([[-0.1, 1.0, 0.0], [-1.0, -0.1, 0.3], [0.0, 0.2, -0.4]], dtype=torch.float64)
B = torch.tensor([0.2, -0.1, 0.05], dtype=torch.float64)


def linear_field(matrix=A, bias=B):
    field = VectorField.of(len(bias)).double()
    field.set_linear(matrix, bias)
    return field


def exact(start, times):
    """Flow of ds/dt = A s + B from `start` at times[0], by the exponential of the augmented matrix."""
    generator = np.zeros((4, 4))
    generator[:3, :3], generator[:3, 3] = A, B
    return np.stack([(expm(generator * (t - times[0])) @ np.append(start, 1.0))[:3] for t in times])


def starts_and_times(trajectories=4, frames=6, seed=0):
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.1, 1.7, (trajectories, frames)), 1) + random.uniform(-3, 3, (trajectories, 1))
    return random.standard_normal((trajectories, 3)), times


def solve(integrator, field, start, times, check=True):
    with torch.no_grad():
        return integrator(field, torch.as_tensor(start), torch.as_tensor(times), check).numpy()


@pytest.mark.parametrize(("integrator", "tolerance"),
                         [(Integrator(step=0.02), 1e-8), (Integrator("dopri5", rtol=1e-10, atol=1e-11), 1e-8)])
def test_linear_systems_follow_the_matrix_exponential_at_irregular_times_of_each_trajectory(integrator, tolerance):
    start, times = starts_and_times()
    states = solve(integrator, linear_field(), start, times)
    expected = np.stack([exact(s, t) for s, t in zip(start, times, strict=True)])
    np.testing.assert_allclose(states, expected, rtol=0, atol=tolerance)


def test_rk4_is_of_fourth_order():
    start, times = starts_and_times(2, 3)
    expected = np.stack([exact(s, t) for s, t in zip(start, times, strict=True)])
    errors = [np.abs(solve(Integrator(step=step), linear_field(), start, times) - expected).max()
              for step in (0.2, 0.1, 0.05)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.7).all() and (orders < 4.4).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rk4_and_its_gradients_are_those_of_torchdiffeq_bit_for_bit(kind):
    torch.manual_seed(0)
    field = VectorField.of(3, context_size=2, width=8, depth=1, forcing_period=3.0).to(kind)
    for weight in field.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    start, (begin, gap) = torch.randn(4, 5, dtype=kind, requires_grad=True), torch.rand(2, 4).double()
    found = Integrator(step=0.3)(field, start, torch.stack([begin, begin + gap], 1))[:, 1]
    gap = (begin + gap) - begin
    expected = torchdiffeq.odeint(lambda s, y: gap.to(kind)[:, None] * field(begin + s.double() * gap, y), start,
                                  torch.linspace(0, 1, math.ceil(float(gap.max()) / 0.3) + 1, dtype=kind),
                                  method="rk4")[-1]
    assert torch.equal(found, expected)
    weights = [start, *field.parameters()]
    slopes = (torch.autograd.grad(one.square().sum(), weights) for one in (found, expected))
    assert all(map(torch.equal, *slopes))


def test_no_interval_is_crossed_in_steps_larger_than_the_given_one():
    gaps = []

    class Watched(torch.nn.Module):
        def forward(self, t, state):
            gaps.append(float(t[0]))
            return torch.zeros_like(state)

    Integrator(step=0.4)(Watched(), torch.zeros(1, 1), torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    times = np.unique(np.round(gaps, 9))
    assert len(gaps) == 4 * 3 and np.diff(times).max() <= 0.4  # four evaluations in each of ceil(1 / 0.4) steps


@pytest.mark.parametrize("integrator", [Integrator(step=0.02), Integrator("dopri5", rtol=1e-9, atol=1e-10)])
def test_backwards_in_time_leads_back_to_the_start(integrator):
    start, times = starts_and_times()
    there = solve(integrator, linear_field(), start, times)
    back = solve(integrator, linear_field(), there[:, -1], times[:, ::-1].copy())
    np.testing.assert_allclose(back, there[:, ::-1], atol=1e-7)


def test_forcing_is_seen_at_absolute_times_of_each_trajectory():
    field = VectorField.of(1, forcing_period=3.0, forcing_harmonics=1).double()
    field.set_linear(torch.zeros(1, 1), torch.zeros(1), torch.tensor([[0.7, -0.4]]))
    w = 2 * np.pi / 3.0
    times = np.array([[0.3, 1.1, 2.9], [-1.0, 0.0, 5.5]])

    def primitive(t):
        return 0.7 * np.sin(w * t) / w + 0.4 * np.cos(w * t) / w

    states = solve(Integrator(step=0.02), field, np.zeros((2, 1)), times)[..., 0]
    np.testing.assert_allclose(states, primitive(times) - primitive(times[:, :1]), atol=1e-7)


def test_a_batch_is_the_loop_over_its_trajectories():
    torch.manual_seed(0)
    field = VectorField.of(3, depth=1, width=8, forcing_period=2.0).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    start, times = starts_and_times()
    times = np.sort(np.concatenate([times, times[:, :1] + np.arange(1, 4) * 0.5], 1), 1)
    # The number of rk4 steps of an interval is that of the widest gap in the batch: make it one for all.
    integrator = Integrator(step=float(np.diff(times, axis=1).max()))
    together = solve(integrator, field, start, times)
    alone = [solve(integrator, field, s[None], t[None])[0] for s, t in zip(start, times, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-13, atol=1e-13)


def test_shared_times_are_the_same_as_times_of_each_trajectory():
    start, _ = starts_and_times()
    shared = np.array([0.0, 0.5, 0.7, 2.0])
    np.testing.assert_array_equal(solve(Integrator(), linear_field(), start, shared),
                                  solve(Integrator(), linear_field(), start, np.tile(shared, (4, 1))))


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_padded_times_give_nan_and_leave_the_rest_alone(method):
    start, times = starts_and_times()
    padded = times.copy()
    padded[1, 3:] = np.nan
    padded[2, 5:] = np.nan
    integrator = Integrator(method, step=0.02, rtol=1e-10, atol=1e-11)
    states = solve(integrator, linear_field(), start, padded)
    full = solve(integrator, linear_field(), start, times)
    assert np.isnan(states[1, 3:]).all() and np.isnan(states[2, 5:]).all()
    kept = np.isfinite(padded)
    np.testing.assert_allclose(states[kept], full[kept], atol=1e-8)


def test_gradients_pass_padding_as_if_it_were_not_there():
    start, times = starts_and_times(2, 4)
    times[1, 2:] = np.nan
    gradients = []
    for s, t in ((start, times), (start[:1], times[:1]), (start[1:], times[1:, :2])):
        field = linear_field()
        states = Integrator(step=10.0)(field, torch.as_tensor(s), torch.as_tensor(t))
        states[torch.isfinite(torch.as_tensor(t))].square().sum().backward()
        gradients.append(field.linear.matrix.grad)
    torch.testing.assert_close(gradients[0], gradients[1] + gradients[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_the_same_time_twice_gives_the_same_state(method):
    start, times = starts_and_times(3, 4)
    doubled = np.repeat(times, 2, 1)
    states = solve(Integrator(method), linear_field(), start, doubled)
    np.testing.assert_array_equal(states[:, ::2], states[:, 1::2])
    mixed = times.copy()
    mixed[0, 2] = mixed[0, 1]  # in one trajectory only
    states = solve(Integrator(method), linear_field(), start, mixed)
    np.testing.assert_array_equal(states[0, 1], states[0, 2])


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_adjoint_gradients_are_those_through_the_stored_steps(method):
    start, times = starts_and_times(3, 4)
    gradients = []
    for adjoint in (False, True):
        torch.manual_seed(1)
        field = VectorField.of(3, depth=1, width=6).double()
        field.set_linear(A, B)
        torch.nn.init.normal_(field.term(NetworkTerm).layers[-1].weight, std=0.1)
        initial = torch.tensor(start, requires_grad=True)
        integrator = Integrator(method, step=0.02, rtol=1e-10, atol=1e-11, adjoint=adjoint)
        integrator(field, initial, torch.as_tensor(times)).square().sum().backward()
        gradients.append([initial.grad, *(p.grad for p in field.parameters())])
    for direct, through_adjoint in zip(*gradients, strict=True):
        assert float(direct.abs().max()) > 1e-3
        torch.testing.assert_close(through_adjoint, direct, rtol=1e-6, atol=1e-7)


def test_gradients_with_respect_to_the_field_match_finite_differences():
    start, times = starts_and_times(2, 3)

    def final(matrix):
        return Integrator(step=0.5)(lambda t, s: torch.nn.functional.linear(s, matrix, B), torch.as_tensor(start),
                                    torch.as_tensor(times))[:, -1]

    assert torch.autograd.gradcheck(final, (A.clone().requires_grad_(),))


def test_divergence_is_reported_with_trajectory_time_step_and_norm():
    field = VectorField.of(1).double()
    field.set_linear(torch.tensor([[3.0]]), torch.zeros(1))
    start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    times = torch.arange(0.0, 9.0, 1.5, dtype=torch.float64)
    with pytest.raises(IntegrationError) as caught:
        Integrator(step=0.1)(field, start, times)
    message = str(caught.value)  # e^9 = 8103 < 1e4 < e^13.5 = 729416
    assert isinstance(caught.value, UserError)
    assert "trajectory 1" in message and "t=4.5" in message and "step 1.5" in message and "7.29e+05" in message


def test_states_that_are_not_finite_are_a_divergence_too():
    field = VectorField.of(1).double()
    field.set_linear(torch.tensor([[500.0]]), torch.zeros(1))
    start, times = torch.ones(1, 1, dtype=torch.float64), torch.arange(0.0, 60.0, dtype=torch.float64)
    with pytest.raises(IntegrationError, match="diverged at t=1 "):
        Integrator()(field, start, times)
    late = Integrator(largest_norm=float("inf"))
    with pytest.raises(IntegrationError, match="norm (nan|inf)"):
        late(field, start, times)
    states = Integrator()(field, start, times, check=False)
    assert not torch.isfinite(states[0, -1]).all()


class Explosion(torch.nn.Module):
    """ds/dt = s^2 from s(0) = 1 leaves the finite numbers at t = 1."""

    def forward(self, t, state):
        return state**2


def test_a_collapsed_step_of_the_adaptive_method_is_reported_with_time_step_and_norm():
    start = torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    times = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    with pytest.raises(IntegrationError) as caught:
        Integrator("dopri5")(Explosion(), start, times)
    message = str(caught.value)
    assert "t=0.5" in message and "1.5" in message and "norm 2" in message and "dopri5" in message
    own = torch.stack([times - 0.25, times])
    with pytest.raises(IntegrationError, match="trajectory 1 .* t=0.5 "):  # not the time of the other trajectory
        Integrator("dopri5")(Explosion(), start, own)
    states = Integrator("dopri5")(Explosion(), start, times, check=False)
    assert torch.isfinite(states[:, :2]).all() and torch.isnan(states[:, 2]).all()


def test_padding_does_not_count_as_divergence():
    start, times = starts_and_times(2, 3)
    times[0, 1:] = np.nan
    assert np.isfinite(solve(Integrator(), linear_field(), start, times)[1]).all()


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_start_that_is_not_finite_is_one_clear_line(method):
    start = torch.full((2, 40), float("nan"), dtype=torch.float64)
    with pytest.raises(IntegrationError, match="norm nan") as caught:
        Integrator(method)(Explosion(), start, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("end", [1e9, 1e21, 1e300, float("inf")])
def test_times_too_far_to_be_stepped_to_are_refused_at_once(method, end):
    class Slow(torch.nn.Module):
        def forward(self, t, state):
            return 1e6 * torch.sin(state)  # stiff: the adaptive method needs small steps too

    start, times = torch.ones(1, 2, dtype=torch.float64), torch.tensor([0.0, end], dtype=torch.float64)
    if method == "rk4":
        with pytest.raises(IntegrationError, match="more than 1.04858e\\+06: forecast less far"):
            Integrator(method, step=0.1)(Slow(), start, times)
        assert torch.isnan(Integrator(method, step=0.1)(Slow(), start, times, check=False)[:, 1]).all()
    elif not math.isfinite(end):
        with pytest.raises(IntegrationError):
            Integrator(method)(Slow(), start, times)


def test_steps_without_gradients_are_the_same_steps():
    field = VectorField.of(3, depth=1, width=6).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    start, times = torch.randn(2, 3).double(), torch.tensor([0.0, 3.0, 3.1]).double()
    kept = Integrator(step=0.07)(field, start, times).detach()
    np.testing.assert_array_equal(solve(Integrator(step=0.07), field, start, times), kept)
