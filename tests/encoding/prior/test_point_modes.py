"""Cycles and principal components at points against numpy."""

import numpy as np
import pytest
import torch

from inrflow.encoding.prior.point_modes import (
    fit_cycle,
    principal_components,
    projected_on_components,
    shrunk_cycle,
)


def test_harmonics_are_found_exactly_from_values_with_gaps():
    t = torch.arange(200.0, dtype=torch.float64)
    truth = torch.stack([1 + 2 * torch.cos(2 * np.pi * t / 31.3), 3 - torch.sin(4 * np.pi * t / 31.3)], 1)
    values = truth.clone()
    values[::3, 0] = torch.nan
    assert fit_cycle(t, values, [31.3], [2])(t) == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize("persistence", [0.0, 0.7])
def test_harmonics_of_noise_are_shrunk_and_clear_ones_kept(persistence):
    random, t = np.random.default_rng(3), torch.arange(60.0, dtype=torch.float64)
    missed = {"least squares": 0.0, "shrunk": 0.0}
    for _ in range(20):
        noise = np.zeros((60, 5))
        for k in range(1, 60):
            noise[k] = persistence * noise[k - 1] + random.standard_normal(5)
        truth = 0.3 * torch.cos(2 * np.pi * t / 12)[:, None]
        values = truth + torch.as_tensor(noise)
        for name, cycle in (("least squares", fit_cycle(t, values, [12.0], [3])),
                            ("shrunk", shrunk_cycle(t, values, [(12.0, 3)]))):
            missed[name] += float((cycle(t) - truth).square().mean())
    assert missed["shrunk"] < 0.75 * missed["least squares"]
    clear = 50 * torch.cos(4 * np.pi * t / 12 + 1)[:, None] + values
    assert shrunk_cycle(t, clear, [(12.0, 2)])(t) == pytest.approx(fit_cycle(t, clear, [12.0], [2])(t), abs=1.0)


def test_harmonics_of_a_channel_without_a_cycle_are_shrunk_beside_one_with_a_cycle():
    random, t = np.random.default_rng(3), torch.arange(60.0, dtype=torch.float64)
    wave, noise = 5 * torch.cos(2 * np.pi * t / 12), torch.as_tensor(random.standard_normal((60, 20, 2)))
    values = (noise + torch.stack([wave, 0 * wave], -1)[:, None]).flatten(1)
    together, each = (shrunk_cycle(t, values, [(12.0, 3)], channels)(t).unflatten(1, (20, 2)) for channels in (1, 2))
    missed = [float((one[..., 0] - wave[:, None]).square().mean()) for one in (together, each)]
    assert missed[1] < missed[0]
    left = [(one[..., 1] - one[..., 1].mean(0)).square().mean() for one in (together, each)]
    assert left[1] < 0.3 * left[0]
    alone = [shrunk_cycle(t, values[:, c::2], [(12.0, 3)])(t) for c in range(2)]
    assert each == pytest.approx(torch.stack(alone, -1))


@pytest.mark.parametrize("record", [12, 40])
def test_a_station_that_starts_late_has_the_cycle_of_the_others(record):
    random, t, noise = np.random.default_rng(6), torch.arange(730.0, dtype=torch.float64), np.zeros((730, 21))
    for k in range(1, 730):  # weather of all and of each
        noise[k] = 0.9 * noise[k - 1] + np.r_[random.standard_normal(), 0.3 * random.standard_normal(20)]
    amplitude = torch.as_tensor(10 + random.standard_normal(20))
    truth = amplitude * torch.cos(2 * np.pi * t / 365)[:, None] + amplitude / 2
    values = truth + torch.as_tensor(noise[:, :1] + noise[:, 1:])
    values[:-record, 0] = torch.nan
    alone, cycle = fit_cycle(t, values, [365.0], [2]), shrunk_cycle(t, values, [(365.0, 2)])
    missed = (cycle(t) - truth).square().mean(0).sqrt()
    assert float(missed[0]) < 2.5 and float((alone(t) - truth)[:, 0].square().mean().sqrt()) > 10
    assert float(missed[1:].mean()) < 1.05 * float((alone(t) - truth)[:, 1:].square().mean(0).sqrt().mean())


