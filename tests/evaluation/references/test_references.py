"""Reference forecasts: held against systems whose answer is known in closed form, and against plain numpy."""

import dataclasses

import numpy as np
import pytest
import torch
from standing_waves import DESCRIPTION, PERIOD, relative, waves

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.dynamics.fitting.folds import frames_left_out
from inrflow.errors import UserError
from inrflow.evaluation.references.base import (
    REFERENCES,
    Reference,
    References,
    fit_references,
    register_reference,
    title_of,
)
from inrflow.evaluation.references.pod_dmd import _advance, _frames_left_out
from inrflow.evaluation.references.training_data import leading_modes, nearest, regular_step
from inrflow.runtime.tensor_files import save_tensors


@pytest.fixture
def only(monkeypatch):
    """Names after which these references alone are registered, as others take longer to fit."""
    def kept(*names):
        for name in set(REFERENCES) - set(names):
            monkeypatch.delitem(REFERENCES, name)
    return kept


# ---- persistence ----

def test_persistence_keeps_the_last_observed_frame_and_fills_from_the_nearest_observed_point():
    batch = waves(3, 6, 0)
    observed = batch.u[:, :2].clone()
    observed[1, 1, 5:] = torch.nan
    observed[2, 1] = torch.nan
    observed[0, 0, 3, 1] = torch.nan
    forecast = fit_references(batch, None, DESCRIPTION).forecast(batch.t, batch.x, observed)["persistence"]
    torch.testing.assert_close(forecast[0, 1:], batch.u[0, 1].expand(5, -1, -1))
    torch.testing.assert_close(forecast[2], batch.u[2, 0].expand(6, -1, -1))
    x = batch.x[0, 0].numpy()
    gap = np.abs(x[:, None] - x[None, :5])
    closest = (np.minimum(gap, PERIOD - gap) ** 2).sum(-1).min(1)
    for point in range(64):  # the value is that of an observed point as near as any
        sources = (forecast[1, 4, point] == batch.u[1, 1, :5]).all(-1).nonzero()[:, 0].tolist()
        away = np.abs(x[point] - x[sources])
        assert np.isclose((np.minimum(away, PERIOD - away) ** 2).sum(-1).min(), closest[point])
    assert forecast[0, 0, 3, 0] == batch.u[0, 0, 3, 0] and torch.isfinite(forecast).all()


def test_persistence_of_moving_points_takes_the_nearest_point_of_the_last_observed_frame():
    x = torch.tensor([[[0.0], [1.0], [2.0]], [[0.2], [2.2], [1.1]]], dtype=torch.float64)[None]
    u = torch.tensor([[[5.0], [6.0], [7.0]], [[0.0], [0.0], [0.0]]])[None]
    batch = TrajectoryBatch(torch.tensor([[0.0, 1.0]], dtype=torch.float64), x, u)
    forecast = fit_references(batch, None, Description("a", ("u",), ("x",))).forecast(batch.t, x, u[:, :1])
    assert forecast["persistence"][0, :, :, 0].tolist() == [[5, 6, 7], [5, 7, 6]]
    assert set(forecast) == {"persistence", "training_mean"}


def test_an_unobserved_trajectory_falls_back_on_the_channel_means():
    batch = waves(4, 5, 1)
    forecast = fit_references(batch, None, DESCRIPTION).forecast(batch.t, batch.x, torch.full_like(batch.u[:, :1],
                                                                                                  torch.nan))
    expected = batch.u.mean((0, 1, 2))
    torch.testing.assert_close(forecast["persistence"], expected.expand_as(batch.u))
    assert all(torch.isfinite(values).all() for values in forecast.values())


# ---- training mean ----

