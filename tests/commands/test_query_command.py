import csv
import shutil

import h5py
import numpy as np
import pytest

import inrflow
from inrflow.commands.query import _names
from inrflow.config.schema import QueryConfig
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, header, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def observed(tiny_run, tmp_path):
    """Two frames of trajectories 0 and 2 as a CSV."""
    rows = []
    with TrajectoryFile(tiny_run.test) as file:
        for number in (0, 2):
            frames = file.read(number, [0, 1])
            for t, u in zip(frames.t, frames.u, strict=True):
                rows += [(number, t, *x, *values) for x, values in zip(frames.x, u, strict=True)]
    return write_rows(tmp_path / "observed.csv", ("trajectory", "t", "x", "y", "u", "v"), rows)


@pytest.fixture
def points(tmp_path):
    random = np.random.default_rng(1)
    rows = [(2 * (i % 2), random.uniform(0, 2), *random.uniform(0, 1.75, 2), f"p{i}") for i in range(40)]
    return write_rows(tmp_path / "points.csv", ("trajectory", "t", "x", "y", "label"), rows)


def solution_of(tiny_run, observed, number):
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    return surrogate.assimilate(inrflow.data.formats.tables.read_observations(observed, surrogate.description)[number])


def test_a_csv_gains_the_columns_of_the_contract_with_the_solutions_values(tiny_run, observed, points, tmp_path,
                                                                           inrflow_command):
    target = tmp_path / "answers.csv"
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                              f"to={target}", "std=true", "derivatives=true")
    assert outcome.code == 0, outcome.err
    rows = rows_of(target)
    new = [f"{c}{end}" for c in "uv" for end in ("", "_std")] + [f"d{c}_d{x}" for c in "uv" for x in ("x", "y", "t")]
    assert set(rows[0]) == {"trajectory", "t", "x", "y", "label", *new, "extrapolated"}
    assert [row["label"] for row in rows] == [f"p{i}" for i in range(40)]
    chosen = [row for row in rows if row["trajectory"] == "2"]
    t = np.array([float(row["t"]) for row in chosen])
    x = np.array([[float(row["x"]), float(row["y"])] for row in chosen])
    answer = solution_of(tiny_run, observed, 2).query(t, x, std=True, derivatives=True)
    for name, expected in (("u", answer["mean"][:, 0]), ("v_std", answer["std"][:, 1]),
                           ("dv_dy", answer["dx"][:, 1, 1]), ("du_dt", answer["dt"][:, 0])):
        np.testing.assert_allclose([float(row[name]) for row in chosen], expected, rtol=1e-5, atol=1e-6)


def test_derivatives_are_those_of_the_values_by_finite_differences(tiny_run, observed, points):
    solution = solution_of(tiny_run, observed, 0)
    t, x = np.array([1.3, 1.7]), np.array([[0.4, 0.9], [1.2, 0.3]])
    answer = solution.derivatives(t, x)
    h = 1e-3
    for axis in range(2):
        step = h * np.eye(2)[axis]
        slope = (solution(t, x + step) - solution(t, x - step)) / (2 * h)
        np.testing.assert_allclose(answer["dx"][:, :, axis], slope, rtol=1e-2, atol=5e-3)
    slope = (solution(t + h, x) - solution(t - h, x)) / (2 * h)
    np.testing.assert_allclose(answer["dt"], slope, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("suffix", ["h5", "nc"])
def test_other_formats_hold_the_same_values(suffix, tiny_run, observed, points, tmp_path, inrflow_command):
    for target in (tmp_path / "answers.csv", tmp_path / f"answers.{suffix}"):
        outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                                  f"to={target}")
        assert outcome.code == 0, outcome.err
    with h5py.File(tmp_path / f"answers.{suffix}") as file:
        np.testing.assert_allclose(file["u"][()], [float(row["u"]) for row in rows_of(tmp_path / "answers.csv")],
                                   rtol=1e-6)


def test_a_data_file_serves_as_observations_and_as_points(tiny_run, tmp_path, inrflow_command):
    target = tmp_path / "answers.h5"
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={tiny_run.test}",
                              f"points={tiny_run.test}", f"to={target}")
    assert outcome.code == 0, outcome.err
    with h5py.File(target) as file, h5py.File(tiny_run.test) as given:  # in the same layout
        assert file["u"].shape == given["u"].shape == (3, 10, 64, 2) and np.isfinite(file["u"][()]).all()
        np.testing.assert_array_equal(file["u_observed"], given["u"])


