"""One series of stations: seasons, gaps, and forecasts as good as a vector autoregression by numpy."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.observations import Observations
from inrflow.evaluation.forecast import forecast
from inrflow.model.surrogate import Surrogate
from inrflow.training.problem import Problem
from inrflow.training.train import fit
from tests.conftest import command

FRAMES, CUT, YEAR = 1400, 1100, 365.2425


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Folder with stations.h5 and the run, times, and values (T, N) of a seasonal autoregression with gaps."""
    import h5py

    folder = tmp_path_factory.mktemp("series")
    random = np.random.default_rng(0)
    x = random.random((6, 2))
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    root = np.linalg.cholesky(np.exp(-distance / 0.5))
    coupling = 0.5 * np.eye(6) + 0.25 * (x[:, None, 0] > x[None, :, 0]) / 3
    t, z = np.arange(float(FRAMES)), np.zeros((FRAMES, 6))
    for k in range(2, FRAMES):
        z[k] = coupling @ z[k - 1] - 0.2 * z[k - 2] + root @ random.standard_normal(6)
    u = 10 + z + 3 * np.cos(2 * np.pi * t[:, None] / YEAR - x[:, 0])
    gaps = u.copy()
    gaps[:CUT][random.random((CUT, 6)) < 0.03] = np.nan
    with h5py.File(folder / "stations.h5", "w") as file:
        file["t"], file["x"], file["u"] = t, x, gaps[None, ..., None].astype(np.float32)
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": "stations",
                           "time_units": "days since 2001-01-01"})
        text = h5py.string_dtype()
        file.attrs.create("channels", ["wind"], dtype=text)
        file.attrs.create("coordinates", ["x", "y"], dtype=text)
    done = command("train", f"data.train={folder / 'stations.h5'}", f"data.frames={CUT}", "recipe=series",
                   "training.minutes=1", "training.residual_field=off", "decoder.code_size=6",
                   f"output={folder / 'run'}")
    assert done.code == 0, done.err
    return folder, t, x, u, gaps


@pytest.fixture(scope="module")
def forecasts(series):
    """Forecasts (S, 5, N) of the leads 1 to 5 by the run from 10 frames each, their deviations, and the starts."""
    folder, t, x, u, _ = series
    surrogate = Surrogate.load(folder / "run")
    starts = np.arange(CUT, FRAMES - 5)
    batch = TrajectoryBatch(
        torch.as_tensor(np.stack([t[s - 10 : s + 5] for s in starts])), torch.as_tensor(x)[None, None],
        torch.as_tensor(np.stack([u[s - 10 : s + 5] for s in starts]))[..., None].float(),
    )
    found = forecast(surrogate, surrogate.estimate(batch.first_frames(10)), batch)
    mean = surrogate.normalisation.invert(found.mean)[:, 10:, :, 0].numpy()
    return mean, (found.std * surrogate.normalisation.scale)[:, 10:, :, 0].numpy(), starts


def test_channels_that_last_unlike_long_are_forecast_one_by_one(tmp_path):
    random, decays, field = np.random.default_rng(4), np.array([0.99, 0.6, 0.3]), np.zeros((900, 4, 3))
    x, field[0] = random.random((4, 2)), random.standard_normal((4, 3))
    for k in range(1, 900):
        field[k] = decays * field[k - 1] + np.sqrt(1 - decays**2) * random.standard_normal((4, 3))
    description = Description("unlike", ("slow", "quick", "quicker"), ("x", "y"))
    write_trajectories(tmp_path / "unlike.h5", np.arange(900.0), x, field[None], description)
    surrogate = fit(Problem.open(tmp_path / "unlike.h5", "data.frames=400", "recipe=series", "training.minutes=.2",
                                 "training.residual_field=off"))
    starts = np.arange(500, 890)
    t, u = (torch.as_tensor(np.stack([one[s - 3 : s + 1] for s in starts])) for one in (np.arange(900.0), field))
    batch = TrajectoryBatch(t, torch.as_tensor(x)[None, None], u.float())
    mean = forecast(surrogate, surrogate.estimate(batch.first_frames(3)), batch).mean[:, 3]
    missed = (surrogate.normalisation.invert(mean).numpy() - field[starts]).std((0, 1))
    assert missed == pytest.approx(np.sqrt(1 - decays**2), rel=0.1)


