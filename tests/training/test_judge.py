"""Codes of training frames and what is estimated from them: sizes worth trying, steps, noise, errors of rollouts."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rotations import RATES, candidate, candidate_with_context, linear, write_rotations
from runs import run_on

from inrflow.data.observations import Observations
from inrflow.dynamics.fields.base import FieldTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator, calibrated_process_noise, process_noise
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.model.state_prior import state_prior
from inrflow.training.candidate import Score, assemble
from inrflow.training.judge import LawRollouts, explains, rollout_error
from inrflow.training.margins import BETTER, BETTER_ON_FEW, EXPLAINED, LONGER_WINDOW, ROUNDING, TRUSTED, WHITE, margins
from inrflow.training.parts.codes import copies_for
from inrflow.training.parts.linear import candidate_sizes

MATRIX = torch.tensor([[-0.1, 1.1], [-1.1, -0.1]], dtype=torch.float64)
FINE = Integrator(step=0.05)


def field():
    found = VectorField.of(2).double()
    found.set_linear(MATRIX, torch.zeros(2).double())
    return found


def states(count=200, frames=6, noise=0.0, seed=0):
    """Exact flow, plus white noise of variance `noise` a unit of time that the state keeps."""
    random = np.random.default_rng(seed)
    t = torch.as_tensor(np.cumsum(random.uniform(0.3, 1.2, (count, frames)), 1))
    codes = [torch.as_tensor(random.standard_normal((count, 2)))]
    for k in range(frames - 1):
        gap = (t[:, k + 1] - t[:, k])[:, None]
        moved = torch.einsum("sij,sj->si", torch.linalg.matrix_exp(MATRIX * gap[..., None]), codes[-1])
        codes.append(moved + (noise * gap).sqrt() * torch.as_tensor(random.standard_normal((count, 2))))
    return CodeData(torch.stack(codes, 1), t, torch.ones(count, frames, dtype=torch.bool))


def test_process_noise_is_the_variance_that_a_unit_of_time_adds():
    found = process_noise(field(), FINE, states(noise=0.04, count=1000))
    np.testing.assert_allclose(found, [0.04, 0.04], rtol=0.1)
    assert float(process_noise(field(), FINE, states()).max()) < 1e-10
    seen = states(noise=0.04, count=1000)
    seen.codes += 0.2 * torch.randn(seen.codes.shape, generator=torch.Generator().manual_seed(5)).to(seen.codes)
    apart = process_noise(field(), FINE, seen, torch.full((seen.codes.shape[-1],), 0.04).double())
    torch.testing.assert_close(apart, found.to(apart), rtol=0.2, atol=0.0)


@pytest.mark.parametrize("seed", range(4))
def test_noise_of_states_alone_is_no_process_noise(seed):
    seen = states(count=400)
    seen.codes += 0.2 * torch.randn(seen.codes.shape, generator=torch.Generator().manual_seed(seed)).to(seen.codes)
    uncertain = torch.full((seen.codes.shape[-1],), 0.04).double()
    assert calibrated_process_noise(field(), FINE, seen, uncertain=uncertain).tolist() == [0.0] * len(uncertain)


def test_process_noise_that_explains_rollouts_already_stays():
    seen = states(noise=0.04, count=32, frames=8)
    ratio = calibrated_process_noise(field(), FINE, seen) / process_noise(field(), FINE, seen)
    assert 0.7 < float(ratio.min()) <= float(ratio.max()) < 1.4


def test_errors_of_rollouts_are_shares_of_the_variance_of_what_was_seen():
    seen = states(noise=0.01)
    seen.observed[:, 3] = False
    seen.codes[:, 3] = 1e3
    with torch.no_grad():
        rolled = FINE(field(), seen.codes[:, 0], seen.t)
    kept = [1, 2, 4, 5]
    error = (rolled - seen.codes)[:, kept].square().sum(-1).mean()
    variance = seen.codes[:, [0, *kept]].flatten(0, 1).var(0, correction=0).sum()
    assert rollout_error(field(), FINE, seen, seen, 0, 2) == pytest.approx(float(error / variance), rel=1e-9)


def test_codes_that_are_cut_off_count_as_error():
    seen = states()
    wide = CodeData(torch.cat([seen.codes, torch.ones(200, 6, 1).double()], -1), seen.t, seen.observed)
    variance = float(wide.codes.flatten(0, 1).var(0, correction=0).sum())
    assert rollout_error(field(), FINE, seen, wide, 0, 2) == pytest.approx(1.0 / variance, rel=1e-6)


def test_a_mean_far_from_zero_hides_no_errors():
    seen, far = states(noise=0.01), torch.full((2,), 1e2, dtype=torch.float64)
    moved, there = field(), CodeData(seen.codes + far, seen.t, seen.observed)  # as kelvins are, in which a law may be
    moved.set_linear(MATRIX, -MATRIX @ far)
    error = rollout_error(field(), FINE, seen, seen, 0, 2)
    assert rollout_error(moved, FINE, there, there, 0, 2) == pytest.approx(error, rel=1e-6)


def test_rollouts_whose_start_nobody_saw_do_not_count():
    seen = states()
    seen.observed[7, 0], seen.codes[7, 0] = False, 0.0
    assert rollout_error(field(), FINE, seen, seen, 0, 2) < 1e-10
    seen.observed[:, 0] = False
    assert rollout_error(field(), FINE, seen, seen, 0, 2) == float("inf")


def test_sizes_follow_the_spectrum_as_far_as_the_transitions_reach():
    variances = 10.0 ** -torch.arange(8).double()
    sizes = candidate_sizes(variances, 10_000)
    assert sizes == sorted(set(sizes)) and sizes[-1] == 8 and sizes[0] == 1
    tails = [float(variances[size:].sum() / variances.sum()) for size in sizes]
    assert any(1e-5 < tail < 1e-3 for tail in tails)
    assert max(candidate_sizes(variances, 6)) == 5 and max(candidate_sizes(variances, 0)) == 2
    assert candidate_sizes(variances, 10_000, fixed=3) == [3] and candidate_sizes(variances, 10_000, fixed=99) == [8]


def test_copies_only_where_there_are_symmetries():
    assert copies_for(32, 0, 16) == 1 and copies_for(32, 2, 16) == 16
    assert copies_for(32, 2, None) == 32 and copies_for(1, 1, None) == 64 and copies_for(10_000, 1, None) == 4


def test_the_prior_of_memory_is_its_regression_on_the_code():
    random = np.random.default_rng(1)
    code = random.standard_normal((20_000, 2)) * [1.0, 0.5]
    memory = code @ [[0.7], [-0.4]] + 3.0 + 0.2 * random.standard_normal((20_000, 1))
    seen = torch.as_tensor(np.hstack([code, memory]))[None]
    data = CodeData(seen, torch.arange(20_000.0)[None], torch.ones(1, 20_000, dtype=torch.bool))
    variances = torch.tensor([1.0, 0.25], dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(2).double(), torch.diag(variances), torch.ones(1).double())
    mean, covariance = state_prior(data, prior, 2)
    np.testing.assert_allclose(mean, [0, 0, 3], atol=0.01)
    np.testing.assert_allclose(covariance, [[1, 0, 0.7], [0, 0.25, -0.1], [0.7, -0.1, 0.49 + 0.04 + 0.04]], atol=0.02)
    np.testing.assert_array_equal(covariance[:2, :2], prior.covariance)
    mean, covariance = state_prior(CodeData(seen[..., :2], data.t, data.observed), prior, 2)
    assert torch.equal(mean, prior.mean) and torch.equal(covariance, prior.covariance)


def test_memory_of_codes_that_values_hardly_tell_varies_no_more_than_codes_do():
    """Posterior means vary less than codes; a regression on nearly nothing would multiply the variances of these."""
    random = torch.Generator().manual_seed(0)
    code = torch.randn(1, 400, 3, generator=random).double() * torch.tensor([1.0, 1e-2, 1e-3]).double()
    memory = 0.5 * code[..., :1] + 0.5 * torch.randn(1, 400, 1, generator=random).double()
    data = CodeData(torch.cat([code, memory], -1), torch.arange(400.0)[None], torch.ones(1, 400, dtype=torch.bool))
    prior = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double(), torch.ones(1).double())
    covariance = state_prior(data, prior, 3)[1]
    assert float(covariance[3, 3]) == pytest.approx(0.5, rel=0.2)
    assert float(covariance[0, 3]) == pytest.approx(0.5, rel=0.2)


def test_memory_of_few_states_has_a_variance_of_its_own_in_every_direction():
    """A regression would give none to directions that three states do not show."""
    seen = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = CodeData(seen, torch.arange(3.0)[None], torch.ones(1, 3, dtype=torch.bool))
    prior = GaussianPrior(torch.zeros(2).double(), torch.eye(2).double(), torch.ones(1).double())
    mean, covariance = state_prior(data, prior, 2)
    np.testing.assert_allclose(mean[2:], seen[0, :, 2:].numpy().mean(0))
    np.testing.assert_allclose(covariance[2:, 2:], np.diag(seen[0, :, 2:].numpy().var(0, ddof=1)))
    assert not covariance[:2, 2:].any()


# ---- preference between candidates ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with run_on(write_rotations(folder / "train.h5"), folder / "run") as run:
        assert len(run.problem.validation) and len(run.problem.train)
        yield run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one trajectory, whose last frames are held out."""
    folder = tmp_path_factory.mktemp("alone")
    with run_on(write_rotations(folder / "train.h5", trajectories=1, frames=20), folder / "run") as run:
        assert not len(run.problem.validation)
        yield run


