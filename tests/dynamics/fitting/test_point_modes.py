"""Cycles and principal components at points against numpy."""

import numpy as np
import pytest
import torch

from inrflow.dynamics.fitting.point_modes import choose_cycle, fit_cycle, left_out_anomalies, principal_components


def test_harmonics_are_found_exactly_from_values_with_gaps():
    t = torch.arange(200.0, dtype=torch.float64)
    truth = torch.stack([1 + 2 * torch.cos(2 * np.pi * t / 31.3), 3 - torch.sin(4 * np.pi * t / 31.3)], 1)
    values = truth.clone()
    values[::3, 0] = torch.nan
    assert fit_cycle(t, values, [31.3], [2])(t) == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize(("count", "noise"), [(0, 1.0), (1, 0.3), (2, 0.3)])
def test_as_many_harmonics_are_taken_as_left_out_blocks_favour(count, noise):
    t = torch.arange(600.0, dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    values = noise * torch.randn(600, 5, generator=random, dtype=torch.float64)
    for harmonic in range(1, count + 1):
        values += 0.5 * torch.cos(2 * np.pi * harmonic * t / 50 + harmonic)[:, None]
    cycle = choose_cycle(t, values, [(50.0, 3)])
    assert sum(cycle.harmonics) == count


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


def test_anomalies_of_a_block_by_a_cycle_that_has_not_seen_it():
    t = torch.arange(60.0).double()
    values = torch.as_tensor(np.random.default_rng(7).standard_normal((60, 2)).cumsum(0))
    cycle = fit_cycle(t, values, [12.0], [1])
    moved = torch.cat(list(left_out_anomalies(cycle, t, values, [(0, 20), (20, 60)])))
    angle = 2 * np.pi * t.numpy() / 12
    design = np.stack([np.ones(60), np.cos(angle), np.sin(angle)], 1)
    expected = values[:20].numpy() - design[:20] @ np.linalg.lstsq(design[20:], values[20:].numpy(), rcond=None)[0]
    assert (values - cycle(t) + moved)[:20].numpy() == pytest.approx(expected, abs=1e-4)
