"""Autoregressions against numpy's least squares and against the system that made the data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.dynamics.fitting.autoregression import (
    AutoregressionSearch,
    Choice,
    companion,
    lagged,
    persistence_shares,
    relaxation_range,
    scores,
)

FIRST = np.array([[0.6, 0.3, 0.0], [-0.3, 0.6, 0.1], [0.0, 0.0, 0.3]])
SECOND = np.array([[0.2, 0.0, 0.0], [0.0, 0.2, 0.0], [0.1, 0.0, -0.4]])


def series(frames: int = 1500) -> np.ndarray:
    random = np.random.default_rng(0)
    z = np.zeros((frames, 3))
    for k in range(2, frames):
        z[k] = FIRST @ z[k - 1] + SECOND @ z[k - 2] + random.standard_normal(3) * [1.0, 0.8, 0.5]
    return z


def search_of(z: np.ndarray, known: np.ndarray | None = None) -> AutoregressionSearch:
    seen = np.ones(len(z), bool) if known is None else known
    return AutoregressionSearch(torch.as_tensor(z), torch.as_tensor(seen))


def test_a_weak_ridge_gives_ordinary_least_squares_around_zero():
    z = series(200)
    matrices = search_of(z).fit(Choice(3, 2, 1e-13))
    rows = np.concatenate([z[2:-1], z[1:-2]], 1)  # the longest lags decide which rows count
    expected = np.linalg.lstsq(rows, z[3:], rcond=None)[0]
    assert np.concatenate([one.T.numpy() for one in matrices]) == pytest.approx(expected, abs=1e-6)


def test_the_lags_that_made_the_data_are_chosen_and_forecast_as_well_as_the_truth():
    z = series()
    chosen = search_of(z[:1000]).search()
    assert chosen.choice.lags == 2 and chosen.choice.size == 3
    now, before = z[1001:-1], z[1000:-2]
    mine = now @ chosen.matrices[0].numpy().T + before @ chosen.matrices[1].numpy().T
    true = now @ FIRST.T + before @ SECOND.T
    assert np.square(mine - z[1002:]).mean() < 1.03 * np.square(true - z[1002:]).mean()


def test_noise_alone_is_forecast_by_nothing_but_its_mean():
    z = np.random.default_rng(1).standard_normal((600, 4))
    chosen = search_of(z).search()
    assert float(chosen.matrices.abs().max()) < 0.1 and float(chosen.errors.max()) < 1.05


def test_frames_that_were_not_seen_are_not_fitted_to():
    z, known = series(400), np.ones(400, bool)
    z[100:140], known[100:140] = 1e6, False
    assert float(search_of(z, known).search().matrices.abs().max()) < 2


def test_growing_fits_are_scaled_to_the_unit_circle():
    z = np.exp(0.05 * np.arange(80))[:, None] * np.array([[1.0, -0.5]])
    z = z + 1e-3 * np.random.default_rng(2).standard_normal(z.shape)
    matrices = search_of(z).fit(Choice(2, 1, 1e-9), stable=True)
    assert float(torch.linalg.eigvals(companion(matrices)).abs().max()) <= 1 + 1e-9


def test_few_frames_of_noise_are_forecast_half_way_between_least_squares_and_damped_persistence():
    z = np.random.default_rng(8).standard_normal((60, 30)).cumsum(0)
    z -= z.mean(0)
    found = search_of(z).search()
    assert found.choice == Choice(12, 1, found.choice.ridge, half=True)
    past, now = z[:-1, :12], z[1:, :12]
    exact = np.linalg.lstsq(past, now, rcond=None)[0].T
    decays = (past * now).sum(0) / (past**2).sum(0)
    damped = np.diag(np.minimum(decays + (1 + 3 * decays) / len(past), 1))  # without the bias of few frames
    matrices = search_of(z).fit(found.choice)
    assert matrices[0].numpy() == pytest.approx((exact + damped) / 2, abs=0.02)


def test_few_frames_of_a_process_without_noise_are_chosen_by_blocks():
    angle = np.outer(np.arange(60.0), [0.3, 0.7])
    z = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    found = search_of(z).search()
    assert not found.choice.half and float(found.errors.max()) < 1e-6


def test_decays_of_short_series_around_their_mean_are_right_on_average():
    random = np.random.default_rng(3)
    z = np.zeros((40, 2000))
    z[0] = random.standard_normal(2000) / (1 - 0.7**2) ** 0.5
    for k in range(1, 40):
        z[k] = 0.7 * z[k - 1] + random.standard_normal(2000)
    z -= z.mean(0)
    assert float(search_of(z).decays().mean()) == pytest.approx(0.7, abs=0.015)  # least squares have .62


def test_states_hold_the_past_and_know_where_it_was_seen():
    z, known = torch.arange(6.0)[:, None], torch.tensor([True, True, False, True, True, True])
    states, whole = lagged(z, known, 2)
    assert states[4].tolist() == [4.0, 3.0] and whole.tolist() == [False, True, False, False, True, True]


def test_leads_that_nothing_forecasts_do_not_count():
    one, other = Choice(1, 1, 0.1), Choice(2, 1, 0.1)
    found = scores({one: torch.tensor([0.1, 1.0, 1.2]), other: torch.tensor([0.2, 1.1, 1.0])}, torch.ones(3))
    assert found[one] == pytest.approx(0.1) and found[other] == pytest.approx(0.2)
    assert min(scores({one: torch.tensor([1.2, 1.1])}, torch.ones(2)).values()) >= 1
    # a cycle that misses unseen blocks by more than their variance: leads count by what is forecast of that
    unsure = scores({one: torch.tensor([1.2, 0.9]), other: torch.tensor([2.4, 0.8])}, torch.tensor([2.4, 0.9]))
    assert unsure[one] < unsure[other]


def test_iterated_forecasts_are_damped_to_the_correlation_at_their_lead():
    held = 7  # steps for which a random value stays: correlation 1 - h / 7, that of one step iterated (6 / 7)^h
    z = torch.as_tensor(np.random.default_rng(0).standard_normal((3000, 1))).repeat_interleave(held, 0)
    found = AutoregressionSearch(z, torch.ones(len(z), dtype=torch.bool), lags=(1,)).search()
    lead = np.arange(1, 21)
    expected = np.maximum(1 - lead / held, 0)
    assert found.damping[:, 0].numpy() * float(found.matrices) ** lead == pytest.approx(expected, abs=0.06)
    variance = found.covariances[:, 0, 0] / float(z.square().mean())
    assert variance.numpy() == pytest.approx(1 - expected**2, abs=0.08)


def share_that_stays(z: np.ndarray) -> torch.Tensor:
    codes = torch.as_tensor(z)
    return persistence_shares(codes, torch.ones(len(z), dtype=torch.bool), search_of(z).search())[1]


def test_all_of_codes_stays_where_later_blocks_have_other_means_and_none_around_one_mean():
    noise = np.random.default_rng(5).standard_normal((400, 4))
    walks, returning = noise[:90].cumsum(0), np.zeros_like(noise)
    for k in range(1, 400):
        returning[k] = 0.5 * returning[k - 1] + noise[k]
    assert float(share_that_stays(walks - walks.mean(0))[:5].min()) > 0.5
    assert float(share_that_stays(returning - returning.mean(0)).max()) < 0.05


def test_later_blocks_tell_how_much_of_overconfident_forecasts_is_to_be_believed():
    held = 7  # steps for which a random value stays, as above
    z = torch.as_tensor(np.random.default_rng(0).standard_normal((400, 1))).repeat_interleave(held, 0)
    known, lead = torch.ones(len(z), dtype=torch.bool), np.arange(1, 21)
    found = AutoregressionSearch(z, known, lags=(1,)).search()
    undamped = replace(found, damping=torch.ones_like(found.damping))
    factor, share = persistence_shares(z, known, undamped)
    expected = np.maximum(1 - lead / held, 0)
    kept = (factor * (1 - share)).numpy() * float(found.matrices) ** lead + share.numpy()
    assert kept == pytest.approx(expected, abs=0.1)
    angle = 0.3 * torch.arange(90.0, dtype=torch.float64)
    turning = torch.stack([torch.cos(angle), torch.sin(angle)], 1)  # around the mean of what came before but nearly
    exact = AutoregressionSearch(turning, known[:90], lags=(1,)).fitted(Choice(2, 1, 1e-12))
    factor, share = persistence_shares(turning, known[:90], exact)
    assert float(factor.min()) > 0.9 and float(share.max()) < 0.05


def test_codes_return_to_their_mean_within_half_as_much_again_as_they_were_seen_to_reach():
    assert relaxation_range(torch.tensor([[-1.0, 2.0], [3.0, -4.0]])).tolist() == [[-1.5, -6.0], [4.5, 3.0]]