def prefers(run, new, best):
    return run.judge.better(new, best, run.log)


def test_a_first_candidate_is_taken_whatever_it_is(run):
    assert prefers(run, candidate(run, 0 * RATES, error=math.inf), None)


def test_candidates_of_one_recipe_are_compared_by_their_scores(run, alone):
    for one, margin in ((run, BETTER), (alone, BETTER_ON_FEW)):
        best = candidate(one, error=0.1)
        assert prefers(one, candidate(one, error=0.099 * margin), best)
        assert not prefers(one, candidate(one, error=0.101 * margin), best)
        assert not prefers(one, candidate(one, error=math.inf), best)


def test_more_unknowns_of_one_recipe_must_pay_and_what_decoders_leave_counts(run):
    def scored(error, floor, unknowns):
        return candidate(run, score=Score(error, floor, unknowns))

    short = scored(0.09, 0.01, 5)
    assert prefers(run, scored(0.0325, 0.0, 300), short) and not prefers(run, scored(0.034, 0.0, 300), short)
    assert prefers(run, scored(0.084, 0.01, 4), short) and not prefers(run, scored(0.08, 0.02, 4), short)


def test_of_one_recipe_too_what_needs_more_observed_frames_must_be_far_better(run):
    def scored(error, memory):
        return candidate(run, error=error, memory=memory)

    margin = BETTER * LONGER_WINDOW
    assert prefers(run, scored(0.099 * margin, True), scored(0.1, False))
    assert not prefers(run, scored(0.101 * margin, True), scored(0.1, False))
    assert prefers(run, scored(0.099 * BETTER / LONGER_WINDOW, False), scored(0.1, True))


