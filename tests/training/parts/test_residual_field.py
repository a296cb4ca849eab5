"""The residual field is taken where hidden places are met clearly better with it, and not on clean data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import inrflow
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.residual import blocks, fit
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Decay
from inrflow.encoding.residual.places import Places
from inrflow.evaluation.evaluate import evaluate
from inrflow.evaluation.observe import Observe
from inrflow.evaluation.residual_errors import Comparison, Fold
from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.training.parts import decoder, residual_field
from inrflow.training.problem import Problem

ABOUT = Description("stations", ("u",), ("x", "y"))
FORM = Form((0.5,), 0.5, (0,), (False,))
CHANNEL = ChannelField(Covariance(FORM, torch.zeros(FORM.size, dtype=torch.float64)))
SETTINGS = ("recipe=reduced_order", "training.minutes=0.3", "dynamics.depth=0", "training.steps.residual_field=1",
            "training.steps.decoder=60", "training.optimiser=adamw", "dynamics.memory=0")


def network(stations: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Many short waves that lose their phase, seen with noise and gaps at fixed places."""
    random = np.random.default_rng(0)
    x, t = random.uniform(0, 1, (stations, 2)), np.arange(float(frames))
    k = random.standard_normal((80, 2)) * 5
    phase = random.uniform(0, 6.3, 80) + np.cumsum(random.standard_normal((frames, 80)) * 0.4, 0)
    u = np.cos((x @ k.T)[None] - phase[:, None]).sum(-1) / 6 + 0.1 * random.standard_normal((frames, stations))
    u[random.random(u.shape) < 0.1] = np.nan
    return t, x, u[..., None]


@pytest.fixture(scope="module")
def kriged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple, inrflow.Surrogate]:
    folder = tmp_path_factory.mktemp("stations")
    t, x, u = network(88, 30)
    write_trajectories(folder / "seen.h5", t, x[:28], u[None, :, :28], ABOUT)
    write_trajectories(folder / "all.h5", t, x, u[None], ABOUT)
    with pytest.MonkeyPatch.context() as patch:  # quick, if not the best
        patch.setattr(fit, "_ITERATIONS", 8)
        patch.setattr(fit, "CHANGES", ())
        surrogate = inrflow.fit(Problem.open(folder / "seen.h5", *SETTINGS))
    surrogate.save(folder)
    return folder, (t, x, u), inrflow.Surrogate.load(folder)


def test_a_network_of_stations_is_kriged(kriged):
    _, (t, x, u), surrogate = kriged
    assert surrogate.residual is not None
    solution = surrogate.assimilate(inrflow.Observations(t, x[:28], u[:, :28]))
    surrogate.residual, residual = None, surrogate.residual
    codes = surrogate.assimilate(inrflow.Observations(t, x[:28], u[:, :28]))
    surrogate.residual = residual
    errors = {}
    for name, one in (("field", solution), ("codes", codes)):
        errors[name] = float(np.nanmean((one.frames(t, x[28:]) - u[:, 28:]) ** 2))
    assert errors["field"] < 0.8 * errors["codes"]
    assert errors["field"] < 0.6 * np.nanvar(u[:, 28:])
    answer = solution.query(np.repeat(t, 60), np.tile(x[28:], (30, 1)), std=True, derivatives=True)
    z = (answer["mean"] - u[:, 28:].reshape(-1, 1)) / answer["std"]
    assert 0.85 < np.nanmean(np.abs(z) < 1.645) < 0.95
    step = 1e-3 * surrogate.extent.width(0)
    slope = (solution(t[3], x[30:31] + [step, 0]) - solution(t[3], x[30:31] - [step, 0])) / (2 * step)
    np.testing.assert_allclose(solution.derivatives(t[3], x[30:31])["dx"][0, :, 0], slope[0], rtol=2e-2, atol=2e-2)


