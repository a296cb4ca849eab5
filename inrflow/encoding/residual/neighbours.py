"""Kriging: Gaussian fields conditioned on nearby observations.

Few fixed places: conditioned on all places at the nearest times, the same set between two times, so that predictions
are smooth in space. Moving sensors, or values with times of their own: on many more observations before and after, if
these span the decay time of the field, as the nearest ones are those of a single path, which screen off the others.
Otherwise on the nearest observations, in units of the covariance's own lengths and times (Vecchia, 1988; Katzfuss and
Guinness, 2021), which is exact if these are all; between frames of many places, from two before and two after.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from inrflow.encoding.residual.covariance import Covariance

NEIGHBOURS, _COMPARED = 32, 16  # neighbours in predictions, and in the search for doubtful values
_OF_PLACE = 8  # neighbours, with a covariance that correlates values of the same place alone
MOST_OF_TIME = 150  # most places of a small network
_WINDOW = 240  # observations in a window of times
_TILE, _ASKED = 600, 4096  # observations in a segment of paths (its neighbours join it); predictions at once
_LASTS = 2.0  # largest ratio of a field's decay time to the time that segments span
_ROWS_SEEN = 2000  # observations in a test of whether places recur
_LAYERS = 2  # frames before and after a time between frames from which neighbours are taken
_BLOCK = 1 << 17  # numbers in the covariance matrices of a block, which stay in the cache
_JITTER = 1e-9
_ROUNDS, _WORST, _NOTHING, _NO_VALUE = 20, 0.7, 3.0, 1e4  # of the search for doubtful values
_MOST_JOINT = 2500  # observations on which a joint covariance is conditioned


class Sites:
    """Observations at times and embedded places, with a search for those on which a prediction is conditioned.

    Args:
        t: (R,). y: (R, p). covariance: of the field. noise: (R,) variance added to the nugget, for doubtful values.
    """

    def __init__(self, t: np.ndarray, y: np.ndarray, covariance: Covariance, noise: np.ndarray | None = None) -> None:
        self.t, self.y, self.covariance = t, y, covariance
        with torch.no_grad():
            self.own = float(covariance.nugget + _JITTER * covariance.variance)
        self.noise = torch.as_tensor(self.own + (np.zeros(len(t)) if noise is None else noise))
        self.times, counts = np.unique(t, return_counts=True)
        few = len(t) > 0 and int(counts.max()) <= MOST_OF_TIME
        self._stay = few and len(t) >= 2 * len(self.times) and len(
            np.unique(y[:: -(-len(y) // _ROWS_SEEN)], axis=0)) <= 2 * MOST_OF_TIME
        self._order = np.argsort(t, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self.windowed = self._stay or (few and self._tiles_suffice())
        self._tree = None if self.windowed else cKDTree(covariance.metric(y, t))
        self._frames: dict[int, cKDTree] = {}  # trees of single times

    def _tiles_suffice(self) -> bool:
        """Whether segments of paths span the decay time of the field, or have many observations within a length."""
        middle = len(self.t) // 2
        near = self._order[max(middle - 3 * _TILE // 2, 0) : middle + 3 * _TILE // 2]
        if len(near) == len(self.t) or _LASTS * np.ptp(self.t[near]) >= self.covariance.lasting:
            return True
        scaled = self.covariance.metric(self.y[near], self.t[near])[:, :-1]
        return bool(np.median(cKDTree(scaled).query_ball_point(scaled, 1.0, return_length=True)) > NEIGHBOURS)

    def window(self, interval: int) -> np.ndarray:
        """Indices of the observations at the times around the interval that ends at time number `interval`."""
        first = last = min(interval, len(self.times) - 1)  # grows to both sides in turn, to the nearer one
        middle = 0.5 * (self.times[max(interval - 1, 0)] + self.times[first])
        while self._starts[last + 1] - self._starts[first] < _WINDOW:
            before = middle - self.times[first - 1] if first else np.inf
            after = self.times[last + 1] - middle if last + 1 < len(self.times) else np.inf
            if np.isinf(before) and np.isinf(after):
                break
            first, last = (first - 1, last) if before <= after else (first, last + 1)
        return self._order[self._starts[first] : self._starts[last + 1]]

    def windows(self, t: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Groups of times (Q,) in the same interval between observed times, or the same segment of paths: their
        indices, and those of the observations in their window."""
        intervals = np.searchsorted(self.times, t)
        if not self._stay:
            intervals = np.minimum(self._starts[intervals], len(self.t) - 1) // _TILE
        order = np.argsort(intervals, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(intervals[order])) + 1):
            if len(rows):
                number = int(intervals[rows[0]])
                near = self.window(number) if self._stay else self._order[
                    max(number - 1, 0) * _TILE : (number + 2) * _TILE]
                yield from ((rows[k : k + _ASKED], near) for k in range(0, len(rows), _ASKED))

    def tiles(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Observations `rows` (Q,) by successive windows of time: positions in `rows`, and the window's."""
        tile = np.empty(len(self.t), dtype=np.int64)
        tile[self._order] = np.repeat(self._starts[:-1] // _WINDOW, np.diff(self._starts))
        for number in np.unique(tile[rows]):
            yield np.flatnonzero(tile[rows] == number), np.flatnonzero(tile == number)

    def near(self, t: np.ndarray, y: np.ndarray, count: int) -> np.ndarray:
        """Indices (Q, count) of the nearest observations; between frames, evenly from the frames before and after."""
        tree, asked = self._tree or cKDTree(self.covariance.metric(self.y, self.t)), self.covariance.metric(y, t)
        found: np.ndarray = tree.query(asked, count)[1].reshape(len(t), count)
        interval = np.searchsorted(self.times, t)
        between = (interval > 0) & (interval < len(self.times)) & ~np.isin(t, self.times)
        for k in np.unique(interval[between]) if len(self.t) >= NEIGHBOURS * len(self.times) else ():
            layers = range(max(k - _LAYERS, 0), min(k + _LAYERS, len(self.times)))
            if min(self._starts[one + 1] - self._starts[one] for one in layers) >= count:
                rows, shares = np.flatnonzero(between & (interval == k)), np.array_split(np.arange(count), len(layers))
                for one, share in zip(layers, shares, strict=True):
                    found[np.ix_(rows, share)] = self._near_at(one, asked[rows], len(share))
        return found

    def _near_at(self, number: int, asked: np.ndarray, count: int) -> np.ndarray:
        """Indices (Q, count) of the nearest observations at time number `number`."""
        rows = self._order[self._starts[number] : self._starts[number + 1]]
        if number not in self._frames:
            self._frames[number] = cKDTree(self.covariance.metric(self.y[rows], self.t[rows]))
        return rows[self._frames[number].query(asked, count)[1].reshape(len(asked), count)]

    def factor(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Times and places of observations (..., m), and the Cholesky factor of the covariance of their values."""
        t, y = torch.as_tensor(self.t)[rows], torch.as_tensor(self.y)[rows]
        between = self.covariance(t, y, t, y) + torch.diag_embed(self.noise[rows])
        return t, y, torch.linalg.cholesky(between)


def krige(
    sites: Sites, values: Tensor, t: np.ndarray, y: np.ndarray, count: int = NEIGHBOURS
) -> tuple[Tensor, Tensor]:
    """Kriging means and variances (Q,) of the field at times (Q,) and embedded places (Q, p), given observed values
    (R,).

    count: number of neighbours, where there are no windows.
    """
    mean, variance = torch.empty(2, len(t), dtype=torch.float64)
    covariance, asked = sites.covariance, (torch.as_tensor(t), torch.as_tensor(y))
    count = count if np.isfinite(covariance.doubtful) else min(count, _OF_PLACE)
    with torch.no_grad():
        for rows, near in _parts(sites, t, y, count):
            near_t, near_y, factor = sites.factor(near)
            some = [(part[rows] if sites.windowed else part[rows][:, None]) for part in asked]
            across = covariance(near_t, near_y, *some)
            half = torch.linalg.solve_triangular(factor, across, upper=False)
            white = torch.linalg.solve_triangular(factor, values[near][..., None], upper=False)
            mean[rows] = (half.mT @ white)[..., 0].reshape(-1)
            prior = covariance.variance_at(asked[1][rows])
            variance[rows] = (prior - half.square().sum(-2).reshape(-1)).clamp(min=_JITTER * float(covariance.variance))
    return mean, variance


def weights_of_places(covariance: Covariance, known: np.ndarray, asked: np.ndarray) -> Tensor:
    """Simple kriging weights (Q, P) of values at embedded places (P, p) for predictions at (Q, p), all at one time."""
    near, far, t = torch.as_tensor(known), torch.as_tensor(asked), torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        own = covariance.nugget + _JITTER * covariance.variance + covariance.loudness(near)
        between = covariance(t.expand(len(near)), near, t.expand(len(near)), near) + torch.diag_embed(own)
        across = covariance(t.expand(len(near)), near, t.expand(len(far)), far)
        return torch.cholesky_solve(across, torch.linalg.cholesky(between)).T


def _parts(sites: Sites, t: np.ndarray, y: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of predictions (indices), and observations on which they are conditioned: (m,) in common, or (Q, m)."""
    if sites.windowed:
        yield from sites.windows(t)
        return
    count = min(count, len(sites.t))
    length = max(1, _BLOCK // max(1, count * count))
    for start in range(0, len(t), length):
        rows = np.arange(start, min(start + length, len(t)))
        yield rows, sites.near(t[rows], y[rows], count)


def joint(sites: Sites, t: np.ndarray, y: np.ndarray) -> Tensor:
    """Joint posterior covariance (Q, Q) of the field at times (Q,) and embedded places (Q, p), given the union of the
    observations on which the predictions are conditioned; if these are too many, of the nearest ones to each."""
    covariance, times, places = sites.covariance, torch.as_tensor(t), torch.as_tensor(y)
    with torch.no_grad():
        own = covariance(times, places, times, places)
        near = np.unique(np.concatenate([part.reshape(-1) for _, part in _parts(sites, t, y, NEIGHBOURS)]))
        count = min(NEIGHBOURS, len(sites.t))
        while len(near) > _MOST_JOINT and count > 1:
            count //= 2
            near = np.unique(sites.near(t, y, count))
        near_t, near_y, factor = sites.factor(near)
        half = torch.linalg.solve_triangular(factor, covariance(near_t, near_y, times, places), upper=False)
        return own - half.mT @ half


def left_out(sites: Sites, values: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Leave-one-out errors (Q,) of observations `rows` (Q,) of values (R,), and their variances with the observation
    noise (Dubrule, 1983): in closed form, within windows or the neighbours of each."""
    error, variance = torch.empty(2, len(rows), dtype=torch.float64)
    with torch.no_grad():
        for some, near in _around(sites, rows):
            inverse = torch.cholesky_inverse(sites.factor(near)[2])
            weighted, diagonal = (inverse @ values[near][..., None])[..., 0], inverse.diagonal(dim1=-1, dim2=-2)
            if sites.windowed:
                place = torch.as_tensor(np.searchsorted(near, rows[some]))
                own, precision = weighted[place], diagonal[place]
            else:
                place = torch.as_tensor((near == rows[some][:, None]).argmax(1))[:, None]
                own, precision = weighted.gather(1, place)[:, 0], diagonal.gather(1, place)[:, 0]
            error[some], variance[some] = own / precision, 1 / precision
    return error, variance


def _around(sites: Sites, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of observations `rows` (Q,): positions, and observations that predict them, with themselves."""
    return sites.tiles(rows) if sites.windowed else _parts(sites, sites.t[rows], sites.y[rows], _COMPARED)


def outlier_noise(sites: Sites, values: Tensor) -> np.ndarray:
    """Variances (R,) added to the nugget so that no value has a leave-one-out error beyond `covariance.doubtful`
    standard deviations (a Huber weight), the largest errors first, as they affect their neighbours. Values beyond three
    times this threshold get no weight."""
    noise, rows, threshold = np.zeros(len(values)), np.arange(len(values)), sites.covariance.doubtful
    for _ in range(_ROUNDS):
        now = Sites(sites.t, sites.y, sites.covariance, noise)
        error, variance = (v.numpy() for v in left_out(now, values, rows))
        without = np.maximum(variance - noise[rows], 1e-300)
        z, known = np.abs(error) / np.sqrt(without), noise[rows] > 0
        beyond = np.where(z > _NOTHING * threshold, _NO_VALUE * error**2,
                          np.maximum((error / threshold) ** 2 - without, 0.0))
        new = np.zeros(len(rows), dtype=bool)
        open_ = np.flatnonzero(~known & (z > threshold))
        score = np.zeros(len(values))
        score[rows[open_]] = z[open_]
        for some, near in _around(sites, rows[open_]):
            new[open_[some]] = z[open_[some]] >= _WORST * score[near].max(-1)
        if not new.any():
            noise[rows[known]] = beyond[known]
            break
        changed = known | new
        noise[rows[changed]] = beyond[changed]
        rows = rows[(z > threshold) | changed]
    return noise
