"""Gradients of answers against central differences of the answers themselves."""

import numpy as np
import pytest
import torch
from small_surrogates import UNIT, law, network, seen

from inrflow import Observations
from inrflow.errors import UserError

SURROGATES = {"law": law, "law on a mesh": lambda: law("mesh"), "network": network,
              "linear": lambda: network(linear=True)}


def differences(ask, at, step):
    """Derivatives of the sum of ask(at) by each number of a tensor."""
    result = torch.zeros_like(at)
    for index in range(at.numel()):
        move = torch.zeros(at.numel()).to(at)
        move[index] = step
        move = move.reshape(at.shape)
        with torch.no_grad():
            result.view(-1)[index] = float((ask(at + move) - ask(at - move)).sum()) / (2 * step)
    return result


def close(one, other, tolerance):
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.fixture(params=SURROGATES, scope="module")
def case(request):
    """A surrogate, observations of two frames, and points of them."""
    surrogate = SURROGATES[request.param]()
    observed = seen(surrogate, frames=2)
    return surrogate, observed, torch.tensor(observed.frames().x[:3])


def test_by_points_and_times_between_and_after_the_observed_frames(case):
    surrogate, observed, points = case
    solution = surrogate.assimilate(observed)
    points = 0.9 * points + 0.1 * points.mean(0)  # inside of cells: elements have kinks
    times = torch.tensor([0.3 * UNIT, 1.7 * UNIT], dtype=torch.float64)
    t, x = times.clone().requires_grad_(), points.clone().requires_grad_()
    values = solution(t, x)
    assert torch.equal(values.detach(), solution(times, points))
    values.sum().backward()
    exact = next(surrogate.decoder.parameters()).dtype == torch.float64 or surrogate.decoder.affine
    step = 1e-3 if exact else 1e-2  # decoders compute in single precision
    assert close(t.grad, differences(lambda at: solution(at, points), times, step), 5e-3)
    if surrogate.decoder.place is None or surrogate.decoder.place.kind != "region":  # whose gradients are recovered
        assert close(x.grad, differences(lambda at: solution(times, at), points, step), 5e-3)


def test_by_observed_values_and_by_the_state(case):
    surrogate, observed, points = case
    frames = observed.frames()
    u = torch.tensor(frames.u, dtype=torch.float64)
    u[0, 4, 0] = torch.nan
    times = torch.tensor([0.5 * UNIT, 3.0 * UNIT], dtype=torch.float64)

    def ask(values):
        return surrogate.assimilate(Observations(frames.t, frames.x, values)).frames(times, points)

    given = u.clone().requires_grad_()
    values = ask(given)
    assert torch.allclose(values.detach(), ask(u), atol=1e-5)
    direction = torch.randn(u.shape, generator=torch.Generator().manual_seed(0)).double().nan_to_num()
    (slope,) = torch.autograd.grad(values.sum(), given)
    assert slope[0, 4, 0] == 0
    with torch.no_grad():
        steps = [float((ask((u + h * direction).requires_grad_(False)) - values).sum()) for h in (2e-3, -2e-3)]
    along = (steps[0] - steps[1]) / 4e-3
    assert abs(float((slope * direction).sum()) - along) <= 2e-2 * abs(along)

    state = surrogate.assimilate(observed).estimate.mean[0, -1].clone()

    def of(code):
        return surrogate.from_state(code, UNIT).frames(times + UNIT, points)

    leaf = state.clone().requires_grad_()
    (by_state,) = torch.autograd.grad(of(leaf).sum(), leaf)
    assert close(by_state, differences(of, state, 1e-3), 2e-3)


def test_by_points_in_degrees():
    surrogate = law("sphere")
    solution = surrogate.assimilate(seen(surrogate))
    points = torch.tensor([[10.0, 20.0], [200.0, -60.0], [-75.0, 5.0]], dtype=torch.float64)
    x = points.clone().requires_grad_()
    solution(0.1, x).sum().backward()
    assert close(x.grad, differences(lambda at: solution(0.1, at), points, 0.1), 5e-3)


def test_gradients_through_first_derivatives_are_refused_not_left_out(case):
    surrogate, observed, points = case
    x, factor = points.clone().requires_grad_(), torch.ones((), dtype=torch.float64, requires_grad=True)
    slopes, = torch.autograd.grad(surrogate.assimilate(observed)(0.3 * UNIT, x).sum(), x, create_graph=True)
    with pytest.raises(UserError, match="first derivatives in points and times alone"):
        (factor * slopes**2).sum().backward()
    solution, frames, known = surrogate.assimilate(observed), observed.frames(), points.detach()
    u = torch.tensor(frames.u, dtype=torch.float64)
    for ask, at in ((lambda x: solution(0.3 * UNIT, x), known), (lambda t: solution(t, known), torch.tensor(0.3)), (
            lambda u, x: surrogate.assimilate(Observations(frames.t, frames.x, u))(0.3 * UNIT, x), (u, known))):
        with pytest.raises(UserError, match="first derivatives in points and times alone"):
            torch.autograd.functional.hessian(lambda *given, ask=ask: ask(*given).sum(), at)
    exact = torch.autograd.functional.jacobian(lambda x: solution(0.3 * UNIT, x).sum(), known, vectorize=True)
    along = torch.autograd.functional.jvp(lambda x: solution(0.3 * UNIT, x).sum(), known, torch.ones_like(known))[1]
    assert torch.isclose(exact.sum(), along, rtol=1e-6)


def test_transforms_of_functions_are_refused_with_what_to_use(case):
    surrogate, observed, points = case
    solution, frames = surrogate.assimilate(observed), observed.frames()
    for at, value in ((lambda x: solution(0.3 * UNIT, x), points), (lambda t: solution(t, points), torch.tensor(0.3)),
                      (lambda u: surrogate.assimilate(Observations(frames.t, frames.x, u))(0.3 * UNIT, points),
                       torch.as_tensor(frames.u))):
        with pytest.raises(UserError, match="torch.autograd.functional.jacobian"):
            torch.func.jacrev(at)(value)
        with pytest.raises(UserError, match="forward mode"):
            torch.autograd.functional.jacobian(at, value, strategy="forward-mode", vectorize=True)


def test_what_has_no_gradient_is_said_or_comes_without():
    surrogate = law("sphere")
    solution = surrogate.assimilate(seen(surrogate))
    assert not solution(0.1, torch.tensor([[1.0, 0.0, 0.0]])).requires_grad
    with torch.no_grad():
        assert not solution(0.1, torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)).requires_grad
    with pytest.raises(UserError, match="a state has shape"):
        surrogate.from_state(np.zeros(2))