def test_forecasts_of_new_places_are_kriged_from_those_of_seen_ones(kriged):
    _, (t, x, u), surrogate = kriged
    channel, missed = surrogate.residual.channels[0], []
    plain = replace(surrogate, residual=replace(surrogate.residual, channels=(replace(channel, kriged=False),)))
    for origin in range(14, 28):
        seen = inrflow.Observations(t[:origin], x[:28], u[:origin, :28])
        both = [one.assimilate(seen)(t[origin + 1], x[28:]) for one in (surrogate, plain)]
        missed.append([np.nanmean((one - u[origin + 1, 28:]) ** 2) for one in both])
    kriged_too, alone = np.mean(missed, 0)  # 1 to 2 % apart in most draws of such networks
    assert kriged_too < alone


def test_evaluation_and_queries_agree(kriged):
    folder, (t, x, u), surrogate = kriged
    with TrajectoryFile(folder / "all.h5") as file:
        found = evaluate(surrogate, file, Observe(30, 0.7)).example
    seen = np.isfinite(found["observed"]).any((0, 2))
    solution = surrogate.assimilate(inrflow.Observations(t, x[seen], np.asarray(found["observed"])[:, seen]))
    np.testing.assert_allclose(solution.frames(t[5:7], x), found["prediction"][5:7], atol=1e-4)
    np.testing.assert_allclose(solution.std(t[5:6], x)[0], found["std"][5], rtol=1e-3)


def test_clean_data_are_left_to_their_codes(tmp_path):
    random = np.random.default_rng(1)
    x, t = random.uniform(0, 1, (60, 2)), np.arange(10.0)
    shapes = np.stack([np.cos(3 * x[:, 0]), np.sin(2 * x[:, 1]), np.cos(3 * x[:, 0] + 2 * x[:, 1])])
    u = np.cos(0.7 * t[None, :, None] * [1, 2, 3] + random.uniform(0, 6, (8, 1, 3))) @ shapes
    write_trajectories(tmp_path / "clean.h5", t, x, u[..., None], ABOUT)
    assert inrflow.fit(Problem.open(tmp_path / "clean.h5", *SETTINGS[:2])).residual is None


def test_few_noisy_places_of_a_law_are_left_to_its_codes(tmp_path):
    generator, t, x = np.random.default_rng(0), np.arange(8) * 0.05, np.arange(40) / 40
    k = 2 * np.pi * np.arange(1, 5)
    a, phase = generator.standard_normal((12, 4)), generator.uniform(0, 2 * np.pi, (12, 4, 1))
    u = np.einsum("sk,tk,skx->stx", a, np.exp(-0.01 * k**2 * t[:, None]), np.cos(k[:, None] * x + phase))
    noisy = u + 0.1 * u.std() * generator.standard_normal(u.shape)
    about = Description("line", ("u",), ("x",), period=(1.0,))
    write_trajectories(tmp_path / "line.h5", t, x[:, None], noisy[..., None], about)
    surrogate = inrflow.fit(Problem.open(tmp_path / "line.h5", "recipe=law", "training.minutes=0.1",
                                         "dynamics.network=off"))
    assert surrogate.residual is None


def test_deviations_grow_with_the_lead_as_held_out_errors_do():
    torch.manual_seed(0)
    lead = torch.rand(4000, dtype=torch.float64) * 8
    zeros, ones = torch.zeros(4000, dtype=torch.float64), torch.ones(4000, dtype=torch.float64)
    for level, power, own in ((0.1, 0.5, 1e-2), (0.03, 1.0, 1e-2), (0.03, 1.0, 1e-4)):  # the last as without noise
        error = torch.randn(4000, dtype=torch.float64) * (1e-4 + level**2 * lead ** (2 * power)).sqrt()
        seen = Comparison(10 + error, 10 * ones, lead, zeros.bool(), 10 * ones, own * ones, 10 * ones, own * ones,
                          lead[:, None], zeros.long())
        found = seen.ahead(CHANNEL).new
        assert found.decay(lead.numpy()).min() > 0.95
        late = lead.numpy() > 2
        wanted = np.sqrt(1e-4 + level**2 * lead.numpy()[late] ** (2 * power)) / own
        assert np.abs(found.factor(lead.numpy()[late]) / wanted - 1).max() < 0.3
        assert found.factor(np.array(26.0)) / found.factor(np.array(8.0)) == pytest.approx(3**power, rel=0.35)  # later
        std = seen.deviations(replace(CHANNEL, new=found))
        assert abs(float((error.abs() < HALF_WIDTH_90 * std).double().mean()) - 0.9) < 0.02