def test_training_mean_is_the_mean_field_on_training_points_and_the_channel_mean_elsewhere():
    batch, held = waves(4, 5, 2), waves(2, 5, 3)
    batch.u[0, :, 7] = torch.nan
    references = fit_references(batch, held, DESCRIPTION)
    everything = torch.cat([batch.u, held.u])
    forecast = references.forecast(batch.t, batch.x, batch.u[:, :1])["training_mean"]
    torch.testing.assert_close(forecast[2, 3], everything.flatten(0, 1).nanmean(0))
    elsewhere = references.forecast(batch.t, batch.x[:, :, :9] + 0.01, batch.u[:, :1, :9])
    torch.testing.assert_close(elsewhere["training_mean"][2, 3, 4], everything.flatten(0, 2).nanmean(0))
    assert "pod_dmd" not in elsewhere


# ---- POD + DMD ----

def test_pod_dmd_forecasts_linear_waves_to_rounding_far_beyond_the_training_horizon():
    training, validation, test = waves(20, 8, 4), waves(5, 8, 5), waves(6, 40, 6, start=2.5)
    references = fit_references(training, validation, DESCRIPTION)
    assert references.fitted["pod_dmd"].rank >= 12  # two phases and two states of three wavenumbers
    forecast = references.forecast(test.t, test.x, test.u[:, :1])
    assert relative(forecast["pod_dmd"], test.u) < 1e-9
    assert relative(forecast["persistence"], test.u) > 0.5


def test_pod_dmd_takes_whole_steps_of_any_number_and_is_absent_for_others_and_on_other_points():
    training, test = waves(20, 8, 4), waves(6, 21, 6)
    references = fit_references(training, None, DESCRIPTION)
    picked = [0, 3, 4, 20]
    forecast = references.forecast(test.t[:, picked], test.x, test.u[:, :1])["pod_dmd"]
    assert relative(forecast, test.u[:, picked]) < 1e-9
    step_map = torch.tensor([[0.5, -1.0], [0.9, 0.1], [-0.2, 0.8]], dtype=torch.float64)
    advanced = _advance(step_map, torch.ones(3, 2, dtype=torch.float64), torch.tensor([0.0, 5.0, 1e9]))
    z = np.ones(2)
    for _ in range(5):
        z = step_map[0].numpy() + z @ step_map[1:].numpy()
    np.testing.assert_allclose(advanced[:2], [[1, 1], z], rtol=1e-14)
    at_rest = np.linalg.solve((np.eye(2) - step_map[1:].numpy()).T, step_map[0].numpy())
    np.testing.assert_allclose(advanced[2], at_rest, rtol=1e-12)
    between = test.t[:, picked] + torch.tensor([0.0, 0.1, 0.0, 0.0])
    assert "pod_dmd" not in references.forecast(between, test.x, test.u[:, :1])
    assert "pod_dmd" not in references.forecast(test.t, test.x + 0.01, test.u[:, :1])


def test_pod_dmd_fills_gaps_of_partly_observed_frames():
    training, test = waves(40, 8, 7), waves(6, 20, 8)
    observed = test.u[:, :1].clone()
    random = np.random.default_rng(0)
    for trajectory in range(6):
        observed[trajectory, 0, random.permutation(64)[:40]] = torch.nan
    observed[0, 0, :30, 1] = torch.nan
    forecast = fit_references(training, None, DESCRIPTION).forecast(test.t, test.x, observed)
    assert relative(forecast["pod_dmd"], test.u) < 1e-5


def test_pod_dmd_of_one_trajectory_is_chosen_by_frames_left_out(only):
    only("pod_dmd")
    long = waves(1, 90, 9)
    training, validation = long.first_frames(50), long.frames(slice(50, 60))
    noisy = training.u + 1e-3 * training.u.std((0, 1, 2)) * torch.randn(training.u.shape, generator=torch.Generator()
                                                                        .manual_seed(0), dtype=torch.float64)
    for part in (None, validation):
        references = fit_references(TrajectoryBatch(training.t, training.x, noisy), part, DESCRIPTION)
        forecast = references.forecast(long.t, long.x, long.u[:, :60])["pod_dmd"]
        assert relative(forecast[:, 60:], long.u[:, 60:]) < 1e-2


