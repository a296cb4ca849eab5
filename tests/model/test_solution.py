"""Questions to a solution: rows, frames and grids agree with each other and with the decoder, in blocks of any size."""

import pickle
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import inrflow.model.solution
from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.errors import UserError
from inrflow.evaluation.forecast import predicted_std
from inrflow.model.solution import Solution
from inrflow.model.state_prior import StatePrior
from inrflow.model.store_v1 import Products
from inrflow.model.surrogate import Surrogate

SIZE, TIMES, POINTS = 4, torch.tensor([2.5, 0.0, 0.7]).double(), 11


def make(*modulation):
    """A solution of two channels in two dimensions, of a decoder with such modulation, seen once at 9 points."""
    torch.manual_seed(0)
    decoder = ModulatedSiren(Embedding([0.0, 0.0], [1.0, 1.0]), 2, SIZE, 8, 2, 4.0, modulation).double()
    field = VectorField.of(SIZE).double()
    field.set_linear(0.3 * torch.tensor(np.rot90(np.diag([1.0, -1.0, 1.0, -1.0])).copy()), torch.zeros(SIZE).double())
    prior = StatePrior(
        torch.zeros(SIZE).double(), torch.eye(SIZE).double(), torch.tensor([1e-2, 2e-2]).double(),
        torch.zeros(SIZE).double(), torch.ones(2).double(),
    )
    scaled = Normalisation(torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 3.0]).double())
    surrogate = Surrogate(
        Description("synthetic", ("u", "v"), ("x", "y")), scaled, decoder, field, Integrator(step=0.1), prior,
        TimeScale(0.0, 1.0), np.array([[0.0, 0.0], [1.0, 1.0]]), 4.0, {},
    )
    x = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)).double()
    seen = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(2)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # noise is unlike the training data
        return surrogate.assimilate(Observations(torch.zeros(1).double(), x, seen))


def places(count=POINTS):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize("modulation", [("output",), ("shift",)])
def test_rows_frames_and_grids_are_the_decoder_at_the_states(modulation):
    solution, x = make(*modulation), places()
    states = solution.path.mean(TIMES.sort().values)[0][TIMES.argsort().argsort()]
    with torch.no_grad():
        expected = solution.surrogate.normalisation.invert(solution.surrogate.decoder(x, states))
    torch.testing.assert_close(solution.frames(TIMES, x), expected)
    torch.testing.assert_close(solution(TIMES, x), expected)
    torch.testing.assert_close(solution(TIMES[1], x), expected[1])
    torch.testing.assert_close(solution(TIMES[2], x[4]), expected[2, 4])
    torch.testing.assert_close(solution(TIMES.repeat_interleave(POINTS), x.repeat(3, 1)), expected.flatten(0, 1))
    assert solution.frames(TIMES[1], x).shape == (1, POINTS, 2) and isinstance(solution(0.5, x.numpy()), np.ndarray)
    grid, whole = x[:10].reshape(2, 5, 2), expected[:, :10].unflatten(1, (2, 5))
    torch.testing.assert_close(solution(TIMES, grid), whole)
    torch.testing.assert_close(solution(TIMES[1], grid), whole[1])
    torch.testing.assert_close(solution(TIMES[:, None, None].expand(3, 2, 5), grid.expand(3, 2, 5, 2)), whole)
    torch.testing.assert_close(solution.frames(TIMES[:2], grid), whole[:2])
    with pytest.raises(UserError, match=r"t\[:, None\]"):  # or points that move
        solution(TIMES[:2], grid)


def test_lists_and_dictionaries_of_observations_have_a_solution_for_each_and_rows_of_numbers_need_no_parsing():
    surrogate, random = make("output").surrogate, np.random.default_rng(4)
    seen = [Observations(0.1 * n, random.random((9, 2)), 0.1 * random.standard_normal((9, 2))) for n in range(3)]
    t, x = random.uniform(0, 2, 7), random.random((7, 2))
    listed, named = surrogate.assimilate(seen), surrogate.assimilate(dict(enumerate(seen)))
    for number, one in enumerate(seen):
        asked = surrogate.assimilate(one).query(t, x, std=True, derivatives=True)
        rows = surrogate.solution_of(one).rows(t, x, std=True, derivatives=True)
        assert asked.keys() == rows.keys() == {"mean", "std", "dx", "dt"}
        for key, value in asked.items():
            np.testing.assert_array_equal(rows[key], value)
            for other in (listed[number], named[number]):
                np.testing.assert_array_equal(other.query(t, x, std=True, derivatives=True)[key], value)


