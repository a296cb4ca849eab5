"""Region: an interval, polygon or polyhedron as a mesh, with finite-element eigenfunctions (scikit-fem, scipy)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
import skfem
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh, splu
from scipy.spatial import cKDTree
from skfem.models.poisson import laplace, mass

from inrflow.domains.base import HELD, LEAKY, NATURAL, STEADY, Domain, Harmonics, Quadrature, check_boundary, kept
from inrflow.domains.triangulation import clean_mesh
from inrflow.errors import UserError

_MESHES = {1: skfem.MeshLine, 2: skfem.MeshTri, 3: skfem.MeshTet}
_ELEMENTS = {(1, 1): skfem.ElementLineP1, (1, 2): skfem.ElementLineP2, (2, 1): skfem.ElementTriP1,
             (2, 2): skfem.ElementTriP2, (3, 1): skfem.ElementTetP1, (3, 2): skfem.ElementTetP2}
_WITHIN = 1e-7  # distance, in cell sizes, within which points count as inside
_EXACT = 1e-6  # weight of the exactly integrated mass matrix
_EQUAL = 1e-8  # relative difference below which eigenvalues are treated as equal
_STILL, _ROUNDING, _CARRIED, _MOST = 1e-12, 1e-16, 1e-8, 8  # shares of squares: of changes that count as none beside
# neighbours, of rounding, of values left out; steady values at most
SPARE = 5  # additional eigenvalues that are computed, so that no set of equal eigenvalues is cut
_SLICE, _AHEAD = 160, 0.7  # eigenvalues computed at once; step of the next shift, in half slices
_MANY, _CELLS = 256, 6  # harmonics, and cells per harmonic, above which one quadrature point per cell suffices
_NEAREST = {1: 4, 2: 12, 3: 48}  # nearest cells (by dimension) searched for the one that contains a point


class Region(Domain):
    """Simplicial mesh of nodes (V, d) and cells (E, d + 1) with linear (order 1) or quadratic (order 2) elements.

    Order 1 uses a lumped mass matrix, as many solvers do: its quadrature points are the nodes, and its harmonics are
    those of such a solver on the same mesh. Order 2 is more accurate for the region itself.

    held (G, F): boundary facets where values are constant in time, for each of G groups of channels, padded by -1;
    steady (G, R, V): patterns at the nodes whose linear combinations these values are, padded by zeros. A single group
    may omit the first axis. `with_steady` finds both. sides (F,): labels of boundary facets, which divide `parts`.
    """

    kind = "region"

    def __init__(self, nodes: np.ndarray, cells: np.ndarray, order: int = 2, held: Any = None, steady: Any = None,
                 sides: Any = None):
        self.nodes, self.cells = clean_mesh(np.asarray(nodes, np.float64), np.asarray(cells, np.int64))
        self.dimensions, self.order = self.nodes.shape[1], int(order)
        if (self.dimensions, self.order) not in _ELEMENTS:
            raise UserError(f"a region in {self.dimensions} dimensions with elements of order {order} is asked for; "
                            "give 1 to 3 dimensions and order 1 or 2")
        mesh = _MESHES[self.dimensions](np.ascontiguousarray(self.nodes.T), np.ascontiguousarray(self.cells.T))
        element = _ELEMENTS[self.dimensions, self.order]()
        self.basis = skfem.Basis(mesh, element, intorder=4 if self.dimensions == 1 else 2)
        self._known: dict[tuple[int, str], RegionHarmonics] = {}
        self.held = None if held is None else np.atleast_2d(np.asarray(held, np.int64))
        self.steady = np.zeros((0, 0, len(self.nodes))) if self.held is None else np.asarray(steady, np.float64)
        self.steady = self.steady if self.steady.ndim == 3 else self.steady.reshape(1, -1, len(self.nodes))
        self.sides = None if sides is None else np.asarray(sides, np.int64)

    def with_steady(self, x: np.ndarray, u: np.ndarray) -> tuple[Region, str] | None:
        """Region that holds fields u (S, T, N, C) at points x (N, d) where they are constant in time at its boundary
        but not beside it, and the boundary condition (per channel if they differ). The region itself with Dirichlet
        conditions if all values there are zero; None if there is no such place, or too many patterns of values."""
        still, changes, at = self.still(x, u)
        means, beside = np.nanmean(u, 1), np.zeros_like(changes)
        for corner in self.cells.T:
            np.maximum.at(beside, corner, changes[self.cells].max(1))
        told = still & (changes < _STILL * beside) & (beside > _ROUNDING * changes.max(0))
        mesh = self.basis.mesh
        facets = mesh.boundary_facets()
        corners = mesh.facets[:, facets]  # the neighbourhood of some corners may be constant, too
        held = (still[corners].all(0) & told[corners].any(0)).T  # (C, F)
        if not held.any():
            return None
        groups, group = np.unique(held, axis=0, return_inverse=True)
        group = group.ravel()
        facets_of, steady = np.full(groups.shape, -1), np.zeros((len(groups), _MOST, len(self.nodes)))
        for g, own in enumerate(groups):
            facets_of[g, : own.sum()] = facets[own]
            nodes = np.unique(mesh.facets[:, facets[own]])
            if not len(nodes):
                continue
            values = means[:, at[nodes]][..., group == g].transpose(0, 2, 1).reshape(-1, len(nodes))  # (S C, V)
            _, sizes, patterns = np.linalg.svd(values, full_matrices=False)
            count = int((sizes**2 > _CARRIED * np.nanmean(u[..., group == g] ** 2) * values.size).sum())
            if count > _MOST:
                return None
            steady[g][:count, nodes] = patterns[:count] * np.sqrt(len(nodes))
        if held.all() and not steady.any():
            return self, HELD
        names = [steady_name(int(g)) for g in group]
        region = kept(Region(self.nodes, self.cells, self.order, facets_of, steady))
        return region, names[0] if len(groups) == 1 else ", ".join(names)

    def keeping(self, held: np.ndarray) -> tuple[Region, str]:
        """Region whose channels are constant, with one value each, on the `parts` selected by the mask held (C, P), and
        the boundary condition (per channel if they differ)."""
        groups, group = np.unique(held, axis=0, return_inverse=True)
        facets, inner = np.full((len(groups), sum(map(len, self.parts))), -1), self.basis.mesh.facets
        lifts = np.zeros((len(groups), held.shape[1], len(self.nodes)))
        for own, row, lift in zip(groups, facets, lifts, strict=True):
            some = np.concatenate([part for part, kept in zip(self.parts, own, strict=True) if kept] or [row[:0]])
            row[: len(some)] = some
            for i in np.flatnonzero(own):
                lift[i, inner[:, self.parts[i]]] = 1.0
        names = [steady_name(int(g)) for g in group.ravel()]
        region = kept(Region(self.nodes, self.cells, self.order, facets, lifts))
        return region, names[0] if len(groups) == 1 else ", ".join(names)

    def still(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask (V, C) of nodes where fields u (S, T, N, C) at points x (N, d) are constant in time, sums (V, C) of
        squared deviations from the time mean, and indices (V,) of the points nearest to the nodes."""
        apart, at = cKDTree(x).query(self.nodes)
        changes = np.nansum((u - np.nanmean(u, 1)[:, None]) ** 2, (0, 1))[at]
        return (changes < _STILL * changes.mean(0)) & (apart < _WITHIN * self.spacing)[:, None], changes, at

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """Facets (F,) of each side, or of each connected part of the boundary, the outermost part first."""
        mesh = self.basis.mesh
        facets = mesh.boundary_facets()
        if self.sides is not None:
            return [facets[self.sides == side] for side in range(self.sides.max() + 1)]
        corners = mesh.facets[:, facets]  # (d, F)
        links = sparse.coo_matrix((np.ones(corners.size), (np.broadcast_to(corners[0], corners.shape).ravel(),
                                                           corners.ravel())), shape=(len(self.nodes),) * 2)
        label = connected_components(links)[1][corners[0]]
        found = [facets[label == part] for part in np.unique(label)]
        return sorted(found, key=lambda own: -float(np.ptp(mesh.p[:, mesh.facets[:, own].ravel()], axis=1).max()))

    def divided(self, sides: np.ndarray) -> Region:
        """The region with other `parts`, given by labels (F,) of boundary facets; itself if all are the same."""
        return kept(Region(self.nodes, self.cells, self.order, sides=sides)) if sides.any() else self

    def leaks(self, boundary: str) -> list[float]:
        """Coefficients h of du/dn = -h u on the parts of the boundary: 0 if natural, infinite if held."""
        if not boundary.startswith(LEAKY):
            return [np.inf if boundary == HELD else 0.0] * len(self.parts)
        rates = [float(rate) for rate in boundary.removeprefix(LEAKY).split("/")]
        rates = rates[:1] * len(self.parts) if len(set(rates)) == 1 else rates
        if len(rates) != len(self.parts):
            raise UserError(f"the boundary has {len(self.parts)} parts, and the law has other conditions on each of "
                            f"{len(rates)}; train on data of that domain")
        return rates

    @property
    def measure(self) -> float:
        """Length, area or volume."""
        return float(self.basis.dx.sum())

    def harmonics(self, count: int, boundary: str = NATURAL) -> RegionHarmonics:
        """Finite-element eigenfunctions of lowest eigenvalue, at most as many as there are free degrees of freedom.

        boundary: one condition, or one per channel separated by ", ": then equally many harmonics of each distinct
        condition are joined, with the mask `allowed`.
        """
        for name in boundary.split(", "):
            if not (name.startswith(STEADY) and self.held is not None and group_of(name) < len(self.held)):
                check_boundary(name)
        key = (count, boundary)
        if key not in self._known:
            if boundary.startswith(LEAKY):  # cache only the latest of many trial conditions
                self._known = {own: known for own, known in self._known.items()
                               if own[1] == boundary or not own[1].startswith(LEAKY)}
            more = next((known for (size, kind), known in self._known.items()
                         if size > count and kind == boundary and not known.steady and known.allowed is None), None)
            self._known[key] = self._joined(count, boundary.split(", ")) if ", " in boundary else self._solve(
                *key) if more is None else RegionHarmonics(
                    self, more.coefficients[:, :count], more.eigenvalues[:count])
        return self._known[key]

    def _joined(self, count: int, channels: list[str]) -> RegionHarmonics:
        """Union of the harmonics of different conditions by eigenvalue, the steady ones last."""
        families = list(dict.fromkeys(channels))
        each = [self.harmonics(count // len(families), name) for name in families]
        size = min(one.count for one in each)
        if any(one.count > size for one in each):
            each = [self.harmonics(size, name) for name in families]
        values = np.concatenate([one.eigenvalues for one in each])
        late = np.concatenate([np.arange(one.count) >= one.count - one.steady for one in each])
        order = np.lexsort([values, late])
        family = np.repeat(np.arange(len(each)), [one.count for one in each])[order]
        found = RegionHarmonics(self, np.hstack([one.coefficients for one in each])[:, order], values[order],
                                int(late.sum()))
        found.allowed = np.array([family == families.index(name) for name in channels])
        return found

    def _solve(self, count: int, boundary: str) -> RegionHarmonics:
        basis = self.basis
        stiffness, masses = laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc()
        if self.order == 1:
            masses = sparse.diags(np.asarray(masses.sum(1)).ravel()).tocsc()
        else:  # the rule of `quadrature` alone may not see some functions within cells
            masses = masses + _EXACT * mass.assemble(skfem.Basis(basis.mesh, basis.elem, intorder=4)).tocsc()
        held, lifts = [], np.zeros((basis.N, 0))
        if boundary.startswith(STEADY) and self.held is not None:
            own = self.held[group_of(boundary)]
            held += [basis.get_dofs(own[own >= 0]).all()] if (own >= 0).any() else []
        else:
            for rate, facets in zip(self.leaks(boundary), self.parts, strict=True):
                if rate == np.inf:
                    held.append(basis.get_dofs(facets).all())
                elif rate:
                    part = skfem.FacetBasis(basis.mesh, basis.elem, facets=facets)
                    stiffness = stiffness + rate * mass.assemble(part)
        free = np.setdiff1d(np.arange(basis.N), np.concatenate(held) if held else [])
        inner, inner_mass = stiffness[free][:, free], masses[free][:, free] / self.measure
        if boundary.startswith(STEADY):
            patterns = self.steady[group_of(boundary)]
            lifts = self._harmonic_extensions(stiffness, masses, free, patterns[patterns.any(1)])
        values, vectors = lowest_eigenmodes(inner / self.measure, inner_mass, max(count - lifts.shape[1], 1),
                                            float(np.ptp(self.nodes, axis=0).max()))
        coefficients = np.zeros((basis.N, len(values)))
        coefficients[free] = vectors
        return RegionHarmonics(self, np.hstack([coefficients, lifts]), np.append(values, np.zeros(lifts.shape[1])),
                               lifts.shape[1])

    def _harmonic_extensions(self, stiffness: sparse.csc_matrix, masses: sparse.csc_matrix, free: np.ndarray,
                             steady: np.ndarray) -> np.ndarray:
        """Coefficients (N, R) of the harmonic extensions, of mean square 1, of steady boundary values (R, V)."""
        basis, lifts = self.basis, np.zeros((self.basis.N, len(steady)))
        for dofs, place in zip(basis.element_dofs, basis.elem.doflocs, strict=True):
            lifts[dofs] = np.einsum("j,rje->er", [1 - place.sum(), *place], steady[:, basis.mesh.t])
        lifts[free] = 0.0
        lifts[free] = -splu(stiffness[free][:, free].tocsc()).solve((stiffness @ lifts)[free])
        return lifts / np.sqrt(np.einsum("nr,nr->r", lifts, masses @ lifts) / self.measure)

    def locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells (N,) of points (N, d), their reference coordinates (d, N, 1), and whether they lie inside (N,).

        Points outside are assigned to a near cell, with reference coordinates clipped to it.
        """
        x = self._check(x)
        mapping = self.basis.mapping
        centres = self.nodes[self.cells].mean(1)
        order = cKDTree(centres).query(x, min(_NEAREST[self.dimensions], len(centres)))[1].reshape(len(x), -1)
        best, excess = np.zeros(len(x), np.int64), np.full(len(x), np.inf)
        reference = np.zeros((self.dimensions, len(x)))
        for column in order.T:
            left = np.flatnonzero(excess >= _WITHIN)
            if not len(left):
                break
            local = mapping.invF(x[left].T[:, :, None], tind=column[left])[:, :, 0]
            outside = np.maximum(np.maximum(-local, 0).max(0), local.sum(0) - 1)
            better = outside < excess[left]
            rows = left[better]
            best[rows], excess[rows], reference[:, rows] = column[rows], outside[better], local[:, better]
        clipped = np.maximum(reference, 0.0)
        clipped /= np.maximum(clipped.sum(0), 1.0)
        within = excess < _WITHIN
        reference = np.where(within, reference, clipped)
        return best, reference[:, :, None], within

    @property
    def spacing(self) -> float:
        """Mean distance between nodes."""
        return float((self.measure / len(self.nodes)) ** (1 / self.dimensions))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances of points near the mesh to the place in a near cell given by `locate`."""
        cells, local, within = self.locate(x)
        nearest = self.basis.mapping.F(local, tind=cells)[:, :, 0].T
        return np.where(within, 0.0, np.linalg.norm(self._check(x) - nearest, axis=1))

    def state(self) -> dict[str, Any]:
        """Nodes, cells, order of elements, held facets and steady values, sides."""
        own = {} if self.held is None else {"held": self.held, "steady": self.steady}
        own |= {} if self.sides is None else {"sides": self.sides}
        return {"kind": self.kind, "nodes": self.nodes, "cells": self.cells, "order": self.order, **own}


def steady_name(group: int) -> str:
    """Name of the boundary condition of a group of channels."""
    return f"{STEADY} {group}" if group else STEADY


def group_of(boundary: str) -> int:
    """Group of channels of a boundary condition named by `steady_name`."""
    return int(boundary.removeprefix(STEADY) or 0)


def sparse_rule(count: int, cells: int) -> bool:
    """Whether `count` harmonics are integrated with one quadrature point per cell, which saves time for many harmonics
    (and fields that need many are rough)."""
    return count > _MANY and cells >= _CELLS * count


def lowest_eigenmodes(stiffness: sparse.csc_matrix, masses: sparse.csc_matrix, count: int, length: float
                      ) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` lowest eigenvalues (K,) and `oriented` eigenvectors (N, K) of a generalised eigenvalue problem
    with matrices (N, N); length: extent of the domain."""
    sought = min(count + SPARE, masses.shape[0])
    least = np.pi**2 / length**2
    if 3 * sought > masses.shape[0] or masses.shape[0] < 200:
        root = np.linalg.cholesky(masses.toarray())
        half = np.linalg.solve(root, np.linalg.solve(root, stiffness.toarray()).T)
        values, vectors = np.linalg.eigh((half + half.T) / 2)
        values, vectors = values[:sought], np.linalg.solve(root.T, vectors[:, :sought])
    else:
        values, vectors = _nearest(stiffness, masses, min(sought, _SLICE), -least)  # definite by a negative shift
        while len(values) < sought:
            reach = _SLICE / 2 * float(values[-1] - values[-_SLICE // 2]) / (_SLICE // 2)  # of the next slice
            ahead = _AHEAD
            while (own := _nearest(stiffness, masses, _SLICE, float(values[-1]) + ahead * reach))[0][1] > values[-1]:
                ahead /= 2
            i = int(np.searchsorted(values, own[0][1]))  # cut at the widest gap of the common eigenvalues
            i += int(np.argmax(np.diff(values[i - 1 :])))
            more = own[0] > (values[i - 1] + values[min(i, len(values) - 1)]) / 2
            values, vectors = np.append(values[:i], own[0][more]), np.hstack([vectors[:, :i], own[1][:, more]])
    return np.maximum(values, 0.0)[:count], oriented(values + least, vectors, masses)[:, :count]


def _nearest(stiffness: sparse.csc_matrix, masses: sparse.csc_matrix, count: int, shift: float
             ) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (K,) nearest to a shift, sorted, and their eigenvectors (N, K)."""
    start = np.random.default_rng(0).standard_normal(masses.shape[0])
    values, vectors = eigsh(stiffness.tocsc(), count, masses.tocsc(), sigma=shift, v0=start)
    order = np.argsort(values)
    return values[order], vectors[:, order]


def oriented(values: np.ndarray, vectors: np.ndarray, masses: sparse.csc_matrix) -> np.ndarray:
    """Eigenvectors (N, K) in a reproducible orientation, so that codes mean the same whenever they are recomputed.

    The signs, and the bases of eigenspaces of equal eigenvalues, that a solver returns depend on rounding. Here
    products with fixed random vectors are triangular in each eigenspace with a positive diagonal. Eigenvalues (K,)
    must be monotonic and non-zero.
    """
    fixed = masses @ np.random.default_rng(0).standard_normal((vectors.shape[1], len(vectors))).T
    turned = np.empty_like(vectors)
    for space in np.split(np.arange(len(values)), 1 + np.flatnonzero(np.abs(np.diff(values)) > _EQUAL * values[1:])):
        q, r = np.linalg.qr(vectors[:, space].T @ fixed[:, : len(space)])
        turned[:, space] = vectors[:, space] @ (q * np.sign(np.diag(r)))
    return turned


class RegionHarmonics(Harmonics):
    """Eigenfunctions as coefficients (N, K) of the finite elements of a region."""

    def __init__(self, region: Region, coefficients: np.ndarray, eigenvalues: np.ndarray, steady: int = 0):
        self.region, self.coefficients, self.eigenvalues, self.steady = region, coefficients, eigenvalues, steady
        self.count = len(self.eigenvalues)

    def _tables(self, cells: np.ndarray, local: np.ndarray, slopes: bool) -> np.ndarray:
        """Values (N, K), or gradients (N, K, d), at reference coordinates (d, N, 1) of cells (N,)."""
        basis = self.region.basis
        dofs = basis.element_dofs[:, cells]
        total: np.ndarray | float = 0.0
        for index in range(len(dofs)):
            shape = basis.elem.gbasis(basis.mapping, local, index, tind=cells)[0]
            amplitude = self.coefficients[dofs[index]]
            if slopes:
                total = total + amplitude[:, :, None] * shape.grad[:, :, 0].T[:, None, :]
            else:
                total = total + amplitude * np.asarray(shape).reshape(-1, 1)
        return np.asarray(total)

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values psi_k (N, K) at points (N, d); outside of the mesh, at the nearest place of a near cell."""
        cells, local, _ = self.region.locate(x)
        return self._tables(cells, local, False)

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients (N, K, d) at points (N, d)."""
        cells, local, _ = self.region.locate(x)
        return self._tables(cells, local, True)

    def lowest(self, count: int) -> RegionHarmonics:
        """Harmonics of lowest eigenvalue with natural conditions."""
        return self.region.harmonics(count)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Nodes with lumped masses and recovered gradients (order 1), or Gauss points of the cells (order 2), one per
        cell if `sparse_rule` holds."""
        basis, region = self.region.basis, self.region
        size = region.measure
        if region.order == 1:
            weights = np.asarray(mass.assemble(basis).sum(1)).ravel()
            every = np.arange(len(region.cells))
            centre = np.full((region.dimensions, len(every), 1), 1 / (region.dimensions + 1))
            slopes = self._tables(every, centre, True)
            areas = basis.dx.sum(1)
            spread = sparse.coo_matrix((np.repeat(areas, region.cells.shape[1]),
                                        (region.cells.ravel(), np.repeat(every, region.cells.shape[1]))),
                                       shape=(len(region.nodes), len(every))).tocsr()
            gradients = (spread @ slopes.reshape(len(every), -1)) / np.asarray(spread.sum(1))
            return Quadrature(region.nodes, weights / size, self.coefficients,
                              gradients.reshape(len(region.nodes), self.count, -1))
        places, weights = basis.X, basis.dx
        if sparse_rule(self.count, len(region.cells)):
            places, weights = places.mean(1, keepdims=True), weights.sum(1)
        cells = np.repeat(np.arange(len(region.cells)), places.shape[1])
        local = np.tile(places, (1, len(region.cells)))[:, :, None]
        points = basis.mapping.F(local, tind=cells)[:, :, 0].T
        return Quadrature(points, weights.ravel() / size, self._tables(cells, local, False),
                          self._tables(cells, local, True))
