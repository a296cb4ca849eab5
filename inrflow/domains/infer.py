"""Inference of the spatial domain of a data set from its description and its points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import ConvexHull, Delaunay, cKDTree
from scipy.special import gamma, gammaincc

from inrflow.domains.base import Domain, kept
from inrflow.domains.box import PERIODIC, WALLED, Box, levels_of
from inrflow.domains.flows import Flows
from inrflow.domains.network import Network, network_from_points
from inrflow.domains.region import Region
from inrflow.domains.sphere import Sphere
from inrflow.domains.surface import Surface
from inrflow.domains.triangulation import (
    apart,
    clean_mesh,
    grid_mesh,
    lattice_cell_mesh,
    lattice_cells,
    thinned,
    triangulate,
    widened,
)
from inrflow.errors import UserError

_WHOLE = 0.02  # distance, in steps, to a whole or half step within which coordinates count as such
_LEVELS = 0.5  # a coordinate with at most this share of N distinct values lies on a lattice
_STRAY = 0.02  # largest share of points outside of their own domain, whose outline is an estimate
_SAME, _EQUAL = 1e-4, 1e-6  # relative difference of equal periods or areas; of equal walls, relative to the extent
_LOOKED_AT = 8  # number of shapes (or trajectories) that are examined
_LONELY, _FOREIGN = 3.0, 0.005  # factor on the volume of balls of twice the median distance to a point: in the plane
# 2^-12 of random places are that far from any point, 2^-6 near walls; mean share of such points that makes two shapes
_MESHED, _OF_POINTS, _MOST = 1500, 2, 2000  # limits of mesh nodes: least; per point of a trajectory; in the plane
_MOST_OF_MESH, _WORTH = 6000, 0.7  # nodes above which quadratic elements use a coarser mesh; reduction that is needed
_FULL, _CONVEX = 0.93, 1e-4  # share of its bounding box that a box covers; of its convex hull that its mesh may omit
_TELLING, _OF_HULL, _OF_CORNERS = 50, 2.5, 2.0  # points; multiple of the expected hull deficit; standard deviations
_FINE, _UNRELATED = 65, 0.95  # nodes per axis of a box for flows; divergence ratio from which channels are unrelated
_NEAR_AND_FAR, _SLIVER, _ACROSS = (1024, 256), 1e-3, 3.0  # subset sizes; least area / side^2; side / median side
_MANY, _AT_CORNERS, _CHANCE, _ROUNDING = 150, 8, 0.02, 1e-9  # points for uneven densities; neighbours; p-value; floor


def domains_of(x: np.ndarray, period: Sequence[float] | None = None, geometry: str | None = None,
               cells: np.ndarray | None = None) -> list[Domain]:
    """Plausible domains of points (N, d), or (..., N, d) of several trajectories, the most plausible first.

    period: per coordinate, 0 if not periodic; geometry: "sphere" for unit vectors; cells: of a mesh (E, d + 1), or with
    fewer corners for a surface or curves. The choice between them is left to errors at held-out points.
    """
    x = np.asarray(x, np.float64)
    points = np.unique(x.reshape(-1, x.shape[-1]), axis=0) if x.ndim > 2 else x
    points = points[np.isfinite(points).all(1)]
    if geometry == "sphere":
        return [Sphere()]
    if geometry is not None:
        raise UserError(f"geometry is {geometry!r}; expected sphere, or none")
    d = points.shape[1]
    lengths = np.zeros(d) if period is None else np.asarray(period, np.float64)
    boxes: list[Domain] = [_box(a, b, lengths) for a, b in zip(*_limits(points, lengths), strict=True)]
    if cells is not None and len(cells):
        if cells.shape[1] < d + 1:
            return [kept((Surface if cells.shape[1] == 3 else Network)(points, cells))]
        linear = kept(Region(points, cells, 1))
        return [linear, kept(_coarser(linear)), *(boxes if d > 1 and _fills_box(linear) else [])]
    if (lengths > 0).any() or d == 1:
        return boxes
    if (network := network_from_points(points)) is not None:
        return [kept(network)]
    lattice = with_holes(points)
    whole = triangulate(points) if lattice is None else clean_mesh(points, lattice_cells(lattice))
    most = max(_MESHED, min(_OF_POINTS * x.shape[-2], _MOST if d == 2 else x.size))
    mesh = thinned(*whole, most)
    wider = _beyond(points, lattice, *whole)
    region = Region(*mesh, order=2)
    covered = region.measure / float(np.prod(np.ptp(points, axis=0)))
    if lattice is None and (covered > _FULL or _is_random_sample(points, covered)):
        return boxes
    beyond = [] if wider is None else [kept(Region(*thinned(*wider, most), order=2))]
    return [*beyond, kept(region), kept(Region(*mesh, order=1)), *(boxes if covered > _FULL else [])]


def _coarser(linear: Region) -> Region:
    """Region of quadratic elements on the mesh of a region of linear elements; very fine plane meshes are coarsened
    with the same outline, which is as accurate for a few harmonics."""
    nodes, cells = linear.nodes, linear.cells
    while linear.dimensions == 2 and len(nodes) > _MOST_OF_MESH:
        fewer = nodes[apart(nodes, cells)]
        corners = Delaunay(fewer).simplices
        coarse = clean_mesh(fewer, corners[linear.inside(fewer[corners].mean(1))])
        same = abs(Region(*coarse, 1).measure / linear.measure - 1) < _SAME
        if len(coarse[0]) > _WORTH * len(nodes) or not same:
            break  # the outline is not determined by its nodes
        nodes, cells = coarse
    return Region(nodes, cells, 2)


def _beyond(points: np.ndarray, lattice: np.ndarray | None, nodes: np.ndarray, cells: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray] | None:
    """Mesh that extends beyond the points, as their domain may: cells centred at the points of a plane lattice, or the
    `widened` mesh of scattered points. None if neither applies."""
    if lattice is not None and points.shape[1] == 2:
        return lattice_cell_mesh(points, lattice)
    moved = widened(nodes, cells)
    return None if moved is None else (moved, cells)


def with_holes(points: np.ndarray) -> np.ndarray | None:
    """Integer coordinates (N, d) of points on a lattice with holes, where points are missing with all neighbours far
    more often than if as many were missing at random (Markov's inequality); None otherwise."""
    levels, places = levels_of(points)
    shape = tuple(map(len, levels))
    if math.prod(shape) > 2 * len(points):
        return None
    missing = np.ones(shape, dtype=bool)
    missing[tuple(places.T)] = False
    expected, block = missing.size * missing.mean() ** 3 ** len(shape), np.ones((3,) * len(shape))
    return places if expected < _CHANCE * binary_erosion(missing, block).sum() else None


def _is_random_sample(points: np.ndarray, covered: float) -> bool:
    """Statistical test whether points (N, d) may be random points of the box around them, of even or uneven density.

    If the density is about constant up to the k-th nearest point, the volume up to the nearest point, relative to that
    up to the k-th, is the minimum of k - 1 uniform numbers, also at walls and corners. With few points this test is
    weak, so these are also compared with uniform points: their hulls omit 2^d d / (d + 1)^(d - 1) log^(d - 1) N / N on
    average (Affentranger and Wieacker 1991), and corners must not be emptier than expected.
    """
    count, d = points.shape
    at, corners = (points - points.min(0)) / np.ptp(points, axis=0), 2**d
    tree, among = cKDTree(at), max(round(count**0.5), 2)
    axis = np.linspace(0, 1, max(round((2 * count) ** (1 / d)), 4))
    every, ends = (np.stack(np.meshgrid(*[own] * d, indexing="ij"), -1).reshape(-1, d) for own in (axis, [0.0, 1.0]))

    def log_probabilities(places: np.ndarray, k: int) -> np.ndarray:  # of a share this large
        near = tree.query(places, [1, k])[0]
        return np.asarray((k - 1) * np.log1p(-np.minimum((near[:, 0] / near[:, 1]) ** d, 1 - _ROUNDING)))

    if count < _MANY:
        left = 2.0**d * d / (d + 1) ** (d - 1) * np.log(count) ** (d - 1) / count
        ball = np.pi ** (d / 2) / gamma(d / 2 + 1) / corners  # the part within the box
        empty = count * ball * float((tree.query(ends)[0] ** d).sum())  # points expected in the corners
        if count < _TELLING or covered < 1 - _OF_HULL * left or empty > corners + _OF_CORNERS * corners**0.5:
            return False
    empty_corners = gammaincc(corners, -log_probabilities(ends, min(_AT_CORNERS, count)).sum())
    empty_place = -np.expm1(count * np.log1p(-np.exp(log_probabilities(every, among).min())))
    both = empty_corners * empty_place + 1e-300
    return bool(both * (1 - np.log(both)) > _CHANCE)  # p-value of a product of two uniform numbers


def shapes(x: np.ndarray, period: Sequence[float] | None = None, cells: Sequence[np.ndarray | None] | None = None
           ) -> list[np.ndarray]:
    """Groups of indices of trajectories with points x (S, N, d) on the same shape; one group if shapes do not differ.

    If meshes are given (`cells`), different points are different shapes. Otherwise shapes differ if the points of one
    trajectory leave larger gaps at points of others than random points, or random nodes of one mesh, would.
    """
    _, label = np.unique(x.reshape(len(x), -1), axis=0, return_inverse=True)
    label = label.ravel()
    groups = [np.flatnonzero(label == value) for value in dict.fromkeys(label.tolist())]
    if cells is not None or len(groups) == 1:
        return groups
    if x.shape[2] == 1 or (period is not None and any(length > 0 for length in period)):
        return [np.arange(len(x))]
    some = [np.unique(x[members[0]], axis=0) for members in groups[:_LOOKED_AT]]
    trees, far = [cKDTree(one) for one in some], []
    between = [(one + one[np.minimum(tree.query(one, [2])[1][:, 0], len(one) - 1)]) / 2
               for one, tree in zip(some, trees, strict=True)]  # shared nodes have distance 0
    for i, tree in enumerate(trees):
        nearest, places = (tree.query(np.concatenate(each[:i] + each[i + 1 :]))[0] for each in (some, between))
        gap = max(np.median(nearest), np.median(places))
        far.append((nearest > 2 * _LONELY ** (1 / x.shape[2]) * gap).mean())
    return groups if np.mean(far) > _FOREIGN else [np.arange(len(x))]


def domain_mismatch(domain: Domain, x: np.ndarray, period: Sequence[float] | None = None, geometry: str | None = None,
                    cells: np.ndarray | None = None, tolerance: float = _STRAY) -> str | None:
    """Reason why points (N, d), described as for `domains_of`, do not belong to this domain; None if they do, with at
    most a share `tolerance` of them outside."""
    domain = domain.region if isinstance(domain, Flows) else domain
    if (geometry == "sphere") != isinstance(domain, Sphere):
        return "one is a sphere, the other is none"
    lengths = np.zeros(domain.dimensions) if period is None else np.asarray(period, np.float64)
    if isinstance(domain, Box):
        ours = np.where(np.array(domain.axes) == PERIODIC, domain.lengths, 0.0)
        if not np.allclose(ours, lengths, rtol=_SAME, atol=0):
            return f"its periods are {lengths.tolist()}, not {ours.tolist()}"
    outside = float((domain.distance(x) > domain.spacing).mean())
    if outside > tolerance:
        return f"{100 * outside:.2g} % of its points lie outside"
    if cells is not None and len(cells):
        mesh: Domain = type(domain)(x, cells) if isinstance(domain, Surface) else Region(x, cells, 1)
        places = _places(domain)
        missing = float((mesh.distance(places) > mesh.spacing / 2).mean())
        if missing > _STRAY:
            return f"its mesh leaves out {100 * missing:.2g} % of it"
    return None


def _places(domain: Domain) -> np.ndarray:
    """Sample points (P, d) spread over a box, region or surface."""
    if isinstance(domain, Region | Surface):
        return domain.nodes[domain.cells].mean(1)
    assert isinstance(domain, Box)
    grids = [low + (np.arange(24) + 0.5) / 24 * length
             for low, length in zip(domain.lower, domain.lengths, strict=True)]
    return np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, domain.dimensions)


