"""Conversion of stored channel processes of earlier versions."""

from __future__ import annotations

from typing import Any

import numpy as np

from inrflow.encoding.residual.covariance import Covariance


def upgraded_ahead(state: dict[str, Any], covariance: Covariance) -> dict[str, Any]:
    """Fields of an earlier version, with the same factor and growth of variance at observed and new places."""
    (first, later), (level, power) = state["spread"], state.get("growth", (0.0, 1.0))
    decay, away = state["decay"], np.array([0.0, *2.0 ** np.arange(-2, 8)])
    grown = np.minimum(level**2 * away ** (2 * power), 2.0) / float(covariance.variance + covariance.nugget)
    factor = np.sqrt((later + (first - later) * np.exp(-away)) ** 2 + grown)
    ahead = {"decay": {"memory": decay["memory"], "kept": decay["kept"], "held": 0.0 if decay["own"] else np.inf},
             "leads": away.tolist(), "spread": factor.tolist()}
    return {"spread": first, "ahead": [ahead, ahead]}
