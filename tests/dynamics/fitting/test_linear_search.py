"""The search for closed-form dynamics: what it picks must forecast trajectories it has not seen."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from inrflow.dynamics.fitting.linear_search import Candidate, ClosedFormSearch
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import with_memory
from inrflow.encoding.encode import CodeData
from inrflow.numerics.matrix_functions import SHORTEST, generator_of

OSCILLATOR = np.array([[-0.05, 0.8], [-0.8, -0.05]])
RIDGES = (1e-8, 1e-4, 1e-2)


def oscillators(times, count, nuisance=0, seed=0, level=0.1, noise=0.0):
    """Codes (S, T, 2 + nuisance): a damped oscillator around (0.5, 0), then dimensions of white noise."""
    random = np.random.default_rng(seed)
    times = np.broadcast_to(times, (count, np.shape(times)[-1]))
    rest = np.array([0.5, 0.0])
    codes = []
    for t in times:
        start = 2 * random.standard_normal(2)
        codes.append([rest + expm(OSCILLATOR * (one - t[0])) @ start for one in t])
    codes = np.concatenate([codes, level * random.standard_normal((*times.shape, nuisance))], -1)
    codes[..., :2] += noise * random.standard_normal((*times.shape, 2))
    return CodeData(torch.as_tensor(codes), torch.as_tensor(times.copy()), torch.ones(times.shape, dtype=torch.bool))


def rolled_out(fit, codes, first=0):
    """Forecast codes by the field that was found."""
    states = with_memory(codes, fit.candidate.size, fit.directions)
    integrator = Integrator("map") if fit.steps else Integrator(step=0.1)
    with torch.no_grad():
        path = integrator(fit.field, states.codes[:, first], states.t[:, first:])
    return path[..., : fit.candidate.size]


def matrix_of(fit):
    """The rates of change by the states: of a map, the logarithm."""
    return fit.field.linear.matrix.detach() if fit.steps is None else generator_of(
        fit.steps.affine_map(), fit.steps.step, SHORTEST)[0]


def relative_error(fit, codes, dimensions=2, first=0):
    found, true = rolled_out(fit, codes, first)[..., :dimensions], codes.codes[:, first:, :dimensions]
    return float((found - true).square().mean() / true.var())


TIMES = np.arange(15.0)
IRREGULAR = np.cumsum(np.random.default_rng(7).uniform(0.4, 1.5, (12, 15)), 1)


@pytest.mark.parametrize("times", [TIMES, IRREGULAR], ids=["uniform", "irregular"])
def test_a_damped_oscillator_among_nuisance_dimensions_is_found_by_held_out_rollouts(times):
    training, held_out = oscillators(times[:8] if times.ndim > 1 else times, 8, nuisance=6), \
        oscillators(times[8:] if times.ndim > 1 else times, 4, nuisance=6, seed=1)
    fit = ClosedFormSearch(training, held_out).search([1, 2, 4, 8], ridges=RIDGES)
    assert fit.candidate.size >= 2 and fit.directions is None
    assert relative_error(fit, held_out) < 1e-2
    np.testing.assert_allclose(matrix_of(fit)[:2, :2], OSCILLATOR, atol=0.02)
    assert fit.score == min(fit.scores.values()) or fit.score < 1.03 * min(fit.scores.values())


def test_a_larger_candidate_is_not_preferred_when_it_is_not_better():
    training, held_out = oscillators(TIMES, 8, nuisance=6, level=1e-3), oscillators(TIMES, 4, 6, seed=1, level=1e-3)
    search = ClosedFormSearch(training, held_out)
    fit = search.search([1, 2, 4, 8], ridges=RIDGES)
    assert fit.candidate.size == 2
    assert search.score(Candidate(1, 0, 1e-8)) > 100 * search.score(Candidate(2, 0, 1e-8))


def pendulums(heights):
    """Codes (S, T, 3) of pendulums let go at these angles: angle, speed and a thousandth of the angle's cube."""
    t = np.arange(12) * 0.5
    paths = [solve_ivp(lambda _, y: [y[1], -np.sin(y[0])], (0, 5.5), [h, 0.0], t_eval=t, rtol=1e-9)
             for h in heights]
    codes = np.stack([np.stack([*path.y, 1e-3 * path.y[0] ** 3], 1) for path in paths])
    return CodeData(*map(torch.as_tensor, (codes, np.tile(t, (len(codes), 1)), np.ones(codes.shape[:2], bool))))