def test_what_a_process_says_ahead_is_weighed_at_early_leads_as_at_late_ones_of_larger_errors():
    """A share of the process that helps at the late leads of a series, and spoils the first, is none that helps; an
    innovation that is forgotten is held as long as it lasts."""
    lead, draw = torch.arange(1.0, 21.0).double().repeat(200), torch.Generator().manual_seed(0)
    error = torch.randn(4000, generator=draw).double() * lead / 20
    zeros, ones = torch.zeros_like(lead), torch.ones_like(lead)

    def chosen(error: torch.Tensor, last: torch.Tensor, own: torch.Tensor) -> Decay:
        return Comparison(error, ones, lead, zeros.bool(), last, ones, own, ones, lead[:, None],
                          zeros.long()).ahead(CHANNEL).new.decay

    spoilt = torch.where(lead > 5, error, error + 0.5)  # right later, off by half at first
    assert chosen(error, spoilt, spoilt) == Decay()
    assert chosen(error, error, error)(lead.numpy()).min() == 1
    innovation = torch.randn(4000, generator=draw).double()
    kept = innovation * (-lead / 4).exp()
    noisy = kept + 0.1 * torch.randn(4000, generator=draw).double()
    decay = chosen(noisy, innovation, zeros)
    assert np.abs(decay(lead.numpy()) * decay.stays(lead.numpy()) - (-lead / 4).exp().numpy()).max() < 0.05
    decay = chosen(noisy, innovation, -innovation)  # which is no use at any time
    assert decay.held == np.inf and decay.memory == 4
    half = replace(CHANNEL, weight=0.5)  # as hidden places ask for: at those that are seen it may be right
    seen = Comparison(error, ones, lead, ones.bool(), error, ones, error, ones, lead[:, None], zeros.long()).ahead(half)
    assert seen.observed.decay.whole and float(seen.outside(lead.numpy(), np.zeros(4000, dtype=bool))[0].min()) == 1
    assert float(seen.outside(np.zeros(1), np.zeros(1, dtype=bool))[0]) == 0.5


@pytest.mark.parametrize(("rare", "wanted"), [(False, 0.5), (True, 0.75**0.5)])
def test_intervals_are_narrowed_to_errors_of_left_out_places_as_far_as_rare_ones_allow(monkeypatch, rare, wanted):
    """Errors of half of the expected size, or nearly none but for one value in twelve, as of rain, of three times it:
    their root mean square is the square root of 9/12."""
    draw = torch.Generator().manual_seed(0)
    error = torch.randn(3000, generator=draw).double()
    error = torch.where(torch.arange(3000) % 12 == 0, 3 * error, 0.01 * error) if rare else 0.5 * error
    zeros, ones = torch.zeros(3000).double(), torch.ones(3000).double()
    inside = Comparison(error, ones, zeros, zeros.bool(), zeros, ones, zeros, ones, zeros[:, None], zeros.long())
    monkeypatch.setattr(residual_field, "_comparisons", lambda *_: (inside, inside.select(zeros > 0)))
    places = Places((0.0,))
    fold = Fold([], None, None, 23, None)
    channel = residual_field._with_weight(CHANNEL, 0, [fold], None, places, True)[0]
    assert channel.spread == pytest.approx(wanted**0.5 * (23 / 20) ** 0.5, rel=0.05)  # of mean, variance and length