def test_blocks_give_what_one_pass_gives(tiny_run, observed, tmp_path, inrflow_command, monkeypatch):
    random = np.random.default_rng(3)
    points = write_rows(tmp_path / "p.csv", ("trajectory", "t", "x", "y"),
                        [(0, random.uniform(0, 2), *random.uniform(0, 1.75, 2)) for _ in range(50)])
    answers = []
    for rows in (16384, 7):
        monkeypatch.setattr("inrflow.data.formats.tables.PointReader.__init__.__defaults__", (rows, None))
        target = tmp_path / f"answers{rows}.csv"
        assert inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                               f"to={target}").code == 0
        answers.append([float(row["u"]) for row in rows_of(target)])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_points_outside_the_box_are_answered_with_one_warning_line(tiny_run, observed, tmp_path, inrflow_command,
                                                                   monkeypatch):
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    run = tmp_path / "run"
    object.__setattr__(surrogate.description, "period", None)  # a periodic domain has no outside
    monkeypatch.setattr("inrflow.domains.box.Box.distance", lambda box, x: np.abs(x).max(1))
    surrogate.save(run)
    points = write_rows(tmp_path / "p.csv", ("trajectory", "t", "x", "y"),
                        [(i % 2 * 2, 0.1 * i, 5.0 + i, 0.5) for i in range(10)])
    outcome = inrflow_command("query", f"run={run}", f"observations={observed}", f"points={points}",
                              f"to={tmp_path / 'a.csv'}")
    assert outcome.code == 0
    warned = [line for line in outcome.err.splitlines() if "outside the box" in line]
    assert len(warned) == 1 and "100 %" in warned[0]
    assert all(np.isfinite(float(row["u"])) for row in rows_of(tmp_path / "a.csv"))


def test_times_beyond_those_of_training_are_answered_with_one_warning_line(tiny_run, observed, tmp_path,
                                                                           inrflow_command):
    points = write_rows(tmp_path / "p.csv", ("trajectory", "t", "x", "y"),
                        [(i % 2 * 2, t, 0.5, 0.5) for i, t in enumerate((-0.5, 0, 0.5, 1.0, 1.01))])
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                              f"to={tmp_path / 'a.csv'}")
    assert outcome.code == 0
    warned = [line for line in outcome.err.splitlines() if "time span of training" in line]
    assert len(warned) == 1 and "40 %" in warned[0] and "more than 1 ahead" in warned[0]
    assert all(np.isfinite(float(row["u"])) for row in rows_of(tmp_path / "a.csv"))


@pytest.mark.parametrize("suffix", ["csv", "h5", "nc"])
def test_answers_beyond_the_training_data_are_flagged_in_every_format(suffix, tiny_run, observed, tmp_path,
                                                                      inrflow_command):
    points = write_rows(tmp_path / "p.csv", ("trajectory", "t", "x", "y"),
                        [(i % 2 * 2, t, 0.5, 0.5) for i, t in enumerate((-0.5, 0, 0.5, 1.0, 1.01))])
    target = tmp_path / f"a.{suffix}"
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                              f"to={target}")
    assert outcome.code == 0, outcome.err
    if suffix == "csv":
        found = [int(row["extrapolated"]) for row in rows_of(target)]
    else:
        with h5py.File(target) as file:
            found = file["extrapolated"][()].tolist()
            meanings = file["extrapolated"].attrs.get("flag_meanings")
        assert suffix == "h5" or meanings == "as_in_training extrapolated"
    assert found == [1, 0, 0, 0, 1]
    solution = solution_of(tiny_run, observed, 0)
    assert solution.extrapolated([-0.5, 0, 1.01], np.full((3, 2), 0.5)).tolist() == [True, False, True]
    assert solution.extrapolated([-0.5, 0.2], np.full((3, 2), 0.5)).tolist() == [[True] * 3, [False] * 3]
    assert solution.extrapolated(2.0, np.full((1, 2), 0.5)).tolist() == [True]


def test_trajectories_without_observations_are_named_and_nothing_is_written(tiny_run, observed, tmp_path,
                                                                            inrflow_command):
    points = write_rows(tmp_path / "p.csv", ("trajectory", "t", "x", "y"), [(i, 0.5, 0.5, 0.5) for i in range(4)])
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}",
                              f"to={tmp_path / 'a.csv'}")
    assert outcome.code == 2 and "trajectory 1, 3" in outcome.err and len(outcome.err.splitlines()) == 1
    assert not list(tmp_path.glob("*a.csv*"))


