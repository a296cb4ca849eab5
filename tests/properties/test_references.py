"""What every registered reference forecast must do."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrflow.evaluation.references.base  # noqa: F401  registers the references of every training
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.evaluation.references.base import REFERENCES, References, fit_references

DESCRIPTION = Description("seasons", ("u", "v"), ("x",), period=(1.0,), time_units="days since 2000-01-01",
                          time_period=8.0)
POINTS, FRAMES = 10, 20
seeds = st.integers(0, 2)  # whose references are fitted once
every_reference = pytest.mark.parametrize("name", sorted(REFERENCES))
random_trials = settings(max_examples=5, deadline=None, derandomize=True)


def batch(seed: int, trajectories: int, gaps: float = 0.0, frames: int = FRAMES) -> TrajectoryBatch:
    """A seasonal cycle, damped waves and a little noise, with some values missing."""
    random = torch.Generator().manual_seed(seed)
    t = torch.arange(frames).double().expand(trajectories, -1)
    x = torch.arange(POINTS).double()[None, None, :, None] / POINTS
    angle = 2 * torch.pi * (x[..., 0] + 0.1 * t[..., None])
    amplitude = torch.randn(trajectories, 1, 1, generator=random, dtype=torch.float64) * (-0.05 * t[..., None]).exp()
    season = (2 * torch.pi * t / 8).cos()[..., None]
    u = torch.stack([amplitude * angle.cos() + season, amplitude * angle.sin() - season], -1)
    u = u + 0.01 * torch.randn(u.shape, generator=random, dtype=torch.float64)
    lost = torch.rand(u.shape, generator=random) < gaps
    return TrajectoryBatch(t, x, torch.where(lost, torch.nan, u))


@cache
def fitted_to(seed: int, trajectories: int) -> References:
    """All references of several trajectories, or of one long series."""
    if trajectories == 1:
        return fit_references(batch(seed, 1, frames=80), None, DESCRIPTION)
    return fit_references(batch(seed, trajectories), batch(seed + 1, 2), DESCRIPTION)


def fitted(name: str, seed: int) -> References:
    references = fitted_to(seed, 6)
    if name not in references.fitted:
        references = fitted_to(seed, 1)
    assert name in references.fitted, "give this test data that the reference can be fitted to"
    return References(references.points, {name: references.fitted[name]})


@every_reference
@given(seed=seeds, gaps=st.sampled_from([0.0, 0.3]))
@random_trials
def test_a_saved_reference_gives_the_same_forecast(name, seed, gaps, tmp_path_factory):
    references = fitted(name, seed)
    path = tmp_path_factory.mktemp("references") / "references.safetensors"
    loaded = References.load(references.save(path))
    assert type(loaded.fitted[name]) is type(references.fitted[name])
    new = batch(seed + 2, 3, gaps)
    one, other = (each.forecast(new.t, new.x, new.u[:, :2]) for each in (references, loaded))
    assert one.keys() == other.keys() and (gaps or name in one)
    assert all(torch.equal(one[key], other[key]) and one[key].shape == new.u.shape for key in one)


@every_reference
@given(seed=seeds)
@random_trials
def test_trajectories_do_not_influence_one_another_and_every_value_is_finite(name, seed):
    references, new = fitted(name, seed), batch(seed + 2, 3)
    whole = references.forecast(new.t, new.x, new.u[:, :2])[name]
    assert bool(torch.isfinite(whole).all())
    for s in range(3):
        alone = references.forecast(new.t[s : s + 1], new.x, new.u[s : s + 1, :2])[name]
        torch.testing.assert_close(alone[0], whole[s], rtol=1e-9, atol=1e-9)


@every_reference
@given(seed=seeds)
@random_trials
def test_a_forecast_depends_on_the_observed_frames_and_not_on_how_far_it_goes(name, seed):
    references, new = fitted(name, seed), batch(seed + 2, 2)
    whole = references.forecast(new.t, new.x, new.u[:, :2])[name]
    short = references.forecast(new.t[:, :7], new.x, new.u[:, :2])[name]
    torch.testing.assert_close(short, whole[:, :7], rtol=1e-9, atol=1e-9)