def test_a_process_that_helps_in_one_window_alone_is_not_used_ahead():
    """Of eight windows with two standard errors of their gains above the mean gain, as of one front, nothing is learned
    about others; where each gains as much, it is used."""
    lead, draw = torch.arange(1.0, 21.0).double().repeat(8 * 50), torch.Generator().manual_seed(1)
    window = torch.arange(8).repeat_interleave(20 * 50)
    error = torch.randn(len(lead), generator=draw).double()
    zeros, ones = torch.zeros_like(lead), torch.ones_like(lead)

    def chosen(own: torch.Tensor) -> Decay:
        return Comparison(error, ones, lead, zeros.bool(), own, ones, own, ones, lead[:, None], window).ahead(
            CHANNEL).new.decay

    assert chosen(torch.where(window == 3, 0.98 * error, 0.0 * error)) == Decay()
    assert chosen(0.2 * error)(lead.numpy()).min() == 1


def test_every_channel_of_stations_is_kriged_where_time_ends_after_the_first(tmp_path, monkeypatch):
    t, x, u = network(24, 20)
    about = replace(ABOUT, channels=("u", "v"))
    write_trajectories(tmp_path / "two.h5", t, x, np.concatenate([u, u[::-1]], -1)[None], about)
    monkeypatch.setattr(fit, "_ITERATIONS", 8)
    forms: list[bool] = []
    real = residual_field.ChannelField.fit

    def fitted(*given, **named):
        forms.append(named.get("richer", True))
        return real(*given, **(named | {"richer": False}))

    monkeypatch.setattr(residual_field.ChannelField, "fit", fitted)
    monkeypatch.setattr(residual_field._Variants, "seconds", 1e-9)
    monkeypatch.setattr(residual_field._Variants, "effort", lambda self, channels: 2)
    settings = (*SETTINGS, "training.minutes=0.05", "training.steps.residual_field=2")
    surrogate = inrflow.fit(Problem.open(tmp_path / "two.h5", *settings))
    assert surrogate.residual is not None and None not in surrogate.residual.channels
    assert forms == [True, False]


def test_what_codes_leave_lasts_at_its_places_where_no_field_is_taken(tmp_path, monkeypatch):
    random, places, frames = np.random.default_rng(6), 24, 120
    own, wave = np.zeros((frames, places)), np.cos(np.arange(frames)[:, None] / 5 + np.linspace(0, 3, places))
    for k in range(1, frames):
        own[k] = 0.98 * own[k - 1] + 0.06 * random.standard_normal(places)
    t, x, u = np.arange(float(frames)), random.uniform(0, 1, (places, 2)), (wave + own)[..., None]
    write_trajectories(tmp_path / "series.h5", t[:100], x, u[None, :100], ABOUT)
    monkeypatch.setattr(residual_field._Variants, "effort", lambda *_: 0)
    monkeypatch.setattr(residual_field._Variants, "of", lambda *_: iter(()))
    surrogate = inrflow.fit(Problem.open(tmp_path / "series.h5", "recipe=series", "decoder.code_size=2",
                                         "training.minutes=0.05"))
    assert surrogate.residual is not None and surrogate.residual.channels[0].on_codes
    missed = []
    for model in (surrogate, replace(surrogate, residual=None)):
        solution = model.assimilate(inrflow.Observations(t[90:100], x, u[90:100]))
        missed.append(float(np.square(solution(t[100], x) - u[100]).mean()))
    assert missed[0] < 2 * 0.06**2 < missed[1]


