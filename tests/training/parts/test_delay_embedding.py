"""Memory is chosen where single frames do not tell what comes next, and only there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inrflow.config.train_schema import DynamicsConfig
from inrflow.dynamics.fitting.linear_search import ClosedFormSearch
from inrflow.encoding.encode import CodeData
from inrflow.training.parts.linear import ChosenDynamics, choose_memory, longest_memory
from inrflow.training.recorder import Budget, Tried

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


def choice(training: np.ndarray, held: np.ndarray, sizes=(1,), memory=None) -> ChosenDynamics:
    """What is chosen after the best linear dynamics without memory."""
    taught, judged = codes(training), codes(held)
    log = SimpleNamespace(
        stopping=False, say=lambda message: None, log=lambda *values, **named: None, tried=lambda row: row
    )
    source = SimpleNamespace(times=np.broadcast_to(TIMES, training.shape[:2]), time_bins=None)
    run = SimpleNamespace(
        config=SimpleNamespace(dynamics=DynamicsConfig(memory=memory)), log=log,
        problem=SimpleNamespace(source=source), budget=Budget(1.0),
    )
    search = ClosedFormSearch(taught, judged)
    row = Tried("reduced_order", "linear dynamics", 1, None)
    before = ChosenDynamics(search, search.search(list(sizes)), taught, judged, row)
    return choose_memory(run, before, list(sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("frequencies", "past"), [((0.7,), 1), ((0.7, 1.6), 3)])
def test_memory_looks_as_far_back_as_the_order_of_the_equation_asks(frequencies, past):
    found = choice(vibrations(12, frequencies, 0), vibrations(4, frequencies, 1))
    assert (found.size, found.memory, found.fit.candidate.past) == (1, past, past)
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


@pytest.mark.parametrize(("frames", "orders"), [(2, 0), (4, 0), (5, 1), (6, 1), (8, 2), (10, 3), (40, 3)])
def test_half_of_a_trajectory_is_left_to_forecast(frames, orders):
    assert longest_memory(frames) == orders
