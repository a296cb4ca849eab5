"""What validation chose, fitted anew to all trajectories: directions that only held-out ones show are gained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, memory_directions, with_memory
from inrflow.encoding.prior.modes import OutputModes
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training.parts.refit import Refit

TRAJECTORIES, SEEN, FRAMES = 6, 2, 5


@pytest.fixture
def decoder():
    return HarmonicDecoder(make_embedding([0.0], [1.0], [1.0], None, harmonics=3), 1)


@pytest.fixture
def weights(decoder):
    """Output weights (S, T, F) of every frame: each trajectory stays along a direction of its own, decaying."""
    features = decoder.output.shape[-1]
    directions = torch.as_tensor(np.random.default_rng(0).normal(size=(TRAJECTORIES, features)))
    return directions[:, None] * (0.9 ** torch.arange(FRAMES, dtype=torch.float64))[None, :, None]


def modes_of(weights: torch.Tensor) -> OutputModes:
    """Principal directions of uncentred weights."""
    rows = weights.flatten(0, 1)
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    keep = values > 1e-9 * values[0]
    mean = rows.new_zeros(1, rows.shape[1])
    return OutputModes(mean, vectors[keep][:, None], values[keep] ** 2 / len(rows), torch.tensor([1e-6]).double())


def codes_of(decoder: HarmonicDecoder, weights: torch.Tensor) -> CodeData:
    codes = weights @ decoder.output_map.detach().double()[:, 0].T
    return CodeData(codes, torch.arange(FRAMES).double().expand(len(weights), -1), torch.ones(codes.shape[:2]) > 0)


def decay(size: int, rate: float = float(np.log(0.9))) -> VectorField:
    field = VectorField.of(size).double()
    field.set_linear(rate * torch.eye(size).double(), torch.zeros(size).double())
    return field


def surrogate_of(decoder: HarmonicDecoder, modes: OutputModes) -> Surrogate:
    """A surrogate of which only what a refit changes is there."""
    decoder.set_output(modes.mean, modes.modes)
    size, prior = len(modes.variances), modes.prior()
    state = StatePrior(prior.mean, prior.covariance, prior.noise, torch.full((size,), 0.1).double(), torch.ones(1))
    return Surrogate(None, None, decoder, decay(size), Integrator(), state, None, None, 1.0, {})  # type: ignore[arg-type]


def forecast_error(surrogate: Surrogate, weights: torch.Tensor) -> float:
    """Mean squared error of the decoded last frame of all trajectories, forecast from the first."""
    codes = codes_of(surrogate.decoder, weights)
    with torch.no_grad():
        last = Integrator(step=0.1)(surrogate.field, codes.codes[:, 0], codes.t)[:, -1]
        found = last @ surrogate.decoder.output_map.double()[:, 0]
    return float((found - weights[:, -1]).square().mean())


def refit_to(weights: torch.Tensor, errors: list[float]) -> Refit:
    return Refit(
        lambda decoder: modes_of(weights), lambda decoder, modes: codes_of(decoder, weights),
        lambda codes: decay(codes.codes.shape[-1]), lambda field, codes: errors.pop(0),
    )


def test_a_refit_gains_the_directions_of_held_out_trajectories(decoder, weights):
    found = modes_of(weights[:SEEN])
    surrogate = surrogate_of(decoder, found)
    refitted, after = refit_to(weights, [0.9])(surrogate, found, before=1.0)
    assert after == 0.9
    assert surrogate.code_size == SEEN < refitted.code_size == TRAJECTORIES
    assert forecast_error(refitted, weights) < 1e-3 * forecast_error(surrogate, weights)
    assert len(refitted.prior.mean) == len(refitted.prior.process) == TRAJECTORIES
    assert bool((refitted.prior.covariance.diagonal()[:SEEN] >= found.variances).all())


def test_a_size_that_validation_chose_is_kept(decoder, weights):
    found = modes_of(weights[:4])
    surrogate = surrogate_of(decoder, found.truncated(3))
    refitted, _ = refit_to(weights, [1.0])(surrogate, found, before=1.0)
    assert refitted is not surrogate and refitted.code_size == 3


def test_more_modes_are_taken_where_transitions_limited_them(decoder, weights):
    found = modes_of(weights[:4])
    surrogate = surrogate_of(decoder, found.truncated(3))
    refitted, _ = replace(refit_to(weights, [1.0]), growth=1.5)(surrogate, found, before=1.0)
    assert refitted.code_size == 4
    assert replace(refit_to(weights, [1.0]), growth=9.0)(surrogate, found, before=1.0)[0].code_size == TRAJECTORIES


@pytest.mark.parametrize("after", [2.0, float("inf"), float("nan")])
def test_a_refit_that_forecasts_worse_leaves_the_surrogate_as_it_was(after, decoder, weights):
    found = modes_of(weights[:SEEN])
    surrogate = surrogate_of(decoder, found)
    output, field = surrogate.decoder.output_map.detach().clone(), surrogate.field
    refitted, _ = refit_to(weights, [after])(surrogate, found, before=1.0)
    assert refitted is surrogate and refitted.field is field
    assert torch.equal(refitted.decoder.output_map, output)


def test_memory_gets_a_prior_and_process_noise_of_its_own(decoder, weights):
    found = modes_of(weights[:SEEN])
    surrogate = surrogate_of(decoder, found)
    surrogate.prior.process = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()

    def states(codes: CodeData) -> CodeData:
        size = codes.codes.shape[-1]
        return with_memory(codes, size, memory_directions(codes, size, size))

    refit = replace(refit_to(weights, [1.0]), states=states, field=lambda codes: decay(2 * codes.codes.shape[-1]))
    refitted, _ = refit(surrogate, found, before=1.0)
    assert refitted.prior.process.tolist() == [1.0] + [2.0] * 5 + [3.0] + [4.0] * 5
    assert len(refitted.prior.mean) == len(refitted.prior.covariance) == refitted.field.state_size == 12
    assert refitted.window == 3 and refitted.training["memory"] == 6
