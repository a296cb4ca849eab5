"""The ending of every run: refit, priors and calibration of the chosen candidate."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rotations import RATES, candidate, candidate_with_context, linear, write_rotations
from runs import run_on

from inrflow.encoding.encode import CodeData
from inrflow.evaluation.calibration import calibrate
from inrflow.model.contexts import Contexts
from inrflow.model.state_prior import ContextPrior
from inrflow.numerics.effort import effort
from inrflow.training.candidate import Refitted, assemble, complete

OFF = 0.9 * RATES  # so that what the candidate misses shows in its standard deviations


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with run_on(write_rotations(folder / "train.h5"), folder / "run") as run:
        yield run


def validation(run):
    return run.problem.source.batch(run.problem.validation, normalised=False)


def test_the_refitted_field_is_kept_and_the_standard_deviations_are_those_of_the_candidate(run):
    one = candidate(run, OFF, refit=lambda: Refitted(linear(RATES)))
    surrogate = complete(one, run.budget, run.log)
    assert torch.equal(surrogate.field.linear.matrix, RATES)
    late, expected = torch.tensor(5.0), calibrate(assemble(one), validation(run), 1)
    assert torch.equal(surrogate.prior.spread_at(late), expected.spread_at(late))
    assert torch.equal(surrogate.prior.process, assemble(one).prior.process)
    refitted = assemble(one)
    refitted.field = linear(RATES)  # has seen the held-out trajectories: its forecasts of them would err too little
    assert float(calibrate(refitted, validation(run), 1).spread_at(late)) < 0.8 * float(expected.spread_at(late))


def test_a_candidate_without_refit_keeps_its_own_field_and_prior(run):
    one = candidate(run, OFF)
    surrogate, assembled = complete(one, run.budget, run.log), assemble(one)
    assert torch.equal(surrogate.field.linear.matrix, OFF)
    assert torch.equal(surrogate.prior.covariance, assembled.prior.covariance)
    assert torch.equal(surrogate.prior.process, assembled.prior.process)
    assert assembled.prior.growth is None and float(surrogate.prior.growth) > 0
    assert surrogate.training["dynamics"] == one.name and surrogate.training["memory"] == 0


def test_the_prior_is_that_of_all_states_and_reaches_to_the_farthest(run):
    one = candidate(run, memory=True)
    every = CodeData.join([one.states, one.validation])
    refitted = Refitted(one.field, states=every)
    surrogate = complete(replace(one, refit=lambda: refitted), run.budget, run.log)
    hidden = every.codes[every.observed][:, 2]
    assert float(surrogate.prior.mean[2]) == pytest.approx(float(hidden.mean()), rel=1e-9)
    assert float(complete(one, run.budget, run.log).prior.mean[2]) != pytest.approx(float(hidden.mean()), rel=1e-3)
    radius = every.codes[every.observed][:, :2].square().sum(1).max()  # the prior of the codes is standard normal
    assert surrogate.prior.farthest == pytest.approx(float(radius), rel=1e-6)


def test_the_decoder_is_refitted_last_of_the_calibrated_surrogate(run):
    seen = []

    def refit_decoder(surrogate):
        seen.append((surrogate.field.linear.matrix.detach().clone(), surrogate.prior.spread.clone()))
        surrogate.training["dynamics"] = "refitted"
        return surrogate

    one = candidate(run, OFF, refit=lambda: Refitted(linear(RATES)), refit_decoder=refit_decoder)
    surrogate = complete(one, run.budget, run.log)
    assert len(seen) == 1 and torch.equal(seen[0][0], RATES)
    assert torch.equal(seen[0][1], complete(candidate(run, OFF), run.budget, run.log).prior.spread)
    assert surrogate.training["dynamics"] == "refitted"


@pytest.mark.parametrize("unknowns", [10**6, 1e-9])
def test_spreads_of_the_stated_number_of_trajectories_stand_for_the_others(run, unknowns):
    one = candidate(run, OFF, calibrated=1)
    one = replace(one, score=replace(one.score, unknowns=unknowns))
    rows = run.problem.validation[1:], run.problem.train[: 0 if unknowns > 1 else None]  # few numbers overfit nothing
    batch, others = (run.problem.source.batch(part, normalised=False)
                     for part in (run.problem.validation[:1], np.concatenate(rows)))
    found, alone = complete(one, run.budget, run.log).prior, assemble(one)
    alone.prior.farthest, alone.prior.roughest = found.farthest, found.roughest
    assert torch.equal(found.spread, calibrate(alone, batch, 1, others=(others, None)).spread)


def test_fields_of_many_numbers_are_calibrated_as_fitted_to_fewer_frames(run):
    frames = []
    one = replace(candidate(run, RATES), first_frames_only=lambda count: frames.append(count) or linear(OFF))
    surrogate, brief = complete(one, run.budget, run.log), assemble(one)
    brief.field, brief.prior.farthest = linear(OFF), surrogate.prior.farthest
    expected = calibrate(brief, validation(run), 1)
    assert frames == [6] and torch.equal(surrogate.field.linear.matrix, RATES)
    assert torch.equal(surrogate.prior.spread, expected.spread)
    torch.testing.assert_close(surrogate.prior.leads, expected.leads * 7 / 5)  # of 8 frames


def test_others_count_in_the_spread(run):
    batch, one = validation(run), assemble(candidate(run, OFF))
    one.prior.white = None
    each = (batch.select(torch.tensor([k])) for k in range(len(batch)))
    late = torch.tensor(4.0)
    spreads = [float(calibrate(one, some, 1, others=(batch, None)).spread_at(late)) for some in each]
    every = float(calibrate(one, batch, 1).spread_at(late))
    assert max(spreads) < 1.2 * every and min(spreads) > every / 1.2


def test_calibration_is_logged(run):
    surrogate = complete(candidate(run, OFF), run.budget, run.log)
    rows = [json.loads(line) for line in (run.log.directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["stage"] == "calibration" and rows[-1]["spread_0"] == float(surrogate.prior.spread[0, 0])


def test_contexts_are_known_in_calibration_and_those_of_the_refit_are_kept(run):
    kept = Contexts("environment", torch.ones(1, 1).double(), torch.ones(1))
    one = candidate_with_context(run)
    one = replace(one, refit=lambda: Refitted(one.field, contexts=kept))
    surrogate = complete(one, run.budget, run.log)
    assert surrogate.context_size == 1 and surrogate.contexts is kept
    assert float(surrogate.prior.process[-1]) == 0.0 and float(surrogate.prior.covariance[-1, -1]) == 1.0
    unknown = calibrate(assemble(one), validation(run), 1).spread
    tight = ContextPrior(one.contexts, 1e-12 * torch.eye(1).double())
    known = calibrate(assemble(one), validation(run), 1, tight).spread
    assert torch.equal(surrogate.prior.spread, known) and not torch.equal(known, unknown)


def test_how_contexts_lie_about_those_of_systems_is_told_where_the_time_is_over_too(run, monkeypatch):
    def solved(*_):
        effort.check()
        return 3

    one, kept = candidate_with_context(run), Contexts("environment", torch.ones(1, 1).double(), torch.ones(1))
    one = replace(one, refit=lambda: Refitted(one.field, contexts=kept))
    monkeypatch.setattr("inrflow.training.candidate.calibrate_contexts", solved)
    monkeypatch.setattr(type(run.budget), "_end", 0.0)
    monkeypatch.setattr(run.budget, "decisions", {})
    complete(one, run.budget, run.log)
    assert run.budget.decisions["contexts"] == 3


def test_trajectories_beside_those_that_are_calibrated_have_their_own_contexts(run):
    one = candidate_with_context(run, calibrated=1)
    one.states.codes[..., -1], one.contexts[1:] = 0.5, 2.0  # of those that it was fitted to; of further ones
    one = replace(one, score=replace(one.score, unknowns=1e-9))
    rows = np.concatenate([run.problem.validation[1:], run.problem.train])
    batch, others = (run.problem.source.batch(part, normalised=False) for part in (run.problem.validation[:1], rows))
    tight, further = 1e-12 * torch.eye(1).double(), len(run.problem.validation) - 1
    values = torch.cat([torch.full((further, 1), 2.0), torch.full((len(run.problem.train), 1), 0.5)]).double()
    found, alone = complete(one, run.budget, run.log).prior, assemble(one)
    alone.prior.farthest, alone.prior.roughest = found.farthest, found.roughest
    own, theirs, same = (ContextPrior(mean, tight) for mean in (one.contexts[:1], values, one.contexts[0]))
    assert torch.equal(found.spread, calibrate(alone, batch, 1, own, (others, theirs)).spread)
    assert not torch.equal(found.spread, calibrate(alone, batch, 1, own, (others, same)).spread)