def flows_of(domains: Sequence[Domain], x: np.ndarray, u: np.ndarray, scale: np.ndarray) -> list[Flows]:
    """Domains of divergence-free flows, on plausible domains, that may represent velocities u (S, T, N, 2).

    u are divided by `scale` (2,), at points x (N, 2) shared by all trajectories.
    """
    found = list[Flows]()
    if _divergence(x, u[:_LOOKED_AT] * scale) > _UNRELATED:
        return found
    for domain in domains:
        if isinstance(domain, Region) and domain.order == 2:
            nodes, cells = domain.nodes, domain.cells
        elif isinstance(domain, Box) and not isinstance(domains[0], Region) and PERIODIC not in domain.axes:
            levels = [len(own) for own in levels_of(x)[0]]
            fine = levels if np.prod(levels) < 2 * len(x) else [int(np.sqrt(len(x)))] * 2
            axes = [np.linspace(domain.lower[j], domain.upper[j], min(fine[j], _FINE) // 2 + 1) for j in range(2)]
            nodes, cells = grid_mesh(*axes)
        else:
            continue
        flows = Flows(nodes, cells, scale, held=_held(Region(nodes, cells), x, u)).with_steady(x, u)
        found += [] if flows is None else [flows]
    return [kept(flows) for flows in found]


def velocities_of(x: np.ndarray, u: np.ndarray, scale: np.ndarray) -> list[int]:
    """The two channels of fields u (S, T, N, C), divided by `scale` (C,), at points x (N, 2) that are most nearly a
    divergence-free velocity."""
    pairs = [[*pair] for pair in itertools.combinations(range(u.shape[-1]), 2)]
    if len(pairs) == 1:
        return pairs[0]
    return min(pairs, key=lambda pair: _divergence(x, u[:_LOOKED_AT, ..., pair] * scale[pair]))


def _divergence(x: np.ndarray, u: np.ndarray) -> float:
    """Variance of the divergence of velocities u (S, T, N, 2) at points x (N, 2), relative to that of unrelated
    components: from differences over triangles of dense and of sparse subsets of points, whichever gives less, since
    noise dominates differences between near points."""
    u, shares = u[:_LOOKED_AT, :: max(u.shape[1] // 2, 1)].reshape(-1, *u.shape[2:]), []
    for count in _NEAR_AND_FAR:
        some = np.sort(np.random.default_rng(0).permutation(len(x))[:count])
        corners = some[Delaunay(x[some]).simplices]
        sides = x[corners[:, 1:]] - x[corners[:, :1]]
        area, size = abs(np.linalg.det(sides)), np.linalg.norm(x[corners] - x[np.roll(corners, 1, 1)], axis=2).max(1)
        fair = (area > _SLIVER * size**2) & (size < _ACROSS * np.median(size))  # neither flat, nor across a hole
        differences = u[:, corners[fair, 1:]] - u[:, corners[fair, :1]]
        slopes = np.linalg.solve(sides[fair], differences) * area[fair, None, None] ** 0.5
        each = slopes.diagonal(axis1=2, axis2=3)
        shares.append(np.nansum(each.sum(-1) ** 2) / (np.nansum(each**2) + _ROUNDING * np.nansum(slopes**2) + 1e-300))
    return float(min(shares))


def _held(region: Region, x: np.ndarray, u: np.ndarray) -> np.ndarray | None:
    """Boundary facets (2, F) where each component of velocities u (S, T, N, 2) at points x (N, 2) is constant in time,
    padded by -1. None if these are all facets, or none for some component."""
    facets, still = region.basis.mesh.boundary_facets(), region.still(x, u)[0]
    held = still[region.basis.mesh.facets[:, facets]].all(0).T  # (2, F)
    return None if held.all() or not held.any(1).all() else np.where(held, facets, -1)


def _fills_box(region: Region) -> bool:
    """Whether a mesh is convex, has no holes, and covers almost all of its bounding box."""
    box = float(np.prod(np.ptp(region.nodes, axis=0)))
    return region.measure > _FULL * box and region.measure > (1 - _CONVEX) * float(ConvexHull(region.nodes).volume)


def _box(lower: np.ndarray, upper: np.ndarray, period: np.ndarray) -> Box:
    return Box(lower, upper, [PERIODIC if length > 0 else WALLED for length in period])


def _limits(points: np.ndarray, period: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Plausible lower and upper limits (d,). Lattices: walls at the outermost points, half or one spacing beyond them,
    or at whole spacings. Scattered points: beyond the outermost by the mean gap, or at the next round number."""
    d = points.shape[1]
    near, far = points.min(0), points.max(0)
    found = [(near.copy(), far.copy()) for _ in range(4)]  # walls at the outermost points, half a step or a step
    half = some = False  # beyond, or at whole steps; cell centres (i + 1/2) h; coordinates at other shares of a step
    for j, levels in enumerate(levels_of(points)[0]):
        step = float(np.median(np.diff(levels))) if len(levels) > 1 else 1.0
        gap = (far[j] - near[j]) / max(len(points) - 1, 1)
        unit = 10.0 ** np.ceil(np.log10(4 * gap)) if gap > 0 else 1.0  # walls lie at round numbers more often than not
        low, high = np.floor(near[j] / unit) * unit, np.ceil(far[j] / unit) * unit
        lattice = len(levels) <= max(_LEVELS * len(points), 2) or d == 1
        share = float((near[j] / step) % 1) if lattice and period[j] == 0 else 0.0
        half |= bool(np.isclose(share, 0.5))
        some |= min(share, 1 - share, abs(share - 0.5)) > _WHOLE
        for below, limits in zip((0.0, 0.5, 1.0, share), found, strict=True):
            if period[j] > 0:
                limits[0][j] = 0.0 if near[j] >= 0 and far[j] <= period[j] else near[j]
                limits[1][j] = limits[0][j] + period[j]
            elif lattice:
                above = 1 - share if limits is found[3] and share else below
                limits[0][j], limits[1][j] = near[j] - below * step, far[j] + above * step
            else:
                limits[0][j] = low if near[j] - low < 8 * gap else near[j] - gap
                limits[1][j] = high if high - far[j] < 8 * gap else far[j] + gap
    if np.abs(np.subtract(found, found[:1])).max() <= _EQUAL * float(np.ptp(points, axis=0).max()):
        found = found[:1]
    elif half:
        found = [found[1], found[0], found[2]]
    else:
        found = [found[3], *found[:3]] if some else found[:3]
    return [limits[0] for limits in found], [limits[1] for limits in found]