def test_candidates_of_different_recipes_are_compared_by_forecasts_in_the_data(run):
    said = []
    run.log.say = said.append
    good, bad = candidate(run, RATES, "special", error=0.9), candidate(run, 0 * RATES, "general", error=1e-9)
    assert not prefers(run, bad, good) and re.match(r"validation error of forecasts: .* by special, .* by general$",
                                                    said[-1])
    good, bad = candidate(run, RATES, "general", error=0.9), candidate(run, 0 * RATES, "special", error=1e-9)
    assert prefers(run, good, bad)


def test_the_earlier_recipe_stays_only_where_it_is_clearly_better(run):
    assert prefers(run, candidate(run, RATES, "general"), candidate(run, RATES, "special"))


def test_without_held_out_trajectories_windows_of_the_last_frames_judge(alone):
    assert prefers(alone, candidate(alone, RATES, "general"), candidate(alone, 0 * RATES, "special"))


def test_a_short_series_is_left_for_a_far_better_model_only(alone):
    errors = [alone.judge.error(assemble(candidate(alone, matrix)), alone.problem.fewest_observed)
              for matrix in (0 * RATES, 0.5 * RATES, 0.8 * RATES, RATES)]
    assert BETTER_ON_FEW < errors[2] / errors[1] < BETTER and errors[3] < BETTER_ON_FEW * errors[0]
    better = candidate(alone, 0.8 * RATES, "general")
    assert prefers(alone, better, candidate(alone, 0.5 * RATES, "special"))
    assert not prefers(alone, better, candidate(alone, 0.5 * RATES, "series"))
    assert prefers(alone, candidate(alone, RATES, "general"), candidate(alone, 0 * RATES, "series"))


