"""The term of autoregressions against its recursion, step by step."""

import math

import pytest
import torch

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.autoregression import companion
from inrflow.dynamics.flow import Dynamics, Integrator

FIRST, SECOND = torch.tensor([[0.5, 0.2], [0.0, -0.3]]), torch.tensor([[0.1, 0.0], [0.1, -0.2]])
ERRORS = torch.stack([torch.diag(torch.tensor([0.4, 1.0])), torch.tensor([[0.6, 0.1], [0.1, 1.3]])]).double()
DAMPING = torch.tensor([[1.0, 0.9], [0.8, 0.6]]).double()
BIAS, STEP, PERIOD = torch.tensor([0.3, -0.1]).double(), 2.0, 9.0


def field() -> VectorField:
    term = AutoregressionTerm(2, 2, STEP, [PERIOD], [2], leads=2)
    result = VectorField(8, [term]).double()
    term.set(companion(torch.stack([FIRST, SECOND]).double()), ERRORS, DAMPING)
    term.bias.data[:2] = BIAS
    return result


def state() -> torch.Tensor:
    return torch.cat([torch.zeros(4), torch.tensor([1.0, -2.0, 0.5, 0.7])]).double()[None]


def damping(steps: int) -> torch.Tensor:
    """Beyond the second lead it goes on as from the first to the second."""
    return torch.ones(2) if steps == 0 else DAMPING[0] * (DAMPING[1] / DAMPING[0]) ** (steps - 1)


def recursion(steps: int) -> torch.Tensor:
    return damping(steps) * iterated(steps)


def iterated(steps: int) -> torch.Tensor:
    now, before = state()[0, 4:6], state()[0, 6:]
    for _ in range(steps):
        now, before = BIAS + FIRST.double() @ now + SECOND.double() @ before, now
    return now


def test_whole_steps_are_those_of_the_recursion_and_phases_what_the_time_says():
    times = torch.tensor([[1.0, 3.0, 7.0, 15.0]]).double()
    path = Integrator("map")(field(), state(), times)[0]
    for place, steps in ((1, 1), (2, 3), (3, 7)):
        assert path[place, 4:6] == pytest.approx(recursion(steps), abs=1e-12)
        angle = 2 * math.pi * float(times[0, place]) / PERIOD
        expected = [math.cos(angle), math.cos(2 * angle), math.sin(angle), math.sin(2 * angle)]
        assert path[place, :4].tolist() == pytest.approx(expected, abs=1e-12)


def test_half_a_step_lies_between_its_ends_and_times_of_a_calendar_count_as_steps():
    times = torch.tensor([[0.0, STEP / 2, 3 * STEP * 1.02]]).double()
    path = Integrator("map")(field(), state(), times)[0, :, 4:6]
    assert path[1] == pytest.approx((recursion(0) + recursion(1)) / 2)
    once = Integrator("map")(field(), state(), times[:, [0, 2]])[0, 1, 4:6]
    assert once == pytest.approx(recursion(3))


def test_covariances_are_those_of_the_damped_recursion_and_of_the_errors_at_its_lead():
    dynamics = Dynamics(field(), Integrator("map"), torch.zeros(8).double())
    start, begin = torch.eye(8).double()[None], torch.zeros(1).double()
    one = field().term(AutoregressionTerm).matrix.detach()
    for steps, error, past in ((1, ERRORS[0], torch.zeros(2, 2)), (2, ERRORS[1], ERRORS[0])):
        moved, flow = dynamics.propagate(start, state(), state(), begin, begin + steps * STEP)
        expected = torch.cat([damping(steps), damping(steps - 1)])[:, None] * torch.linalg.matrix_power(one, steps)
        assert flow[0, 4:, 4:] == pytest.approx(expected)
        noise = torch.block_diag(error, past)
        assert moved[0, 4:, 4:] == pytest.approx(expected @ expected.T + noise, abs=1e-12)
        assert moved[0, :4].abs().max() == 0


