"""Comparison of the domain of a file with that of a surrogate."""

from __future__ import annotations

from typing import Any

import numpy as np

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.model.extent import Seen
from inrflow.model.surrogate import Surrogate

_TRAJECTORIES = 16  # from which points are taken
_STRAY, _FAR = 0.02, 0.05  # largest share of points farther outside the box than this share of its width
_GUESSED = 0.25  # that share for bare points, which determine walls or an outline poorly


def described(file: TrajectoryFile, trajectory: int | None = None) -> dict[str, Any]:
    """Arguments of `inrflow.domains.domains_of`: points (N, d) of a file, or of one trajectory, and declarations on its
    domain."""
    cells = file.cells_of(trajectory or 0)
    count = 1 if file.point_layout == "shared" else min(file.trajectories, _TRAJECTORIES)
    points = [np.asarray(file.read(s, slice(0, 1) if file.layout == "frames" else None).x, np.float64)
              for s in (range(count) if trajectory is None else [trajectory])]
    x = np.concatenate([one.reshape(-1, one.shape[-1]) for one in points])
    x = x if cells is not None else x[np.isfinite(x).all(1)]
    about = file.description
    return {"x": x, "period": about.period, "geometry": about.geometry, "cells": cells}


def shapes_of(file: TrajectoryFile) -> list[np.ndarray]:
    """Groups of trajectories (indices) on the same shape: one group, unless trajectories have meshes, or points that
    outline regions, of their own."""
    every = np.arange(file.trajectories)
    if file.layout != "frames" or file.point_layout != "per_trajectory" or file.description.geometry is not None:
        return [every]
    from inrflow.domains import shapes  # finite elements take a second to import

    x = np.stack([file.read(s, slice(0, 1)).x for s in range(file.trajectories)])
    cells = [file.cells_of(s) for s in range(file.trajectories)] if file.meshes_differ else None
    return shapes(x, file.description.period, cells)


def seen_of(file: TrajectoryFile) -> dict[str, Any]:
    """Neighbourhood of the points of a file, as plain values."""
    return Seen.of(described(file)["x"]).state()


def elsewhere_of(surrogate: Surrogate, file: TrajectoryFile, told: dict[str, Any] | None = None) -> str | None:
    """The reason why a file, as `described`, is of another domain than the surrogate; None where it is not."""
    told = described(file) if told is None else told
    if not file.declares_domain:
        ours = surrogate.description
        undeclared = surrogate.training.get("apparent_domain", ours.period is None and ours.geometry is None)
        shown = {"period": ours.period, "geometry": ours.geometry} if undeclared else file.apparent_domain()
        told = told | shown
    domain = surrogate.extent.domain
    if domain is not None:
        from inrflow.domains import Box, Region, domain_mismatch

        guessed = isinstance(domain, Box | Region) and told["cells"] is None
        return domain_mismatch(domain, **told, tolerance=_GUESSED if guessed else _STRAY)
    if told["geometry"] != surrogate.description.geometry:
        return f"its geometry is {told['geometry']}, not {surrogate.description.geometry}"
    wide = surrogate.box[1] - surrogate.box[0]
    beyond = (told["x"] < surrogate.box[0] - _FAR * wide) | (told["x"] > surrogate.box[1] + _FAR * wide)
    if surrogate.description.period is not None:
        beyond &= np.asarray(surrogate.description.period) == 0
    outside = float(beyond.any(1).mean())
    return f"{100 * outside:.2g} % of its points lie outside" if outside > _STRAY else None


def require_place(surrogate: Surrogate, file: TrajectoryFile) -> None:
    """Raise UserError where a file is of another domain than the surrogate; warn of points that lie outside."""
    told = described(file)
    why = elsewhere_of(surrogate, file, told)
    if why is not None:
        law = surrogate.decoder.place is not None
        raise UserError(f"{file.path} does not lie on the domain of {surrogate.description.name} ({why}); "
                        + ("move the law there: inrflow adapt run=RUN data.train=FILE adapt.strength=none" if law else
                           "the model is not a law on harmonics, which could be moved: train on data of that domain"))
    if surrogate.extent.domain is not None:
        beyond = surrogate.extent.outside(told["x"])
        if beyond.mean() > _STRAY:
            surrogate.extent.warn_outside(int(beyond.sum()), len(beyond))
