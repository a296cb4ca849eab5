"""Values of a channel, and blocks of them for composite likelihoods of covariances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from inrflow.encoding.residual.covariance import Covariance

_BLOCKS, _VALUES = 14, 110  # blocks of a likelihood; values of each where these hardly share times
_OF_FRAMES, _FEWEST = 230, 4  # most values of a block of frames; fewest blocks, where larger ones are fewer
_ONE_TIME = 400  # values of a block, where there is a single time
_FEWEST_TIMES = 8  # for an estimate of the smoothness in time
_FRAMES = 4  # mean number of values at a time from which on blocks are of whole frames
FEW = 150  # places of a small network
_LOUD, _LOUD_ROUNDS, _OFTEN_SEEN = 3.5, 4, 10  # ratio to the expected variance; iterations; least values of a place
_JITTER, _RESCUE = 1e-8, 1e-6  # of the variance: of values; of a process


@dataclass
class Samples:
    """Values of one channel.

    Attributes:
        t: (R,) times, those of different trajectories far apart. y: (R, p). place: (R,) identities. value: (R,).
        velocity: (m,) along the moving coordinates, where block matching gives one.
    """

    t: np.ndarray
    y: np.ndarray
    place: np.ndarray
    value: np.ndarray
    velocity: np.ndarray | None = None


@dataclass
class Blocks:
    """Values in B blocks of m: t (B, m), y (B, m, p), value (B, m), place (B, m), `missing` (B, m) marks padding;
    floor, noise (B, m): variances that are added to the nugget."""

    t: Tensor
    y: Tensor
    value: Tensor
    place: Tensor
    missing: Tensor
    floor: float
    noise: Tensor | float = 0.0

    def factor(self, covariance: Covariance) -> Tensor:
        """Cholesky factors (B, m, m) of the covariances of the values."""
        off = self.missing[:, :, None] | self.missing[:, None]
        own = torch.where(self.missing, 1.0, covariance.nugget + self.floor + self.noise + covariance.loudness(self.y))
        between = covariance(self.t, self.y, self.t, self.y).masked_fill(off, 0.0)
        factor, failed = torch.linalg.cholesky_ex(between + torch.diag_embed(own))
        if bool(failed.any()):  # singular up to rounding
            factor = torch.linalg.cholesky(between + torch.diag_embed(own + _RESCUE * covariance.variance))
        return factor

    def negative_log_density(self, covariance: Covariance, factor: Tensor | None = None) -> Tensor:
        """Negative mean log density of a value."""
        factor = self.factor(covariance) if factor is None else factor
        white = torch.linalg.solve_triangular(factor, self.value[..., None], upper=False)
        total = 0.5 * white.square().sum() + factor.diagonal(dim1=1, dim2=2).log().sum()
        return total / (~self.missing).sum() + 0.5 * np.log(2 * np.pi)

    def places_left_out(self, covariance: Covariance, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Errors (V,) of values predicted from all values of other places in their block, and their variances."""
        inverse = torch.cholesky_inverse(self.factor(covariance) if factor is None else factor)
        weighted, (number, rows, none) = (inverse @ self.value[..., None])[..., 0], self._places
        own = inverse[number[:, None, None], rows[:, :, None], rows[:, None]]
        off = none[:, :, None] | none[:, None]
        variance = torch.linalg.inv(own.masked_fill(off, 0.0) + torch.diag_embed(none.double()))
        errors = variance @ weighted[number[:, None], rows].masked_fill(none, 0.0)[..., None]
        return errors[..., 0][~none], variance.diagonal(dim1=1, dim2=2)[~none].clamp(min=self.floor)

    @property
    def place_order(self) -> tuple[Tensor, Tensor]:
        """Block and position (V,) of each value, in the order of `places_left_out`."""
        number, rows, none = self._places
        return number[:, None].expand(rows.shape)[~none], rows[~none]

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each place in each block (G,): its block, positions of its values (G, k), and padding (G, k)."""
        known = ~self.missing
        number, row = known.nonzero().T
        group = torch.unique(torch.stack([number, self.place[known]]), dim=1, return_inverse=True)[1]
        order = torch.argsort(group, stable=True)
        counts = torch.bincount(group)
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[group[order]]
        shape = len(counts), int(counts.max())
        rows, none = torch.zeros(shape).long(), torch.ones(shape).bool()
        rows[group[order], rank], none[group[order], rank] = row[order], False
        return number[order][rank == 0], rows, none

    def with_noisy_places(self, covariance: Covariance) -> Covariance:
        """The covariance with the loud places: those with errors far larger than their variance by other places."""
        points = self.y[self.place_order]
        y, which, count = torch.unique(points, dim=0, return_inverse=True, return_counts=True)
        own = y.new_zeros(len(y))
        for _ in range(_LOUD_ROUNDS if covariance.form.site else 0):  # as it also affects its neighbours
            with torch.no_grad():
                errors, variances = self.places_left_out(covariance)
            missed, due = (torch.bincount(which, one) / count for one in (errors.square(), variances))
            due = due - own
            own = torch.where((missed > _LOUD * due) & (count >= _OFTEN_SEEN), missed - due, 0.0)
            covariance = replace(covariance, loud=torch.cat([y, own[:, None]], 1)[own > 0])
        return covariance

    def left_out_log_loss(self, covariance: Covariance) -> Tensor:
        """Negative mean log density (P,) of the values of each place, predicted from other places, up to a constant."""
        with torch.no_grad():
            errors, variances = self.places_left_out(covariance)
            place = torch.unique(self.place[self.place_order], return_inverse=True)[1]
            count = torch.bincount(place)
            return torch.bincount(place, errors.square() / variances + variances.log()) / (2 * count)

    def misfit(self, covariance: Covariance) -> Tensor:
        """Mean of the negative log densities of values jointly and of values predicted from other places."""
        factor = self.factor(covariance)
        errors, variances = self.places_left_out(covariance, factor)
        return 0.5 * self.negative_log_density(covariance,
                                               factor) + 0.25 * (errors.square() / variances + variances.log()).mean()


def blocks_of(samples: Samples, random: np.random.Generator) -> Blocks:
    """Random blocks of values at two successive times and a later one, whose lag is log-uniform: all places of a small
    network, else as many as small blocks allow, mostly neighbours, which determine motion; of values that hardly share
    times, the nearest ones to a random value."""
    t, y, place = samples.t, samples.y, samples.place
    times, frame = np.unique(t, return_inverse=True)
    frame = frame.reshape(-1)
    rows: list[np.ndarray] = []
    if len(times) == 1:
        rows = [random.permutation(len(t))[:_ONE_TIME]]
    elif share_times(samples):
        order = np.argsort(frame, kind="stable")
        starts = np.searchsorted(frame[order], np.arange(len(times) + 1))
        count = len(np.unique(place))
        values = min(_OF_FRAMES, max(_VALUES, 3 * count)) if count <= FEW else _VALUES
        for _ in range(max(_FEWEST, round(_BLOCKS * (_VALUES / values) ** 2))):  # which take as long
            first = int(random.integers(len(times) - 1))
            late = int(np.exp(random.uniform(np.log(2), np.log(max(3.0, len(times) / 4)))))
            chosen = [k for k in (first, first + 1, first + late) if k < len(times)]
            inside = np.concatenate([order[starts[k] : starts[k + 1]] for k in chosen])
            rows.append(_some_places(y, place, inside, max(3, values // len(chosen)), random))
    else:
        scale = np.concatenate([y / (np.ptp(y, 0).max() or 1.0), t[:, None] / (np.ptp(t) or 1.0)], 1)
        tree, count = cKDTree(scale), min(_VALUES, len(t))
        rows = [tree.query(scale[row], count)[1].reshape(-1) for row in random.integers(len(t), size=_BLOCKS)]
    return blocks_with(samples, rows)


def share_times(samples: Samples) -> bool:
    """Whether there are values of several places at most times."""
    both = np.unique(np.stack([samples.t, samples.place], 1), axis=0)
    return len(both) >= _FRAMES * len(np.unique(samples.t))


def step_of(samples: Samples) -> float:
    """Time step of values; if these hardly share times, the time that half a block of them spans."""
    times = np.unique(samples.t)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return step if share_times(samples) else step * max(1.0, _VALUES / 2 * len(times) / len(samples.t))


def frames_of(samples: Samples, seed: int) -> Blocks | None:
    """Random blocks of three successive times, with times in the role of places, each predicted from the other two.
    None where values hardly share times."""
    times, frame = np.unique(samples.t, return_inverse=True)
    if len(times) < _FEWEST_TIMES or not share_times(samples):
        return None
    random, frame = np.random.default_rng([seed, 19]), frame.reshape(-1)
    firsts = random.permutation(len(times) - 2)[:_BLOCKS]
    rows = [_some_places(samples.y, samples.place, np.flatnonzero((frame >= k) & (frame < k + 3)), _VALUES // 3, random)
            for k in firsts]
    return blocks_with(replace(samples, place=frame), rows)


def blocks_with(samples: Samples, rows: list[np.ndarray], noise: np.ndarray | None = None) -> Blocks:
    """Blocks of given rows (m,) of the values, with optional variances (R,) that are added to the nugget."""
    index = np.full((len(rows), max(map(len, rows))), -1)
    for number, own in enumerate(rows):
        index[number, : len(own)] = own
    missing = torch.as_tensor(index < 0)
    identity = np.unique(samples.place, return_inverse=True)[1].reshape(-1)
    t, y, place, value = (torch.as_tensor(one)[index] for one in (samples.t, samples.y, identity, samples.value))
    return Blocks(t, y, value.masked_fill(missing, 0.0), place, missing, _JITTER * variance_of(samples),
                  0.0 if noise is None else torch.as_tensor(noise)[index])


def _some_places(
    y: np.ndarray, place: np.ndarray, rows: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Rows of `rows` (R,) at `count` places, two thirds of which are the nearest to a random one."""
    distinct, first = np.unique(place[rows], return_index=True)
    if len(distinct) <= count:
        return rows
    where = y[rows[first]]
    away = ((where - where[random.integers(len(where))]) ** 2).sum(1)
    order = np.argsort(away)
    near = 2 * count // 3
    kept = np.concatenate([order[:near], random.permutation(order[near:])[: count - near]])
    return rows[np.isin(place[rows], distinct[kept])]


def variance_of(samples: Samples) -> float:
    """Variance of the values."""
    return float(samples.value.var()) + 1e-12