def test_what_fades_after_the_first_frame_is_not_held_though_later_frames_hold_theirs(tmp_path, monkeypatch):
    """Short waves that fade within a frame or two, on weaker ones that stay, of each trajectory."""
    random, places, t = np.random.default_rng(4), 60, np.arange(10.0)
    x, k = random.uniform(0, 1, (places, 2)), random.standard_normal((2, 40, 2)) * 15
    waves = np.cos((x @ k.mT)[:, None] + random.uniform(0, 6.3, (2, 24, 1, 40))).sum(-1) / np.sqrt(20)
    large = random.standard_normal((24, 1)) * np.cos(np.pi * x[:, 0])
    u = waves[0, :, None] * np.exp(-t)[:, None] + (0.2 * waves[1] + large)[:, None] * np.ones((10, 1))
    write_trajectories(tmp_path / "fading.h5", t, x, u[:20, ..., None], ABOUT)
    monkeypatch.setattr(fit, "_ITERATIONS", 8)
    monkeypatch.setattr(fit, "CHANGES", ())
    surrogate = inrflow.fit(Problem.open(tmp_path / "fading.h5", *SETTINGS, "decoder.code_size=1"))
    missed = []
    for model in (surrogate, replace(surrogate, residual=None)):
        ahead = [model.assimilate(inrflow.Observations(t[:1], x, one[:1, :, None])).frames(t[4:], x)[..., 0] - one[4:]
                 for one in u[20:]]
        missed.append(float(np.square(ahead).mean()))
    assert missed[0] < 1.1 * missed[1]


@pytest.mark.parametrize(("places", "frames"), [(100, 64), (200, 32)])  # a network of few, and maps
def test_codes_are_alone_where_few_of_the_places_of_dense_maps_are_seen(tmp_path, monkeypatch, places, frames):
    """Four large patterns, on short waves: neighbours tell these, few places the patterns."""
    random = np.random.default_rng(2)
    x, t = random.uniform(0, 1, (places, 2)), np.arange(float(frames))
    patterns = np.cos(np.pi * np.array([[1, 0], [0, 1], [1, 1], [2, 0]]) @ x.T)
    k = random.standard_normal((60, 2)) * 25
    waves = np.cos((x @ k.T)[None] + random.uniform(0, 6.3, (frames, 1, 60))).sum(-1) / np.sqrt(30)
    u = (random.standard_normal((frames, 4)) @ patterns + 0.5 * waves)[..., None]
    write_trajectories(tmp_path / "maps.h5", t, x, u[None], ABOUT)
    monkeypatch.setattr(fit, "_ITERATIONS", 5)
    monkeypatch.setattr(fit, "CHANGES", ())
    surrogate = inrflow.fit(Problem.open(tmp_path / "maps.h5", "recipe=series", "training.minutes=0.3",
                                         "training.steps.residual_field=1"))
    assert surrogate.residual is not None
    channel, = surrogate.residual.channels
    assert channel is not None and 12 < channel.fewest < 0.65 * places
    errors = {}
    for seen in (12, many := round(0.85 * places)):
        for name, field in (("field", replace(surrogate.residual, channels=(replace(channel, fewest=0.0),))),
                            ("codes", None), ("chosen", surrogate.residual)):
            model = replace(surrogate, residual=field)
            maps = [model.assimilate(inrflow.Observations(t[n : n + 1], x[:seen], u[n : n + 1, :seen])).frames(
                t[n : n + 1], x)[0, seen:] - u[n, seen:] for n in range(0, frames, 8)]
            errors[seen, name] = float(np.mean(np.square(maps)))
    assert errors[12, "chosen"] == pytest.approx(errors[12, "codes"], rel=1e-5)
    assert errors[12, "codes"] < errors[12, "field"]
    assert errors[many, "chosen"] == errors[many, "field"]
    assert places == 100 or errors[many, "field"] < errors[many, "codes"]  # of few, the field is for other places