@pytest.mark.parametrize("heights", [(0.3, 0.5, 0.7), (0.5,)], ids=["low", "one"])
def test_few_held_out_trajectories_do_not_decide_alone(heights):
    training, held_out, others = pendulums(np.linspace(0.2, 2.9, 16)), pendulums(heights), pendulums(
        np.linspace(0.25, 2.8, 11))
    ridges = (1e-15, 1e-12, 1e-9, 1e-6, 1e-3)
    searches = [ClosedFormSearch(training, held_out, originals=count) for count in (16, 1)]  # 1: the others are copies
    error, alone = (relative_error(search.search([1, 2, 3], ridges=ridges), others, 1) for search in searches)
    assert error < 0.85 * alone


def test_differences_below_the_floor_of_the_decoder_decide_nothing():
    training, held_out = oscillators(TIMES, 8, nuisance=6, level=1e-3), oscillators(TIMES, 4, 6, seed=1, level=1e-3)
    assert ClosedFormSearch(training, held_out, floor=1e4).search([1, 2, 4], ridges=RIDGES).candidate.size == 1


def test_scores_are_rollout_errors_as_share_of_the_variance():
    training, held_out = oscillators(TIMES, 8, 2, noise=0.05), oscillators(TIMES, 4, 2, seed=1, noise=0.05)
    search = ClosedFormSearch(training, held_out)
    candidate = Candidate(2, 0, 1e-6)
    fit = search.fit(candidate)
    predicted = torch.zeros_like(held_out.codes)  # codes that are cut off are forecast as zero
    predicted[..., :2] = rolled_out(fit, held_out)
    error = (held_out.codes - predicted)[:, 1:].square().sum(-1).mean()
    codes = training.codes.flatten(0, 1)
    expected = float(error / (codes - codes.mean(0)).square().sum(1).mean())
    assert search.score(candidate) == pytest.approx(expected, rel=1e-3)  # integrated by rk4 here
    assert search.score(candidate) == pytest.approx(expected, rel=1e-3)


def test_frames_that_are_not_observed_or_only_padding_do_not_count():
    training, held_out = oscillators(TIMES, 8, noise=0.01), oscillators(TIMES, 4, seed=1)
    search = ClosedFormSearch(training, held_out)
    clean = search.score(Candidate(2, 0, 1e-8))
    held_out.observed[:, 7] = False
    held_out.codes[:, 7] = 1e3
    held_out.t[0, 10:] = float("nan")
    held_out.codes[0, 10:] = 1e3
    held_out.observed[0, 10:] = False
    assert search.score(Candidate(2, 0, 1e-8)) == pytest.approx(clean, rel=0.9)


def test_forecasts_begin_at_the_first_frame_that_was_observed():
    training, held_out = oscillators(TIMES, 8), oscillators(TIMES, 4, seed=1)
    held_out.observed[:, 0], held_out.observed[2, :5] = False, False
    held_out.codes[:, 0], held_out.codes[2, :5] = 0.0, 0.0  # what the encoder gives where nothing is observed
    search = ClosedFormSearch(training, held_out)
    assert search.score(Candidate(2, 0, 1e-12)) < 1e-12
    held_out.codes[2, 9] += 1.0  # judged none the less
    assert search.score(Candidate(2, 0, 1e-12)) > 1e-3


def test_nothing_to_judge_is_no_perfect_score():
    training, held_out = oscillators(TIMES, 8), oscillators(TIMES, 4, seed=1)
    held_out.observed[:, 1:] = False
    assert ClosedFormSearch(training, held_out).score(Candidate(2, 0, 1e-12)) == float("inf")


@pytest.mark.parametrize("times", [TIMES, IRREGULAR], ids=["uniform", "irregular"])
def test_memory_is_chosen_where_frames_hide_the_velocity(times):
    def positions(rows, count, seed):
        seen = oscillators(times[rows] if times.ndim > 1 else times, count, seed=seed)
        return CodeData(seen.codes[..., :1], seen.t, seen.observed)

    training, held_out = positions(slice(0, 8), 8, 0), positions(slice(8, 12), 4, 1)
    fit = ClosedFormSearch(training, held_out).search([1], memories=(0.0, 1.0), ridges=RIDGES)
    assert fit.candidate.memory == 1 and fit.directions is not None
    assert relative_error(fit, held_out, 1, first=1) < (1e-6 if times.ndim == 1 else 0.2)


def test_frames_left_out_judge_a_single_trajectory():
    single = oscillators(np.arange(60.0) * 0.5, 1, nuisance=2, level=0.02)
    early = single.frames(45)
    fit = ClosedFormSearch(early, None).search([1, 2, 4], ridges=RIDGES)
    assert fit.candidate.size > 1
    assert relative_error(fit, single, first=45) < 0.05  # frames that the search has not seen at all