def test_places_that_begin_late_are_forecast_as_well_as_others_and_harm_none(tmp_path):
    random, field, common, own = np.random.default_rng(4), np.zeros((500, 12)), 0.0, np.zeros(12)
    x = random.random((12, 2))
    for k in range(500):
        common, own = 0.95 * common + 0.5 * random.standard_normal(), 0.9 * own + 0.4 * random.standard_normal(12)
        field[k] = common + own
    observed, late = field[:400].copy(), [2, 5, 7]
    observed[:370, late] = np.nan
    write_trajectories(tmp_path / "late.h5", np.arange(400.0), x, observed[None, ..., None],
                       Description("late", ("u",), ("x", "y")))
    surrogate = fit(Problem.open(tmp_path / "late.h5", "recipe=series", "training.minutes=.2",
                                 "training.residual_field=off"))
    starts, innovation = np.arange(403, 497), np.hypot(0.5, 0.4)
    t, u = (torch.as_tensor(np.stack([one[s - 3 : s + 1] for s in starts])) for one in (np.arange(500.0), field))
    batch = TrajectoryBatch(t, torch.as_tensor(x)[None, None], u[..., None].float())
    found = forecast(surrogate, surrogate.estimate(batch.first_frames(3)), batch)
    missed = surrogate.normalisation.invert(found.mean)[:, 3, :, 0].numpy() - field[starts]
    errors, std = np.sqrt(np.square(missed).mean(0)), found.std[:, 3, :, 0] * float(surrogate.normalisation.scale)
    assert errors[late].mean() < 1.05 * innovation and np.delete(errors, late).mean() < 1.05 * innovation
    assert 1 < float(std.mean()) / innovation < 1.4


def test_it_forecasts_as_well_as_a_seasonal_vector_autoregression(series, forecasts):
    _, t, _, u, gaps = series
    mean, _, starts = forecasts
    design = np.stack([np.ones(FRAMES), np.cos(2 * np.pi * t / YEAR), np.sin(2 * np.pi * t / YEAR)], 1)
    season = np.zeros_like(u)
    for n in range(6):
        seen = np.isfinite(gaps[:CUT, n])
        season[:, n] = design @ np.linalg.lstsq(design[:CUT][seen], gaps[:CUT, n][seen], rcond=None)[0]
    z = np.nan_to_num(gaps - season)
    z[CUT:] = (u - season)[CUT:]
    lags = np.linalg.lstsq(np.concatenate([z[1 : CUT - 1], z[: CUT - 2]], 1), z[2:CUT], rcond=None)[0]
    now, before = z[starts - 1], z[starts - 2]
    for lead in range(5):
        now, before = np.concatenate([now, before], 1) @ lags, now
        truth = u[starts + lead]
        theirs = np.square(now + season[starts + lead] - truth).mean()
        assert np.square(mean[:, lead] - truth).mean() < 1.02 * theirs


def test_its_intervals_hold_what_they_say(series, forecasts):
    mean, std, starts = forecasts
    truth = np.stack([series[3][s : s + 5] for s in starts])
    held = (np.abs(mean - truth) < 1.96 * std).mean((0, 2))
    assert held == pytest.approx(np.full(5, 0.95), abs=0.025)


def test_the_year_is_found_by_the_calendar_and_known_long_after(series):
    folder, t, x, *_ = series
    surrogate = Surrogate.load(folder / "run")
    assert "1 harmonics of 365.2" in surrogate.training["series"]["cycle"]
    from inrflow.data.observations import Observations

    solution = surrogate.assimilate(Observations(t[:CUT][-8:], x, series[3][CUT - 8 : CUT, :, None]))
    far = CUT + 400 + np.arange(0, 365, 30.0)
    expected = 10 + 3 * np.cos(2 * np.pi * far[:, None] / YEAR - x[:, 0])
    assert np.asarray(solution(far, x))[..., 0] == pytest.approx(expected, abs=0.35)


def test_a_true_peak_of_one_frame_is_kept_where_faults_are_kept(series):
    folder, t, x, u, _ = series
    peak, run = u[CUT : CUT + 40, :, None].copy(), Surrogate.load(folder / "run")
    peak[20, 1] += 100 * u.std()
    observed = Observations(t[CUT : CUT + 40], x, peak)
    with pytest.warns(UserWarning, match="train with data.faults=kept to keep them"):
        run.assimilate(observed)
    kept = replace(run, training={**run.training, "faults": "kept"})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*values of the series")
        assert float(kept.assimilate(observed)(t[CUT + 20], x[1:2])[0, 0]) > u.max() + 10


def test_between_steps_the_forecast_is_continuous(series):
    folder, t, x, u, _ = series
    from inrflow.data.observations import Observations

    solution = Surrogate.load(folder / "run").assimilate(Observations(t[CUT - 8 : CUT], x, u[CUT - 8 : CUT, :, None]))
    times = CUT - 1 + np.linspace(0, 2, 81)
    values = np.asarray(solution(times, x))[..., 0]
    assert np.abs(np.diff(values, axis=0)).max() < 0.1 * np.ptp(values) + 0.05