def test_solutions_are_pickled_with_what_updates_them():
    solution = make("shift")
    again = pickle.loads(pickle.dumps(solution.surrogate.assimilate(Observations([0.0], np.eye(9, 2), np.eye(9, 2)))))
    further = again.update(Observations([1.0], np.eye(9, 2), np.eye(9, 2)))
    assert np.isfinite(further(1.5, np.eye(3, 2))).all()


def test_derivatives_by_time_between_steps_of_a_map_are_those_of_the_answers():
    field = VectorField(SIZE, [StepMapTerm(SIZE, 1.0)]).double()
    maps = torch.zeros(2, SIZE + 1, SIZE + 1).double()
    maps[:, 0, 0], maps[0, 1:, 1:] = 1.0, 1.2 * torch.diag(torch.ones(SIZE - 1), -1)  # what leaves: no logarithm
    field.term(StepMapTerm).set(maps, torch.zeros(2, SIZE + 1, SIZE + 1), torch.zeros(1, SIZE))
    surrogate = replace(make("output").surrogate, field=field, integrator=Integrator("map"))
    solution, x, step = surrogate.assimilate(Observations(0.0, places(9), torch.ones(9, 2))), places(), 1e-5
    times = torch.tensor([0.3, 0.8, 1.6]).double()
    slope = (solution.frames(times + step, x) - solution.frames(times - step, x)) / (2 * step)
    torch.testing.assert_close(solution._ask(times, x, ("dt",), grid=True)["dt"], slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modulation", [("output",), ("shift",)])
def test_a_grid_and_its_rows_have_the_same_spread_and_derivatives(modulation):
    solution, x = make(*modulation), places()
    grid = solution._ask(TIMES, x, ("mean", "std", "dx", "dt"), grid=True)
    rows = solution.query(TIMES.repeat_interleave(POINTS), x.repeat(3, 1), std=True, derivatives=True)
    for key, value in grid.items():
        torch.testing.assert_close(value.flatten(0, 1), rows[key])
    step = 1e-5
    slope = (solution.frames(TIMES + step, x) - solution.frames(TIMES - step, x)) / (2 * step)
    torch.testing.assert_close(grid["dt"][[0, 2]], slope[[0, 2]], rtol=1e-3, atol=1e-4)
    moved = torch.tensor([0.0, step]).double()
    slope = (solution.frames(TIMES, x + moved) - solution.frames(TIMES, x - moved)) / (2 * step)
    torch.testing.assert_close(grid["dx"][..., 1], slope, rtol=1e-5, atol=1e-6)
    if modulation == ("output",):
        inner = TIMES.sort().values[None]
        spread = predicted_std(solution.surrogate, solution.estimate, solution.path.mean(inner), inner, x[None, None])
        expected = spread[0][TIMES.argsort().argsort()] * solution.surrogate.normalisation.scale
        torch.testing.assert_close(grid["std"], expected)


@pytest.mark.parametrize("what", [("mean",), ("mean", "std", "dx", "dt")])
def test_blocks_change_nothing_and_bound_what_a_decoder_sees(what, monkeypatch):
    solution, x = make("output"), places()
    own = torch.linspace(2.0, 0.1, POINTS).double()
    asked = [(TIMES, x, True), (TIMES[0], x, False), (own, x, False)]
    whole = [solution._ask(t, p, what, grid) for t, p, grid in asked]
    monkeypatch.setattr(inrflow.model.solution, "_POINTS_PER_BLOCK", 6)
    seen = []
    plain = type(solution.surrogate.decoder).features

    def watched(decoder, points):
        seen.append(points.numel() // 2)
        return plain(decoder, points)

    monkeypatch.setattr(type(solution.surrogate.decoder), "features", watched)
    for (t, p, grid), expected in zip(asked, whole, strict=True):
        found = solution._ask(t, p, what, grid)
        for key in what:
            torch.testing.assert_close(found[key], expected[key])
    assert seen and max(seen) <= 6


def test_points_outside_and_times_that_are_no_numbers_are_told(monkeypatch):
    solution, x = make("output"), places()
    monkeypatch.setattr(inrflow.model.solution, "_POINTS_PER_BLOCK", 4)
    x[[2, 9], 0] = 3.0
    with pytest.warns(UserWarning, match="18.2 % of the points lie outside"):
        solution(0.0, x)
    inside, scale = places(), solution.surrogate.normalisation.scale.flatten().double()
    near, far = solution.std(0.0, inside), solution.std(0.0, x)  # outside any value of the training data may be
    assert (far[[2, 9]] >= scale).all() and torch.equal(far[[0, 5]], near[[0, 5]]) and (near < 2 * scale).all()
    x[9, 1] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        solution(0.0, x)
    with pytest.raises(UserError, match="not finite"):
        solution(float("inf"), places())
    with pytest.raises(UserError, match="no points"):
        solution(TIMES, places(0))


def test_times_beyond_those_of_training_are_told_in_python_too():
    solution, x = make("output"), places()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution(4.0, x)
    with pytest.warns(UserWarning, match="50 % of the points lie before the first observation or more than 4 ahead"):
        solution.frames([1.0, 9.0], x)


@pytest.mark.parametrize("given", ["seen.csv", (np.zeros(1), np.zeros((1, 2)), np.zeros((1, 2))), None])
def test_what_is_no_observations_is_told(given, tiny_run):
    with pytest.raises(UserError, match="assimilate takes Observations"):
        Surrogate.load(tiny_run.run).assimilate(given)


# ---- far in time: the training data span 4 time units ----


def nonlinear(solution):
    """The same observations under a field that has no exact flow."""
    surrogate = solution.surrogate
    quadratic = VectorField.of(SIZE)
    quadratic.add(Products(SIZE, 1))
    quadratic.double()
    quadratic.set_linear(surrogate.field.linear.matrix, surrogate.field.linear.bias)
    return Solution(replace(surrogate, field=quadratic, integrator=Integrator(step=1.0)), solution.estimate)


def test_one_series_goes_on_from_its_last_observation_and_several_trajectories_from_their_first():
    x, t, u = places(9), torch.arange(3.0).double(), torch.zeros(3, 9, 2).double()
    for trajectories, latest in ((1, 2.0), (8, 0.0)):
        surrogate = replace(make("output").surrogate, training={"trajectories": trajectories})
        solution = surrogate.assimilate(Observations(t, x, u))
        assert solution.observed == (0.0, 2.0)
        asked = np.array([-0.1, 0.0, latest + 4.0, latest + 4.1])  # training spans 4
        assert solution.extrapolated(asked, x[:1])[:, 0].tolist() == [True, False, False, True]


def test_affine_fields_answer_far_ahead_at_once():
    solution, x = make("output"), places()
    began = time.perf_counter()
    for t in (5e4, 3.9e6):
        answer = solution.query(t, x, std=True, derivatives=True)
        angle = 0.3 * t
        state = solution.estimate.mean[0, 0]
        turned = state @ torch.linalg.matrix_exp(angle * solution.surrogate.field.linear.matrix.detach().T / 0.3)
        expected = solution.surrogate.decoder(x, turned).detach()
        torch.testing.assert_close(answer["mean"], solution.surrogate.normalisation.invert(expected), rtol=0, atol=1e-5)
        assert all(bool(torch.isfinite(value).all()) for value in answer.values())
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("t", [4e6 + 10, 1e21, 1e300, -1e21])
def test_times_beyond_reach_are_refused_in_one_sentence(t):
    solution, x = make("output"), places()
    with pytest.raises(UserError, match=r"1 of 11 times lie too far .*t=0.*the horizon, is 4.*1e\+06 horizons"):
        solution(torch.tensor([*[0.0] * 10, t], dtype=torch.float64), x)
    with pytest.raises(UserError, match="too far from the observations"):
        solution.std(t, x)


def test_fields_without_an_exact_flow_reach_less_far():
    solution, x = nonlinear(make("output")), places()
    assert bool(torch.isfinite(solution(999.0, x)).all())  # 1000 time steps are more than 100 horizons of 4
    with pytest.raises(UserError, match=r"t=1200, by 300 horizons.*reaches 1000 \(250 horizons\)"):
        solution(1200.0, x)


@pytest.mark.parametrize("far", [3e3, 3e6])
def test_a_far_row_does_not_change_the_others(far):
    """More times than are integrated one by one: states and spreads are interpolated."""
    solution = make("output")
    solution.surrogate.prior.process += 1e-3
    t, x = torch.linspace(0.0, 8.0, 700).double(), places(700)
    alone = solution.query(t, x, std=True, derivatives=True)
    whole = solution.query(torch.cat([t, torch.tensor([far]).double()]), torch.cat([x, x[:1]]), std=True,
                           derivatives=True)
    for key, value in alone.items():
        torch.testing.assert_close(whole[key][:-1], value, rtol=0.02, atol=1e-3)
    exact = torch.stack([solution(one, place) for one, place in zip(t[::50], x[::50], strict=True)])
    torch.testing.assert_close(whole["mean"][:-1][::50], exact, rtol=0, atol=1e-3)


def test_observations_at_a_wrong_unit_of_time_are_refused():
    surrogate = nonlinear(make("output")).surrogate
    t, x, u = np.array([0.0, 1.0, 1e21]), places().numpy(), np.zeros((3, POINTS, 2))
    with pytest.raises(UserError, match=r"observations at t=1 and t=1e\+21 lie 2.5e\+20 horizons apart"):
        surrogate.assimilate(Observations(t, x, u))


def test_values_of_another_unit_are_told():
    surrogate = make("output").surrogate
    surrogate.normalisation.most = torch.tensor([3.0, 3.0])  # u within 0.5 +- 6, v within -1 +- 9
    t, x, u = np.zeros(1), places().numpy(), np.full((1, POINTS, 2), [6.0, 7.0])

    def told(values):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            surrogate.assimilate(Observations(t, x, values))
        return [str(one.message) for one in found if "unit" in str(one.message)]

    assert told(u) == [] and "(u)" in told(u + [[[273, 0]]])[0]
    few = u.copy()
    few[0, :4, 1] = 100.0
    assert told(few) == []  # fewer than half are no unit


@pytest.mark.parametrize("asked", [
    lambda solution: solution.sample(0, 1.0, places()), lambda solution: solution.sample(1.5, 1.0, places()),
    lambda solution: solution.quantiles(1.0, places(), ["a"]), lambda solution: solution.quantiles(1.0, places(), []),
    lambda solution: solution.where_next(places(), "2"), lambda solution: solution.derivatives(1.0, places(), ("du",)),
    lambda solution: Surrogate.load(3), lambda solution: Observations([0.0, 1.0], [[0.0], [1.0, 2.0]], [1.0, 2.0]),
    lambda solution: solution.sample(-1, 1.0, places()),
    lambda solution: solution.where_next(places(), 2, weights=np.full(POINTS, np.inf)),
    lambda solution: solution.surrogate.from_state(np.full(SIZE, np.nan)),
    lambda solution: solution.surrogate.from_state(np.zeros(SIZE), np.inf),
    lambda solution: solution(1.0, np.full((3, 2), 1e200)),
])
def test_what_has_no_answer_is_told_in_one_sentence(asked):
    with pytest.raises(UserError):
        asked(make("output"))


def test_a_forecast_that_diverges_is_told_with_its_time_and_one_that_stays_is_not():
    solution, x = make("output"), places()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution.frames(TIMES, x)
    assert solution.diverged == float("inf")
    growth = solution.surrogate.field.linear
    growth.matrix.data += torch.eye(SIZE).double()  # times e each unit of time
    with pytest.warns(UserWarning, match="the forecast diverges: from t=8 on, .* do not use them"):
        solution.frames(torch.tensor([0.0, 1.0, 8.0, 9.0]).double(), x)
    assert solution.diverged == 8.0


def test_values_that_no_field_like_those_of_training_has_are_told():
    surrogate = make("output").surrogate
    x = torch.rand(80, 2, generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        field = surrogate.normalisation.invert(surrogate.decoder(x, torch.zeros(1, SIZE).double()))[0]
    turns = 5 * surrogate.normalisation.scale * torch.tensor([1.0, -1.0]).double().repeat(40)[:, None]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        surrogate.assimilate(Observations(0.0, x.numpy(), field.numpy()))
    assert not any("what they measure" in str(one.message) for one in said)
    with pytest.warns(UserWarning, match="check what they measure"):
        surrogate.assimilate(Observations(0.0, x.numpy(), (field + turns).numpy()))
