"""Codes of places with short records against a known autoregression."""

import pytest
import torch

from inrflow.encoding.prior.point_modes import principal_components
from inrflow.encoding.prior.short_records import short_records, with_own_codes


def test_short_are_places_with_few_frames_in_all_channels_but_some():
    values = torch.zeros(100, 7, 2, dtype=torch.float64)
    values[:80, 1] = torch.nan  # a fifth of the frames
    values[:50, 2] = torch.nan  # half of them
    values[:80, 3, 1] = torch.nan  # in one channel alone
    values[:, 4] = torch.nan  # none, as on land
    assert short_records(values.flatten(1), 2).unflatten(0, (-1, 2)).any(1).tolist() == [k == 1 for k in range(7)]
    values[:80, 3] = torch.nan
    assert short_records(values.flatten(1), 2).unflatten(0, (-1, 2)).all(1).tolist() == [k in (1, 3) for k in range(7)]
    values[:80, 5] = torch.nan  # too few others
    assert not short_records(values.flatten(1), 2).any()


def test_a_short_record_is_the_mean_of_the_others_and_an_autoregression_like_theirs():
    generator, frames, places = torch.Generator().manual_seed(0), 4000, 9
    own, shared = torch.zeros(frames, places, dtype=torch.float64), torch.zeros(frames, 1, dtype=torch.float64)
    noise = torch.randn(frames, places + 1, generator=generator, dtype=torch.float64)
    for k in range(1, frames):
        own[k], shared[k] = 0.8 * own[k - 1] + 0.6 * noise[k, 1:], 0.95 * shared[k - 1] + noise[k, :1]
    values, short = own + shared, torch.arange(places) == 4
    values[:3900, 4] = torch.nan
    modes = principal_components(values[:, ~short])
    ratio, lasting = torch.ones(8).double(), torch.ones(5, 8).double()
    found, _, again = with_own_codes(modes, ratio, lasting, values, short, 1)
    assert torch.equal(found.patterns[:8, ~short], modes.patterns) and torch.equal(found.codes[:, :8], modes.codes)
    assert found.codes[3900:] @ found.patterns == pytest.approx(values[3900:], abs=1e-9)
    mean = values[3900:, ~short].mean(1)
    assert found.codes[3900:, 8] == pytest.approx(values[3900:, 4] - mean, abs=1e-9)
    assert float(found.variances[8]) == pytest.approx(7 / 8, rel=0.15)  # around the mean of eight
    assert again[:, 8] == pytest.approx(0.8 ** torch.arange(1.0, 6.0).double(), abs=0.05)