def test_the_linear_inverse_model_is_among_the_references(series):
    import json

    report = json.loads((series[0] / "run" / "evaluation.json").read_text())
    assert {"linear_inverse_model", "climatology", "persistence"} <= set(report["references"])
    mine, theirs = report["nmse"]["out_t"], report["references"]["linear_inverse_model"]["nmse"]["out_t"]
    assert mine < 1.05 * theirs < report["references"]["persistence"]["nmse"]["out_t"]


def test_deviations_from_one_station_are_those_of_its_errors(series):
    """The phases of the cycle, which the time tells, are no evidence that values are unusual."""
    folder, t, x, u, _ = series
    surrogate, rows = Surrogate.load(folder / "run"), np.arange(CUT, FRAMES)
    seen = np.full_like(u, np.nan)
    seen[:, 2] = u[:, 2]
    batch = TrajectoryBatch(torch.as_tensor(t[rows, None]), torch.as_tensor(x)[None, None],
                            torch.as_tensor(seen[rows, None, :, None]).float())
    found = forecast(surrogate, surrogate.estimate(batch), batch)
    z = (torch.as_tensor(u[rows]) - surrogate.normalisation.invert(found.mean)[:, 0, :, 0]) / (
        found.std * surrogate.normalisation.scale)[:, 0, :, 0]
    assert float(z[:, [0, 1, 3, 4, 5]].square().mean()) == pytest.approx(1, abs=0.2)


def test_deviations_from_few_sensors_of_a_field_that_lasts_are_those_of_its_errors(tmp_path):
    """Of few independent frames, modes that were fitted to them would trust the sensors too much."""
    random = np.random.default_rng(2)
    x, count, frames = random.random((40, 2)), 30, 900
    waves = np.exp(2j * np.pi * (x @ random.normal(0, 1.5, (2, count)))) / count**0.5
    amplitude, codes = 0j, []
    for _ in range(frames):
        noise = random.standard_normal((2, count))
        amplitude = 0.97 * amplitude + (1 - 0.97**2) ** 0.5 * (noise[0] + 1j * noise[1])
        codes.append(amplitude)
    u = (np.array(codes[50:]) @ waves.T).real + 0.02 * random.standard_normal((frames - 50, 40))
    t, seen = np.arange(float(len(u))), np.full_like(u, np.nan)
    description = Description("waves", ("u",), ("x", "y"))
    write_trajectories(tmp_path / "waves.h5", t, x, u[None, ..., None], description)
    surrogate = fit(Problem.open(tmp_path / "waves.h5", "data.frames=600", "recipe=series",
                                 "training.residual_field=off"), quiet=True)
    seen[:, :5] = u[:, :5]
    rows = np.arange(600, len(u), 5)
    batch = TrajectoryBatch(torch.as_tensor(t[rows, None]), torch.as_tensor(x)[None, None],
                            torch.as_tensor(seen[rows, None, :, None]))
    found = forecast(surrogate, surrogate.estimate(batch), batch)
    z = (torch.as_tensor(u[rows]) - surrogate.normalisation.invert(found.mean)[:, 0, :, 0]) / (
        found.std * surrogate.normalisation.scale)[:, 0, :, 0]
    assert float(z[:, 5:].square().mean()) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("together", [True, False])
def test_places_visited_at_irregular_times_are_forecast_as_well_as_by_their_seasonal_cycle(tmp_path, together):
    random, visits = np.random.default_rng(5), 60
    x, phase = random.random((8, 2)), random.uniform(-0.3, 0.3, 8)
    days = [np.cumsum(random.integers(10, 50, visits)) for _ in range(8)]
    t = days[0] if together else np.unique(np.concatenate(days))

    def cycle(t):
        return 10 + 5 * np.cos(2 * np.pi * t[:, None] / YEAR - phase)

    u = cycle(t) + random.standard_normal((len(t), 8))
    seen = np.stack([np.isin(t, own) for own in (days[:1] * 8 if together else days)], 1)
    write_trajectories(tmp_path / "visits.h5", t.astype(float), x, np.where(seen, u, np.nan)[None, ..., None],
                       Description("visits", ("u",), ("x", "y"), time_units="days since 2001-01-01"))
    surrogate = fit(Problem.open(tmp_path / "visits.h5", "recipe=series", "training.minutes=.2",
                                 "training.residual_field=off"))
    past = Observations(t.astype(float), x, np.where(seen, u, np.nan)[..., None])
    later = t[-1] + np.arange(20.0, 700.0, 7.0)
    missed = np.asarray(surrogate.assimilate(past)(later, x))[..., 0] - cycle(later)
    assert np.sqrt(np.square(missed).mean()) < 0.5  # of 60 values with noise 1: 3 coefficients, .22