def test_points_without_a_trajectory_column_belong_to_the_only_one_observed(tiny_run, observed, tmp_path,
                                                                            inrflow_command):
    only = write_rows(tmp_path / "only.csv", ("trajectory", "t", "x", "y", "u", "v"),
                      [row.values() for row in rows_of(observed) if row["trajectory"] == "2"])
    points = write_rows(tmp_path / "p.csv", ("t", "x", "y"), [(0.5, 0.5, 0.5)])
    call = ("query", f"run={tiny_run.run}", f"points={points}", f"to={tmp_path / 'a.csv'}")
    assert inrflow_command(*call, f"observations={only}").code == 0
    np.testing.assert_allclose(float(rows_of(tmp_path / "a.csv")[0]["u"]),
                               solution_of(tiny_run, observed, 2)(0.5, np.array([[0.5, 0.5]]))[0, 0], rtol=1e-5,
                               atol=1e-6)
    several = inrflow_command(*call, f"observations={observed}", "overwrite=true")
    assert several.code == 0 and "trajectory 0, the first of 2" in several.err


def test_inputs_and_existing_files_are_not_written_over(tiny_run, observed, points, tmp_path, inrflow_command):
    before = points.read_bytes(), observed.read_bytes()
    call = ("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}")
    for source in (points, observed):
        outcome = inrflow_command(*call, f"to={source}", "overwrite=true")
        assert outcome.code == 2 and "input" in outcome.err
    (tmp_path / "a.csv").write_text("mine")
    outcome = inrflow_command(*call, f"to={tmp_path / 'a.csv'}")
    assert outcome.code == 2 and "not written over" in outcome.err
    assert (points.read_bytes(), observed.read_bytes()) == before and (tmp_path / "a.csv").read_text() == "mine"


def test_a_zarr_store_is_replaced_when_the_answer_is_complete_and_other_folders_are_not(tiny_run, observed, points,
                                                                                       tmp_path, inrflow_command):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    target = tmp_path / "answer.zarr"
    xarray.Dataset({"old": ("n", [1.0, 2.0])}).to_zarr(target)
    asked = ("query", f"run={tiny_run.run}", f"observations={observed}", f"points={points}", f"to={target}")
    outcome = inrflow_command(*asked)
    assert outcome.code == 2 and "exists already" in outcome.err
    (target / "notes").mkdir()
    (target / "notes" / "mine.txt").write_text("kept")
    outcome = inrflow_command(*asked, "overwrite=true")
    assert outcome.code == 2 and "is a folder, which is not replaced" in outcome.err
    assert (target / "notes" / "mine.txt").read_text() == "kept" and list(xarray.open_zarr(target)) == ["old"]
    shutil.rmtree(target / "notes")
    points.with_name("far.csv").write_text("trajectory,t,x,y\n0,1e30,0,0\n")
    outcome = inrflow_command(*asked, "overwrite=true", f"points={points.with_name('far.csv')}")
    assert outcome.code == 2 and list(xarray.open_zarr(target)) == ["old"]
    before = set(tmp_path.iterdir())
    outcome = inrflow_command(*asked, "overwrite=true")
    assert outcome.code == 0, outcome.err
    with xarray.open_zarr(target) as answer:
        assert "old" not in answer and answer["u"].size == len(rows_of(points))
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("missing", ["run", "observations", "points"])
def test_a_missing_key_is_named(missing, tiny_run, observed, points, elsewhere, inrflow_command):
    keys = {"run": tiny_run.run, "observations": observed, "points": points, "to": "a.csv"}
    outcome = inrflow_command("query", *(f"{key}={value}" for key, value in keys.items() if key != missing))
    assert outcome.code == 2 and f"{missing}=" in outcome.err and not (elsewhere / "a.csv").exists()


def test_a_channel_that_is_not_known_is_named(tiny_run, points, tmp_path, inrflow_command):
    wrong = write_rows(tmp_path / "o.csv", ("t", "x", "y", "u", "pressure"), [(0, 0.5, 0.5, 1, 2)])
    outcome = inrflow_command("query", f"run={tiny_run.run}", f"observations={wrong}", f"points={points}", "to=a.csv")
    assert outcome.code == 2 and "pressure" in outcome.err and "lacks the channel v" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("channels, asked, refused", [
    (("u", "u_std"), {"std": True}, "u_std"), (("u", "u_std"), {}, None),
    (("u", "du_dx"), {"derivatives": True}, "du_dx"), (("u", "du_dt"), {"std": True}, None),
    (("extrapolated",), {}, "extrapolated")])
def test_channels_called_as_columns_of_answers_are_refused_before_these_replace_them(channels, asked, refused):
    about = Description("sensors", channels, ("x",))
    config = QueryConfig(run="runs/a", **asked)
    if refused is None:
        _names(about, config)
        return
    with pytest.raises(UserError, match=f"has a channel {refused}, which is the name of a column that answers add"):
        _names(about, config)
