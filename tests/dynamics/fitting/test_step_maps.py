"""Maps of a step with what goes between and back, found from frames of linear dynamics that are seen in part."""

import numpy as np
import torch
from scipy.linalg import expm

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedFormSearch
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData


def codes_of(matrix, count, seed, frames=10, parts=2):
    """Codes of ds/dt = matrix s from random states, `parts` to a unit of time; those at units alone are training."""
    random = np.random.default_rng(seed)
    n = len(matrix)
    start = random.standard_normal((count, n))
    path = np.stack([start @ expm(matrix * k / parts).T for k in range(parts * frames)], 1)
    t = torch.arange(parts * frames).double() / parts
    return CodeData(torch.tensor(path), t.expand(count, -1), torch.ones(count, parts * frames, dtype=torch.bool))


def every(data, stride):
    return CodeData(*(value[:, ::stride] for value in (data.codes, data.t, data.observed)))


def error(path, truth):
    return float((path - truth).square().mean() / truth.square().mean())


def chain(n):
    """A chain along which what is advected leaves: far from normal, as a channel with an outflow."""
    return 3.0 * (np.diag(np.ones(n - 1), -1) - np.eye(n)) + 0.2 * np.diag(np.ones(n - 1), 1)


def test_a_map_without_a_generator_is_kept_at_the_frames():
    states = np.random.default_rng(0).standard_normal((12, 1, 2))
    path = np.concatenate([states * np.array([0.9, -0.8]) ** k for k in range(8)], 1)
    data = CodeData(torch.tensor(path), torch.arange(8.0).double().expand(12, 8), torch.ones(12, 8, dtype=torch.bool))
    fit = ClosedFormSearch(data.first(8), CodeData(data.codes[8:], data.t[8:], data.observed[8:])).search([2])
    assert fit.score < 1e-20
    field = VectorField(2, [fit.steps])
    assert error(Integrator("map")(field, data.codes[:, 0], data.t), data.codes) < 1e-20
    back = Integrator("map")(field, data.codes[:, 7], data.t.flip(1)).flip(1)
    assert error(back, data.codes) < 1e-6


def test_between_frames_and_back_in_time_truth_that_nobody_saw_is_met():
    training, held = (codes_of(chain(8), count, seed) for count, seed in ((40, 1), (10, 2)))
    fit = ClosedFormSearch(every(training, 2), every(held, 2)).search([8])
    field = VectorField(8, [fit.steps])
    path = Integrator("map")(field, held.codes[:, 0], held.t)
    assert error(path[:, ::2], held.codes[:, ::2]) < 1e-12
    assert error(path[:, 1::2], held.codes[:, 1::2]) < 1e-6
    lines = (held.codes[:, :-2:2] + held.codes[:, 2::2]) / 2
    assert error(path[:, 1:-1:2], held.codes[:, 1:-1:2]) < 1e-3 * error(lines, held.codes[:, 1:-1:2])


def test_oscillations_that_turn_by_more_than_a_right_angle_in_a_step_are_met_between_steps():
    turn = 2.0 * np.array([[0.0, 1.0], [-1.0, 0.0]]) - 0.1 * np.eye(2)
    training, held = (codes_of(turn, count, seed) for count, seed in ((40, 1), (10, 2)))
    fit = ClosedFormSearch(every(training, 2), every(held, 2)).search([2])
    path = Integrator("map")(VectorField(2, [fit.steps]), held.codes[:, 0], held.t)
    assert error(path, held.codes) < 1e-12


def test_the_chosen_ridge_of_the_map_back_is_taken_for_other_data():
    training, held, third = (codes_of(chain(5), 12, seed, parts=1) for seed in (1, 2, 3))
    search = ClosedFormSearch(training, held)
    fit = search.search([5])
    again = search.fit(fit.candidate, data=third, like=fit)
    assert again.back == fit.back
    assert error(Integrator("map")(VectorField(5, [again.steps]), held.codes[:, 0], held.t), held.codes) < 1e-12


def test_what_is_carried_out_of_a_domain_is_met_between_steps_by_a_cubic():
    place, width = np.linspace(0, 1, 60), 0.05
    centres = np.random.default_rng(3).uniform(0, 0.8, 100)  # pulses of a closed form that leave to the right
    path = np.exp(-((place - centres[:, None, None] - 0.02 * np.arange(40)[:, None]) / width) ** 2)
    basis = np.linalg.svd(path.reshape(-1, 60), full_matrices=False)[2][:40]
    t = torch.arange(40.0).double() / 2
    data = CodeData(torch.tensor(path @ basis.T), t.expand(100, -1), torch.ones(100, 40, dtype=torch.bool))
    held = CodeData(data.codes[80:], data.t[80:], data.observed[80:])
    fit = ClosedFormSearch(every(data.first(80), 2), every(held, 2)).search([40])
    path = Integrator("map")(VectorField(40, [fit.steps]), held.codes[:, 0], held.t)
    assert error(path[:, ::2], held.codes[:, ::2]) < 1e-5
    assert error(path[:, 3:-1:2], held.codes[:, 3:-1:2]) < 1e-2