def test_hidden_frames_of_what_moves_are_told_by_its_drift(tmp_path, monkeypatch):
    """Short waves that move past 120 places, one series: every frame is new, its neighbours in time are not."""
    random = np.random.default_rng(3)
    x, t, k = random.uniform(0, 1, (120, 2)), np.arange(18.0), random.standard_normal((60, 2)) * 9
    phase = random.uniform(0, 6.3, 60)
    u = np.cos((x @ k.T)[None] - (t[:, None] * (k @ [0.06, -0.03]))[:, None] + phase).sum(-1)[..., None] / 5
    kept = np.delete(np.arange(18), [7, 8])
    write_trajectories(tmp_path / "moving.h5", t[kept], x, u[None, kept], ABOUT)
    monkeypatch.setattr(fit, "_ITERATIONS", 8)
    monkeypatch.setattr(blocks, "_BLOCKS", 5)
    monkeypatch.setattr(fit, "CHANGES", (fit._drift,))
    surrogate = inrflow.fit(Problem.open(tmp_path / "moving.h5", *SETTINGS[:2], "decoder.code_size=4",
                                         "training.steps.decoder=20", "training.steps.residual_field=2"))
    assert surrogate.residual is not None
    errors = []
    for model in (surrogate, replace(surrogate, residual=None)):
        frames = model.assimilate(inrflow.Observations(t[kept], x, u[kept])).frames(t[7:9], x)
        errors.append(float(np.mean(np.square(frames - u[7:9]))))
    assert errors[0] < 0.2 * errors[1] and errors[0] < 0.2 * u.var()


def test_what_features_trained_at_few_places_say_there_keeps_no_process_away(tmp_path, monkeypatch):
    t, x, u = network(60, 10)
    write_trajectories(tmp_path / "few.h5", t, x, np.nan_to_num(u)[None], ABOUT)
    monkeypatch.setattr(fit, "_ITERATIONS", 8)
    monkeypatch.setattr(fit, "CHANGES", ())
    monkeypatch.setattr(residual_field, "CODES_PAY", 1e9)  # codes seem far better than any process
    monkeypatch.setattr(decoder, "TRUNK_PAYS", 1e9)
    surrogate = inrflow.fit(Problem.open(tmp_path / "few.h5", *SETTINGS))
    assert isinstance(surrogate.decoder, ModulatedSiren) and surrogate.residual is not None


def test_sensors_that_move_are_kriged_though_codes_were_trained_on_their_values(tmp_path, monkeypatch):
    random = np.random.default_rng(2)
    t, k = np.arange(24.0), random.standard_normal((40, 2)) * 6
    x = (random.uniform(0, 1, (1, 16, 2)) + np.cumsum(0.03 * random.standard_normal((24, 16, 2)), 0)) % 1
    phase = random.uniform(0, 6.3, 40) + np.cumsum(random.standard_normal((24, 40)) * 0.2, 0)
    u = np.cos(x @ k.T - phase[:, None]).sum(-1, keepdims=True) / 4.5 + 0.05 * random.standard_normal((24, 16, 1))
    write_trajectories(tmp_path / "drifters.h5", t, x[None, :, :13], u[None, :, :13], ABOUT)
    monkeypatch.setattr(fit, "CHANGES", ())
    surrogate = inrflow.fit(Problem.open(tmp_path / "drifters.h5", *SETTINGS))
    assert surrogate.residual is not None and not (channel := surrogate.residual.channels[0]).kriged
    assert channel.observed == channel.new  # a sensor may come back to where it was
    solution = surrogate.assimilate(inrflow.Observations(t, x[:, :13], u[:, :13]))
    answer = solution.query(np.repeat(t, 3), x[:, 13:].reshape(-1, 2), std=True)
    surrogate.residual = None
    alone = surrogate.assimilate(inrflow.Observations(t, x[:, :13], u[:, :13]))
    missed, codes = (float(np.mean((one - u[:, 13:].reshape(-1, 1)) ** 2)) for one in (
        answer["mean"], alone.query(np.repeat(t, 3), x[:, 13:].reshape(-1, 2))["mean"]))
    assert missed < 0.8 * codes
