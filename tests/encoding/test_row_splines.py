"""Rows with times and places of their own: fields between them by splines, and laws of these fields."""

import json

import numpy as np
import pytest

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_scattered
from inrflow.domains import domains_of
from inrflow.encoding.row_splines import Rows, RowSplines, candidates
from inrflow.model.surrogate import Surrogate

SPEED = 0.4
DESCRIPTION = Description("waves", ("u", "v"), ("x",), period=(1.0,))


class Constant:
    """The first harmonic of a domain, alone."""

    count, eigenvalues = 1, np.zeros(1)


def field(n: int, t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Waves u_tt = SPEED^2 u_xx and v = u_t in closed form: (R, 2)."""
    a, b, phase, turn = np.random.default_rng(n).normal(size=4)
    k = 2 * np.pi * np.array([1.0, 2.0])
    place, time = k * x[:, None] + 3 * phase, SPEED * k * t[:, None] + 3 * turn
    size = np.array([a, b / 2])
    return np.stack([(size * np.cos(time) * np.cos(place)).sum(1),
                     -(size * SPEED * k * np.sin(time) * np.cos(place)).sum(1)], 1)


def rows(n: int, count: int, noise: float = 0.0) -> Rows:
    random = np.random.default_rng([n, 1])
    t, x = np.sort(2 * random.random(count)), random.random(count)
    return t, x[:, None], field(n, t, x) + noise * random.normal(size=(count, 2))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_splines_say_what_a_field_is_between_rows_and_how_far_it_is_unknown(noise):
    every = [rows(n, 400, noise) for n in range(4)]
    tried = candidates(domains_of(every[0][1], (1.0,)), every, (0.0, 2.0), 0)
    splines = min(tried, key=lambda one: one.relative_error)
    places, times = np.linspace(0, 0.9, 7), np.linspace(0.1, 1.9, 9)
    for n, one in enumerate(every):
        found = splines.fields(one, times, splines.harmonics.values(places[:, None])).reshape(-1, 2)
        truth = field(n, np.repeat(times, 7), np.tile(places, 9))
        assert ((found - truth) ** 2).mean() < 1e-6 + 0.3 * noise**2
    assert splines.error == pytest.approx(noise**2, rel=0.35, abs=1e-5)


@pytest.mark.usefixtures("unreported")
def test_a_law_is_found_in_rows(tmp_path, inrflow_command):
    parts = [rows(n, 400) for n in range(6)]
    write_scattered(tmp_path / "train.h5", np.repeat(np.arange(6), 400), np.concatenate([one[0] for one in parts]),
                    np.concatenate([one[1] for one in parts]),
                    np.concatenate([one[2] for one in parts]).astype(np.float32), DESCRIPTION)
    run = tmp_path / "run"
    outcome = inrflow_command("train", f"data.train={tmp_path / 'train.h5'}", f"output={run}", "recipe=law",
                              "training.minutes=0.25", "training.residual_field=off", "dynamics.network=off")
    assert outcome.code == 0, outcome.err
    (u, v) = Surrogate.load(run).metadata()["training"]["equation"]
    assert u.endswith(" v") and v.endswith(" lap u")
    found = [float(line.split(" = ")[1].split("(")[0]) for line in (u, v)]
    assert found == pytest.approx([1.0, SPEED**2], rel=2e-3)
    (row,) = json.loads((run / "candidates.json").read_text())["candidates"]
    assert row["validation_error"] < 1e-4


def frame(n: int, t: float, count: int) -> Rows:
    x = np.random.default_rng([n, round(100 * t)]).random(count)
    times = np.full(count, t)
    return times, x[:, None], field(n, times, x)


def test_frames_whose_points_move_are_solved_each_by_itself():
    frames = [frame(n, t, 30) for n in range(4) for t in (0.0, 0.5, 1.0)]
    tried = candidates(domains_of(np.concatenate([x for _, x, _ in frames]), (1.0,)), frames, (0.0, 0.0), 0)
    best = min(tried, key=lambda one: one.relative_error)
    places = np.linspace(0, 0.9, 7)
    for n in range(4):
        found = best.fields(frame(n, 0.75, 30), np.array([0.75]), best.harmonics.values(places[:, None]))[0]
        assert found == pytest.approx(field(n, np.full(7, 0.75), places), abs=1e-6)
    assert best.count == 1 and best.relative_error < 1e-10


@pytest.mark.usefixtures("unreported")
def test_a_law_is_found_where_every_frame_has_other_points(tmp_path, inrflow_command):
    times, parts = np.arange(12) / 6, []
    for n in range(8):
        parts += [(n, *frame(n, t, 40)) for t in times]
    write_scattered(tmp_path / "train.h5", np.concatenate([np.full(40, n) for n, *_ in parts]),
                    np.concatenate([t for _, t, _, _ in parts]), np.concatenate([x for _, _, x, _ in parts]),
                    np.concatenate([u for _, _, _, u in parts]).astype(np.float32), DESCRIPTION)
    run = tmp_path / "run"
    outcome = inrflow_command("train", f"data.train={tmp_path / 'train.h5'}", f"output={run}", "recipe=law",
                              "training.minutes=0.5", "training.residual_field=off", "dynamics.network=off")
    assert outcome.code == 0, outcome.err
    assert "moving points: each frame on" in outcome.err
    (u, v) = Surrogate.load(run).metadata()["training"]["equation"]
    found = [float(line.split(" = ")[1].split("(")[0]) for line in (u, v)]
    assert u.endswith(" v") and v.endswith(" lap u") and found == pytest.approx([1.0, SPEED**2], rel=1e-4)


def test_a_constant_alone_is_the_mean_of_rows():
    one = RowSplines(domains_of(np.linspace(0, 1, 9)[:, None], (1.0,))[0], Constant(), 1, (0.0, 0.0))
    np.testing.assert_allclose(one.solve(np.eye(1), np.array([[3.0]]), 1e-9), [[3.0]], rtol=1e-6)


def test_channels_known_in_rows_of_their_own_are_solved_from_these():
    every = [rows(n, 500) for n in range(4)]
    for _, _, u in every:
        u[::2, 0], u[1::2, 1] = np.nan, np.nan
    tried = candidates(domains_of(every[0][1], (1.0,)), every, (0.0, 2.0), 0)
    splines = min(tried, key=lambda one: one.relative_error)
    places, times = np.linspace(0, 0.9, 7), np.linspace(0.1, 1.9, 9)
    found = splines.fields(every[0], times, splines.harmonics.values(places[:, None])).reshape(-1, 2)
    assert ((found - field(0, np.repeat(times, 7), np.tile(places, 9))) ** 2).mean() < 1e-6
    none = every[0][:2] + (np.where([True, False], every[0][2], np.nan),)
    assert np.isnan(splines.fields(none, times, splines.harmonics.values(places[:, None]))[..., 1]).all()


def test_frames_of_few_points_that_move_are_told_by_those_before_and_after():
    few = [[frame(n, t, 5) for t in np.arange(40) / 20] for n in range(4)]
    domains = domains_of(np.concatenate([x for each in few for _, x, _ in each]), (1.0,))
    whole = [tuple(np.concatenate(parts) for parts in zip(*each, strict=True)) for each in few]
    alone, together = (min(one.relative_error for one in candidates(domains, some, span, 0)) for some, span in (
        ([one for each in few for one in each], (0.0, 0.0)), (whole, (0.0, 1.95))))
    assert together < 1e-4 < 1e-2 < alone
