"""Spreads where the codes' finest details exceed those of the training data."""

import numpy as np
import torch
from small_surrogates import law, seen


def test_details_of_observed_frames_are_known_however_fine_and_those_that_develop_are_not():
    surrogate = law("walls")
    surrogate.prior.tail = None
    plain = surrogate.assimilate(seen(surrogate))
    usual = plain.std(0.0, np.linspace(0, 2, 9)[:, None])
    surrogate.prior.tail = torch.zeros(1).double()  # training data had none
    solution = surrogate.assimilate(seen(surrogate))
    np.testing.assert_array_equal(solution.std(0.0, np.linspace(0, 2, 9)[:, None]), usual)
    finer = solution.estimate.mean[0] * 2.0
    assert surrogate.unresolved(finer, solution.estimate).min() > 0
