"""Boundary conditions of a flow on a mesh, inferred from the observed boundary nodes.

The boundary is divided into stretches at its corners. If the observed velocities of a stretch are steady, it has a
Dirichlet condition interpolated along it: a wall if they are zero, else an inflow. Others are free (natural) outflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from inrflow.mesh_flow.elements import TaylorHood

_CORNER = np.cos(np.pi / 3)  # cosine of the turning angle above which a vertex separates two stretches
_STEADY, _STILL = 0.1, 5e-3  # tolerances relative to the velocity's deviation in time, and to its root mean square


@dataclass
class Boundary:
    """Dirichlet conditions: nodes (B,) and their velocities (B, 2)."""

    nodes: np.ndarray
    velocity: np.ndarray


def boundary_conditions(elements: TaylorHood, observed: np.ndarray, velocity: np.ndarray) -> Boundary:
    """Dirichlet conditions from the velocity (T, K, 2) at the observed vertices (K,)."""
    mean, deviation = velocity.mean(0), velocity.std(0).max(-1)
    changing = np.sqrt(np.square(velocity.std(0)).sum(-1).mean())
    still = _STILL * np.sqrt(np.square(velocity).sum(-1).mean())
    known = {int(i): mean[k] for k, i in enumerate(observed) if deviation[k] <= max(_STEADY * changing, still)}
    observed_set = set(observed.tolist())
    middle = {tuple(edge): elements.vertices + i for i, edge in enumerate(elements.edges.tolist())}
    conditions: dict[int, np.ndarray] = {}
    inflows = []
    around = loops(elements)
    outer = max(around, key=lambda loop: np.ptp(elements.nodes[loop], axis=0).prod(), default=[])
    parts: list[list[int]] = []
    for loop in around:
        velocities = [known.get(i, np.full(2, np.inf)) for i in loop if i in observed_set]
        wall = loop is not outer and velocities and np.linalg.norm(velocities, axis=1).max() <= still
        parts += [[*loop, loop[0]]] if wall else stretches(elements, loop)  # a hole with zero velocity is one wall
    for stretch in parts:
        closed = stretch[0] == stretch[-1]
        steady = _steady(stretch, closed, observed_set, known)
        values = [known[i] for i, is_steady in zip(stretch, steady, strict=True) if is_steady and i in known]
        if not values:
            continue
        if np.linalg.norm(values, axis=1).max() <= still:
            for i, j, first, second in zip(stretch, stretch[1:], steady, steady[1:], strict=False):
                conditions.update({n: np.zeros(2) for n, is_steady in ((i, first), (j, second)) if is_steady})
                if first and second:
                    conditions[middle[min(i, j), max(i, j)]] = np.zeros(2)
        else:
            inflows.append((stretch, closed, steady))
    for stretch, closed, steady in inflows:  # after the walls, which own the corners
        place, along = _arc(elements.nodes[stretch])
        given = {i: conditions.get(i, known.get(i)) for i in stretch}
        fixed = np.array([given[i] is not None and (is_steady or i in conditions)
                          for i, is_steady in zip(stretch, steady, strict=True)])
        curve = _curve(place[fixed], np.array([given[i] for i, f in zip(stretch, fixed, strict=True) if f]), closed)
        steady = [s or f for s, f in zip(steady, fixed, strict=True)]
        for k, i in enumerate(stretch):
            if steady[k]:
                conditions.setdefault(i, curve(place[k]))
            if k and steady[k] and steady[k - 1]:
                j = stretch[k - 1]
                conditions[middle[min(i, j), max(i, j)]] = curve(along[k - 1])
    nodes = np.array(sorted(conditions), dtype=int)
    return Boundary(nodes, np.array([conditions[int(i)] for i in nodes]).reshape(-1, 2))


def loops(elements: TaylorHood) -> list[list[int]]:
    """Vertices of each closed boundary line, in order."""
    neighbours: dict[int, list[int]] = {}
    for i, j in elements.edges[elements.boundary].tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    left, result = {i for i, others in neighbours.items() if len(others) == 2}, []
    while left:
        loop = [min(left)]
        while True:
            left.discard(loop[-1])
            following = [n for n in neighbours[loop[-1]] if n in left]
            if not following:
                break
            loop.append(following[0])
        if len(loop) > 2 and loop[0] in neighbours[loop[-1]]:  # lines that touch at a vertex have no unique order
            result.append(loop)
    return result


def stretches(elements: TaylorHood, loop: list[int]) -> list[list[int]]:
    """A loop cut at its corners; a stretch without corners ends where it begins."""
    x = elements.nodes[loop]
    before, after = x - np.roll(x, 1, axis=0), np.roll(x, -1, axis=0) - x
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    corners = np.flatnonzero(cosine < _CORNER)
    if not len(corners):
        return [[*loop, loop[0]]]
    following = [*corners[1:], corners[0] + len(loop)]
    return [[loop[k % len(loop)] for k in range(a, b + 1)] for a, b in zip(corners, following, strict=True)]


def _steady(stretch: list[int], closed: bool, observed: set[int], known: dict[int, np.ndarray]) -> list[bool]:
    """Mask of vertices with a steady velocity, or between observed vertices with one (corners not counted)."""
    count = len(stretch)
    inner = [k for k in range(count) if stretch[k] in observed and (closed or 0 < k < count - 1)]
    result = []
    for k in range(count):
        if stretch[k] in observed:
            result.append(stretch[k] in known and bool(inner))
            continue
        before, after = [j for j in inner if j < k], [j for j in inner if j > k]
        if closed:
            before, after = before or inner, after or inner
        beside = before[-1:] + after[:1]
        result.append(bool(beside) and all(stretch[j] in known for j in beside))
    return result


def _arc(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arc length at the vertices of a stretch, and at the midpoints between them."""
    place = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(x, axis=0), axis=1))])
    return place, (place[1:] + place[:-1]) / 2


def _curve(place: np.ndarray, values: np.ndarray, closed: bool):  # noqa: ANN202
    if len(place) < 3:
        return lambda s: np.array([np.interp(s, place, values[:, k]) for k in (0, 1)])
    periodic = closed and np.array_equal(values[0], values[-1])
    return CubicSpline(place, values, bc_type="periodic" if periodic else "not-a-knot")
