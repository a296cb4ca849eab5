"""Maps of a step between which a generator flows, against matrix exponentials and powers."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics, IntegrationError, Integrator

RATE = np.array([[-0.05, 0.8, 0.3], [-0.8, -0.05, 0.0], [0.0, 0.0, -2.0]])  # a damped oscillator, driven by a decay
REST, STEP = np.array([0.5, 0.0, 0.0]), 0.5
TURNED = np.diag([0.9, -0.4, 0.0])  # no flow of a real linear field
START = torch.tensor([[1.0, -2.0, 0.7]], dtype=torch.float64)


def affine(matrix, rest=None):
    result = np.zeros((4, 4))
    result[1:, 1:] = matrix
    result[1:, 0] = 0.0 if rest is None else -matrix @ rest
    return result


def field(matrix, generator, back=None, season=(0.0, 0), mean=None, rest=None) -> VectorField:
    """`generator` on [1, s], by internal time."""
    step = np.eye(4)
    step[1:, 1:] = matrix
    step[1:, 0] = 0.0 if rest is None else rest - matrix @ rest
    term = StepMapTerm(3, STEP, *season)
    result = VectorField(3, [term]).double()
    maps = torch.tensor(np.stack([step, np.linalg.pinv(step) if back is None else back]))
    generators = torch.tensor(np.stack([generator, -generator]))
    term.set(maps, generators, torch.zeros(1, 3) if mean is None else mean)
    return result


def exact() -> VectorField:
    return field(expm(RATE * STEP), affine(RATE, REST), rest=REST)


def turned() -> VectorField:
    return field(TURNED, affine(np.diag([np.log(0.9) / STEP, -3.0, -8.0])))


def solution(t):
    return REST + expm(RATE * t) @ (START[0].numpy() - REST)


def test_where_the_map_is_that_of_its_generator_all_times_are_those_of_its_flow():
    times = torch.tensor([[0.3, 0.31, 0.8, 1.17, 2.3, 40.3, 9.9999]], dtype=torch.float64)
    path = Integrator("map")(exact(), START, times)[0]
    for place, t in enumerate(times[0].tolist()):
        assert path[place].numpy() == pytest.approx(solution(t - 0.3), abs=1e-11)


def test_back_in_time_the_map_back_leads():
    times = torch.tensor([[2.0, 1.5, 1.3, 0.0]], dtype=torch.float64)
    path = Integrator("map")(exact(), START, times)[0]
    for place, t in enumerate(times[0].tolist()):
        assert path[place].numpy() == pytest.approx(solution(t - 2.0), abs=1e-9)


def test_frames_are_powers_of_a_map_that_is_no_flow_and_the_path_between_them_is_continuous():
    frames = STEP * torch.arange(6.0).double()[None]
    path = Integrator("map")(turned(), START, frames)[0]
    for steps in range(6):
        expected = np.linalg.matrix_power(TURNED, steps) @ START[0].numpy()
        assert path[steps].numpy() == pytest.approx(expected, abs=1e-14)
    for steps in range(1, 5):
        times = torch.tensor([[0.0, steps * STEP - 1e-5, steps * STEP, steps * STEP + 1e-5]], dtype=torch.float64)
        before, at, after = Integrator("map")(turned(), START, times)[0, 1:]
        assert float((before - at).abs().max()) < 1e-3 and float((after - at).abs().max()) < 1e-3


def test_far_leads_take_powers_and_growth_without_bound_is_told():
    far = torch.tensor([[0.0, 1e6 * STEP]], dtype=torch.float64)
    assert Integrator("map")(exact(), START, far)[0, 1].numpy() == pytest.approx(REST, abs=1e-9)
    growing = field(1.5 * np.eye(3), affine(np.log(1.5) / STEP * np.eye(3)))
    with pytest.raises(IntegrationError, match="query shorter horizons"):
        Integrator("map")(growing, START, far)


def test_the_rate_at_a_state_is_that_of_the_path_and_the_jacobian_its_derivative():
    small = 1e-6
    for one in (exact(), turned()):
        path = Integrator("map")(one, START, torch.tensor([[0.0, small]], dtype=torch.float64))[0]
        with torch.no_grad():
            rate = one(torch.tensor(0.0).double(), START)[0]
        assert ((path[1] - path[0]) / small).numpy() == pytest.approx(rate.numpy(), abs=1e-4)
        jacobian = torch.func.jacrev(lambda z, one=one: one(torch.tensor(0.0).double(), z))(START[0])
        assert one.jacobian(torch.zeros(1).double(), START)[0] == pytest.approx(jacobian.detach())


def test_covariances_are_carried_by_the_flow_and_noise_is_added_along_it():
    process = torch.tensor([0.1, 0.2, 0.3]).double()
    dynamics, begin = Dynamics(exact(), Integrator("map"), process), torch.zeros(1).double()
    start = torch.diag(torch.tensor([1.0, 2.0, 3.0])).double()[None]
    for gap in (0.2, 1.7, 40.0):
        moved, flow = dynamics.propagate(start, START, START, begin, begin + gap)
        assert flow[0].numpy() == pytest.approx(expm(RATE * gap), abs=1e-10)
        carried = expm(RATE * gap) @ start[0].numpy() @ expm(RATE * gap).T
        if gap < 8:
            assert moved[0].numpy() == pytest.approx(carried + np.diag(process) * gap, abs=1e-9)
        else:  # eight doublings' parts: as the exact integral, to the noise of a part that is not moved
            parts = [expm(RATE * 5 * k) for k in range(8)]
            noise = sum(5 * part @ np.diag(process) @ part.T for part in parts)
            assert moved[0].numpy() == pytest.approx(carried + noise, abs=1e-9)


def test_between_steps_the_variance_of_what_nobody_saw_is_added():
    one, begin = exact(), torch.zeros(1).double()
    term = one.term(StepMapTerm)
    term.between.copy_(torch.tensor([0.1, 0.0, 0.4]))
    dynamics, none = Dynamics(one, Integrator("map"), torch.zeros(3).double()), torch.zeros(1, 3, 3).double()
    for steps, share in ((3.5, 1.0), (3.25, 0.75), (3.0, 0.0), (100.5, 1.0), (-0.5, 1.0)):
        moved, _ = dynamics.propagate(none, START, START, begin, begin + steps * STEP)
        assert moved[0].numpy() == pytest.approx(share * np.diag([0.1, 0.0, 0.4]), abs=1e-8)


def test_states_move_around_a_mean_of_the_season():
    mean = torch.tensor([[0.1, 0.0, 0.0], [1.0, 0.0, 0.5], [0.0, -0.4, 0.0]], dtype=torch.float64)
    one = field(expm(RATE * STEP), affine(RATE), season=(3.0, 1), mean=mean)

    def season(t):
        phase = 2 * np.pi * t / 3.0
        return mean[0].numpy() + np.cos(phase) * mean[1].numpy() + np.sin(phase) * mean[2].numpy()

    path = Integrator("map")(one, START, torch.tensor([[0.4, 1.1, 2.4]], dtype=torch.float64))[0]
    for place, t in ((1, 1.1), (2, 2.4)):
        expected = season(t) + expm(RATE * (t - 0.4)) @ (START[0].numpy() - season(0.4))
        assert path[place].numpy() == pytest.approx(expected, abs=1e-10)
    with torch.no_grad():
        rate = one(torch.tensor(0.4).double(), START)[0].numpy()
    slope = (season(0.4 + 1e-6) - season(0.4 - 1e-6)) / 2e-6
    assert rate == pytest.approx(slope + RATE @ (START[0].numpy() - season(0.4)), abs=1e-6)


def test_gradients_flow_through_a_path():
    start = START.clone().requires_grad_()
    end = Integrator("map")(exact(), start, torch.tensor([[0.0, 1.23]], dtype=torch.float64))[0, 1]
    (gradient,) = torch.autograd.grad(end[0], start)
    assert gradient[0].numpy() == pytest.approx(expm(RATE * 1.23)[0], abs=1e-10)


def test_a_field_is_built_anew_from_its_structure():
    built = VectorField.from_structure(turned().structure()).double()
    built.load_state_dict(turned().state_dict())
    times = torch.tensor([[0.0, 1.3, -0.7]], dtype=torch.float64)
    assert Integrator("map")(built, START, times) == pytest.approx(Integrator("map")(turned(), START, times))
