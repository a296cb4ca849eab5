"""Training data from files: the observed part of every layout, its normalisation, and what stays in memory."""

import numpy as np
import pytest
import torch
from small_data import WAVE, field

from inrflow.data import source as source_module
from inrflow.data.batch import Normalisation
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import TrajectoryWriter, write_scattered, write_trajectories
from inrflow.data.source import TrajectorySource, affordable, coarser, observed_points, split_trajectories
from inrflow.errors import UserError

S, T, N, C = 4, 6, 9, 2


def shared_file(path, u=None):
    t, x, values = field(S, T, N, C)
    u = values if u is None else u
    write_trajectories(path, t, x, u, WAVE)
    return t, x, u


def padded_file(path, moving=False):
    """Trajectories with 6, 4, 6 and 3 frames and times and points of their own."""
    random = np.random.default_rng(1)
    rows = []
    with TrajectoryWriter(path, WAVE) as writer:
        for frames in (6, 4, 6, 3):
            t = np.cumsum(random.uniform(0.1, 1, frames))
            x = random.random((frames, N, 2) if moving else (N, 2))
            u = random.standard_normal((frames, N, C)).astype(np.float32)
            writer.append(t, x, u)
            rows.append((t, x, u))
    return rows


def opened(path, **options):
    return TrajectorySource(TrajectoryFile(path), **options)


# ---- layouts ----


def test_shared_points_are_held_once(tmp_path):
    t, x, u = shared_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5")
    batch = source.batch([2, 0])
    assert len(source) == S and source.shared_points and batch.x.shape == (1, 1, N, 2)
    np.testing.assert_array_equal(batch.u, u[[2, 0]])
    np.testing.assert_array_equal(batch.x[0, 0], x)
    np.testing.assert_array_equal(batch.t, np.tile(t, (2, 1)))
    assert source.observed_points(1) is None


def test_points_and_times_of_each_trajectory_with_padding(tmp_path):
    rows = padded_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5")
    batch = source.batch(np.array([1, 3, 0]))
    assert not source.shared_points and batch.x.shape == (3, 1, N, 2) and batch.u.shape == (3, T, N, C)
    for place, index in enumerate((1, 3, 0)):
        t, x, u = rows[index]
        np.testing.assert_array_equal(batch.t[place, :len(t)], t)
        np.testing.assert_array_equal(batch.x[place, 0], x)
        np.testing.assert_array_equal(batch.u[place, :len(t)], u)
        assert torch.isnan(batch.t[place, len(t):]).all() and torch.isnan(batch.u[place, len(t):]).all()
    assert batch.observed.sum(1).tolist() == [4, 3, 6]


def test_points_that_move_with_padding(tmp_path):
    rows = padded_file(tmp_path / "a.h5", moving=True)
    batch = opened(tmp_path / "a.h5").batch([0, 1, 3])
    assert batch.x.shape == (3, T, N, 2) and torch.isfinite(batch.x).all()
    for place, index in enumerate((0, 1, 3)):
        t, x, u = rows[index]
        np.testing.assert_array_equal(batch.x[place, :len(t)], x)
        np.testing.assert_array_equal(batch.u[place, :len(t)], u)
        assert torch.isnan(batch.u[place, len(t):]).all()


def test_scattered_rows_with_different_numbers_of_points(tmp_path):
    random = np.random.default_rng(2)
    counts = [[3, 5], [2, 2, 4]]  # points of each frame of each trajectory
    rows = [(s, 0.5 * k, *random.random(2)) for s, frames in enumerate(counts) for k, n in enumerate(frames)
            for _ in range(n)]
    number, t, x = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2:] for r in rows])
    u = random.standard_normal((len(rows), C)).astype(np.float32)
    write_scattered(tmp_path / "a.h5", number, t, x, u, WAVE)
    batch = opened(tmp_path / "a.h5").batch([0, 1])
    assert batch.u.shape == (2, 3, 5, C) and batch.x.shape == (2, 3, 5, 2) and torch.isfinite(batch.x).all()
    assert batch.observed.tolist() == [[True, True, False], [True, True, True]]
    for s, frames in enumerate(counts):
        for k, n in enumerate(frames):
            mine = (number == s) & (t == 0.5 * k)
            np.testing.assert_array_equal(batch.u[s, k, :n], u[mine])
            np.testing.assert_array_equal(batch.x[s, k, :n], x[mine])
            assert torch.isnan(batch.u[s, k, n:]).all()


