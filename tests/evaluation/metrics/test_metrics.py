"""Errors: held against direct evaluation in float64, and CRPS against its defining integral."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from inrflow.evaluation.metrics import (
    GROUPS,
    Block,
    CalibrationTable,
    ChannelStatistics,
    Divergence,
    Intervals,
    SquaredErrors,
)
from inrflow.evaluation.metrics.base import report_of
from inrflow.evaluation.metrics.intervals import gaussian_crps

S, T, N, C = 5, 6, 7, 2


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    truth = random.normal(size=(S, T, N, C)).astype(np.float32) * np.array([1.0, 30.0], np.float32)
    prediction = truth + random.normal(size=truth.shape).astype(np.float32)
    truth[random.random(truth.shape) < 0.2] = np.nan
    in_time = np.arange(T)[None].repeat(S, 0) < random.integers(1, T, (S, 1))
    observed = random.random((S, N)) < 0.5
    return prediction, truth, in_time, observed


class Table:
    """Errors and intervals of two channels of given variance over the test set; below 0: nothing is known of it."""

    def __init__(self, variance):
        channels = ChannelStatistics(("u", "v"))
        deviation = np.sqrt(np.where(np.asarray(variance) < 0, np.nan, variance))
        channels.update(torch.as_tensor(np.stack([deviation, -deviation])))
        self.errors, self.intervals = SquaredErrors(channels), Intervals(channels)

    def update(self, prediction, truth, in_time, observed=None, std=None):
        arrays = (prediction, truth, in_time, observed, std)
        block = Block(*(None if array is None else torch.as_tensor(np.array(array)) for array in arrays))
        self.errors.update(block)
        self.intervals.update(block)

    def report(self):
        return report_of([self.errors, self.intervals])


def direct(prediction, truth, chosen):
    """MSE of each channel by one plain mean in float64."""
    error = prediction.astype(float) - truth
    return np.array([np.mean(error[..., c][chosen & np.isfinite(truth[..., c])] ** 2) for c in range(C)])


def test_every_group_is_the_plain_mean_over_its_values_whatever_the_blocks(problem):
    prediction, truth, in_time, observed = problem
    variance = np.nanvar(truth.astype(float), (0, 1, 2))
    table = Table(variance)
    for block in (slice(0, 2), slice(2, 5)):
        table.update(prediction[block], truth[block], in_time[block], observed[block])
    report = table.report()
    early, late = in_time[:, :, None].repeat(N, 2), ~in_time[:, :, None].repeat(N, 2)
    seen = observed[:, None, :].repeat(T, 1)
    expected = {"all": early | late, "in_t": early, "out_t": late, "in_s": seen, "out_s": ~seen,
                "in_t_in_s": early & seen, "in_t_out_s": early & ~seen, "out_t_in_s": late & seen,
                "out_t_out_s": late & ~seen}
    assert set(expected) == set(GROUPS) == set(report["mse"]) == set(report["nmse"])
    for group, chosen in expected.items():
        mse = direct(prediction, truth, chosen)
        assert report["mse"][group] == pytest.approx(mse.mean(), rel=1e-12)
        assert report["nmse"][group] == pytest.approx((mse / variance).mean(), rel=1e-12)
        assert report["per_channel"]["v"]["mse"][group] == pytest.approx(mse[1], rel=1e-12)
        assert report["per_channel"]["u"]["nmse"][group] == pytest.approx(mse[0] / variance[0], rel=1e-12)
    json.dumps(report, allow_nan=False)


def test_groups_that_do_not_apply_are_null(problem):
    prediction, truth, in_time, _ = problem
    table = Table([1.0, 1.0])
    table.update(prediction, truth, np.ones_like(in_time))
    report = table.report()
    assert {group for group in GROUPS if report["mse"][group] is not None} == {"all", "in_t"}
    assert report["coverage_90"] is None and report["crps"] is None
    observed = Table([1.0, 1.0])
    observed.update(prediction, truth, np.ones_like(in_time), np.ones((S, N), bool))
    assert {group for group in GROUPS if observed.report()["nmse"][group] is not None} == \
        {"all", "in_t", "in_s", "in_t_in_s"}


def test_a_prediction_that_is_not_finite_makes_its_groups_null_and_no_others(problem):
    prediction, truth, in_time, _ = problem
    prediction, truth = prediction.copy(), truth.copy()
    prediction[0, -1, 0], truth[0, -1, 0] = np.inf, 1.0
    prediction[1, 0, 0], truth[1, 0, 0] = np.nan, np.nan  # unknown: of no account
    table = Table([1.0, 1.0])
    table.update(prediction, truth, in_time)
    mse = table.report()["mse"]
    assert mse["out_t"] is None and mse["all"] is None
    assert mse["in_t"] == pytest.approx(direct(prediction, truth, in_time[:, :, None].repeat(N, 2)).mean())


def test_a_channel_without_variance_or_values_is_left_out_of_the_mean(problem):
    prediction, truth, in_time, _ = problem
    truth = truth.copy()
    truth[..., 1] = np.nan
    for variance in ([2.0, 0.0], [2.0, -1.0]):
        table = Table(variance)
        table.update(prediction, truth, in_time)
        report = table.report()
        assert report["nmse"]["all"] == pytest.approx(report["mse"]["all"] / 2.0)
        assert report["per_channel"]["v"]["nmse"]["all"] is None


def test_gaussian_crps_is_the_integral_that_defines_it():
    for error, std in ((0.0, 1.0), (1.3, 0.7), (-2.0, 0.2)):
        def integrand(y, error=error, std=std):
            return (stats.norm.cdf(y, error, std) - (y >= 0)) ** 2
        low, high = sorted((error, 0.0))
        expected = sum(integrate.quad(integrand, *ends)[0] for ends in ((-20, low), (low, high), (high, 20)))
        got = gaussian_crps(torch.tensor(error, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        assert got.item() == pytest.approx(expected, rel=1e-6)
    assert gaussian_crps(torch.tensor(-2.0), torch.tensor(0.0)).item() == 2.0


def test_coverage_and_crps_of_honest_and_of_overconfident_intervals():
    random = np.random.default_rng(1)
    scale = np.array([1.0, 50.0])
    truth = random.normal(size=(4, 50, 200, 2)) * scale
    in_time = np.ones((4, 50), bool)
    reports = {}
    for factor in (1.0, 0.5):
        table = Table(scale**2)
        table.update(np.zeros_like(truth), truth, in_time, std=np.broadcast_to(factor * scale, truth.shape))
        reports[factor] = table.report()
    assert reports[1.0]["coverage_90"] == pytest.approx(0.9, abs=0.005)
    assert reports[0.5]["coverage_90"] == pytest.approx(2 * stats.norm.cdf(0.5 * 1.6448536) - 1, abs=0.005)
    assert reports[1.0]["crps"] == pytest.approx(1 / math.sqrt(math.pi), abs=0.005)  # E CRPS of the true N(0, 1)
    assert reports[0.5]["crps"] > reports[1.0]["crps"]


def test_standard_error_of_coverage_is_its_scatter_over_sets_of_trajectories_that_err_alike():
    random, found = np.random.default_rng(2), []
    for _ in range(200):
        scale = np.exp(0.8 * random.standard_normal((8, 1, 1, 1)))  # of each trajectory
        truth = scale * random.standard_normal((8, 5, 40, 1))
        table = Table(np.ones(1))
        table.update(np.zeros_like(truth), truth, np.ones((8, 5), bool), std=np.ones_like(truth))
        report = table.report()
        found.append((report["coverage_90"], report["coverage_90_error"]))
    coverage, error = np.array(found).T
    assert np.sqrt(np.mean(error**2)) == pytest.approx(coverage.std(), rel=0.15)
    table = Table(np.ones(1))
    table.update(truth[:2] * 0, truth[:2], np.ones((2, 5), bool), std=np.ones_like(truth[:2]))
    assert table.report()["coverage_90_error"] is None  # two tell little


def test_error_by_frame_follows_the_place_in_the_trajectory(problem):
    prediction, truth, in_time, _ = problem
    variance = np.array([2.0, 3.0])
    table = Table(variance)
    table.update(prediction[:, :4], truth[:, :4], in_time[:, :4])
    table.update(prediction, truth, in_time)
    frames = table.errors.by_frame()
    every = np.ones((S, N), bool)
    assert frames.shape == (T,)
    for frame in range(T):
        assert frames[frame] == pytest.approx((direct(prediction[:, frame], truth[:, frame], every) / variance).mean())


def test_variance_of_blocks_with_a_large_mean_is_that_of_the_whole():
    random = np.random.default_rng(2)
    values = random.normal(size=(9, 11, 3)) * [1.0, 1e-3, 1.0] + [0.0, 1e4, -5.0]
    values[random.random(values.shape) < 0.3] = np.nan
    values[..., 2] = np.nan
    running = ChannelStatistics(("a", "b", "c"))
    for block in (values[:2], values[2:3], values[3:]):
        running.update(torch.as_tensor(block))
    np.testing.assert_allclose(running.variance[:2], np.nanvar(values[..., :2], (0, 1)), rtol=1e-9)
    assert np.isnan(running.variance[2])


@pytest.mark.parametrize(("wrong", "count"), [(0.5, None), (1e4, 1), (math.nan, 1), (math.inf, 1)])
def test_trajectories_whose_forecast_leaves_what_was_seen_are_counted(wrong, count):
    truth = torch.linspace(-1, 1, 60).reshape(3, 4, 5, 1)
    prediction = truth.clone()
    prediction[1, 3] += wrong
    metric = Divergence(ChannelStatistics(("a",)))
    metric.update(Block(prediction, truth, torch.ones(3, 4, dtype=torch.bool)))
    assert metric.value() == {"diverged": count}


def test_calibration_is_told_by_lead_and_by_distance(problem):
    prediction, truth, in_time, _ = problem
    std = np.full(truth.shape, 0.8)
    lead = np.maximum(np.arange(T)[None].repeat(S, 0) - 1.0, 0)
    distance = np.linspace(0, 3, N)[None].repeat(S, 0)
    channels = ChannelStatistics(("u", "v"))
    channels.update(torch.as_tensor(truth))
    table = CalibrationTable(channels)
    for rows in (slice(0, 2), slice(2, 5)):
        table.update(Block(*(torch.as_tensor(a[rows]) for a in (prediction, truth, in_time)), None,
                           *(torch.as_tensor(a[rows]) for a in (std, lead, distance))))
    found = report_of([table])["calibration"]
    assert [row["up_to"] for row in found["by_lead"]] == [0.0, 1.5, 3.5, 10.5]
    assert [row["up_to"] for row in found["by_distance"]] == [0.0, 0.5, 1.0, 2.0, None]
    z = (prediction.astype(float) - truth) / std
    z = z[:, 3:5]  # leads 2 and 3
    row = found["by_lead"][2]
    assert row["values"] == np.isfinite(z).sum()
    for level in (50, 80, 90, 95):
        inside = np.where(np.isfinite(z), np.abs(z) <= stats.norm.ppf(0.5 + level / 200), np.nan)
        assert row[f"coverage_{level}"] == pytest.approx(np.nanmean(inside, (0, 1, 2)).mean())
    assert row["z_spread"] == pytest.approx(np.sqrt(np.nanmean(z**2, (0, 1, 2))).mean())
    none = CalibrationTable(channels)
    none.update(Block(*(torch.as_tensor(a) for a in (prediction, truth, in_time))))
    assert none.value() == {"calibration": None}
