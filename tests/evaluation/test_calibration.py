"""Coverage of predicted intervals on synthetic Gaussian data, for which the exact posterior is known."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from inrflow.data.batch import Normalisation, TimeScale, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.evaluation import calibration
from inrflow.evaluation.calibration import (
    _errors,
    affordable,
    calibrate,
    calibrated,
    errors_of,
    factors_of,
    leads_of,
)
from inrflow.evaluation.forecast import Errors, predicted_std, quantile_of_others
from inrflow.model.state_path import StatePath
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior
from inrflow.model.surrogate import Surrogate

SIZE, POINTS, FRAMES, TRAJECTORIES = 6, 60, 5, 150
NOISE = torch.tensor([1e-4, 4e-4], dtype=torch.float64)
HALF = 1.6448536269514722
NOW = torch.zeros(1).double()


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    """Of two channels whose codes turn in three planes; its prior is the truth."""
    torch.manual_seed(0)
    decoder = ModulatedSiren(Embedding([0.0], [1.0]), 2, SIZE, width=16, w0=6.0).double()
    field = VectorField.of(SIZE).double()
    root = normal(SIZE, SIZE, seed=1)
    field.set_linear(0.4 * (root - root.T), torch.zeros(SIZE).double())
    variances = torch.logspace(0, -2, SIZE).double()
    prior = StatePrior(
        torch.zeros(SIZE).double(), torch.diag(variances), NOISE, torch.zeros(SIZE).double(), torch.ones(2).double()
    )
    return Surrogate(
        Description("synthetic", ("u", "v"), ("x",)), Normalisation(torch.zeros(2).double(), torch.ones(2).double()),
        decoder, field, Integrator(step=0.1), prior, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 4.0, {},
    )


def truth(surrogate, amplitude=1.0, seed=10):
    """Trajectories drawn from the prior, all departures times `amplitude` (a number or one for each)."""
    variances = surrogate.prior.covariance.diagonal()
    start = normal(TRAJECTORIES, SIZE, seed=seed) * variances.sqrt()
    t = torch.arange(float(FRAMES)).double().expand(TRAJECTORIES, FRAMES)
    states = surrogate.dynamics.flow(start, t)
    x = torch.linspace(0, 1, POINTS).double()[None, None, :, None]
    with torch.no_grad():
        offset, basis = surrogate.decoder.basis(x[0, 0])
    misfit = normal(TRAJECTORIES, FRAMES, POINTS, 2, seed=seed + 1) * NOISE.sqrt()
    scale = torch.as_tensor(amplitude).double().reshape(-1, 1, 1, 1)
    return TrajectoryBatch(t, x, offset + scale * (torch.einsum("ncz,stz->stnc", basis, states) + misfit))


def forecast_errors(surrogate, batch, seen, noise=0.0):
    """Errors in standard deviations, (S, T, N, C), of forecasts from the first frame at the first `seen` points."""
    window = batch.first_frames(1)
    u = window.u + noise * normal(*window.u.shape, seed=33)
    u[:, :, torch.randperm(POINTS, generator=torch.Generator().manual_seed(2))[seen:]] = torch.nan
    estimate = surrogate.estimate(TrajectoryBatch(window.t, window.x, u))
    states = StatePath(surrogate.dynamics, estimate).mean(batch.t[0])
    std = predicted_std(surrogate, estimate, states, batch.t, batch.x)
    with torch.no_grad():
        return (surrogate.decoder(batch.x, states) - batch.u) / std


def coverage(errors):
    return float((errors.abs() <= HALF).double().mean())


@pytest.mark.parametrize("seen", [POINTS, 4, 2])
def test_intervals_hold_their_share_whatever_is_seen(surrogate, seen):
    errors = forecast_errors(surrogate, truth(surrogate), seen)
    # Values of a trajectory are not independent: the binomial error is that of its codes, SIZE a trajectory.
    tolerance = 3 * np.sqrt(0.09 / (TRAJECTORIES * SIZE)) + 0.01
    assert coverage(errors) == pytest.approx(0.9, abs=tolerance)


@pytest.mark.parametrize("seen", [POINTS, 8])
def test_windows_livelier_or_calmer_than_the_training_data_have_wider_or_narrower_intervals(surrogate, seen):
    amplitude = torch.exp(normal(TRAJECTORIES, seed=3))
    batch = truth(surrogate, amplitude)
    assert coverage(forecast_errors(surrogate, batch, seen)) == pytest.approx(0.9, abs=0.05)
    errors = forecast_errors(surrogate, batch, POINTS)
    calm, lively = amplitude < 0.5, amplitude > 2.0
    assert coverage(errors[calm]) == pytest.approx(0.9, abs=0.07)
    assert coverage(errors[lively]) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("seen", [POINTS, 12])
def test_noise_in_the_window_is_noticed(surrogate, noise, seen):
    errors = forecast_errors(surrogate, truth(surrogate), seen, noise)
    assert coverage(errors) == pytest.approx(0.9, abs=0.06)


def test_a_noisy_trajectory_does_not_change_the_others(surrogate):
    batch = truth(surrogate).select(torch.arange(4)).first_frames(1)
    alone = surrogate.estimate(batch)
    noisy = batch.u.clone()
    noisy[2] += 0.5 * normal(*noisy[2].shape, seed=5)
    among = surrogate.estimate(TrajectoryBatch(batch.t, batch.x, noisy))
    others = torch.tensor([0, 1, 3])
    torch.testing.assert_close(among.mean[others], alone.mean[others])
    torch.testing.assert_close(among.factor[others], alone.factor[others])
    found = among.covariance[0].diagonal(dim1=1, dim2=2).sum(1)
    assert len(found) == 4 and float(found[2]) > 10 * float(found[0])
    torch.testing.assert_close(among.select(slice(2, 3)).covariance[0][0], among.covariance[0][2])


def test_the_standard_deviation_is_that_of_the_dense_posterior(surrogate):
    batch = truth(surrogate)
    window = batch.first_frames(1)
    estimate = surrogate.estimate(window)
    with torch.no_grad():
        basis = surrogate.decoder.basis(batch.x[0, 0])[1]
    design = basis.flatten(0, 1)
    noise = NOISE.repeat(POINTS)
    covariance = torch.linalg.inv(torch.linalg.inv(surrogate.prior.covariance) + design.T @ (design / noise[:, None]))
    flow = torch.linalg.matrix_exp(3.0 * surrogate.field.linear.matrix.detach())
    expected = (design @ flow @ covariance @ flow.T * design).sum(1).reshape(POINTS, 2) + NOISE
    states = StatePath(surrogate.dynamics, estimate).mean(batch.t[0])
    std = predicted_std(surrogate, estimate, states, batch.t, batch.x)
    factor = estimate.factor[:, None, None]
    torch.testing.assert_close(std[:, 3].square(), factor * expected, rtol=1e-6, atol=0)


def test_variance_between_the_training_points_is_added_and_saved(surrogate, tmp_path):
    batch = truth(surrogate).select(torch.arange(2))
    estimate = surrogate.estimate(batch.first_frames(1))
    states = StatePath(surrogate.dynamics, estimate).mean(batch.t[0])
    points = batch.x[0, 0, ::2]
    unseen = InterpolationError.between(points, torch.full((len(points), 2), 0.5, dtype=torch.float64))
    parts = {f.name: getattr(surrogate, f.name) for f in fields(surrogate)}
    changed = Surrogate(**{**parts, "prior": replace(surrogate.prior, unseen=unseen)})
    changed.save(tmp_path)
    before, after, loaded = (
        predicted_std(s, estimate, states, batch.t, batch.x).square()
        for s in (surrogate, changed, Surrogate.load(tmp_path))
    )
    torch.testing.assert_close((after - before)[:, :, ::2], torch.zeros(2, FRAMES, len(points), 2).double())
    torch.testing.assert_close((after - before)[0, 1], unseen(batch.x[0, 0]), rtol=1e-6, atol=1e-12)
    assert float((after - before)[:, :, 1::2].min()) > 0.05
    torch.testing.assert_close(loaded, after, rtol=1e-6, atol=0)
    one = TrajectoryBatch(batch.t[:1, :1], batch.x, batch.u[:1, :1])
    solution = changed.assimilate(Observations(one.t[0].numpy(), one.x[0, 0].numpy(), one.u[0].numpy()))
    asked = solution.std(batch.t[0, 1].numpy(), batch.x[0, 0].numpy())
    np.testing.assert_allclose(asked, after[0, 1].sqrt(), rtol=1e-5)


def test_codes_unlike_those_of_training_warn_and_widen_by_the_ratio_of_distances(surrogate):
    assert surrogate.prior.limit(SIZE) == 25 * SIZE  # the codes of training are not known
    parts = {f.name: getattr(surrogate, f.name) for f in fields(surrogate)}
    surrogate = Surrogate(**{**parts, "prior": replace(surrogate.prior, farthest=0.0)})
    limit = surrogate.prior.limit(SIZE)
    assert limit == pytest.approx(22.458, abs=1e-3)  # chi squared of 6 degrees, 99.9 %, from tables
    states = torch.zeros(2, SIZE).double()
    states[:, 0] = torch.tensor([0.9, 2.0]).double() * (limit * surrogate.prior.covariance[0, 0]).sqrt()
    plain = StateEstimate(torch.zeros(2, 1), states[:, None], None, torch.zeros(2), torch.zeros(2))
    torch.testing.assert_close(surrogate.widening(plain), torch.tensor([1.0, 2.0]).double())
    # An interval that the liveliness of its window has widened already is not widened for the same reason again.
    lively = replace(plain, quadratic=torch.full((2,), 5e6), count=torch.full((2,), 1e6))
    torch.testing.assert_close(surrogate.widening(lively), torch.ones(2).double())
    known = Surrogate(**{**parts, "prior": replace(surrogate.prior, farthest=5 * limit)})
    torch.testing.assert_close(known.widening(plain), torch.ones(2).double())
    x = torch.linspace(0, 1, 400).double()[:, None]
    with torch.no_grad():
        u = surrogate.decoder(x[None], states[1:])[0]
    seen = Observations(0.0, x.numpy(), u.numpy())
    with pytest.warns(UserWarning, match="unlike the training data"):
        wide = surrogate.assimilate(seen)
    narrow = known.assimilate(seen)
    factor = float(wide.estimate.factor)
    ratio = wide.std(0.0, x.numpy()) / narrow.std(0.0, x.numpy())
    np.testing.assert_allclose(ratio, 2 / max(factor, 1.0) ** 0.5, rtol=0.02)


def test_calibration_leaves_intervals_that_are_right(surrogate):
    held = truth(surrogate, seed=50).select(torch.arange(12))
    prior = calibrate(surrogate, held, 1)
    factors, _ = prior.factors_at(torch.tensor([0.0, 1.0, 4.0]))
    torch.testing.assert_close(factors[0].exp(), torch.ones(3, 2).double(), rtol=0, atol=0.1)
    torch.testing.assert_close(factors[1:].exp(), torch.ones(2, 3, 2).double(), rtol=0, atol=0.3)
    errors = forecast_errors(with_prior(surrogate, prior), truth(surrogate, seed=57), 4)
    assert coverage(errors) == pytest.approx(0.9, abs=0.03)


def with_prior(surrogate, prior):
    return Surrogate(**{**{f.name: getattr(surrogate, f.name) for f in fields(surrogate) if f.init}, "prior": prior})


def test_calibration_narrows_intervals_that_are_too_wide(surrogate):
    timid = with_prior(surrogate, replace(surrogate.prior, process=torch.full((SIZE,), 1e-2).double()))
    held = truth(surrogate, seed=50).select(torch.arange(12))
    known = with_prior(surrogate, calibrate(timid, held, 1))
    assert coverage(forecast_errors(timid, truth(surrogate, seed=55), POINTS)) > 0.97
    assert coverage(forecast_errors(known, truth(surrogate, seed=55), POINTS)) == pytest.approx(0.9, abs=0.03)


def test_a_series_whose_last_part_is_calm_believes_its_left_out_blocks_more(surrogate, monkeypatch):
    timid = with_prior(surrogate, replace(surrogate.prior, process=torch.full((SIZE,), 1e-2).double()))
    held = truth(surrogate, seed=50)
    errors = [next(errors_of(timid, held, 1))]
    by_both = calibrated(timid.prior, errors, True).spread[0]
    monkeypatch.setattr(calibration, "_CALM", 1.0)
    by_last = calibrated(timid.prior, errors, True).spread[0]
    assert float(by_last[1:].max()) < 0.5
    torch.testing.assert_close(by_both[1:], by_last[1:] ** 0.25, rtol=0.1, atol=0)


def errors_with(relative, factor, seed, rest=1e-6, trajectories=16, values=500):
    """Errors of one channel whose codes have some relative variance, as large as `factor` deviations, at lead 0."""
    number = torch.arange(float(trajectories)).repeat_interleave(values)
    left = rest * torch.ones_like(number).double()
    missed = factor * ((1 + relative) * left).sqrt() * normal(len(number), seed=seed)
    return Errors(missed.abs(), relative * left, left, 0 * left, number, 0 * left)


def factor_at(found, relative):
    spread, places, _ = found
    prior = StatePrior(torch.zeros(1), torch.eye(1), torch.ones(1), torch.eye(1), spread[..., None],
                       leads=torch.zeros(1).double(), relative=places[..., None])
    return float(prior.spread_at(torch.zeros(1).double(), torch.tensor([[relative]]).double().log1p()))


def test_windows_of_few_points_have_factors_of_their_own_that_others_near_the_logarithm():
    found = factors_of([errors_with(2.0, 0.1, 1), errors_with(30.0, 2.0, 2), errors_with(1e5, 0.8, 3)], NOW)
    for relative, expected in ((0.5, 0.1), (2.0, 0.1), (30.0, 2.0), (1e5, 0.8), (1e9, 0.8)):
        assert factor_at(found, relative) == pytest.approx(expected, rel=0.05)
    middle = (3 * 31) ** 0.5 - 1
    assert factor_at(found, middle) == pytest.approx((0.1 * 2.0) ** 0.5, rel=0.05) and found[2] == 0.0


def test_windows_as_uncertain_as_whole_ones_change_no_factor_of_these():
    found = factors_of([errors_with(3.0, 1.0, 1), errors_with(3.0, 5.0, 2)], NOW)
    assert factor_at(found, 2.9) == pytest.approx(1.0, rel=0.05)
    assert factor_at(found, 3.1) == pytest.approx(5.0, rel=0.05)


def test_each_lead_has_a_factor_of_its_own_and_later_ones_grow_as_the_last_do():
    def found(first):
        number, lead = torch.arange(16.0).repeat_interleave(900), torch.arange(9.0).repeat(1600)
        one = torch.ones_like(number).double()
        size = torch.where(lead == 0, first, 0.4 * (1 + (lead - 4).clamp(min=0)))  # rests, then grows
        errors = Errors((size * normal(len(number), seed=1)).abs(), 0 * one, one, lead, number, 0 * one)
        spread, _, growth = factors_of([errors, errors], leads_of(lead))
        return spread[0], growth

    spread, growth = found(2.0)
    prior = StatePrior(torch.zeros(1), torch.eye(1), torch.ones(1), torch.eye(1), spread[:, None],
                       leads=leads_of(torch.arange(9.0).double()), growth=torch.tensor([growth]))
    expected = torch.tensor([2.0, 0.4, 0.4, 0.4, 0.8, 2.0]).double()
    at = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, 8.0]).double()
    torch.testing.assert_close(prior.spread_at(at)[:, 0], expected, rtol=0.1, atol=0)
    assert 1.5 < growth <= 2.0  # 2 to 5 times from 4 to 8
    late = prior.spread_at(torch.tensor([9.0, 19.0]).double())[:, 0]
    torch.testing.assert_close(late[1] / late[0], torch.tensor(2.0**growth).double(), rtol=1e-6, atol=0)
    between = prior.spread_at(torch.tensor(2.0**0.5 - 1).double())[0]
    torch.testing.assert_close(between.square(), (spread[0] * spread[1]), rtol=1e-6, atol=0)
    assert found(0.1)[0][0] == found(0.1)[0][1]  # no less at observed times


def test_without_sparse_windows_factors_below_one_shrink_no_variance_far_larger_than_usual():
    narrow, wide = ([errors_with(3.0, factor, 1)] for factor in (0.1, 3.0))
    for some, usual in ((narrow, 0.1), (wide, 3.0)):
        found = factors_of(some, NOW)
        assert factor_at(found, 3.0) == pytest.approx(usual, rel=0.05)
        assert factor_at(found, 1e3) == pytest.approx(max(usual, 1.0), rel=0.05)


def test_no_factor_of_sparse_windows_takes_variances_beyond_that_of_the_data():
    noise = torch.full((1,), 1e-3).double()
    spread, relative = torch.tensor([[1.0, 100.0], [0.0, 1.0]]).double()[..., None, None]
    prior = StatePrior(torch.zeros(1), torch.eye(1), noise, torch.eye(1), spread, leads=NOW, relative=relative)
    estimate = StateEstimate(torch.zeros(1, 1), torch.zeros(1, 1, 1), None, torch.zeros(1), torch.zeros(1))
    variance = torch.tensor([1e-5, 0.099, 4.0, 0.0]).double()[:, None]
    std = prior.std(variance, torch.zeros(4, 1), torch.zeros(4), estimate)[:, 0]
    relative = torch.tensor([1e-5, 0.0]).double() / noise
    near = (torch.tensor([1e-5, 0.0]).double() + noise) * (100.0 ** (2 * relative.log1p()))
    torch.testing.assert_close(std.square(), torch.stack([near[0], *torch.tensor([1.0, 4.001]).double(), near[1]]))


def test_models_that_were_saved_with_a_power_of_the_relative_variance_answer_as_before():
    spread, power, noise = torch.tensor([[0.5], [2.0]]).double(), torch.tensor([0.3]).double(), torch.ones(1).double()
    state = {"mean": torch.zeros(1), "covariance": torch.eye(1), "noise": noise, "process": torch.zeros(1),
             "leads": torch.tensor([0.0, 3.0]).double(), "spread": spread, "inflation": power}
    prior = StatePrior.from_state(state)
    relative = torch.tensor([0.0, 2.0, 1e3, 1e12]).double()[:, None]
    for lead, factor in ((0.0, 0.5), (1.0, 1.0), (3.0, 2.0)):
        found = prior.spread_at(torch.full((4,), lead).double(), relative.log1p())
        torch.testing.assert_close(found.square(), factor**2 * (1 + relative) ** power)


def test_no_covariance_of_a_forecast_has_more_than_five_deviations_of_the_data(surrogate):
    prior, size = surrogate.prior, surrogate.code_size
    own, states = torch.eye(len(prior.mean)).double()[None], prior.mean.repeat(2, 1)
    assert prior.bounded(own, states, size) is own
    usual = prior.variances[:size].sum()
    states[1, 0] += 3 * usual.sqrt()  # a field that has grown
    found = prior.bounded(1e12 * own.repeat(2, 1, 1), states, size).diagonal(dim1=1, dim2=2)[:, :size].sum(1)
    torch.testing.assert_close(found, 25 * usual * torch.tensor([1.0, 9.0]).double())


def test_white_noise_of_the_values_is_no_error_of_the_field():
    number = torch.arange(40.0).repeat_interleave(500)
    codes, rest, white = (torch.full_like(number, value).double() for value in (3.0, 0.5, 4.0))
    std = (1.5**2 * (codes + rest) + white).sqrt()
    errors = Errors((std * normal(len(number), seed=4)).abs(), codes, rest, torch.zeros_like(rest), number, white)
    spread, _, growth = factors_of([errors, errors], NOW)
    assert growth == 0.0 and spread.flatten().tolist() == pytest.approx([1.5, 1.5], rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_what_white_noise_may_leave_by_chance_widens_no_interval(seed):
    number = torch.arange(8.0).repeat_interleave(400)
    codes, rest, white = (torch.full_like(number, value).double() for value in (0.02, 0.01, 1.0))
    std = (codes + rest + white).sqrt()
    errors = Errors((std * normal(len(number), seed=seed)).abs(), codes, rest, torch.zeros_like(rest), number, white)
    spread, _, growth = factors_of([errors, errors], NOW)
    assert growth == 0.0 and spread.flatten().tolist() == [1.0, 1.0]


def test_later_frames_of_a_single_series_are_as_far_as_covariances_of_so_few_make_them(surrogate):
    generator, size, frames, far = np.random.default_rng(0), 9, 25, []
    prior = replace(surrogate.prior, farthest=0.0)
    for _ in range(200):
        seen, new = generator.standard_normal((frames, size)), generator.standard_normal(size)
        own = replace(prior, mean=torch.tensor(seen.mean(0)), covariance=torch.tensor(np.cov(seen.T)))
        far.append(float(own.distance(torch.tensor(new))))
    assert (np.array(far) > prior.limit(size)).mean() > 0.05
    assert (np.array(far) > prior.limit(size, frames)).mean() < 0.01


@pytest.mark.parametrize("added", [0.0, 0.3])
def test_windows_without_the_noise_of_training_and_louder_ones_have_intervals_of_their_own(surrogate, added):
    noisy = replace(surrogate, prior=replace(surrogate.prior, noise=NOISE + 0.1, white=torch.full((2,), 0.1).double()))
    batch = truth(surrogate)  # whose values have none of the white noise that those of training had
    assert coverage(forecast_errors(noisy, batch, POINTS, added)) == pytest.approx(0.9, abs=0.06)


def test_frames_of_which_codes_leave_as_much_as_of_some_of_training_are_not_noisy(surrogate):
    known = with_prior(surrogate, replace(surrogate.prior, roughest=torch.full((2,), 0.06**2).double()))

    def louder(model, noise):
        batch = truth(surrogate).first_frames(1)
        found = model.estimate(replace(batch, u=batch.u + noise * normal(*batch.u.shape, seed=9))).louder
        return 0.0 if found is None else float(found.double().mean())

    assert louder(surrogate, 0.06) > 0.8 and louder(known, 0.06) < 0.2
    assert louder(known, 0.5) > 0.95


def test_the_quantile_of_few_trajectories_holds_its_share_of_a_new_one():
    size = torch.exp(0.8 * normal(400, 5, seed=2))  # of the errors of 400 times 4 trajectories and a new one
    errors = (size[..., None] * normal(400, 5, 40, seed=3)).abs()
    number, held, plain = torch.arange(4.0).repeat_interleave(40), [], []
    for every in errors:
        values = every[:4].flatten()
        held.append(float((every[4] <= quantile_of_others(values, number)).double().mean()))
        plain.append(float((every[4] <= values.quantile(0.9)).double().mean()))
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)
    assert np.mean(plain) < np.mean(held) - 0.02


def test_calibration_widens_intervals_that_are_too_narrow(surrogate):
    def with_errors(seed):  # the field errs, which the process noise does not say
        batch = truth(surrogate, seed=seed)
        batch.u[:, 1:] += 5 * NOISE.sqrt() * normal(*batch.u[:, 1:].shape, seed=seed + 5)
        return batch

    prior = calibrate(surrogate, with_errors(60).select(torch.arange(12)), 1)
    errors = forecast_errors(surrogate, with_errors(70), POINTS)
    assert coverage(errors) < 0.6
    errors = forecast_errors(with_prior(surrogate, prior), with_errors(70), POINTS)
    assert coverage(errors) == pytest.approx(0.9, abs=0.08)


def test_intervals_grow_with_errors_that_add_up_and_hold_them_alike_at_all_leads(surrogate):
    def drifting(seed):  # each trajectory moves away at a rate of its own
        batch = truth(surrogate, seed=seed)
        rate = normal(TRAJECTORIES, 1, POINTS, 2, seed=seed + 7) * 4 * NOISE.sqrt()
        batch.u += rate * torch.arange(float(FRAMES)).double()[None, :, None, None]
        return batch

    held = drifting(80).select(torch.arange(12))  # later windows begin where it has moved away, which no code tells
    prior = calibrated(surrogate.prior, list(errors_of(surrogate, held, 1, starts=())))
    growth = prior.growth
    assert (growth > 0.5).all()
    known = with_prior(surrogate, prior)
    errors = forecast_errors(known, drifting(90), POINTS)
    held = [coverage(errors[:, frame]) for frame in range(1, FRAMES)]
    assert max(held) - min(held) < 0.1 and min(held) > 0.75
    constant = errors * (1 + torch.arange(float(FRAMES)).double()[None, :, None, None]) ** growth
    constant = HALF * constant / constant.abs().flatten()[::7].quantile(0.9)
    assert coverage(constant[:, 1]) - coverage(constant[:, -1]) > 0.15


def test_windows_of_few_points_are_left_out_where_there_is_no_time(surrogate):
    held = truth(surrogate, seed=60).select(torch.arange(12))
    errors = list(errors_of(surrogate, held, 1))
    whole, part = (calibrated(surrogate.prior, some) for some in (errors, errors[:1]))
    assert len(whole.spread) == 3 and len(part.spread) == 2
    torch.testing.assert_close(part.spread[0], whole.spread[0])
    assert bool((part.spread[1] >= part.spread[0].clamp(min=1)).all())


def test_deviations_of_further_trajectories_are_as_their_own_also_beside_a_noisy_one(surrogate):
    one = with_prior(surrogate, replace(surrogate.prior, spread=torch.ones(2).double(),
                                        process=torch.full((SIZE,), 1e-3).double()))
    batch = truth(surrogate, torch.exp(0.5 * normal(TRAJECTORIES, seed=3)))
    some, others = batch.select(torch.arange(4)), batch.select(torch.arange(4, 24))
    some.u[0, 0] += 0.3 * normal(*some.u[0, 0].shape, seed=4)
    found, own = _errors(one, some, 1, 1.0, None, None, (others, None)), _errors(one, others, 1, 1.0, None, None)
    flown = found.select((found.number >= 4).nonzero()[:, 0])
    ratio = ((flown.codes + flown.rest) / (own.codes + own.rest)).sqrt().log()
    torch.testing.assert_close(flown.error, own.error)
    assert float(ratio.abs().median()) < 0.15 and float(ratio[own.lead == 0].abs().max()) < 1e-6


def test_trajectories_calibrate_as_flights_take_their_time(surrogate):
    batch = TrajectoryBatch(torch.arange(30.0).double().expand(16, 30), normal(1, 1, 9, 1, seed=3),
                            normal(16, 30, 9, 2, seed=4))
    counts = [len(affordable(batch, 2, surrogate, 10.0, flown=flown)[0]) for flown in (0.0, 0.008, 1.0)]
    assert counts[0] == 16 > counts[1] > counts[2] == 2


def test_fewer_then_shorter_trajectories_then_fewer_points_calibrate_in_a_short_time(surrogate):
    batch = TrajectoryBatch(torch.arange(30.0).double().expand(16, 30), normal(1, 1, 900, 1, seed=3),
                            normal(16, 30, 900, 2, seed=4))
    contexts = ContextPrior(torch.arange(16.0).double()[:, None], torch.eye(1).double())
    fewer = [affordable(batch, 2, surrogate, seconds, contexts) for seconds in (1e3, 5e-3, 1e-9)]
    shapes = [(*some.u.shape[:2], 900 if points is None else len(points)) for some, _, points in fewer]
    assert shapes[0] == (16, 30, 900) and shapes[-1] == (2, 10, 256)
    assert fewer[-1][1].mean.flatten().tolist() == [0, 15]  # of the trajectories that are left
    assert [sum(a != b for a, b in zip(shape, shapes[0], strict=True)) for shape in shapes] == [0, 1, 3]
    assert torch.equal(fewer[-1][0].u[0], batch.u[0, :10])  # all of them are observed


def test_shorter_trajectories_calibrate_as_far_as_they_go(surrogate):
    batch = truth(surrogate, 2.0)
    batch = TrajectoryBatch(batch.t.clone(), batch.x, batch.u)
    batch.t[::3, 3:], batch.u[::3, 3:] = torch.nan, torch.nan
    held, others = batch.select(torch.arange(12)), batch.select(torch.arange(12, 36))
    for one in (calibrate(surrogate, held, 1), calibrate(surrogate, held, 1, others=(others, None))):
        assert torch.isfinite(one.spread).all() and torch.isfinite(one.leads).all()
        torch.testing.assert_close(one.leads, leads_of(torch.arange(float(FRAMES)).double()))
        errors = forecast_errors(with_prior(surrogate, one), truth(surrogate, 2.0, seed=70), POINTS)
        assert coverage(errors) == pytest.approx(0.9, abs=0.05)