# ---- the observed part ----


def test_each_trajectory_shows_its_own_observed_points(tmp_path):
    _, x, u = shared_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5", points=0.4, seed=5)
    batch = source.batch(range(S))
    assert not source.shared_points and batch.x.shape == (S, 1, 4, 2)
    subsets = [observed_points(5, s, N, 0.4) for s in range(S)]
    assert len({tuple(subset) for subset in subsets}) > 1
    for s, subset in enumerate(subsets):
        np.testing.assert_array_equal(source.observed_points(s), subset)
        np.testing.assert_array_equal(batch.u[s], u[s][:, subset])
        np.testing.assert_array_equal(batch.x[s, 0], x[subset])


def test_one_subset_for_all_keeps_points_shared(tmp_path):
    _, x, u = shared_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5", points=0.4, same_points=True, seed=5)
    batch, subset = source.batch([1, 3]), observed_points(5, 0, N, 0.4, same=True)
    assert source.shared_points and batch.x.shape == (1, 1, 4, 2)
    np.testing.assert_array_equal(batch.u, u[[1, 3]][:, :, subset])
    np.testing.assert_array_equal(batch.x[0, 0], x[subset])


def test_observed_subsets_of_moving_points(tmp_path):
    rows = padded_file(tmp_path / "a.h5", moving=True)
    batch = opened(tmp_path / "a.h5", points=0.5, seed=2).batch([1, 2])
    for place, index in enumerate((1, 2)):
        t, x, u = rows[index]
        subset = observed_points(2, index, N, 0.5)
        np.testing.assert_array_equal(batch.u[place, :len(t)], u[:, subset])
        np.testing.assert_array_equal(batch.x[place, :len(t)], x[:, subset])


def test_only_the_first_frames_are_used(tmp_path):
    t, _, u = shared_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5", frames=3)
    np.testing.assert_array_equal(source.batch([1]).u, u[1:2, :3])
    np.testing.assert_array_equal(source.times, np.tile(t[:3], (S, 1)))
    assert opened(tmp_path / "a.h5", frames=100).batch([1]).u.shape[1] == T


def test_the_frame_limit_meets_shorter_trajectories(tmp_path):
    rows = padded_file(tmp_path / "a.h5")
    batch = opened(tmp_path / "a.h5", frames=4).batch(range(S))
    assert batch.observed.sum(1).tolist() == [4, 4, 4, 3]
    np.testing.assert_array_equal(batch.u[3, :3], rows[3][2])


@pytest.mark.parametrize("frames", [1, 0, -3])
def test_fewer_than_two_frames_are_refused(tmp_path, frames):
    shared_file(tmp_path / "a.h5")
    with pytest.raises(UserError, match="data.frames"):
        opened(tmp_path / "a.h5", frames=frames)


def test_a_file_with_one_frame_is_refused(tmp_path):
    t, x, u = field(2, 1, 3, 2)
    write_trajectories(tmp_path / "a.h5", t, x, u, WAVE)
    with pytest.raises(UserError, match="1 frame"):
        opened(tmp_path / "a.h5")


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_impossible_fractions_of_points_are_refused(tmp_path, fraction):
    shared_file(tmp_path / "a.h5")
    with pytest.raises(UserError, match="fraction"):
        opened(tmp_path / "a.h5", points=fraction)


# ---- memory ----


