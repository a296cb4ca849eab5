"""Data that no field gives are told, or refused, before they are learned."""

import warnings

import numpy as np
import pytest
import torch

from inrflow.data.batch import Normalisation, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.plausible import (
    check_plausible,
    faults,
    few_and_apart,
    hampel_filter,
    leave_out_faults,
    without_outliers,
)
from inrflow.data.source import TrajectorySource
from inrflow.errors import UserError

X, T = np.arange(24)[:, None] / 24, np.arange(8) / 8
PHASES = np.random.default_rng(0).uniform(0, 6, 6)
WAVES = np.stack([np.sin(2 * np.pi * (X.T - T[:, None]) + phase) for phase in PHASES])[..., None]


def check(path, u, x=X, all_kept=False):
    """The source of fields u (S, T, N, C) at points x (N, d), checked."""
    write_trajectories(path, T, x, u, Description(name="waves", channels=("u",), coordinates=("x",), period=(1.0,)))
    with TrajectoryFile(path) as file:
        source = TrajectorySource(file)
        source.fit_normalisation(range(len(u)))
        check_plausible(source, range(len(u)), all_kept)
        return source.normalisation, torch.cat([source.batch([i], normalised=False).u for i in range(len(u))])


def test_waves_and_narrow_pulses_and_few_repeated_values_raise_no_doubts(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(tmp_path / "waves.h5", WAVES)
        check(tmp_path / "pulses.h5", np.exp(-((X.T - T[:, None]) / 0.05) ** 2)[None, ..., None])
        check(tmp_path / "twice.h5", np.concatenate([WAVES, WAVES], 2), np.concatenate([X, X]))


def test_places_with_several_values_at_a_time_are_told_and_refused_where_they_are_most_of_the_variance(tmp_path):
    twice = np.concatenate([X, X[:3]])
    with pytest.warns(UserWarning, match="share their place and time with another differ from it"):
        check(tmp_path / "few.h5", np.concatenate([WAVES, -WAVES[:, :, :3]], 2), twice)
    for name, u, x in (("mirrored", np.concatenate([WAVES, -WAVES], 2), np.concatenate([X, X])),
                       ("one", WAVES, np.full_like(X, 0.5))):
        with pytest.raises(UserError, match="of the variance lies between values of the same place and time"):
            check(tmp_path / f"{name}.h5", u, x)


def test_spikes_are_told_with_their_share(tmp_path):
    spiked = WAVES.copy()
    spiked[2, 3, 5] *= 1000
    spiked[4, 1, 20] *= 1000
    with pytest.warns(UserWarning, match=r"0.17 % of the values \(2 of 1152 looked at\) lie far from all of their"):
        normalisation, kept = check(tmp_path / "spiked.h5", spiked)
    assert torch.isnan(kept).nonzero().tolist() == [[2, 3, 5, 0], [4, 1, 20, 0]]
    assert normalisation.scale.item() == pytest.approx(WAVES.std(), rel=0.01)  # not that of the spikes


def test_a_faulty_value_of_thirty_deviations_is_told_beside_values_that_lie_out_themselves(tmp_path):
    """A thermometer's 187 degrees on a warm afternoon."""
    spiked = WAVES.copy()
    where = np.unravel_index(spiked[0].argmax(), spiked[0].shape)
    spiked[0][where] = 30 * WAVES.std()
    with pytest.warns(UserWarning, match=r"\(1 of 1152 looked at\)"):
        assert torch.isnan(check(tmp_path / "spiked.h5", spiked)[1]).sum() == 1


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_one_in_a_hundred_values_a_thousand_times_too_large_are_faults_and_nothing_else_is(noise):
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(np.arange(16) / 16, np.arange(16) / 16), -1).reshape(-1, 2)
    u = np.stack([np.sin(2 * np.pi * (grid @ [1, 1] - time)) for time in T])[..., None]
    u += noise * rng.standard_normal(u.shape)
    wrong = rng.random(u.shape) < 0.01
    found = faults(grid, np.where(wrong, 1000 * u, u))
    assert not found[~wrong].any() and found[wrong & (np.abs(u) > 0.05)].all()


def test_shocks_point_sources_and_fields_that_are_nearly_all_zero_have_no_faults():
    shock = np.sign(X.T - 0.1 - 0.6 * T[:, None])[..., None] + 0.01 * np.sin(20 * X.T)[..., None]
    source = 0.01 * np.sin(6 * X.T - T[:, None])[..., None]
    source[:, 7] += 5.0  # a place of its own kind
    pulse = np.maximum(0, 1 - ((X.T - 0.2 - 0.5 * T[:, None]) / 0.1) ** 2)[..., None]
    for u in (shock, source, pulse, np.random.default_rng(0).standard_normal((8, 24, 2))):
        assert not faults(X, u).any()


