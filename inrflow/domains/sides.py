"""Sides of a region: parts of its boundary along which du/dn = -h u, told by slopes of observed fields."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import skfem
from scipy.spatial import cKDTree

from inrflow.domains.region import Region

_POINTS, _WITHIN = {2: 14, 3: 30}, 1.5  # points of a quadratic fit; deviation of its Gaussian weights, in spacings
_MOST, _CLEARLY, _ROUNDS, _START = 3, 0.3, 20, (0.05, 0.5, 0.95)  # sides; ratio of errors for one more; of k-means
_LEAST, _LARGEST = 0.05, 20.0  # h over the extent, below which walls are natural; times the spacing, from which held


def _moments(region: Region, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Moments (F, C, 2, 2) of slopes along the normal times the spacing, and of values, at boundary facets, of unit
    trace: from quadratic polynomials fitted to fields u (S, T, N, C) at nearby points x (S, N, d)."""
    basis = skfem.FacetBasis(region.basis.mesh, region.basis.elem)
    middle, normal = (np.asarray(part).mean(-1).T for part in (basis.default_parameters()["x"], basis.normals))
    count, total = _POINTS[region.dimensions], np.zeros((len(middle), u.shape[-1], 2, 2))
    pairs = np.array([(i, j) for i in range(region.dimensions) for j in range(i, region.dimensions)]).T
    for places, values in zip(x, u, strict=True):
        seen = np.isfinite(values)
        at = seen.any((0, 2))
        seen, values = seen[:, at], np.nan_to_num(values[:, at])
        apart, near = cKDTree(places[at]).query(middle, min(math.ceil(count / seen.mean()), int(at.sum())))
        y = (places[at][near] - middle[:, None]) / region.spacing
        columns = np.concatenate([np.ones_like(y[..., :1]), y, y[..., pairs[0]] * y[..., pairs[1]]], -1)
        weights = np.exp(-((apart / region.spacing / _WITHIN) ** 2))[..., None]
        known = np.moveaxis(seen[:, near], 3, 1)[..., None] if not seen.all() else np.ones((1, 1, 1, 1, 1))
        fit = np.linalg.pinv(columns * weights * known)[..., : 1 + region.dimensions, :] * weights[..., 0][:, None]
        both = np.stack([np.einsum("fd,tcfdk->tcfk", normal, fit[..., 1:, :]), fit[..., 0, :]], 3)  # (T, C, F, 2, k)
        told = np.einsum("tcfek,tfkc->tfce", np.broadcast_to(both, (len(values), values.shape[2], *both.shape[2:])),
                         values[:, near])
        total += np.einsum("tfce,tfcg->fceg", told, told)
    return total / (np.einsum("fcee->fc", total)[..., None, None] + 1e-300)


def _clustered(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (F,) of facets with moments (F, 2, 2), and an angle (K,) for each, 0 for no slope and pi / 2 for no value:
    k-means of lines through the origin, with the fewest sides from which another does not lower errors clearly."""
    every = np.linspace(0, np.pi / 2, 181)
    lines = np.stack([np.cos(every), np.sin(every)], 1)
    errors = np.einsum("ae,feg,ag->fa", lines, moments, lines)  # (F, A)
    own, best, least = np.argmin(errors, 1), None, np.inf
    for count in range(1, _MOST + 1):
        for start in combinations(np.quantile(own, _START).astype(int), count):
            angles = np.array(start)
            for _ in range(_ROUNDS):
                label = np.argmin(errors[:, angles], 1)
                sums = np.stack([errors[label == k].sum(0) for k in range(count)])
                angles = np.where([(label == k).any() for k in range(count)], np.argmin(sums, 1), angles)
            label = np.argmin(errors[:, angles], 1)
            if (left := errors[np.arange(len(label)), angles[label]].sum()) < (_CLEARLY if best and len(
                    best[1]) < count else 1.0) * least:
                best, least = (label, every[angles]), left
    assert best is not None
    return best


def sides(region: Region, x: np.ndarray, u: np.ndarray, alike: bool = False) -> tuple[Region, np.ndarray]:
    """The region whose `parts` are the sides that fields u (S, T, N, C) at points x (S, N, d) tell, and the rates h
    (C, P) of du/dn = -h u there: 0 where walls let nothing through, infinite where values are held at 0. alike: whether
    channels have the same rates."""
    moments, extent = _moments(region, x, u), float(np.ptp(region.nodes, axis=0).max())
    rates = []
    for own in [moments.sum(1)] if alike else moments.transpose(1, 0, 2, 3):
        label, angles = _clustered(own)
        h = np.tan(np.minimum(angles, np.pi / 2 - 1e-9)) / region.spacing
        rates.append(np.where(h * extent < _LEAST, 0.0, np.where(h * region.spacing > _LARGEST, np.inf, h))[label])
    each, label = np.unique(np.stack(rates), axis=1, return_inverse=True)
    return region.divided(label.ravel()), np.broadcast_to(each, (u.shape[-1], each.shape[1]))
