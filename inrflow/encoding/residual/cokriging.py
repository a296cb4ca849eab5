"""Collocated cokriging: a correction of kriging by other channels, where these were observed and the channel was not.

Kriging errors of channels are correlated: a place warmer than predicted from those around it is drier, too. Errors of
the other channels' processes there, each conditioned on its values where the channel was observed, predict that of the
channel, by covariances of leave-one-out errors of single values and of whole places (Dubrule, 1983). Where covariances
of channels are proportional this is cokriging; else it is collocated cokriging (Xu, Tran, Srivastava and Journel,
1992)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inrflow.encoding.residual.blocks import Blocks, Samples, blocks_with
from inrflow.encoding.residual.covariance import DOUBTFUL, Covariance
from inrflow.encoding.residual.neighbours import Sites, krige

_NEAR = 0.3  # of internal time, within which values at a place are simultaneous
_WINDOWS, _AROUND = 12, 64  # in estimates of covariances: windows; values in each where places are many
_FEWEST, _LEAST = 30, 1e-3  # fewest pairs of errors for a covariance; its least eigenvalue
_FAR = 4.0  # standard deviations at which errors are clipped


class CollocatedCokriging:
    """Values of all channels at the same places and times.

    Args:
        t: (R,). y: (R, p) embedded places. values: (R, C) of the processes, NaN where not observed.
        sites: for each channel with a process, the sites of its observations, in this order, and their values.
    """

    def __init__(self, t: np.ndarray, y: np.ndarray, values: np.ndarray, sites: list[tuple[Sites, Tensor] | None]
                 ) -> None:
        self._t, self._y, self._sites = t, y, sites
        self._values = np.where([one is not None for one in sites], values, np.nan)
        self._given: dict[tuple[int, int], tuple[Sites, Tensor] | None] = {}
        self._covariances: dict[int, tuple[Tensor, Tensor]] = {}

    def conditioned(self, c: int, t: np.ndarray, y: np.ndarray, mean: Tensor,
                    variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (Q,) of observations of a channel at times (Q,) and embedded places (Q, p), conditioned on
        errors of other channels there; from the `mean` and `variance` of its own process."""
        if not self._unlike:
            return mean, variance
        row = self._rows_at(t, y)
        known = np.isfinite(self._values[row]) & (row >= 0)[:, None]
        known[known[:, c]] = False  # its own value is observed
        if not known.any():
            return mean, variance
        z = torch.zeros(len(t), known.shape[1], dtype=torch.float64)
        for other in np.flatnonzero(known.any(0)).tolist():
            asked = np.flatnonzero(known[:, other])
            if (given := self._where_both(c, other)) is None:
                known[:, other] = False
                continue
            said, doubt = krige(*given, self._t[row[asked]], y[asked])
            deviation = (doubt + given[0].covariance.nugget).sqrt()
            z[asked, other] = (torch.as_tensor(self._values[row[asked], other]) - said) / deviation
        known &= (z.abs() < DOUBTFUL).numpy()  # faults are not used
        mean, variance = mean.clone(), variance.clone()
        if c not in self._covariances:
            self._covariances[c] = self._covariances_where(c)
        (single, whole), (low, high) = self._covariances[c]
        for pattern in np.unique(known[known.any(1)], axis=0):
            rows = np.flatnonzero((known == pattern).all(1))
            share = ((variance[rows].log() - low) / (high - low).clamp(min=_LEAST)).clamp(0.0, 1.0)[:, None, None]
            both, some = (1 - share) * single + share * whole, torch.as_tensor(pattern)
            across = both[:, some, c]
            weights = torch.linalg.solve(both[:, some][:, :, some], across)
            mean[rows] += variance[rows].sqrt() * (weights * z[rows][:, some]).sum(1)
            variance[rows] *= 1 - (weights * across).sum(1) / both[:, c, c]
        return mean, variance

    @cached_property
    def _unlike(self) -> bool:
        """Whether channels are observed at different places or times."""
        known = np.isfinite(self._values[:, [one is not None for one in self._sites]])
        return bool((known.any(1) & ~known.all(1)).any())

    @cached_property
    def _places(self) -> dict[bytes, np.ndarray]:
        """Observations (indices) at each embedded place, in the order of time."""
        _, which = np.unique(self._y, axis=0, return_inverse=True)
        order = np.lexsort((self._t, which.reshape(-1)))
        parts = np.split(order, np.flatnonzero(np.diff(which.reshape(-1)[order])) + 1)
        return {self._y[rows[0]].tobytes(): rows for rows in parts}

    def _rows_at(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Index (Q,) of the observation at each time (Q,) and embedded place (Q, p), -1 for none."""
        result = np.full(len(t), -1)
        places, which = np.unique(y, axis=0, return_inverse=True)
        for number, place in enumerate(places):
            if (rows := self._places.get(place.tobytes())) is not None:
                asked = np.flatnonzero(which.reshape(-1) == number)
                after = np.searchsorted(self._t[rows], t[asked]).clip(1, max(len(rows) - 1, 1))
                pair = rows[np.stack([after - 1, after.clip(max=len(rows) - 1)])]
                away = np.abs(self._t[pair] - t[asked])
                result[asked] = np.where(away.min(0) < _NEAR, pair[away.argmin(0), np.arange(len(asked))], -1)
        return result

    def _where_both(self, c: int, other: int) -> tuple[Sites, Tensor] | None:
        """Observations of another channel where the channel is observed; None where there are none."""
        if (c, other) not in self._given:
            sites, values = self._sites[other]  # type: ignore[misc]
            both = np.isfinite(self._values[np.isfinite(self._values[:, other]), c])
            self._given[c, other] = None if not both.any() else (
                Sites(sites.t[both], sites.y[both], sites.covariance, sites.noise.numpy()[both] - sites.own),
                values[torch.as_tensor(both)])
        return self._given[c, other]

    def _covariances_where(self, c: int) -> tuple[Tensor, Tensor]:
        """Covariances (2, C, C) of standardised errors where a channel is observed, with single values and with whole
        places left out, and mean log variances (2,) of this channel's errors."""
        windows = self._windows(c)
        rows, first = np.unique(np.concatenate(windows)), np.cumsum([0, *map(len, windows)])
        where = np.split(np.searchsorted(rows, np.concatenate(windows)), first[1:-1])
        t, y, values = self._t[rows], self._y[rows], self._values[rows]
        place = np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)
        errors = torch.full((2, *values.shape), torch.nan, dtype=torch.float64)
        usual = torch.zeros(2, dtype=torch.float64)
        for other in np.flatnonzero(np.isfinite(values).any(0)).tolist():
            kept = [own for near in where if len(own := near[np.isfinite(values[near, other])])]
            blocks = blocks_with(Samples(t, y, place, np.nan_to_num(values[:, other])), kept)
            covariance = self._sites[other][0].covariance  # type: ignore[index]
            for kind, (index, error, variance) in enumerate(_left_out(blocks, kept, covariance)):
                errors[kind, index, other] = (error / variance.sqrt()).clamp(-_FAR, _FAR)
                if other == c:
                    usual[kind] = variance.log().mean()
        known, errors = torch.isfinite(errors).double(), errors.nan_to_num()
        products = torch.zeros(int(place.max()) + 1, 2, *2 * (values.shape[1],), dtype=torch.float64)
        products.index_add_(0, torch.as_tensor(place), torch.einsum("kra,krb->rkab", errors, errors))
        total, pairs = products.sum(0), known.mT @ known
        # Places are independent, values of one are not: correlations are shrunk by their sampling variance over places.
        chance = products.var(0, correction=0) * len(products) / total.square().clamp(min=1e-300)
        sure = (1 - chance).clamp(min=0.0)
        sure.diagonal(dim1=1, dim2=2).fill_(1.0)
        alone = torch.eye(values.shape[1], dtype=torch.float64)
        found = torch.where(pairs < _FEWEST, alone, sure * total / pairs.clamp(min=1))
        size, axes = torch.linalg.eigh(found)  # may be indefinite, as errors are known at different places
        return (axes * size.clamp(min=_LEAST)[:, None]) @ axes.mT, usual

    def _windows(self, c: int) -> list[np.ndarray]:
        """Observations (indices) in windows of nearby values, where a channel is observed."""
        random, seen = np.random.default_rng(0), np.flatnonzero(np.isfinite(self._values[:, c]))
        sites = self._sites[c][0]  # type: ignore[index]
        if sites.windowed:
            found = [seen[near] for _, near in sites.tiles(np.arange(len(seen)))]
            return [found[k] for k in random.permutation(len(found))[:_WINDOWS]]
        some = random.integers(len(seen), size=4 * _WINDOWS)
        return [seen[near] for near in sites.near(sites.t[some], sites.y[some], min(_AROUND, len(seen)))]


def _left_out(
    blocks: Blocks, rows: list[np.ndarray], covariance: Covariance
) -> list[tuple[np.ndarray, Tensor, Tensor]]:
    """With single values and with whole places of blocks left out: indices, errors and variances (V,) of values."""
    factor = blocks.factor(covariance)
    inverse, known = torch.cholesky_inverse(factor), ~blocks.missing
    precision = inverse.diagonal(dim1=1, dim2=2)
    single = ((inverse @ blocks.value[..., None])[..., 0] / precision)[known]
    index = np.zeros(known.shape, dtype=int)
    index[known.numpy()] = np.concatenate(rows)
    return [(np.concatenate(rows), single, 1 / precision[known]),
            (index[blocks.place_order], *blocks.places_left_out(covariance, factor))]