def test_frames_of_a_long_trajectory_are_left_out_together_and_each_is_forecast_as_by_itself():
    for frames, fits in ((120, 24), (2000, 3)):
        t = torch.arange(frames).double()[None]
        folds = _frames_left_out(TrajectoryBatch(t, torch.zeros(1, 1, 1, 1), t[..., None, None]))
        windows = frames_left_out(frames)
        assert len(folds) == fits and len(windows) == 24
        for fitted, tests in folds:
            out = {int(test.t[0, 1]) for test in tests}
            assert torch.cat([part.t[0] for part in fitted]).tolist() == [n for n in range(frames) if n not in out]
        found = {(int(test.t[0, 1]), int(test.t[0, -1]) + 1) for _, tests in folds for test in tests}
        assert found == set(windows)


def test_pod_dmd_leaves_out_what_is_incomplete_or_padded_and_is_absent_without_transitions():
    training, test = waves(20, 8, 4), waves(6, 20, 6)
    training.u[3, 2, 5, 0] = torch.nan
    training.t = training.t.clone()
    training.t[7, 5:], training.u[7, 5:] = torch.nan, torch.nan
    references = fit_references(training, None, DESCRIPTION)
    assert relative(references.forecast(test.t, test.x, test.u[:, :1])["pod_dmd"], test.u) < 1e-9
    training.u[:, ::2, 0] = torch.nan
    assert "pod_dmd" not in fit_references(training, None, DESCRIPTION).fitted
    irregular = TrajectoryBatch(test.t + 0.1 * torch.rand(test.t.shape), test.x, test.u)
    assert "pod_dmd" not in fit_references(irregular, None, DESCRIPTION).fitted


# ---- climatology ----

YEAR = 8766.0


def seasons(months, seed=0, anomaly=0.9, noise=0.0, years=YEAR):
    """Monthly fields at 20 points: a seasonal cycle with a second harmonic, and one anomaly pattern that decays."""
    random = np.random.default_rng(seed)
    t = (3.4 + np.arange(months)) * years / 12 + random.uniform(-10, 10, months)
    x = np.linspace(0, 1, 20)
    phase = 2 * np.pi * t / years
    cycle = 20 + np.sin(phase)[:, None] * (1 + x) + 0.3 * np.cos(2 * phase)[:, None] * x**2
    amplitude = np.zeros(months)
    for month in range(months):
        amplitude[month] = (anomaly * amplitude[month - 1] if month else 1.0) + noise * random.normal()
    u = cycle + amplitude[:, None] * np.cos(np.pi * x)
    batch = TrajectoryBatch(torch.as_tensor(t)[None], torch.as_tensor(x).reshape(1, 1, -1, 1),
                            torch.as_tensor(u)[None, ..., None])
    return batch, torch.as_tensor(cycle)[None, ..., None]


SEASONAL = Description("sea", ("sst",), ("x",), time_period=YEAR)


def test_monthly_climatology_is_the_mean_of_each_calendar_month(only):
    only("climatology")
    batch, _ = seasons(43, noise=0.3)
    future, _ = seasons(60, noise=0.3)
    references = fit_references(batch, None, SEASONAL)
    forecast = references.forecast(future.t, future.x, future.u[:, :43])["climatology"][0, :, :, 0]
    months = np.arange(60) % 12
    values = batch.u[0, :, :, 0].numpy()
    expected = np.stack([values[months[:43] == month].mean(0) for month in months])
    assert references.fitted["climatology"].bins == 12
    np.testing.assert_allclose(forecast.numpy(), expected, rtol=1e-12)
    between = future.t[:, :1] + 1.5 * YEAR / 12  # between two months: the mean of both
    halfway = references.forecast(between, future.x, future.u[:, :1])["climatology"][0, 0, :, 0]
    np.testing.assert_allclose(halfway.numpy(), (expected[1] + expected[2]) / 2, atol=0.02)


