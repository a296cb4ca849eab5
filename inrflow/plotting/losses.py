"""Losses and validation errors of every stage of training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.plotting.style import BEYOND, MODEL, SIZE, new_figure, save_figure


def loss_figure(
    path: str | os.PathLike[str], steps_by_stage: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str | None = None
) -> Path:
    """Training loss and validation error of every stage against its steps, log scale, as a PNG.

    steps_by_stage: stage -> rows with `step` and, each where it was measured, `loss` and `validation` (as metrics.jsonl
    has them). Stages with fewer than two such rows are left out.
    """
    curves: dict[str, dict[str, np.ndarray]] = {}
    for stage, rows in steps_by_stage.items():
        for name in ("loss", "validation"):
            pairs = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
            if len(pairs) >= 2:
                curves.setdefault(stage, {})[name] = np.array(pairs, np.float64)
    figure = new_figure(3.2 * max(1, len(curves)) + 0.4, 2.9, title)
    axes = np.ravel(figure.subplots(1, max(1, len(curves)), squeeze=False))
    for ax, (stage, measured) in zip(axes, curves.items(), strict=False):
        for name, points in measured.items():
            ax.plot(
                *points.T,
                color=MODEL if name == "loss" else BEYOND,
                linewidth=1.0 if name == "loss" else 1.8,
                label={"loss": "training loss", "validation": "validation error"}[name],
            )
        ax.set_yscale("log")
        ax.set_title(stage, fontsize=SIZE + 1)
        ax.set_xlabel("step", fontsize=SIZE)
        ax.tick_params(labelsize=SIZE - 1)
        ax.grid(True, which="major", color="0.9", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=SIZE - 1, frameon=False)
    if not curves:
        axes[0].text(0.5, 0.5, "no steps were logged", ha="center", va="center", fontsize=SIZE)
        axes[0].set_axis_off()
    return save_figure(figure, path)