def test_copies_are_fitted_on_but_not_judged():
    times = np.arange(30.0)
    data = CodeData.join([oscillators(times, 1), oscillators(times, 3, seed=5)])
    search = ClosedFormSearch(data, None, originals=1)
    assert all(len(fold.validation.codes) == 1 and len(fold.training.codes) in (4, 8) for fold in search.folds)


def many_frequencies(frames, pairs=12):
    """Codes of one trajectory: as many undamped oscillations of incommensurable frequencies."""
    random = np.random.default_rng(3)
    t = np.arange(float(frames))
    phases = 0.6 * np.sqrt(2 + np.arange(pairs))[:, None] * t + random.uniform(0, 6, (pairs, 1))
    codes = torch.as_tensor(np.concatenate([np.cos(phases), np.sin(phases)]).T[None])
    return CodeData(codes, torch.as_tensor(t[None]), torch.ones(1, frames, dtype=torch.bool))


def test_nearly_as_many_codes_as_transitions_are_found_worth_their_number():
    """Early origins could not tell these from noise: half of the frames determine no map of 24 codes."""
    single = many_frequencies(40)
    fit = ClosedFormSearch(single.frames(30), None).search([4, 12, 20, 24], ridges=(1e-12, 1e-6, 1e-2))
    assert fit.candidate.size == 24
    assert relative_error(fit, single, 24, first=30) < 1e-3


@pytest.mark.parametrize("memories", [(0.0,), (0.0, 1.0)], ids=["alone", "memory"])
def test_more_codes_than_frames_do_not_make_forecasts_diverge(memories):
    """The map of a step is singular there, and its logarithm may be anything."""
    single = many_frequencies(40, 14)
    nuisance = 1e-4 * torch.as_tensor(np.random.default_rng(0).standard_normal((1, 40, 32)))
    single = CodeData(torch.cat([single.codes, nuisance], -1), single.t, single.observed)
    fit = ClosedFormSearch(single.frames(30), None).search([60], memories, ridges=(1e-12, 1e-8, 1e-4))
    assert relative_error(fit, single, 28, first=30) < 0.5


def chosen_of(scores):
    search = ClosedFormSearch(oscillators(np.arange(20.0), 1), None)
    return search._most_codes({Candidate(*key): score for key, score in scores.items()})


def test_a_single_trajectory_takes_the_most_codes_that_do_about_as_well():
    scores = {(4, 0, 1e-6): 1.2e-4, (8, 0, 1e-6): 1e-4, (12, 0, 1e-6): 1.4e-4, (12, 0, 1e-4): 1.3e-4}
    assert chosen_of(scores | {(16, 0, 1e-6): 2e-4}) == Candidate(12, 0, 1e-4)


def test_where_noise_hides_the_dynamics_it_takes_the_fewest():
    scores = {(4, 0, 1e-6): 0.25, (8, 0, 1e-6): 0.22, (12, 0, 1e-4): 0.2, (16, 0, 1e-6): 0.21}
    assert chosen_of(scores) == Candidate(8, 0, 1e-6)
    equals = {(8, 0, 1e-4): 0.221, (8, 0, 1e-2): 0.223, (8, 0, 1.0): 0.235}
    assert chosen_of(scores | equals) == Candidate(8, 0, 1e-2)


def test_memory_has_to_halve_the_error():
    assert chosen_of({(8, 0, 1e-6): 1e-4, (8, 8, 1e-6): 0.6e-4}) == Candidate(8, 0, 1e-6)
    assert chosen_of({(8, 0, 1e-6): 1e-4, (8, 8, 1e-6): 0.4e-4}) == Candidate(8, 8, 1e-6)


def test_forecasts_that_leave_what_was_seen_by_far_are_worth_nothing():
    growing = np.exp(0.8)
    unstable = torch.as_tensor(1e-6 * growing ** np.arange(40.0))[None, :, None]
    steady = torch.cos(torch.arange(40.0).double())[None, :, None]
    codes = torch.cat([steady, torch.sin(torch.arange(40.0).double())[None, :, None], unstable], -1)
    single = CodeData(codes, torch.arange(40.0).double()[None], torch.ones(1, 40, dtype=torch.bool)).frames(18)
    search = ClosedFormSearch(single, None)
    assert search.score(Candidate(3, 0, 1e-12)) == float("inf")  # e^0.8 a frame: 1.8 so far, 1300 times that to come
    assert search.score(Candidate(2, 0, 1e-12)) < 1e-2


