"""Noise of codes by truncation against Monte Carlo, and forecasts of truncated series from assimilated states."""

import numpy as np
import pytest
import torch

from inrflow.encoding.prior.truncation import Truncation, noise_of


def test_the_error_of_codes_of_some_places_is_that_of_the_noise_left():
    random, places, codes = np.random.default_rng(0), 60, 3
    basis, _ = np.linalg.qr(random.standard_normal((places, codes)))
    x = random.random((places, 2))
    truncation = Truncation.at(torch.as_tensor(x), torch.ones(1).double())
    for share in (0.5, 0.9, 1.0):
        missed = []
        for _ in range(400):
            left = random.standard_normal(places)
            left -= basis @ (basis.T @ left)  # residuals of codes by least squares at all places
            seen = random.permutation(places)[: round(share * places)]
            missed.append(np.linalg.lstsq(basis[seen], left[seen], rcond=None)[0])
        seen = torch.arange(places)[:, None] < share * places
        noise = float(noise_of(torch.ones(1).double(), truncation, torch.as_tensor(x), seen))
        usual = np.mean([np.trace(np.linalg.inv(basis[s].T @ basis[s])) for s in [
            random.permutation(places)[: round(share * places)] for _ in range(400)]]) / codes
        assert np.mean(np.square(missed)) == pytest.approx(noise * usual, rel=0.15, abs=2e-3)


def test_other_places_and_louder_noise_are_not_reduced():
    x, seen = torch.arange(4.0)[:, None], torch.ones(4, 2).bool()
    truncation, noise = Truncation.at(x, torch.tensor([0.2, 0.4])), torch.tensor([0.2, 0.4]).double()
    assert noise_of(noise, None, x, seen) is noise
    assert noise_of(noise, truncation, x + 0.5, seen).tolist() == noise.tolist()
    assert noise_of(noise, truncation, x, seen) == pytest.approx(1e-3 * noise)
    assert noise_of(noise + 1, truncation, x, seen) == pytest.approx(torch.ones(2).double())
    seen[:, 1] = False
    assert noise_of(noise, truncation, x, seen) == pytest.approx(noise / 2)
