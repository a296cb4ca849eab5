"""What validation chose, fitted anew to all trajectories: directions that only held-out ones show are gained."""


import numpy as np
import pytest
import torch
from runs import run_on

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.training.candidate import assemble, complete
from inrflow.training.judge import Judge
from inrflow.training.parts import refit
from inrflow.training.recipes.reduced_order import ReducedOrderRecipe

POINTS, FRAMES, TRAJECTORIES, WAVES = 24, 6, 10, 3


@pytest.fixture
def problem(tmp_path):
    """Damped standing waves; the last of three is in held-out trajectories alone."""
    random = np.random.default_rng(0)
    x, t = np.arange(POINTS)[:, None] / POINTS, np.linspace(0, 1, FRAMES)
    u = np.zeros((TRAJECTORIES, FRAMES, POINTS, 1), dtype=np.float32)
    with run_on_file(tmp_path / "split", t, x, u + random.normal(size=u.shape)) as run:  # which are held out
        held = run.problem.validation
    for s in range(TRAJECTORIES):
        for k in range(1, WAVES + (s in held)):
            wave = random.normal() * np.sin(2 * np.pi * k * x[None]) * np.exp(-k * t)[:, None, None]
            u[s] += wave.astype(np.float32)
    return t, x, u


def run_on_file(folder, t, x, u):
    folder.mkdir(exist_ok=True)
    write_trajectories(folder / "train.h5", t, x, u, Description("waves", ("u",), ("x",), period=(1.0,)))
    return run_on(folder / "train.h5", folder, "recipe=reduced_order", "decoder.harmonics=4", "training.minutes=0.05",
                  "training.steps.decoder=0")


def errors(run):
    """Code sizes and forecast errors of held-out trajectories before and after a run's refit."""
    (candidate,) = ReducedOrderRecipe().propose(run)
    judge = Judge(run.problem)
    before, after = assemble(candidate), complete(candidate, run.budget, run.log)
    return candidate, before, after, judge.error(before), judge.error(after)


def test_a_refit_gains_the_directions_of_held_out_trajectories(problem, tmp_path):
    with run_on_file(tmp_path / "run", *problem) as run:
        candidate, before, after, error, refitted = errors(run)
        assert before.code_size < after.code_size and refitted < 0.1 * error
        assert len(after.prior.mean) == len(after.prior.process) == after.field.state_size
        shared = before.code_size
        assert bool((after.prior.covariance.diagonal()[:shared] >= candidate.code_prior.covariance.diagonal()
                     * (1 - 1e-9)).all())


@pytest.mark.parametrize("after", [2.0, float("inf"), float("nan")])
def test_a_refit_that_forecasts_worse_leaves_the_surrogate_as_it_was(after, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(refit, "rollout_error", lambda *_: after)
    monkeypatch.setattr(refit, "REFIT_FAILED", 0.0)
    with run_on_file(tmp_path / "run", *problem) as run:
        candidate, before, surrogate, *_ = errors(run)
        assert surrogate.code_size == before.code_size
        assert torch.equal(surrogate.decoder.output_map, before.decoder.output_map)


def test_memory_gets_process_noise_of_its_own():
    process = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    assert refit.process_of_blocks(process, 2, 12, 6).tolist() == [1.0] + [2.0] * 5 + [3.0] + [4.0] * 5
    assert refit.process_of_blocks(process[:3], 2, 5, 3).tolist() == [1.0, 2.0, 2.0, 3.0, 3.0]
