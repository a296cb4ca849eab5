"""What points and values show of a domain, against fields and points that are known to have it or not."""

import h5py
import numpy as np
import pytest

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.evaluation.place import elsewhere_of
from inrflow.model.surrogate import Surrogate
from inrflow.training.problem import Problem

N, SERIES = 40, np.random.default_rng(0).standard_normal((6, 4, 2, 5)) / np.arange(1, 6)


def waves(x, length=2.0):
    """(S, T, N, 1) of a Fourier series of period `length`."""
    angles = 2 * np.pi / length * np.arange(1, 6)[:, None] * x
    return (SERIES[:, :, 0] @ np.sin(angles) + SERIES[:, :, 1] @ np.cos(angles))[..., None]


def cosines(x, length=2.0):
    """(S, T, N, 1) without slope at the walls 0 and `length`."""
    return (SERIES[:, :, 1] @ np.cos(np.pi / length * np.arange(1, 6)[:, None] * x))[..., None]


def sines(x, length=2.0):
    """(S, T, N, 1) that are 0 at the walls."""
    return (SERIES[:, :, 0] @ np.sin(np.pi / length * np.arange(1, 6)[:, None] * x))[..., None]


def pulse(x, length=2.0):
    """(S, T, N, 1) at rest at both ends."""
    return np.abs(SERIES[:, :, 0, :1, None]) * np.exp(-((x - 1) / 0.15) ** 2)[:, None]


def written(path, x, u, **attributes):
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": "grid",
                           "channels": [f"u{c}" for c in range(u.shape[-1])],
                           "coordinates": ["x", "y", "z"][: x.shape[-1]], **attributes})
        file["t"], file["x"], file["u"] = np.arange(u.shape[1], dtype=float), x, u.astype(np.float32)
    return path


def period(path, x, u, frames=None, **attributes):
    with TrajectoryFile(written(path, x, u, **attributes)) as file:
        return file.apparent_domain(frames).get("period")


X = np.arange(N) * 2.0 / N
QUICK = ("training.minutes=0.01", "recipe=reduced_order", "training.residual_field=off", "training.optimiser=adamw",
         "dynamics.memory=0", "dynamics.depth=0")
ENDS = np.linspace(0, 2.0, N + 1)
CENTRES = X + 1.0 / N


@pytest.mark.parametrize("x", [X, CENTRES, X - 7, ENDS], ids=["from 0", "centres", "from elsewhere", "end twice"])
def test_a_period_is_seen_wherever_the_grid_begins(tmp_path, x):
    assert period(tmp_path / "a.h5", x[:, None], waves(x)) == pytest.approx((2.0,))


@pytest.mark.parametrize("x", [X, CENTRES, ENDS], ids=["from 0", "centres of cells", "both walls"])
@pytest.mark.parametrize("field", [cosines, sines, pulse])
def test_between_walls_there_is_none(tmp_path, field, x):
    assert period(tmp_path / "a.h5", x[:, None], field(x)) is None


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_noise_hides_no_period_and_makes_none(tmp_path, noise):
    added = noise * np.random.default_rng(1).standard_normal((6, 4, N, 1))
    assert period(tmp_path / "a.h5", X[:, None], waves(X) + added) == pytest.approx((2.0,))
    assert period(tmp_path / "b.h5", CENTRES[:, None], cosines(CENTRES) + added) is None


@pytest.mark.parametrize("noise", [0.03, 0.05, 0.07])
def test_noise_at_fixed_ends_makes_no_period(tmp_path, noise):
    added = noise * np.random.default_rng(1).standard_normal((6, 4, N + 1, 1))
    assert period(tmp_path / "a.h5", ENDS[:, None], sines(ENDS) + added) is None