def test_rates_are_those_of_the_phases_and_of_a_step():
    with torch.no_grad():
        later = field()(torch.tensor(0.0), torch.cat([torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), state()[0, 4:]]))
    assert later[:4].tolist() == pytest.approx([0, 0, 2 * math.pi / PERIOD, 4 * math.pi / PERIOD])
    assert later[4:6] == pytest.approx((iterated(1) - iterated(0)) / STEP)


def test_a_field_is_built_anew_from_its_structure():
    built = VectorField.from_structure(field().structure()).double()
    built.load_state_dict(field().state_dict())
    assert built.known_codes(torch.zeros(1)).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    times = torch.tensor([[0.0, 5.0]]).double()
    assert Integrator("map")(built, state(), times) == pytest.approx(Integrator("map")(field(), state(), times))


def test_shares_of_the_latest_codes_stay_and_all_of_them_beyond_the_reach():
    term = AutoregressionTerm(2, 2, STEP, leads=2, stays=True).double()
    share, reach = torch.tensor([0.5, 0.8]).double(), torch.tensor([[-1.5, -1.5], [0.875, 2.0]]).double()
    term.set(companion(torch.stack([FIRST, SECOND]).double()), ERRORS, DAMPING, share, reach)
    beyond = torch.tensor([0.125, -0.5]).double()  # of (1, -2), which the past (.5, .7) shares
    before, first = state()[0, 6:] - beyond, state()[0, 4:6] - beyond
    expected, now = [], first
    for lead in range(2):
        now, before = FIRST.double() @ now + SECOND.double() @ before, now
        expected.append((1 - share[lead]) * DAMPING[lead] * now + share[lead] * first + beyond)
    path = term.path(state()[:, 4:], torch.tensor([[0.0, STEP, 2 * STEP]]).double())[0]
    assert path[0] == pytest.approx(state()[0, 4:])
    assert path[1:, :2] == pytest.approx(torch.stack(expected), abs=1e-12)
    assert path[2, 2:] == pytest.approx(path[1, :2], abs=1e-12)  # the past of the second step is the first
    inside = (state() / 10)[:, 4:]
    flow = term.propagate(torch.eye(4).double()[None], torch.tensor([2 * STEP]))[1][0]
    assert flow @ inside[0] == pytest.approx(term.path(inside, torch.tensor([[0.0, 2 * STEP]]).double())[0, 1])


def test_corrections_are_added_to_damped_iterates_also_of_lags_and_fade_as_iterates_do():
    random = torch.Generator().manual_seed(0)
    corrections = torch.randn(2, 2, 4, generator=random).double()
    term = AutoregressionTerm(2, 2, STEP, leads=2, corrected=True).double()
    step = companion(torch.stack([FIRST, SECOND]).double())
    term.set(step, ERRORS, DAMPING, corrections=corrections)
    start, times = state()[:, 4:], torch.tensor([[0.0, STEP, 2 * STEP, 3 * STEP]]).double()
    path = term.path(start, times)[0]
    now = [step, step @ step]
    for lead in range(2):
        expected = DAMPING[lead] * (now[lead] @ start[0])[:2] + corrections[lead] @ start[0]
        assert path[lead + 1, :2] == pytest.approx(expected, abs=1e-12)
    assert path[2, 2:] == pytest.approx(path[1, :2], abs=1e-12)  # the past of the second step is the first
    fading = (torch.linalg.matrix_power(step, 4)[:2].norm(dim=1) / now[1][:2].norm(dim=1)) ** 0.5
    third = damping(3) * (now[1] @ step @ start[0])[:2] + fading * (corrections[1] @ start[0])
    assert path[3, :2] == pytest.approx(third, abs=1e-12)
    for lead in (1, 2, 3):
        flow = term.propagate(torch.eye(4).double()[None], torch.tensor([lead * STEP]))[1][0]
        assert flow @ start[0] == pytest.approx(path[lead], abs=1e-12)