@pytest.mark.parametrize("sizes", [[1.0], [1.0, 1.0, 1.0]])
def test_a_wave_may_go_on_of_which_less_than_half_a_period_was_seen(sizes):
    t = 0.1 * torch.arange(60).double()
    wave = torch.stack([torch.cos(0.6 * t), torch.sin(0.6 * t)], 1)
    codes = torch.tensor(sizes).double()[:, None, None] * (wave - wave[:30].mean(0))  # as POD codes are
    every = CodeData(codes, t.expand(len(sizes), -1), torch.ones(len(sizes), 60, dtype=torch.bool))
    fit = ClosedFormSearch(every.frames(30), None, originals=len(sizes)).search([1, 2])
    torch.testing.assert_close(rolled_out(fit, every, 29), codes[:, 29:], rtol=0, atol=1e-5)


def test_a_single_trajectory_that_grows_may_go_on_growing():
    growth = torch.exp(0.1 * torch.arange(40.0).double())[None, :, None]
    single = CodeData(growth, torch.arange(40.0).double()[None], torch.ones(1, 40, dtype=torch.bool))
    fit = ClosedFormSearch(single.frames(30), None).search([1], ridges=(1e-12, 1e-4, 1.0))
    assert matrix_of(fit).item() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_very_short_single_trajectories_still_give_a_field(frames):
    single = oscillators(np.arange(float(frames)), 1)
    fit = ClosedFormSearch(single, None).search([1, 2], ridges=RIDGES)
    assert torch.isfinite(rolled_out(fit, single)).all()


@pytest.mark.parametrize("frames", [2, 3, 4, 5])
def test_memory_that_would_leave_no_transition_is_not_chosen(frames):
    """A single trajectory, whose parts are fitted on: memory costs the first frame of each."""
    codes = oscillators(np.arange(float(frames)), 1)
    search = ClosedFormSearch(codes, None)
    assert search.score(Candidate(2, 2, 1e-4)) == float("inf")
    assert search.search([1, 2], (0.0, 0.5, 1.0), RIDGES).candidate.memory == 0


def test_a_forced_system_is_found_around_its_seasonal_mean():
    period, w = 9.0, 2 * np.pi / 9.0

    def forced(count, seed):
        seen = oscillators(np.arange(40.0), count, seed=seed, noise=0.0)
        season = torch.stack([3 * torch.cos(w * seen.t) + 1, 2 * torch.sin(2 * w * seen.t)], -1)
        return CodeData(seen.codes + season, seen.t, seen.observed)

    training, held_out = forced(8, 0), forced(4, 1)
    fit = ClosedFormSearch(training, held_out, period=period).search([2], ridges=(1e-10,))
    assert relative_error(fit, held_out) < 0.01  # what the oscillators leave in the mean of 8 samples
    without = ClosedFormSearch(training, held_out).search([2], ridges=(1e-10,))
    assert without.score > 20 * fit.score


def test_a_field_can_be_fitted_to_other_data_with_the_chosen_candidate():
    search = ClosedFormSearch(oscillators(TIMES, 8, noise=0.2), oscillators(TIMES, 4, seed=1))
    fit = search.search([2], ridges=(1e-8,))
    exact = oscillators(TIMES, 8, seed=3)
    again = search.fit(fit.candidate, data=exact)
    np.testing.assert_allclose(matrix_of(again), OSCILLATOR, atol=1e-6)
    assert float((matrix_of(fit) - matrix_of(again)).abs().max()) > 1e-4


def test_searches_are_compared_by_the_least_error_not_by_that_of_the_choice():
    fit = ClosedFormSearch(oscillators(np.arange(40.0), 1, nuisance=4, level=0.05), None).search([1, 2, 4, 6])
    assert fit.least == min(fit.scores.values()) <= fit.score == fit.scores[fit.candidate]


def test_fewer_ridges_then_fewer_sizes_are_tried_where_all_would_take_longer():
    training, held_out = oscillators(TIMES, 8, nuisance=6), oscillators(TIMES, 4, nuisance=6, seed=1)
    every = ClosedFormSearch(training, held_out).search([1, 2, 4, 8])
    few = ClosedFormSearch(training, held_out, seconds=0.005).search([1, 2, 4, 8])
    least = ClosedFormSearch(training, held_out, seconds=0.0).search([1, 2, 4, 8])
    tried = [{c.size for c in fit.scores} for fit in (every, few, least)]
    assert tried == [{1, 2, 4, 8}, {2, 8}, {8}]
    assert len({c.ridge for c in few.scores}) < len({c.ridge for c in every.scores})
    assert max(relative_error(fit, held_out) for fit in (few, least)) < 1e-4
