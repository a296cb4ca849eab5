"""Kriging of each frame by itself: the reference for a network of stations, without dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.encoding.residual.blocks import Samples
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.fit import fit_covariance, start
from inrflow.encoding.residual.neighbours import weights_of_places
from inrflow.encoding.residual.places import Places
from inrflow.evaluation.references.base import Reference

_FEWEST, _MOST, _ROWS = 8, 300, 10_000  # values of a frame, at least and at most, and rows of a fit of covariances
_KEPT = 16  # sets of weights in a cache
_APART = 1e6  # time between frames, which makes them independent


@dataclass
class Kriging(Reference):
    """Kriging of each observed frame to all points with a Matern covariance fitted to training frames; later frames
    persist.

    Attributes:
        mean, scale: (C,) of the training values. covariances: (C, 6) parameters of one Matern function of smoothness
            3/2 around a mean of every frame. places: period, sphere, origin and unit of the coordinates."""

    mean: Tensor
    scale: Tensor
    covariances: Tensor
    places: dict[str, Any]

    name = "kriging"
    title = "kriging of each frame"
    of_one_series = True

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> Kriging | None:
        """The fit; None for frames of too few values, or so many that interpolation does as well."""
        u = train.u.double()
        seen = torch.isfinite(u)
        values = float(seen[..., 0].sum(-1).double().median())
        if not _FEWEST <= values <= _MOST or not bool(seen.flatten(0, 2).any(0).all()):
            return None
        mean = torch.stack([u[..., c][seen[..., c]].mean() for c in range(u.shape[-1])])
        scale = torch.stack([u[..., c][seen[..., c]].std().clamp(min=1e-300) for c in range(u.shape[-1])])
        x = train.x.double().expand(*u.shape[:3], -1).numpy()
        box = np.stack([np.nanmin(x, (0, 1, 2)), np.nanmax(x, (0, 1, 2))])
        period = tuple(description.period or (0.0,) * len(description.coordinates))
        places = Places.of(period, description.geometry == "sphere", box)
        parameters = []
        for c in range(u.shape[-1]):
            s, k, n = np.nonzero(seen[..., c].numpy())
            every = max(1, len(s) // _ROWS)
            frames = (s * u.shape[1] + k) // every * every == s * u.shape[1] + k  # whole frames
            s, k, n = s[frames], k[frames], n[frames]
            if not len(s):
                return None
            rows = Samples(_APART * (s * u.shape[1] + k), places(x[s, k, n]), np.unique(
                x[s, k, n], axis=0, return_inverse=True)[1].reshape(-1), ((u[s, k, n, c] - mean[c]) / scale[c]).numpy())
            simple = start(rows, Form((1.5,), 0.5, (0,) * len(places.groups), places.moving))
            parameters.append(fit_covariance(rows, places.groups, places.moving, near=simple).parameters)
        about = {"period": list(places.period), "sphere": places.sphere, "origin": list(places.origin),
                 "unit": list(places.unit)}
        return cls(mean, scale, torch.stack(parameters), about)

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """Kriged observed frames; the last of them at all later times."""
        seen = torch.isfinite(observed)
        places = Places(tuple(self.places["period"]), self.places["sphere"], tuple(self.places["origin"]),
                        tuple(self.places["unit"]))
        form = Form((1.5,), 0.5, (0,) * len(places.groups), places.moving)
        result = self.mean.expand(*t.shape, *observed.shape[2:]).clone()
        known_weights: dict[tuple[Any, ...], Tensor] = {}  # cached for frames with the same observed places
        for s in range(len(observed)):
            for k in range(t.shape[1]):
                for c in range(observed.shape[-1]):
                    known = seen[s, k, :, c] if k < observed.shape[1] else seen[s, 0, :, c] & False
                    if not bool(known.any()):
                        result[s, k, :, c] = result[s, k - 1, :, c] if k else self.mean[c]
                        continue
                    at = s if len(x) > 1 else 0, k if x.shape[1] > 1 else 0
                    which = *at, c, known.numpy().tobytes()
                    if which not in known_weights:
                        y, covariance = places(x[at].double().numpy()), Covariance(form, self.covariances[c])
                        known_weights = dict([*known_weights.items()][-_KEPT:])
                        known_weights[which] = weights_of_places(covariance, y[known.numpy()], y)
                    values = (observed[s, k, known, c].double() - self.mean[c]) / self.scale[c]
                    result[s, k, :, c] = self.mean[c] + self.scale[c] * (known_weights[which] @ values)
        return result