class Counted:
    """A file that counts what is read from it."""

    def __init__(self, path):
        self.file, self.reads = TrajectoryFile(path), []

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, trajectory, *rest):
        self.reads.append(trajectory)
        return self.file.read(trajectory, *rest)


def test_small_files_are_read_once_and_only_as_asked_for(tmp_path):
    shared_file(tmp_path / "a.h5")
    counted = Counted(tmp_path / "a.h5")
    source = TrajectorySource(counted)
    assert counted.reads == []
    first = source.batch([1, 2])
    first.u[:] = 7.0  # what a batch goes through leaves the kept values alone
    again = source.batch([2, 1])
    assert counted.reads == [1, 2] and not (again.u == 7.0).any()


def test_a_batch_of_one_trajectory_is_no_view_of_the_kept_values(tmp_path):
    _, _, u = shared_file(tmp_path / "a.h5")
    source = opened(tmp_path / "a.h5")
    for normalised in (True, False):
        batch = source.batch([0], normalised=normalised)
        batch.u[:], batch.t[:] = 7.0, 7.0
        np.testing.assert_array_equal(source.batch([0], normalised=False).u[0], u[0])
        assert not (source.batch([0]).t == 7.0).any()


def test_trajectories_beyond_the_limit_are_read_as_asked_for(tmp_path, monkeypatch):
    _, _, u = shared_file(tmp_path / "a.h5")
    size = T * N * C * 4  # of a trajectory
    for limit, reads in ((2 * size, [1, 2]), (2 * size - 1, [1, 2, 2])):
        monkeypatch.setattr(source_module, "_CACHE_BYTES", limit)
        counted = Counted(tmp_path / "a.h5")
        source = TrajectorySource(counted)
        for _ in range(2):
            np.testing.assert_array_equal(source.batch([1, 2]).u, u[1:3])
        assert counted.reads == reads


def test_the_limit_counts_what_is_used_of_a_file(tmp_path, monkeypatch):
    shared_file(tmp_path / "a.h5")
    monkeypatch.setattr(source_module, "_CACHE_BYTES", S * 3 * 4 * C * 4)
    counted = Counted(tmp_path / "a.h5")
    source = TrajectorySource(counted, frames=3, points=0.4)  # 4 of 9 points
    source.batch([0]), source.batch([0])
    assert counted.reads == [0]


# ---- normalisation ----


