"""The baselines learn two environments and adapt to a third, moving only what an environment owns."""

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.baselines.environment_networks import METHODS, Coda, NetworkShape
from benchmarks.baselines.training import (
    BaselineSettings,
    EnvironmentCodes,
    EnvironmentRollouts,
    adapt,
    fit,
    forecast_error,
    variance_of,
)
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.training.loop import OptimiserSettings
from inrflow.training.recorder import Recorder

FRAMES = 4
SETTINGS = BaselineSettings(
    batch=16,
    optimiser=OptimiserSettings("adamw", 2e-2),
    adaptation=OptimiserSettings("adamw", 5e-2),
    adaptation_steps=60,
)


def oscillations(frequency: float, trajectories: int, seed: int) -> CodeData:
    """Exact rotations at unit steps from random starts."""
    start = torch.randn(trajectories, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = torch.arange(FRAMES, dtype=torch.float64)
    cosine, sine = (frequency * t).cos(), (frequency * t).sin()
    turn = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    codes = torch.einsum("tij,sj->sti", turn, start)
    return CodeData(codes, t.expand(trajectories, -1), torch.ones(trajectories, FRAMES, dtype=torch.bool))


def two_environments(trajectories: int, seed: int) -> EnvironmentCodes:
    parts = [oscillations(0.3, trajectories, seed), oscillations(0.9, trajectories, seed + 1)]
    return EnvironmentCodes(CodeData.join(parts), torch.arange(2).repeat_interleave(trajectories))


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path, Console(quiet=True)) as made:
        yield made


@pytest.fixture(scope="module", params=sorted(METHODS))
def trained(request, tmp_path_factory):
    """A method, its network trained on the two environments, and its error on held-out trajectories."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fit")
    network = METHODS[request.param](NetworkShape(2, 16, 1), 2)
    codes, held = two_environments(16, 0), two_environments(8, 10)
    with Recorder(folder, Console(quiet=True)) as recorder:
        error = fit(network, codes, held, Integrator(), SETTINGS, recorder, steps=100)
    return request.param, network, error


def test_each_method_learns_both_environments_and_one_network_alone_cannot(trained):
    name, network, error = trained
    judged = [oscillations(0.3, 8, 20), oscillations(0.9, 8, 20)]
    separate = [forecast_error(network.of(e), data, Integrator(), variance_of(data)) for e, data in enumerate(judged)]
    if name == "no context":
        assert max(separate) > 0.1  # half way between two speeds it is wrong about both
    else:
        assert max(separate) < 2e-2
        assert error < 2e-2


def test_adaptation_improves_on_the_mean_and_changes_only_the_counted_numbers(trained, recorder):
    name, network, _ = trained
    before = {key: value.clone() for key, value in network.state_dict().items()}
    field = adapt(network, oscillations(0.5, 2, 30), Integrator(), SETTINGS, recorder)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    judged = oscillations(0.5, 16, 40)
    adapted, mean = (forecast_error(f, judged, Integrator(), variance_of(judged)) for f in (field, network.mean()))
    if name in ("CoDA", "GEPS"):  # one family of rotations, and a context that tells which
        assert adapted < 0.2 * mean
        assert adapted < 2e-2
    elif name == "no context":
        assert adapted == pytest.approx(mean)


def test_trained_numbers_of_an_adaptation_are_those_counted(trained, recorder):
    name, network, _ = trained
    field = adapt(network, oscillations(0.5, 1, 30), Integrator(), SETTINGS, recorder)
    start = network.start()
    weights = torch.cat([part.flatten() for layers in field.networks for pair in layers for part in pair])
    begun = torch.cat([part.flatten() for layers in network.bind(start).networks for pair in layers for part in pair])
    owned = sum(value.numel() for value in start.values())
    assert owned == network.adapted_numbers
    changed = (weights != begun).sum()
    assert changed == 0 if name == "no context" else changed > 0
    if name == "LEADS":
        assert changed <= owned


def test_batches_hold_as_many_rollouts_of_every_environment():
    codes = two_environments(8, 0)
    few = CodeData(codes.data.codes[:9], codes.data.t[:9], codes.data.observed[:9])
    rollouts = EnvironmentRollouts(EnvironmentCodes(few, codes.environment[:9]), Integrator(), batch=6)
    shapes = []

    class Watched(Coda):
        def bind(self, environment):
            field = super().bind(environment)
            field.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[1].shape))
            return field

    rollouts.loss(Watched(NetworkShape(2, 4, 1), 2), 0, 10, np.random.default_rng(0))
    assert set(shapes) == {(12, 2)}


def test_unobserved_frames_do_not_count():
    data = oscillations(0.3, 4, 0)
    data.codes[:, 2] = 1e6
    data.observed[:, 2] = False
    exact = forecast_error(Rotation(0.3), data, Integrator(step=0.1), 1.0)
    assert exact < 1e-8
    assert forecast_error(Rotation(0.5), data, Integrator(step=0.1), 1.0) > 1e-2


class Rotation(torch.nn.Module):
    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.frequency = frequency

    def forward(self, t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.frequency * torch.stack([-state[:, 1], state[:, 0]], 1)