def test_a_candidate_that_needs_more_observed_frames_must_be_far_better(run):
    slow = RATES * 0.985  # of about twice the error
    errors = [run.judge.error(assemble(candidate(run, matrix)), 3) for matrix in (RATES, slow)]
    assert LONGER_WINDOW < errors[0] / errors[1] < BETTER
    assert prefers(run, candidate(run, RATES, "general"), candidate(run, slow, "special"))
    assert not prefers(run, candidate(run, RATES, "general", memory=True), candidate(run, slow, "special"))
    assert prefers(run, candidate(run, RATES, "general", memory=True), candidate(run, 0 * RATES, "special"))
    assert prefers(run, candidate(run, slow, "general"), candidate(run, RATES, "special", memory=True))
    assert not prefers(run, candidate(run, 0 * RATES, "general"), candidate(run, RATES, "special", memory=True))
    # Both forecast from the longer window: what needs it is not compared with forecasts from one frame.
    assert assemble(candidate(run, memory=True)).window == 3


@pytest.mark.parametrize("frozen", [True, False])
def test_dynamics_that_fail_beyond_their_times_do_not_replace_a_good_law(run, frozen):
    """The law has twice the error of dynamics that forecast later frames not at all if fitted to earlier ones."""
    law = candidate(run, RATES * 0.998, "law")
    new = candidate(run, RATES, "general", first_frames_only=lambda frames: linear((1 - frozen) * RATES))
    assert run.judge.error(assemble(law), 1) < TRUSTED
    assert prefers(run, new, law) != frozen
    assert prefers(run, replace(new, first_frames_only=None), law)
    assert prefers(run, new, replace(law, recipe="special"))


def test_trajectories_have_their_own_contexts_where_candidates_are_compared(run):
    """At the mean context of its prior, the candidate's field is 0."""
    slow = candidate(run, RATES * 0.985, "special")
    assert prefers(run, candidate_with_context(run, recipe="general"), slow)
    assert not prefers(run, candidate(run, 0 * RATES, "general"), slow)


def test_errors_of_forecasts_are_shares_of_the_variance_of_the_last_third(run):
    surrogate = assemble(candidate(run, RATES))
    batch = run.problem.source.batch(run.problem.validation, normalised=False)
    squares = []
    for one in range(len(batch.u)):
        solution = surrogate.assimilate(Observations(batch.t[one, :1], batch.x[0, 0], batch.u[one, :1]))
        forecast = torch.as_tensor(solution.frames(batch.t[one, 5:], batch.x[0, 0]))
        squares.append((forecast - batch.u[one, 5:]).square().mean())
    normalised = run.problem.source.normalisation.apply(batch.u)[:, 5:]
    scale = float(run.problem.source.normalisation.scale.square())
    expected = float(torch.stack(squares).mean()) / scale / float(normalised.square().mean())
    assert run.judge.error(surrogate) == pytest.approx(expected, rel=1e-3)


def test_forecasts_start_from_the_first_observed_frame(run, monkeypatch):
    """A trajectory without its first frame would be forecast from nothing."""
    whole, judged = run.problem.source.batch, assemble(candidate(run, RATES))
    before, t = run.judge.error(judged), whole(run.problem.validation, False).t

    def without_first(rows, normalised=True):
        batch = whole(rows, normalised)
        return batch.with_values(torch.cat([torch.full_like(batch.u[:, :1], torch.nan), batch.u[:, 1:]], 1))

    monkeypatch.setattr(run.problem.source, "batch", without_first)
    held = run.problem.held_out(1)
    assert torch.equal(held.t[:, :-1], t[:, 1:]) and bool(held.observed[:, :-1].all())
    assert run.judge.error(judged) < 2 * before + 1e-6