def test_normalisation_is_that_of_all_observed_values_of_the_named_trajectories(tmp_path):
    _, _, u = field(S, T, N, C)
    u = u * [3.0, 1e-3] + [1e3, -0.5]  # a large mean must not swallow the deviation
    u = u.astype(np.float32)
    u[np.random.default_rng(0).random(u.shape) < 0.3] = np.nan
    u[0, 2] = np.nan
    shared_file(tmp_path / "a.h5", u)
    source = opened(tmp_path / "a.h5", frames=5)
    found = source.fit_normalisation([0, 2, 3])
    chosen = u[[0, 2, 3], :5].reshape(-1, C).astype(np.float64)
    np.testing.assert_allclose(found.mean, np.nanmean(chosen, 0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.nanstd(chosen, 0), rtol=1e-5)
    assert source.normalisation is found
    batch, plain = source.batch([0, 2, 3]), source.batch([0, 2, 3], normalised=False)
    np.testing.assert_array_equal(plain.u, u[[0, 2, 3], :5])
    values = batch.u.reshape(-1, C).double().numpy()
    np.testing.assert_allclose(np.nanmean(values, 0), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(values, 0), 1, atol=1e-4)
    assert torch.equal(torch.isnan(batch.u), torch.isnan(plain.u))


def test_normalisation_sees_observed_points_only(tmp_path):
    _, _, u = shared_file(tmp_path / "a.h5")
    found = opened(tmp_path / "a.h5", points=0.4, seed=5).fit_normalisation(range(S))
    seen = np.concatenate([u[s][:, observed_points(5, s, N, 0.4)].reshape(-1, C) for s in range(S)])
    np.testing.assert_allclose(found.mean, seen.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.scale, seen.std(0), rtol=1e-5)


def test_normalisation_does_not_depend_on_the_first_trajectory(tmp_path):
    _, _, u = field(S, T, N, C)
    u[0, ..., 0] = np.nan  # not observed there at all
    u[1:] += 1e4
    shared_file(tmp_path / "a.h5", u)
    found = opened(tmp_path / "a.h5").fit_normalisation(range(S))
    flat = u.reshape(-1, C).astype(np.float64)
    np.testing.assert_allclose(found.mean, np.nanmean(flat, 0), rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.nanstd(flat, 0), rtol=1e-5)


def test_a_constant_channel_keeps_its_unit(tmp_path):
    _, _, u = field(S, T, N, C)
    u[..., 1] = 0.1
    shared_file(tmp_path / "a.h5", u)
    source = opened(tmp_path / "a.h5")
    found = source.fit_normalisation(range(S))
    assert float(found.scale[1]) == 1.0 and float(found.mean[1]) == pytest.approx(0.1)
    assert torch.isfinite(source.batch([0]).u).all() and float(source.batch([0]).u[..., 1].abs().max()) < 1e-6


def test_a_channel_without_an_observed_value_is_refused_by_name(tmp_path):
    _, _, u = field(S, T, N, C)
    u[:, :4, :, 1] = np.nan
    shared_file(tmp_path / "a.h5", u)
    with pytest.raises(UserError, match="'v'"):
        opened(tmp_path / "a.h5", frames=4).fit_normalisation(range(S))


def test_normalisation_is_inverted():
    one = Normalisation(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]))
    u = torch.randn(3, 4, 2)
    torch.testing.assert_close(one.apply(u), (u - torch.tensor([2.0, -1.0])) / torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(one.invert(one.apply(u)), u)
    assert one.apply(u.double()).dtype == torch.float64


def test_observed_points_are_a_function_of_seed_trajectory_and_fraction():
    chosen = observed_points(3, 5, 1000, 0.25)
    np.testing.assert_array_equal(chosen, observed_points(3, 5, 1000, 0.25))
    assert len(chosen) == 250 and (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < 1000
    assert not np.array_equal(chosen, observed_points(3, 6, 1000, 0.25))
    assert not np.array_equal(chosen, observed_points(4, 5, 1000, 0.25))


def test_same_points_for_all_trajectories_on_request():
    first, other = (observed_points(3, trajectory, 100, 0.3, same=True) for trajectory in (5, 9))
    np.testing.assert_array_equal(first, other)


def test_every_point_is_equally_likely():
    counts = np.zeros(20)
    for trajectory in range(2000):
        counts[observed_points(0, trajectory, 20, 0.5)] += 1
    assert np.abs(counts / 2000 - 0.5).max() < 0.05  # 4.5 standard deviations


def test_at_least_one_point_and_all_of_them_at_one():
    assert len(observed_points(0, 0, 10, 0.001)) == 1
    np.testing.assert_array_equal(observed_points(0, 0, 10, 1.0), np.arange(10))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_other_fractions_are_refused(fraction):
    with pytest.raises(UserError, match="fraction"):
        observed_points(0, 0, 10, fraction)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64])
def test_a_split_holds_every_trajectory_once_and_one_to_validate(count):
    train, validation = split_trajectories(count, 0.2, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(count))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all() and len(train) >= 1
    assert len(validation) == (0 if count == 1 else max(1, round(0.2 * count)))
    again = split_trajectories(count, 0.2, seed=1)
    np.testing.assert_array_equal(train, again[0])


def test_split_depends_on_the_seed_and_refuses_nonsense():
    assert not np.array_equal(split_trajectories(64, seed=0)[1], split_trajectories(64, seed=1)[1])
    assert len(split_trajectories(5, 0.0)[1]) == 0
    with pytest.raises(UserError, match="fraction"):
        split_trajectories(5, 1.0)
    for call in (lambda: split_trajectories(5, seed=-1), lambda: observed_points(-1, 0, 10, 0.5)):
        with pytest.raises(UserError, match="seed is -1"):
            call()
    with pytest.raises(UserError, match="trajectories"):
        split_trajectories(0)