def test_cycles_of_places_that_differ_clearly_stay_their_own():
    random, t = np.random.default_rng(7), torch.arange(240.0, dtype=torch.float64)
    truth = torch.as_tensor(10 * random.standard_normal(8)) * torch.sin(2 * np.pi * t / 24)[:, None]
    values = truth + 0.1 * torch.as_tensor(random.standard_normal((240, 8)))
    assert shrunk_cycle(t, values, [(24.0, 2)])(t) == pytest.approx(truth, abs=0.1)


def test_harmonics_after_the_last_that_is_kept_are_dropped():
    cycle = fit_cycle(torch.arange(40.0).double(), torch.randn(40, 2).double(), [20.0, 5.0], [3, 2])
    some, t = cycle.leading([0, 1]), torch.arange(7.0).double()
    assert some.periods == (5.0,) and some.harmonics == (1,)
    angle, rows = 2 * np.pi * t / 5, cycle.coefficients[[0, 7, 9]]
    assert some(t) == pytest.approx(torch.stack([t * 0 + 1, angle.cos(), angle.sin()], 1) @ rows)


def test_complete_frames_have_the_components_of_a_singular_value_decomposition():
    rows = np.random.default_rng(4).standard_normal((40, 7)) @ np.diag(np.arange(7.0) + 1)
    modes = principal_components(torch.as_tensor(rows), 3)
    _, lengths, right = np.linalg.svd(rows, full_matrices=False)
    assert modes.variances.numpy() == pytest.approx(lengths[:3] ** 2 / 40)
    assert np.abs(modes.patterns.numpy() @ right[:3].T) == pytest.approx(np.eye(3), abs=1e-9)
    assert float(modes.noise.sum()) == pytest.approx((lengths[3:] ** 2).sum() / 40)


def test_missing_values_hardly_move_the_components():
    random = np.random.default_rng(5)
    codes = random.standard_normal((500, 2)) * [2.0, 1.0]
    patterns = np.linalg.qr(random.standard_normal((20, 2)))[0].T
    truth = codes @ patterns
    values = truth + 0.05 * random.standard_normal(truth.shape)
    values[random.random(values.shape) < 1 / 3] = np.nan
    modes = principal_components(torch.as_tensor(values))
    rebuilt = (modes.codes[:, :2] @ modes.patterns[:2]).numpy()
    assert np.square(rebuilt - truth).mean() < 1e-3
    assert modes.variances[:2].numpy() == pytest.approx([4.0, 1.0], rel=0.2)
    assert modes.noise.numpy() == pytest.approx(np.full(20, 0.05**2), rel=0.5)


def test_as_many_codes_as_values_hold_all_of_them():
    random = np.random.default_rng(6)
    values = torch.as_tensor(random.standard_normal((400, 4)) @ random.standard_normal((4, 4)))
    gaps = torch.where(torch.as_tensor(random.random(values.shape)) < 0.1, torch.nan, values)
    before = principal_components(gaps)
    after = before.saturated(gaps)

    def covariance(modes):
        return modes.patterns.T @ torch.diag(modes.variances) @ modes.patterns + torch.diag(modes.noise)

    assert covariance(after) == pytest.approx(covariance(before), abs=0.01 * float(covariance(before).trace()))
    whole = torch.isfinite(gaps).all(1)
    assert (after.codes @ after.patterns)[whole] == pytest.approx(values[whole], abs=0.02)
    few = principal_components(values, 2)
    assert few.saturated(values) is few
    late = torch.cat([gaps, torch.full((400, 1), torch.nan)], 1)  # of a place that reports later
    found = principal_components(late).saturated(late)
    assert found.variances.numpy() == pytest.approx(after.variances.numpy(), rel=0.01)


def _of_two_channels():
    """Values (600, 8) of four places, of which the second channel holds a part of the first; modes of each channel."""
    random = np.random.default_rng(12)
    first = random.standard_normal((600, 4)) @ random.standard_normal((4, 4))
    second = 0.6 * first + random.standard_normal((600, 4))
    values = torch.as_tensor(np.stack([first, second], -1).reshape(600, 8))
    return values, principal_components(values).saturated(values).of_each(2, values)