@pytest.mark.parametrize(("length", "wet"), [(30.0, 1.0), (8.0, 1.5), (15.0, 2.0)])
def test_showers_are_no_faults_but_values_that_stand_for_missing_ones_among_them_are(length, wet):
    rng = np.random.default_rng(2)
    gauges = rng.uniform(0, 100, (40, 2))
    apart = np.linalg.norm(gauges[:, None] - gauges, axis=-1)
    field = rng.standard_normal((400, 40)) @ np.linalg.cholesky(np.exp(-apart / length) + 1e-9 * np.eye(40)).T
    rain = np.maximum(field - wet, 0) ** 2 * np.exp(0.5 * rng.standard_normal(field.shape))
    assert not faults(gauges, rain[..., None]).any()
    missing = rng.random(rain.shape) < 0.003
    found = faults(gauges, np.where(missing, -999, rain)[..., None])[..., 0]
    assert found[missing].all() and found[~missing].sum() < 4


@pytest.mark.parametrize(("turn", "low"), [(360.0, 0.0), (2 * np.pi, -np.pi)])
def test_angles_that_go_around_are_told_and_other_values_of_their_range_are_not(turn, low, tmp_path):
    steady = np.linspace(0, 1, 8)[:, None, None] * np.ones((8, 24, 1)) * turn + low
    phase = np.cumsum(np.random.default_rng(0).normal(0, 0.15, (8, 24, 1)), 0) + X.ravel()[:, None]
    with pytest.warns(UserWarning, match="channel u goes around from .* as an angle does"):
        check(tmp_path / "angle.h5", np.stack([turn * (phase % 1) + low] * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(tmp_path / "steady.h5", np.stack([steady] * 2))


def test_all_values_stay_where_faults_are_kept(tmp_path):
    peak = WAVES.copy()
    peak[0, 3, 5] = 400.0
    _, kept = check(tmp_path / "peak.h5", peak, all_kept=True)
    assert float(kept[0, 3, 5, 0]) == 400.0


def test_numbers_that_stand_for_missing_values_are_told(tmp_path):
    marked = WAVES.copy()
    marked[0, 2:6, 5:9] = -9999
    with pytest.warns(UserWarning, match="channel u is -9999 where its other values lie far from that"):
        check(tmp_path / "marked.h5", marked)


def test_a_small_signal_on_a_large_constant_is_told_to_lose_its_digits(tmp_path):
    with pytest.warns(UserWarning, match="varies by .* around 1e.03; values are kept in single precision"):
        check(tmp_path / "offset.h5", 1e3 + 1e-3 * WAVES)


def test_one_wild_value_is_left_out_and_a_large_field_is_not():
    u = torch.as_tensor(WAVES[:2])
    batch = TrajectoryBatch(torch.as_tensor(T).expand(2, -1), torch.as_tensor(X)[None, None], 30 * u)
    usual = Normalisation(torch.zeros(1), torch.ones(1)).limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without_outliers(batch, usual) is batch
    one = u.clone()
    one[1, 3, 5] = 50.0
    with pytest.warns(UserWarning, match="1 of 384 observed values lie more than 20 standard deviations out"):
        kept = without_outliers(batch.with_values(one), usual).u
    assert torch.isnan(kept).nonzero().tolist() == [[1, 3, 5, 0]]
    seen = Normalisation(torch.zeros(1), torch.ones(1), most=torch.tensor([30.0])).limit  # training had as large ones
    assert torch.equal(without_outliers(batch.with_values(one), seen).u, one)
    moving = TrajectoryBatch(batch.t, batch.x.expand(2, 8, 24, 1), one)
    with pytest.warns(UserWarning, match="1 of 384"):
        assert bool(torch.isnan(without_outliers(moving, usual).u[1, 3, 5, 0]))


def test_single_values_far_from_their_frames_are_replaced_and_peaks_of_several_frames_and_of_amounts_stay():
    random, t = np.random.default_rng(4), np.arange(400.0)
    peaks = 9 * np.exp(-(((t[:, None] - random.uniform(0, 400, 30)) / 1.5) ** 2)).sum(1)
    rain = np.where(random.random(400) < 0.06, random.exponential(5, 400), 0.0) + 0.01 * random.random(400)
    values = np.stack([np.sin(t / 9) + 0.1 * random.standard_normal(400), np.sin(t / 5) + peaks, rain], 1)[:, None]
    faulty, gaps = values.copy(), random.random(400) < 0.1
    wrong = np.append(random.permutation(np.arange(3, 390, 9))[:7], 399)  # the last one is told by those before
    faulty[wrong, 0, 0] += 20 * random.choice([-1, 1], 8)
    faulty[gaps, 0, 0] = np.nan
    with pytest.warns(UserWarning, match=f"{8 - gaps[wrong].sum()} of {1200 - gaps.sum()} values"):
        found = hampel_filter(torch.as_tensor(faulty), torch.tensor([-np.inf, -np.inf, 0.0])).numpy()
    changed = np.argwhere((found != faulty) & np.isfinite(faulty))
    assert [row.tolist() for row in changed] == [[k, 0, 0] for k in sorted(wrong) if not gaps[k]]
    strided = torch.as_tensor(np.repeat(faulty, 2, 1)).permute(2, 1, 0).contiguous().permute(2, 1, 0)  # as windows are
    with pytest.warns(UserWarning, match="values of the series"):
        other = hampel_filter(strided, torch.tensor([-np.inf, -np.inf, 0.0]))
    np.testing.assert_array_equal(other.numpy(), np.repeat(found, 2, 1))
    assert np.nanmax(np.abs(found - values)[:, 0, 0]) < 1
    with pytest.warns(UserWarning, match="they are left out"):
        without = hampel_filter(torch.as_tensor(faulty), torch.tensor([-np.inf, -np.inf, 0.0]), missing=True).numpy()
    np.testing.assert_array_equal(without, np.where(found == faulty, faulty, np.nan))


def test_a_front_that_passes_neighbouring_places_at_once_is_no_spike_and_a_fault_beside_it_is():
    t, x = np.arange(40.0)[:, None], np.linspace(0, 1, 30)
    front = (np.sin(t / 9) + 8 * np.exp(-(((x - (t - 20)) / 0.3) ** 2)))[..., None]
    front[30, 12] += 6
    with pytest.warns(UserWarning, match="1 of 1200 values"):
        found = hampel_filter(torch.as_tensor(front), x=torch.as_tensor(x)[:, None]).numpy()
    assert np.argwhere(found != front).tolist() == [[30, 12, 0]]


def test_spikes_of_a_few_frames_that_are_no_farther_out_than_the_field_are_left_out_of_an_adaptation(tmp_path):
    x, t = np.arange(96)[:, None] / 96, np.arange(8) / 32
    u = np.sin(2 * np.pi * (x.T - t[:, None]))[None, ..., None]
    wrong = np.zeros(u.shape, bool)
    wrong[0, [1, 4, 6], [13, 77, 39]] = True
    u[wrong] -= 1.8 * np.sign(u[wrong])
    write_trajectories(tmp_path / "spikes.h5", t, x, u, Description(name="waves", channels=("u",), coordinates=("x",)))
    with TrajectoryFile(tmp_path / "spikes.h5") as file:
        source = TrajectorySource(file)
        with pytest.warns(UserWarning, match="3 of 768 values lie far from all of their neighbours"):
            leave_out_faults(source, [0])
        np.testing.assert_array_equal(torch.isnan(source.batch([0], normalised=False).u), wrong)


def test_few_values_apart_are_gross_errors_and_a_region_or_many_are_not():
    x, seen = torch.linspace(0, 1, 40)[None, None, :, None], torch.ones(4, 3, 40, 1, dtype=torch.bool)
    wrong = torch.zeros_like(seen)
    wrong[0, :, [3, 20]] = True  # two places
    wrong[1, 1, 10:16] = True  # a region
    wrong[2, :, ::4] = True  # a quarter of the values
    wrong[3, 2, [5, 30], 0] = True
    assert few_and_apart(x, wrong, seen).tolist() == [True, False, False, True]
    assert few_and_apart(x.expand(4, 3, 40, 1), wrong, seen).tolist() == [True, False, False, True]


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("frames", [24, 41])
def test_maxima_of_smooth_series_are_no_spikes(frames, noise):
    slow = 4 * np.sin(2 * np.pi * np.arange(frames)[:, None] / 100 + np.linspace(0, 6, 40))[..., None]
    slow += noise * np.random.default_rng(0).standard_normal(slow.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(hampel_filter(torch.as_tensor(slow)), torch.as_tensor(slow))
    faulty = slow.copy()
    faulty[12, 7] += 3
    with pytest.warns(UserWarning, match="1 of .* are spikes of single frames"):
        found = hampel_filter(torch.as_tensor(faulty)).numpy()
    assert np.abs(found - slow).max() < 0.3


def test_faults_of_neighbours_in_one_frame_are_left_out_and_a_passing_pulse_is_kept():
    random = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, 40)[:, None].double()
    quiet = 0.01 * torch.randn(200, 40, 1, generator=random, dtype=torch.float64)
    pulse, row = quiet.clone(), quiet.clone()
    pulse[50 + torch.arange(40) // 4, torch.arange(40)] += 1.0  # four neighbours in each frame
    row[50, 10:16] += 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, left = (hampel_filter(u, missing=True, x=x) for u in (pulse, row))
    assert torch.isfinite(kept[50 + torch.arange(40) // 4, torch.arange(40)]).double().mean() > 0.7
    assert torch.isnan(left[50, 10:16]).all()
