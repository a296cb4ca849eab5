"""Figures of losses and validation errors of every stage of training, and of errors of candidates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.plotting.style import BEYOND, MODEL, SIZE, format_log_axis, new_figure, save_figure

_MOST_CANDIDATES = 20
_DECADES = 5.0  # ratio of the largest to the smallest error above which the axis is logarithmic


def loss_figure(
    path: str | os.PathLike[str], steps_by_stage: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str | None = None
) -> Path:
    """Figure (PNG) of training loss and validation error of every stage by step, log scale.

    steps_by_stage: stage -> rows with `step` and, if measured, `loss` and `validation` (as in metrics.jsonl). Stages
    with fewer than two such rows are left out.
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
        format_log_axis(ax.yaxis)
        ax.set_title(stage, fontsize=SIZE + 1)
        ax.set_xlabel("step", fontsize=SIZE)
        ax.tick_params(labelsize=SIZE - 1, which="both")
        ax.grid(True, which="major", color="0.9", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=SIZE - 1, frameon=False)
    if not curves:
        axes[0].text(0.5, 0.5, "no steps were logged", ha="center", va="center", fontsize=SIZE)
        axes[0].set_axis_off()
    return save_figure(figure, path)


def candidate_figure(
    path: str | os.PathLike[str], candidates: Sequence[Mapping[str, Any]], chosen: int | None, title: str | None = None
) -> Path:
    """Figure of held-out errors of candidates (rows of candidates.json), best at the top, the chosen one in colour."""
    known = [(row["validation_error"], index) for index, row in enumerate(candidates)
             if row["validation_error"] and row["recipe"] != "residual_field"]  # an addition to one of them
    rows = sorted(known)[:_MOST_CANDIDATES][::-1]
    figure = new_figure(6.0, 0.9 + 0.22 * len(rows), title)
    ax = figure.subplots()
    names = [f"{candidates[index]['recipe']}: {candidates[index]['candidate']}" for _, index in rows]
    ax.scatter([error for error, _ in rows], range(len(rows)), s=24, zorder=2,
               color=[MODEL if index == chosen else "0.55" for _, index in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(True, axis="y", color="0.9", linewidth=0.7)
    names = [name if len(name) <= 60 else f"{name[:57]}..." for name in names]
    ax.set_yticks(range(len(rows)), names, fontsize=SIZE - 1)
    errors = [error for error, _ in rows]
    if errors and max(errors) > _DECADES * min(errors):
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("error of each recipe's held-out forecasts, share of the variance", fontsize=SIZE)
    ax.tick_params(labelsize=SIZE - 1, which="both")
    ax.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)