def test_modes_of_each_channel_are_its_own_components():
    values, modes = _of_two_channels()
    for c in range(2):
        own = modes.patterns[:, c::2].any(1)
        _, lengths, right = np.linalg.svd(values[:, c::2].numpy(), full_matrices=False)
        assert modes.variances[own].numpy() == pytest.approx(lengths**2 / 600)
        assert np.abs(modes.patterns[own][:, c::2].numpy() @ right.T) == pytest.approx(np.eye(4), abs=1e-8)
        assert not modes.patterns[own][:, 1 - c :: 2].any()
    assert (modes.variances.diff() <= 0).all() and modes.codes @ modes.patterns == pytest.approx(values)


def test_a_channel_that_is_missing_is_told_by_codes_of_the_other():
    values, modes = _of_two_channels()
    seen = values.clone()
    seen[:, 1::2] = torch.nan
    found = (modes.posterior(seen) @ modes.patterns)[:, 1::2]
    slopes = torch.linalg.lstsq(values[:, ::2], values[:, 1::2]).solution
    assert (found - values[:, ::2] @ slopes).square().mean() < 0.02 * values[:, 1::2].square().mean()


def test_a_channel_is_told_by_the_other_though_their_common_amplitude_changes_with_time():
    random = np.random.default_rng(4)
    common = random.standard_normal((400, 3)) * np.repeat([0.3, 3.0, 0.2, 1.0, 0.1], 80)[:, None]
    fields = [common @ random.standard_normal((3, 6)) + 0.1 * random.standard_normal((400, 6)) for _ in range(2)]
    values = torch.as_tensor(np.stack(fields, -1)).flatten(1)
    modes, seen = principal_components(values).of_each(2, values), values.clone()
    seen[:, 1::2] = torch.nan
    found = (modes.posterior(seen) @ modes.patterns)[:, 1::2]
    slopes = torch.linalg.lstsq(values[:, ::2], values[:, 1::2]).solution
    regressed = (values[:, ::2] @ slopes - values[:, 1::2]).square().mean()
    assert (found - values[:, 1::2]).square().mean() < 3 * regressed


def test_codes_of_channels_with_nothing_in_common_hardly_correlate():
    walks = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).double().cumsum(0)
    walks = walks - walks.mean(0)
    modes = principal_components(walks).of_each(2, walks)
    plain = torch.corrcoef(modes.codes.T) - torch.eye(len(modes.variances))
    assert modes.correlation is not None
    shrunk = modes.correlation - torch.eye(len(modes.variances))
    assert shrunk.square().sum() < 0.3 * plain.square().sum()


def test_what_lasts_in_each_channel_is_told_apart():
    random, decays, field = np.random.default_rng(5), np.tile([0.97, 0.5], 4), np.zeros((900, 8))
    for k in range(1, 900):
        field[k] = decays * field[k - 1] + np.sqrt(1 - decays**2) * random.standard_normal(8)
    values = torch.as_tensor(field)
    modes = principal_components(values).of_each(2, values)
    modes, _, lasting = modes.cross_validated(values, [(k, k + 180) for k in range(0, 900, 180)])
    first = modes.patterns[:, ::2].any(1)
    assert lasting[0][first].numpy() == pytest.approx(np.full(4, 0.96), abs=0.04)
    assert lasting[0][~first].numpy() == pytest.approx(np.full(4, 0.5), abs=0.12)


def test_values_as_other_frames_hold_them_are_projections_on_their_components():
    random = np.random.default_rng(8)
    frames = random.standard_normal((9, 3)) @ random.standard_normal((3, 20))
    values = random.standard_normal((2, 5, 20))
    found = projected_on_components(torch.as_tensor(values), torch.as_tensor(frames), 2).numpy()
    middle = frames.mean(0)
    patterns = np.linalg.svd(frames - middle, full_matrices=False)[2][:2]
    assert found == pytest.approx(middle + (values - middle) @ patterns.T @ patterns)


def _of_few_frames(missing):
    """Modes of 45 frames of a Gaussian of 30 values with a known covariance, as fitted and cross-validated."""
    random = np.random.default_rng(8)
    axes = np.linalg.qr(random.standard_normal((30, 30)))[0]
    root = axes * np.geomspace(2, 0.05, 30)
    values = torch.as_tensor(random.standard_normal((45, 30)) @ root.T)
    values[torch.as_tensor(random.random((45, 30)) < missing)] = torch.nan
    modes = principal_components(values, 20)
    return modes, *modes.cross_validated(values, [(k, k + 9) for k in range(0, 45, 9)])[:2], root


