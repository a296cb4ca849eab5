"""Memory is chosen where single frames do not tell what comes next, and only there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inrflow.config.train_schema import DynamicsConfig
from inrflow.dynamics.fitting.linear_search import ClosedFormSearch
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.training.budget import Budget
from inrflow.training.parts.delay_embedding import choose_memory, longest_memory
from inrflow.training.parts.linear import ChosenDynamics
from inrflow.training.recorder import Tried

TIMES = np.arange(12.0)


def codes(values: np.ndarray) -> CodeData:
    """Values (S, T, n) at unit steps, all observed."""
    found = torch.as_tensor(values, dtype=torch.float64)
    times = torch.arange(found.shape[1]).double().expand(len(found), -1)
    return CodeData(found, times, torch.ones(found.shape[:2]) > 0)


def vibrations(count: int, frequencies: tuple[float, ...], seed: int) -> np.ndarray:
    """One position (S, T, 1), the sum of vibrations with random amplitudes and phases."""
    random = np.random.default_rng(seed)
    total = np.zeros((count, len(TIMES)))
    for frequency in frequencies:
        amplitude, phase = random.uniform(0.5, 2, (count, 1)), random.uniform(0, 2 * np.pi, (count, 1))
        total += amplitude * np.cos(frequency * TIMES + phase)
    return total[..., None]


def swings(count: int, seed: int) -> np.ndarray:
    """Positions (S, T, 1) of x'' = -0.4 x - 0.3 x^2, in small Runge-Kutta steps, from random states."""
    random, parts = np.random.default_rng(seed), 50
    state = random.uniform(-0.4, 0.4, (2, count))

    def rate(s: np.ndarray) -> np.ndarray:
        return np.stack([s[1], -0.4 * s[0] - 0.3 * s[0] ** 2])

    found = [state[0]]
    for _ in TIMES[1:]:
        for _ in range(parts):
            h = 1 / parts
            k1 = rate(state)
            k2 = rate(state + h / 2 * k1)
            k3 = rate(state + h / 2 * k2)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(state + h * k3))
        found.append(state[0])
    return np.stack(found, 1)[..., None]


def choice(training: np.ndarray, held: np.ndarray, sizes=(1,), memory=None, products=0) -> ChosenDynamics:
    """What is chosen after the best linear dynamics without memory."""
    taught, judged = codes(training), codes(held)
    log = SimpleNamespace(
        stopping=False, say=lambda message: None, log=lambda *values, **named: None, tried=lambda row: row
    )
    source = SimpleNamespace(times=np.broadcast_to(TIMES, training.shape[:2]), time_bins=None)
    run = SimpleNamespace(
        config=SimpleNamespace(dynamics=DynamicsConfig(memory=memory, products=products)), log=log,
        problem=SimpleNamespace(source=source), budget=Budget(1.0),
    )
    search = ClosedFormSearch(taught, judged)
    row = Tried("reduced_order", "linear dynamics", 1, None)
    before = ChosenDynamics(search, search.search(list(sizes)), taught, judged, row)
    return choose_memory(run, before, list(sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("frequencies", "past"), [((0.7,), 1), ((0.7, 1.6), 3)])
def test_memory_looks_as_far_back_as_the_order_of_the_equation_asks(frequencies, past):
    found = choice(vibrations(12, frequencies, 0), vibrations(4, frequencies, 1))
    assert (found.size, found.memory, found.past) == (1, past, past)
    assert found.score < 1e-9


def test_frames_that_are_states_get_no_memory_though_noise_leaves_an_error():
    def turning(count, seed):
        random = np.random.default_rng(seed)
        angle = random.uniform(0, 2 * np.pi, (count, 1)) + 0.7 * TIMES
        return np.stack([np.cos(angle), np.sin(angle)], -1) + 0.05 * random.standard_normal((count, len(TIMES), 2))

    found = choice(turning(12, 0), turning(4, 1), sizes=(2,))
    assert found.memory == 0 and found.score > 1e-3


def test_a_configured_number_of_memory_dimensions_is_left_alone():
    found = choice(vibrations(12, (0.7,), 0), vibrations(4, (0.7,), 1), memory=0)
    assert found.memory == 0 and found.score > 0.1


def test_products_of_memory_are_found_where_linear_memory_leaves_something():
    held = swings(4, 1)
    linear, found = choice(swings(24, 0), held), choice(swings(24, 0), held, products=10)
    assert linear.memory and linear.quadratic is None
    assert found.quadratic is not None and (found.size, found.memory) == (1, 1)
    states = with_memory(codes(held), 1, found.fit.directions)
    with torch.no_grad():
        forecast = Integrator(step=0.1)(found.quadratic.field(), states.codes[:, 1], states.t[:, 1:])[..., 0]
    error = float((forecast - states.codes[:, 1:, 0]).square().mean())
    assert error < 0.02 * float(np.var(held)) and found.score < 0.5 * linear.score


@pytest.mark.parametrize(("frames", "orders"), [(2, 0), (4, 0), (5, 1), (6, 1), (8, 2), (10, 3), (40, 3)])
def test_half_of_a_trajectory_is_left_to_forecast(frames, orders):
    assert longest_memory(frames) == orders