def test_amounts_are_told_from_other_channels(tmp_path):
    random = np.random.default_rng(7)
    rain = np.maximum(random.standard_normal((40, 30)) - 1, 0)
    flow = np.exp(random.standard_normal((40, 30)))
    near = random.uniform(0.01, 1, (40, 30))  # positive, but not skewed
    warm = 280 + 3 * np.exp(0.3 * random.standard_normal((40, 30)))  # skewed, far from 0
    drop = random.standard_normal((40, 30)) ** 3 + 0.01  # negative, too
    u = np.stack([rain, flow, near, warm, drop, flow], -1)
    u[::7, 3] = np.nan
    about = Description("six", ("rain", "flow", "near", "warm", "drop", "T (°C)"), ("x",))  # the last may freeze
    write_trajectories(tmp_path / "six.h5", np.arange(40.0), np.linspace(0, 1, 30)[:, None], u[None], about)
    found = opened(tmp_path / "six.h5").fit_normalisation([0])
    assert found.least is not None and found.least.tolist() == [0.0, 0.0, *4 * [-np.inf]]
    assert found.possible(np.full((2, 6), -1.0)).tolist() == [[0, 0, -1, -1, -1, -1]] * 2


def test_of_trajectories_whose_points_move_fewer_are_kept(tmp_path):
    x = np.random.default_rng(0).random((40, 10, 512, 2))
    write_trajectories(tmp_path / "a.h5", np.arange(10.0), x, np.ones((40, 10, 512, 2), np.float32), WAVE)
    with TrajectoryFile(tmp_path / "a.h5") as file:
        source, rows = TrajectorySource(file), np.arange(40)
        with pytest.warns(UserWarning, match="24 of 40 trajectories"):  # 2e6 / 8 values
            assert sum(map(len, affordable(source, rows[:30], rows[30:], None, 0.1)[1:])) == 24
        assert sum(map(len, affordable(source, rows[:30], rows[30:], None, 10.0)[1:])) == 40


def test_of_grids_a_coarser_grid_is_kept_and_of_scattered_points_some(tmp_path, monkeypatch):
    axes = np.linspace(0, 1, 12, endpoint=False), np.linspace(0, 1, 8, endpoint=False)
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)[np.random.default_rng(0).permutation(96)]
    kept = coarser(x, 0.6)
    assert len(kept) == 48 and np.unique(x[kept, 0]).tolist() == axes[0][::2].tolist() and (np.diff(kept) > 0).all()
    assert len(coarser(x, 0.3)) == 24 and coarser(x, 0.02) is None  # of 3 levels, every second is no grid of the period
    assert coarser(x[:95], 0.5) is None and coarser(np.concatenate([x[:95], x[:1]]), 0.5) is None
    write_trajectories(tmp_path / "a.h5", np.arange(6.0), x, np.ones((30, 6, 96, 2), np.float32), WAVE)
    monkeypatch.setattr(source_module, "_FEWEST_VALUES", 0.7 * 30 * 6 * 96 * 2)
    monkeypatch.setattr(source_module, "_FEWEST_POINTS", 8)
    monkeypatch.setattr(source_module, "_FEWEST_TRAJECTORIES", 30)
    with TrajectoryFile(tmp_path / "a.h5") as file, pytest.warns(UserWarning, match="48 of 96 points"):
        source, train, held = affordable(TrajectorySource(file), np.arange(24), np.arange(24, 30), None, 0.001)
        batch = source.batch(train[:2])
        np.testing.assert_array_equal(batch.x[0, 0], x[kept])
        assert batch.u.shape == (2, 6, 48, 2) and source.shared_points and len(held) == 6