@pytest.mark.parametrize("missing", [0.0, 0.02])
def test_variances_of_few_frames_are_those_of_the_covariance_that_made_them(missing):
    modes, validated, ratio, root = _of_few_frames(missing)
    true = np.square(modes.patterns.numpy() @ root).sum(1)  # along the patterns
    before, after = (np.abs(np.log(one.variances.numpy() / true))[:15].mean() for one in (modes, validated))
    assert after < 0.7 * before
    assert ratio[0] < 1 < ratio[14] and validated.variances == pytest.approx(modes.variances * ratio)
    left = np.square(root - modes.patterns.numpy().T @ (modes.patterns.numpy() @ root)).sum()
    assert missing or float(modes.noise.sum()) < 0.5 * left < float(validated.noise.sum())
    assert float(validated.noise.sum()) < 4 * left  # told by 36 of 45 frames


def test_values_given_few_others_have_the_deviations_that_validated_variances_say():
    modes, validated, _, root = _of_few_frames(0.0)
    frames = torch.as_tensor(np.random.default_rng(9).standard_normal((400, 30)) @ root.T)
    seen = frames.clone()
    seen[:, 4:] = torch.nan
    squares = []
    for one in (modes, validated):
        missed = (frames - one.posterior(seen) @ one.patterns)[:, 4:]
        design = one.patterns[:, :4].T / one.noise[:4].sqrt()[:, None]
        spread = torch.linalg.inv(design.T @ design + torch.diag(1 / one.variances))
        variance = (one.patterns * (spread @ one.patterns)).sum(0) + one.noise
        squares.append((float(missed.square().mean()), float((missed.square() / variance[4:]).mean())))
    (_, unsure), (error, honest) = squares
    assert error < 1.05 * squares[0][0] and abs(honest - 1) < 0.5 * abs(unsure - 1)


def test_modes_that_blocks_say_nothing_about_stay():
    modes = principal_components(torch.randn(12, 4).double(), 2)
    same, ratio, _ = modes.cross_validated(torch.randn(12, 4).double(), [(0, 12)])
    assert same is modes and bool((ratio == 1).all())


def test_what_late_patterns_of_a_lasting_field_hold_lasts_in_other_frames():
    random, decay = np.random.default_rng(3), 0.95
    field = np.zeros((1000, 60))
    for k in range(1, 1000):  # every pattern of which lasts alike
        field[k] = decay * field[k - 1] + random.standard_normal(60)
    values = torch.as_tensor(field * np.geomspace(1, 0.01, 60))
    modes = principal_components(values, 50)
    decays, later = modes.cross_validated(values, [(k, k + 200) for k in range(0, 1000, 200)], 2)[2]
    codes = modes.codes[:, 30:]
    own = (codes[1:] * codes[:-1]).sum(0) / codes[:-1].square().sum(0)
    assert (decays[30:] - decay).abs().mean() < 0.5 * (own - decay).abs().mean()
    assert later[30:].mean() == pytest.approx(float(decays[30:].mean()) * decay, abs=0.03)


def test_what_grows_within_every_block_still_has_innovations():
    torch.manual_seed(3)
    grown = 1.05 ** torch.arange(20).double().repeat(5) * torch.tensor([1.0, -1, 1, -1, 1]).repeat_interleave(20)
    values = grown[:, None] * torch.tensor([1.0, 2, 0]) + 0.01 * torch.randn(100, 3).double()
    blocks = [(k, k + 20) for k in range(0, 100, 20)]
    lasting = principal_components(values, 1).cross_validated(values, blocks)[2]
    inside = torch.cat([values[k : k + 20, 1] - values[:, 1].mean() for k in range(0, 100, 20)]).reshape(5, 20)
    expected = torch.corrcoef(torch.stack([inside[:, :-1].flatten(), inside[:, 1:].flatten()]))[0, 1]
    assert 0.99 < float(lasting[0, 0]) < 1  # least squares have 1.05
    assert float(lasting[0, 0]) == pytest.approx(float(expected), abs=3e-3)