def test_climatology_of_times_all_over_the_year_is_a_regression_on_two_harmonics(only):
    only("climatology")
    batch, _ = seasons(400, years=YEAR * 1.2345, anomaly=0.0)
    batch.u[0, 5:200:7, 3] = torch.nan
    description = dataclasses.replace(SEASONAL, time_period=YEAR * 1.2345 * 0.9731)
    assert fit_references(batch, None, description).fitted["climatology"].bins == 0
    days = torch.arange(0, 3 * YEAR, 501.7, dtype=torch.float64)[None]
    phase = 2 * torch.pi * days[..., None, None] / YEAR
    x = batch.x
    truth = 20 + torch.sin(phase) * (1 + x[0]) + 0.3 * torch.cos(2 * phase) * x[0] ** 2
    references = fit_references(TrajectoryBatch(days, x, truth), None, SEASONAL)
    assert references.fitted["climatology"].bins == 0
    later = days[:, :9] + 5.3 * YEAR
    phase = 2 * torch.pi * later[..., None, None] / YEAR
    expected = 20 + torch.sin(phase) * (1 + x[0]) + 0.3 * torch.cos(2 * phase) * x[0] ** 2
    forecast = references.forecast(later, x, expected[:, :1])["climatology"]
    torch.testing.assert_close(forecast, expected, rtol=0, atol=1e-6)


def test_less_than_a_period_gives_no_climatology(only):
    only("climatology")
    batch, _ = seasons(11)
    assert "climatology" not in fit_references(batch, None, SEASONAL).fitted
    assert "climatology" in fit_references(seasons(12)[0], None, SEASONAL).fitted


def test_anomaly_forecasts_follow_the_regression_of_the_modes(only):
    """Against numpy's own SVD and least squares, from the last of the observed months, with half of its points seen."""
    only("climatology", "climatology_ar1")
    batch, _ = seasons(240, seed=1, noise=0.3)
    history = batch.first_frames(200)
    references = fit_references(history, None, SEASONAL)
    observed = batch.u[:, :200].clone()
    forecast = references.forecast(batch.t, batch.x, observed)
    months = np.arange(240) % 12
    values = history.u[0, :, :, 0].numpy()
    usual = np.stack([values[months[:200] == month].mean(0) for month in range(12)])
    anomalies = values - usual[months[:200]]
    modes = np.linalg.svd(anomalies, full_matrices=False)[2][:2]
    z = anomalies @ modes.T
    rate = (z[1:] * z[:-1]).sum(0) / (z[:-1] ** 2).sum(0)
    lead = z[-1]
    for month in range(200, 206):
        lead = lead * np.clip(rate, 0, 1)
        np.testing.assert_allclose(forecast["climatology_ar1"][0, month, :, 0], usual[months[month]] + lead @ modes,
                                   atol=3e-3)
    assert 0.8 < rate[0] < 0.97
    observed[:, :, ::2] = torch.nan
    sparse = references.forecast(batch.t, batch.x, observed)["climatology_ar1"]
    torch.testing.assert_close(sparse[:, 200:], forecast["climatology_ar1"][:, 200:], atol=0.02, rtol=0)


# ---- storing them, and parts ----