def test_forecasts_that_diverge_have_an_infinite_error(run):
    growing = 1e60 * torch.eye(2).double()
    assert run.judge.error(assemble(candidate(run, growing))) == math.inf
    assert prefers(run, candidate(run, RATES, "general"), candidate(run, growing, "special"))
    assert not prefers(run, candidate(run, growing, "general"), candidate(run, RATES, "special"))


def test_a_law_explains_the_data_at_a_few_times_what_the_basis_leaves_or_near_rounding():
    assert explains(0.99 * EXPLAINED * 1e-5, 1e-5) and not explains(1.01 * EXPLAINED * 1e-5, 1e-5)
    assert explains(2e-2 + 0.9 * WHITE, 2e-2) and not explains(2e-2 + 1.1 * WHITE, 2e-2)  # noise explains no more
    for known, most in (({}, ROUNDING), ({"linear": True}, 1e-3 * ROUNDING), ({"elsewhere": True}, TRUSTED),
                        ({"linear": True, "elsewhere": True}, TRUSTED), ({"complete": True}, WHITE)):
        assert explains(0.9 * most, 0.0, **known) and not explains(1.1 * most, 0.0, **known)
    assert not explains(0.9 * WHITE, 1e-8, complete=True)  # fewer harmonics than points


def test_every_margin_says_what_it_means_and_where_its_value_comes_from():
    assert len(margins()) > 15 and BETTER in margins().values()
    assert all(margin.meaning and margin.origin and margin > 0 for margin in margins().values())


def test_a_law_that_explains_the_data_ends_the_search(run):
    assert run.judge.enough(None) is None and run.judge.enough(candidate(run)) is None
    assert run.judge.enough(candidate(run, explained=True)) == "stub explains the data"


class Square(FieldTerm):
    """dz/dt = z^2, of which z = 1 / (1 / z(0) - t)."""

    degree = 2

    def forward(self, t, z, c=None):
        return z.square()


def test_forecasts_that_diverge_soon_after_the_data_are_counted():
    """They do at t = 1 / z(0): all are bounded within the data, up to t = 2, two of four up to t = 4."""
    start = torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64)[:, None]
    t = torch.linspace(0, 2, 9, dtype=torch.float64).expand(4, 9)
    states = CodeData((1 / (1 / start - t))[..., None], t, torch.ones(4, 9, dtype=torch.bool))
    field = VectorField(1, [Square()]).double()
    found = LawRollouts(field, Integrator("rk4", 0.01), states, states, 0, 1, error=0.0)
    assert found.lost == 0.5 and found.difference(found.paths) == math.inf
    assert LawRollouts(field, Integrator("rk4", 0.01), states.at(slice(0)), states, 0, 1, error=0.0).lost == 0.0


def test_forecasts_from_the_first_frame_show_what_the_last_frames_do_not():
    """Data of dz/dt = -z and a law dz/dt = z^2 that starts from 1 / 2: z = 1 / (2 - t) at t = 1.8 is 10 times that."""
    t = torch.linspace(0, 1.8, 10, dtype=torch.float64).expand(1, 10)
    states = CodeData(0.5 * torch.exp(-t)[..., None], t, torch.ones(1, 10, dtype=torch.bool))
    found = LawRollouts(VectorField(1, [Square()]).double(), Integrator("rk4", 0.01), states, states, 8, 1, error=0.0)
    assert found.lost == 0.0 and found.farthest == pytest.approx(10, rel=1e-5)
    states.observed[0, 0] = False  # no state to start from
    assert found.farthest == 0.0


def test_the_difference_of_steps_is_the_error_of_the_longer_ones():
    seen = states(count=4)
    coarse, fine = (LawRollouts(field(), Integrator("rk4", step), seen, seen, 0, 2) for step in (0.5, 0.25))
    flows = [torch.linalg.matrix_exp(MATRIX * (torch.cat([t, t[-1] + t[1:] - t[0]]) - t[0])[:, None, None])
             for t in seen.t]
    exact = torch.stack([flow @ z[0] for flow, z in zip(flows, seen.codes, strict=True)])
    assert coarse.difference(fine.paths) == pytest.approx(coarse.difference(exact), rel=0.2)
    coarse.shorten_steps()
    assert coarse.integrator.step < 0.25 and coarse.difference(exact) < 0.1 * fine.difference(exact)
