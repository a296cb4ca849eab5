"""Training on harmonics with environments: heat equations whose decay is known in closed form."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import trained_on

from inrflow.adaptation.context import adapt_context
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.model.surrogate import Surrogate
from inrflow.pdes.generate import generate

SETTINGS = {"grid": 24, "dimensions": 1, "dt": 0.2, "frames": 5}
DIFFUSIVITIES = [0.002, 0.004, 0.006, 0.009]
NEW = 0.0052


def trained(path: Path, folder: Path, context: str) -> Surrogate:
    return trained_on(path, folder, f"dynamics.context={context}", "decoder.codes=harmonics", "dynamics.depth=0",
                      "decoder.harmonics=3", "dynamics.context_size=1")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heat")
    train = generate("heat", folder / "train.h5", trajectories=16, parameters={"diffusivity": DIFFUSIVITIES}, seed=0,
                     **SETTINGS)
    new = generate("heat", folder / "new.h5", trajectories=2, parameters={"diffusivity": NEW}, seed=1, **SETTINGS)
    return folder, train, new


def test_a_diffusivity_that_nobody_told_is_the_context_and_a_new_one_is_adapted_to(files):
    folder, train, new = files
    surrogate = trained(train, folder / "unknown", "environment")
    known = surrogate.contexts
    assert known is not None and known.kind == "environment" and surrogate.context_size == 1
    line = np.polyfit(known.values[:, 0].numpy(), np.array(DIFFUSIVITIES), 1)
    assert np.abs(np.polyval(line, known.values[:, 0].numpy()) - DIFFUSIVITIES).max() < 1e-5
    with TrajectoryFile(new) as file:
        source = TrajectorySource(file)
        estimate = adapt_context(surrogate, [source.batch(np.array([0]), normalised=False)]).estimate
        assert estimate is not None
        assert np.polyval(line, float(estimate.mean[0])) == pytest.approx(NEW, rel=2e-3)
        batch = source.batch(np.array([1]), normalised=False)
    codes = surrogate.codes(batch)
    state = torch.cat([codes.codes[:, 0], estimate.mean[None]], 1)
    with torch.no_grad():
        forecast = surrogate.integrator(surrogate.field, state, codes.t)[0, -1, :-1]
    waves = [(code + 1) // 2 for code in range(surrogate.code_size)]  # the constant, then cosine and sine of each
    decay = [math.exp(-NEW * (2 * math.pi * k) ** 2 * float(batch.t[0, -1])) for k in waves]
    exact = torch.tensor(decay).double() * codes.codes[0, 0]
    torch.testing.assert_close(forecast, exact, atol=2e-3 * float(exact.abs().max()), rtol=0)


def test_known_parameters_are_mapped_to_contexts_and_read_off(files):
    folder, train, new = files
    surrogate = trained(train, folder / "known", "auto")
    assert surrogate.contexts is not None and surrogate.contexts.names == ("diffusivity",)
    with TrajectoryFile(new) as file:
        batch = TrajectorySource(file).batch(np.array([0]), normalised=False)
    estimate = adapt_context(surrogate, [batch]).estimate
    assert estimate is not None and surrogate.contexts.map is not None
    mean, _ = surrogate.contexts.map.parameters(estimate.mean, estimate.covariance)
    assert float(mean[0]) == pytest.approx(NEW, rel=2e-3)