def test_references_come_back_from_their_file_bit_for_bit(tmp_path):
    batch, _ = seasons(43, noise=0.3)
    references = fit_references(batch, None, SEASONAL)
    path = references.save(tmp_path / "references.safetensors")
    again = References.load(path)
    expected = references.forecast(batch.t, batch.x, batch.u[:, :3])
    forecast = again.forecast(batch.t, batch.x, batch.u[:, :3])
    assert set(forecast) == set(expected) == {"persistence", "training_mean", "climatology", "climatology_ar1",
                                              "kriging", "linear_inverse_model", "pod_dmd"}
    assert all(torch.equal(forecast[name], expected[name]) for name in expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["references.safetensors"]


@dataclasses.dataclass
class FirstFrame(Reference):
    """A reference of a user's own: the first observed frame, times a fitted factor."""

    factor: float

    name, title = "first_frame", "first frame, scaled"

    @classmethod
    def fit(cls, train, validation, description):
        return cls(2.0)

    def forecast(self, t, x, observed):
        return (self.factor * observed[:, :1]).expand(*t.shape, *observed.shape[2:])


@pytest.fixture
def registered():
    register_reference(FirstFrame)
    yield
    REFERENCES.pop("first_frame", None)


def test_a_registered_reference_is_fitted_saved_and_forecast(registered, tmp_path):
    batch = waves(8, 6, 0)
    references = fit_references(batch, None, DESCRIPTION)
    again = References.load(references.save(tmp_path / "references.safetensors"))
    forecast = again.forecast(batch.t, batch.x, batch.u[:, :1])
    torch.testing.assert_close(forecast["first_frame"][:, 3], 2 * batch.u[:, 0])
    assert title_of("first_frame") == "first frame, scaled" and title_of("pod_dmd") == "POD + DMD"
    del REFERENCES["first_frame"]
    with pytest.warns(UserWarning, match="first_frame, which is not registered"):
        assert "pod_dmd" in References.load(tmp_path / "references.safetensors").fitted


def test_names_of_references_are_unique(registered):
    with pytest.raises(ValueError, match="registered already"):
        register_reference(type("Other", (FirstFrame,), {}))


@pytest.mark.parametrize("state", [{}, {"states": {}}, {"points": None, "states": {"pod_dmd": {"step": 1.0}}}])
def test_a_file_that_lacks_something_is_refused_in_one_line(state, tmp_path):
    save_tensors(tmp_path / "a.safetensors", state, {"kind": "inrflow-references", "version": 2})
    with pytest.raises(UserError, match="reference forecasts of this inrflow"):
        References.load(tmp_path / "a.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"kind": "model"})
    with pytest.raises(UserError, match="holds no reference forecasts"):
        References.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        References.load(tmp_path / "none.safetensors")


def test_forecasts_keep_the_precision_of_the_observations():
    batch = waves(8, 6, 0)
    forecast = fit_references(batch, None, DESCRIPTION).forecast(batch.t, batch.x, batch.u[:, :1].float())
    assert {values.dtype for values in forecast.values()} == {torch.float32}
    assert {values.shape for values in forecast.values()} == {batch.u.shape}


def test_modes_are_the_leading_singular_vectors_whichever_side_is_larger():
    random = torch.Generator().manual_seed(0)
    for shape in ((12, 40), (40, 12)):
        rows = torch.randn(shape, generator=random, dtype=torch.float64) * torch.logspace(0, -3, shape[1])
        modes = leading_modes(rows, 5)
        expected = torch.linalg.svd(rows, full_matrices=False)[2][:5]
        torch.testing.assert_close((expected @ modes).abs(), torch.eye(5, dtype=torch.float64), atol=1e-9, rtol=0)
    flat = torch.randn(20, 2, generator=random, dtype=torch.float64) @ torch.randn(2, 30, generator=random,
                                                                                dtype=torch.float64)
    assert leading_modes(flat, 5).shape == (30, 2)


def test_a_regular_step_allows_for_months_and_gaps_and_no_more():
    assert regular_step(torch.tensor([[0.0, 31.0, 59.0, 120.0]])) == pytest.approx(30.0)
    assert regular_step(torch.tensor([[0.0, 1.0, 2.5, 3.0]])) is None
    assert regular_step(torch.tensor([[0.0, 1.0, torch.nan], [5.0, 6.0, 7.0]])) == 1.0
    assert regular_step(torch.tensor([[0.0]])) is None


def test_nearest_points_are_found_across_a_periodic_boundary():
    sources = torch.tensor([[0.05, 0.5], [0.7, 0.5]], dtype=torch.float64)
    target = torch.tensor([[0.95, 0.5]], dtype=torch.float64)
    assert nearest(target, sources).item() == 1
    assert nearest(target, sources, torch.tensor([1.0, 0.0])).item() == 0