def test_each_axis_and_every_channel_counts(tmp_path):
    y = np.linspace(0, 1, 12)
    x = np.stack(np.meshgrid(X, y, indexing="ij"), -1).reshape(-1, 2)
    channel = (waves(X)[..., 0][..., None] * (1 + y**2)).reshape(6, 4, -1, 1)
    order = np.random.default_rng(2).permutation(len(x))  # points in any order
    assert period(tmp_path / "a.h5", x[order], channel[:, :, order]) == pytest.approx((2.0, 0.0))
    walled = (cosines(X)[..., 0][..., None] * (1 + y**2)).reshape(6, 4, -1, 1)
    assert period(tmp_path / "b.h5", x, np.concatenate([channel, walled], -1)) is None


def test_missing_values_and_places_that_never_change_do_not_hide_it(tmp_path):
    u = np.concatenate([waves(X), np.broadcast_to(2 + np.sin(np.pi * X)[:, None], (6, 4, N, 1)), np.ones((6, 4, N, 1))],
                       -1)
    u[0, 1, 3] = u[2, :, 0] = np.nan
    assert period(tmp_path / "a.h5", X[:, None], u) == pytest.approx((2.0,))


def test_what_cannot_be_told_is_not(tmp_path):
    u = waves(X)
    rough = np.random.default_rng(3).standard_normal(u.shape)
    assert period(tmp_path / "rough.h5", X[:, None], rough) is None
    assert period(tmp_path / "few.h5", X[:, None], u[:1]) is None  # four frames
    assert period(tmp_path / "scattered.h5", np.sort(np.random.default_rng(4).random((N, 1)) * 2, 0), u) is None
    assert period(tmp_path / "declared.h5", X[:, None], u, period=[0.0]) is None
    later = np.concatenate([cosines(CENTRES), u], 1)  # frames that are not looked at
    assert period(tmp_path / "later.h5", CENTRES[:, None], later, frames=4) is None


def test_training_takes_it_says_so_and_knows_files_of_the_same_box(tmp_path):
    path = written(tmp_path / "a.h5", X[:, None], waves(X))
    with pytest.warns(UserWarning, match=r"values continue across the ends of x \(2\): taken as periodic"):
        problem = Problem.open(path, *QUICK)
    assert problem.description.period == pytest.approx((2.0,)) and problem.has_harmonics
    inrflow.fit(problem, quiet=True).save(tmp_path / "run")
    again = Surrogate.load(tmp_path / "run")
    with TrajectoryFile(written(tmp_path / "one.h5", X[:, None], waves(X)[:1, :2])) as file:  # two frames show none
        assert elsewhere_of(again, file) is None
    half = Problem.open(path, "data.points=0.5", *QUICK)
    part = inrflow.fit(half, quiet=True)
    assert part.description.period is None  # parts of a grid show none
    with TrajectoryFile(path) as file:
        assert elsewhere_of(part, file) is None  # as little is declared of one as of the other


def test_points_of_a_unit_sphere_are_told_from_those_of_a_ball_and_of_a_circle(tmp_path):
    points = np.random.default_rng(5).standard_normal((60, 3))
    sphere = points / np.linalg.norm(points, axis=1)[:, None]
    u = points[None, None, :, :1] * np.ones((4, 3, 1, 1))
    circle = np.stack([np.cos(X * np.pi), np.sin(X * np.pi), 0 * X], 1)
    cases = {"sphere": (sphere, u), "cap": (sphere[sphere[:, 2] > 0.3], u[:, :, sphere[:, 2] > 0.3]),
             "ball": (points / 3, u), "larger": (6371 * sphere, u), "circle": (circle, waves(X)[..., :1])}
    shown = {}
    for name, (x, values) in cases.items():
        with TrajectoryFile(written(tmp_path / f"{name}.h5", x, values)) as file:
            shown[name] = file.apparent_domain().get("geometry")
    assert shown == {"sphere": "sphere", "cap": "sphere", "ball": None, "larger": None, "circle": None}
    with pytest.warns(UserWarning, match="taken as those of a sphere"):
        assert Problem.open(tmp_path / "sphere.h5").description.geometry == "sphere"
