"""What a flow does at the boundary of its mesh, read off the observed nodes there.

Where the velocity of the observed nodes of a stretch of the boundary does not change in time it is a condition: a wall
where it is zero, an inflow where it is not, interpolated along the stretch. Elsewhere the flow leaves as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from inrflow.mesh_flow.elements import TaylorHood

_CORNER = np.cos(np.pi / 3)  # a turn by more than this parts two stretches
_STEADY, _STILL = 0.1, 5e-3  # shares of the velocity's deviation in time, and of its size


@dataclass
class Boundary:
    """Nodes (B,) with a known velocity, and the velocities (B, 2)."""

    nodes: np.ndarray
    velocity: np.ndarray


def boundary_conditions(elements: TaylorHood, observed: np.ndarray, velocity: np.ndarray) -> Boundary:
    """Conditions that the velocity (T, K, 2) at the observed vertices (K,) shows."""
    mean, deviation = velocity.mean(0), velocity.std(0).max(-1)
    changing = np.sqrt(np.square(velocity.std(0)).sum(-1).mean())
    still = _STILL * np.sqrt(np.square(velocity).sum(-1).mean())
    known = {int(i): mean[k] for k, i in enumerate(observed) if deviation[k] <= max(_STEADY * changing, still)}
    seen = set(observed.tolist())
    middle = {tuple(edge): elements.vertices + i for i, edge in enumerate(elements.edges.tolist())}
    found: dict[int, np.ndarray] = {}
    later = []
    around = loops(elements)
    outer = max(around, key=lambda loop: np.ptp(elements.nodes[loop], axis=0).prod(), default=[])
    parts: list[list[int]] = []
    for loop in around:
        told = [known.get(i, np.full(2, np.inf)) for i in loop if i in seen]
        wall = loop is not outer and told and np.linalg.norm(told, axis=1).max() <= still
        parts += [[*loop, loop[0]]] if wall else stretches(elements, loop)  # nothing flows into one side of a hole
    for stretch in parts:
        closed = stretch[0] == stretch[-1]
        steady = _steady(stretch, closed, seen, known)
        values = [known[i] for i, held in zip(stretch, steady, strict=True) if held and i in known]
        if not values:
            continue
        if np.linalg.norm(values, axis=1).max() <= still:
            for i, j, first, second in zip(stretch, stretch[1:], steady, steady[1:], strict=False):
                found.update({n: np.zeros(2) for n, held in ((i, first), (j, second)) if held})
                if first and second:
                    found[middle[min(i, j), max(i, j)]] = np.zeros(2)
        else:
            later.append((stretch, closed, steady))
    for stretch, closed, steady in later:  # walls have the corners
        place, along = _arc(elements.nodes[stretch])
        given = {i: found.get(i, known.get(i)) for i in stretch}
        held = np.array([given[i] is not None and (s or i in found) for i, s in zip(stretch, steady, strict=True)])
        curve = _curve(place[held], np.array([given[i] for i, h in zip(stretch, held, strict=True) if h]), closed)
        steady = [s or h for s, h in zip(steady, held, strict=True)]
        for k, i in enumerate(stretch):
            if steady[k]:
                found.setdefault(i, curve(place[k]))
            if k and steady[k] and steady[k - 1]:
                j = stretch[k - 1]
                found[middle[min(i, j), max(i, j)]] = curve(along[k - 1])
    nodes = np.array(sorted(found), dtype=int)
    return Boundary(nodes, np.array([found[int(i)] for i in nodes]).reshape(-1, 2))


def loops(elements: TaylorHood) -> list[list[int]]:
    """Vertices of the boundary in their order, one list for each closed line of it."""
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
        if len(loop) > 2 and loop[0] in neighbours[loop[-1]]:  # lines that touch in a vertex have no one order
            result.append(loop)
    return result


def stretches(elements: TaylorHood, loop: list[int]) -> list[list[int]]:
    """A loop from corner to corner; one without corners ends where it begins."""
    x = elements.nodes[loop]
    before, after = x - np.roll(x, 1, axis=0), np.roll(x, -1, axis=0) - x
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    corners = np.flatnonzero(cosine < _CORNER)
    if not len(corners):
        return [[*loop, loop[0]]]
    following = [*corners[1:], corners[0] + len(loop)]
    return [[loop[k % len(loop)] for k in range(a, b + 1)] for a, b in zip(corners, following, strict=True)]


def _steady(stretch: list[int], closed: bool, seen: set[int], known: dict[int, np.ndarray]) -> list[bool]:
    """Which vertices stand still, or lie between observed ones that do; corners do not speak for a stretch."""
    count = len(stretch)
    inner = [k for k in range(count) if stretch[k] in seen and (closed or 0 < k < count - 1)]
    result = []
    for k in range(count):
        if stretch[k] in seen:
            result.append(stretch[k] in known and bool(inner))
            continue
        before, after = [j for j in inner if j < k], [j for j in inner if j > k]
        if closed:
            before, after = before or inner, after or inner
        beside = before[-1:] + after[:1]
        result.append(bool(beside) and all(stretch[j] in known for j in beside))
    return result


def _arc(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length along the stretch at its vertices, and at the midpoints between them."""
    place = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(x, axis=0), axis=1))])
    return place, (place[1:] + place[:-1]) / 2


def _curve(place: np.ndarray, values: np.ndarray, closed: bool):  # noqa: ANN202
    if len(place) < 3:
        return lambda s: np.array([np.interp(s, place, values[:, k]) for k in (0, 1)])
    periodic = closed and np.array_equal(values[0], values[-1])
    return CubicSpline(place, values, bc_type="periodic" if periodic else "not-a-knot")
