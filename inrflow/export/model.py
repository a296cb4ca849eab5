"""Writing of the files of an exported model."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.step_map import MapTerm
from inrflow.errors import UserError
from inrflow.export.decoding import Decode, DecodeAtPoints, needs_points
from inrflow.export.graphs import require_libraries, write_graph
from inrflow.export.hub import published
from inrflow.export.stepping import Forecast, Rate, Step
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import replaced_atomically, write_text
from inrflow.runtime.card import CARD_FILE, Exported, model_card


def export(
    surrogate: Surrogate, folder: Path, points: np.ndarray | None = None,
    parameters: Mapping[str, float] | None = None, evaluation: dict[str, Any] | None = None,
    candidates: dict[str, Any] | None = None,
) -> Exported:
    """Write decode, rate and step (of autoregressions: forecast) as .pt2 and .onnx, the model, and README.md, its card.

    Args:
        points: (N, d), if values are needed at these only; for models on a mesh, by default its nodes.
        parameters: known parameters of the system at which the dynamics are exported; by default the mean context.
        evaluation, candidates: reports of the run, for the card.
    Raises:
        UserError: if libraries are missing, or values cannot be exported.
    """
    require_libraries()
    surrogate.decoder.cpu()
    graphs: list[str] = []
    missing: list[str] = []
    points = _points(surrogate, points, missing)
    context = _context(surrogate, parameters, missing)
    generator = torch.Generator().manual_seed(0)
    states = _states(surrogate, generator)
    codes = states[:, : surrogate.code_size]
    about = surrogate.description
    shape = f"float64 (S, N, {len(about.channels)})"
    if points is None:
        low, high = torch.as_tensor(surrogate.box)
        x = low + (high - low) * torch.rand(4, len(low), dtype=torch.float64, generator=generator)
        if about.geometry == "sphere":
            x = torch.nn.functional.normalize(x + 1e-3, dim=1)
        away = write_graph(folder, "decode", Decode(surrogate), {"x": x, "z": codes}, "u",
                           {"x": ["points"], "z": ["states"]})
        inputs = f"`x` (N, {len(about.coordinates)}), `z` (S, {surrogate.code_size})"
    else:
        away = write_graph(folder, "decode", DecodeAtPoints(surrogate, points), {"z": codes}, "u", {"z": ["states"]})
        with replaced_atomically(folder / "points.csv") as path:
            _write_points(path, about.coordinates, points)
        inputs = f"`z` (S, {surrogate.code_size})"
        shape += " at the points of `points.csv`"
    graphs.append(f"`decode.pt2`, `decode.onnx`: {inputs} to values `u`, {shape} (agree to {away:.0e})")
    length = _dynamics(surrogate, folder, context, states, graphs, missing)
    _note_omissions(surrogate, missing)
    published(surrogate).save(folder, card=False)
    exported = Exported(graphs, missing, points is not None, length, (folder / "forecast.onnx").exists())
    card = model_card(surrogate, evaluation, candidates, exported)
    write_text(folder / CARD_FILE, card)
    return exported


def _dynamics(
    surrogate: Surrogate, folder: Path, context: Tensor, states: Tensor, graphs: list[str], missing: list[str]
) -> float | None:
    """Length of the exported time step, None without one; writes rate and step, or forecast."""
    times = torch.full((len(states),), float(surrogate.scale.external(torch.zeros(1, dtype=torch.float64))[0]))
    inputs = {"t": times.double() + surrogate.scale.unit * torch.tensor([0.0, 1.0, 1000.3]).double(), "s": states}
    free, n = {"t": ["states"], "s": ["states"]}, surrogate.field.state_size
    known, length = f"`t` (S,), `s` (S, {n}): codes" + (" and delayed codes" if n > surrogate.code_size else ""), None
    parts: list[tuple[str, str]] = [("rate", "ds_dt"), ("step", "later")]
    if surrogate.field.get(MapTerm) is not None:
        parts = parts[1:]
        missing.append("No vector field is exported: the model is a map from step to step.")
    if surrogate.field.get(AutoregressionTerm) is not None:
        inputs["ahead"] = surrogate.scale.unit * torch.tensor([1.0, 2.4, 7.0], dtype=torch.float64)
        away = write_graph(folder, "forecast", Forecast(surrogate), inputs, "later", free | {"ahead": ["states"]})
        graphs.append(f"`forecast.pt2`, `forecast.onnx`: {known} last observed, `ahead` (S,), to the states `later` at "
                      f"times t + ahead (agree to {away:.0e})")
        return surrogate.scale.unit
    for name, output in parts:
        try:
            module: nn.Module = (Rate if name == "rate" else Step)(surrogate, context)
            away = write_graph(folder, name, module, inputs, output, free)
        except UserError as error:
            missing.append(f"{str(error)[0].upper()}{str(error)[1:]}.")
            continue
        if isinstance(module, Step):
            length = module.length
            meaning = f"the states `later`, {length:.6g} after"
        else:
            meaning = "their derivatives `ds_dt` by time"
        graphs.append(f"`{name}.pt2`, `{name}.onnx`: {known}, to {meaning} (agree to {away:.0e})")
    return length


def _states(surrogate: Surrogate, generator: torch.Generator) -> Tensor:
    """Random states (3, n) with the mean and variances of the prior."""
    n = surrogate.field.state_size
    prior = surrogate.prior
    drawn = torch.randn(3, n, dtype=torch.float64, generator=generator)
    return prior.mean[:n] + drawn * prior.variances[:n].clamp(min=0).sqrt()


def _points(surrogate: Surrogate, points: np.ndarray | None, missing: list[str]) -> np.ndarray | None:
    """Fixed points (N, d) of the exported decoder; None: arbitrary points."""
    d = len(surrogate.description.coordinates)
    if points is not None:
        if points.ndim != 2 or points.shape[1] != d or not len(points) or not np.isfinite(points).all():
            raise UserError(f"points have shape {points.shape}; give finite ones (N, {d})")
        if not surrogate.decoder.affine:
            raise UserError("the decoder is not affine in its code, so it is exported for any points: leave points out")
        return np.asarray(points, np.float64)
    if not needs_points(surrogate.decoder):
        return None
    place = surrogate.decoder.place
    nodes = getattr(place, "nodes", None)
    nodes = getattr(getattr(place, "region", None), "nodes", None) if nodes is None else nodes
    if nodes is None:
        raise UserError("values anywhere on this domain cannot be exported; give points=FILE")
    missing.append("Values at any points are not exported, since the harmonics are known by the cells of a mesh, in "
                   "which a point would have to be found: `decode` gives them at the nodes (points=FILE: elsewhere).")
    return np.asarray(nodes, np.float64)


def _context(surrogate: Surrogate, parameters: Mapping[str, float] | None, missing: list[str]) -> Tensor:
    if parameters:
        return surrogate.context_of(parameters).mean
    if surrogate.context_size:
        missing.append("The dynamics are those of the mean context of training (parameters.NAME=VALUE gives another).")
    return surrogate.prior.context(surrogate.context_size).mean if surrogate.context_size else torch.zeros(
        0, dtype=torch.float64)


def _note_omissions(surrogate: Surrogate, missing: list[str]) -> None:
    missing.append("Assimilation of observations and standard deviations are not exported; `inrflow.Surrogate.load` "
                   "has them.")
    if surrogate.residual is None:
        return
    about = surrogate.description
    left = surrogate.prior.noise.cpu().double().sqrt() * surrogate.normalisation.scale.cpu().double().ravel()
    parts = ", ".join(f"{name} {size:.2g}{f' {unit}' if unit else ''}" for name, size, unit, field in zip(
        about.channels, left.tolist(), about.units or [""] * len(left), surrogate.residual.channels, strict=True)
        if field is not None)
    missing.append("The Gaussian process between observed places, which queries add to decoded values, is not "
                   "exported: at observed places `decode` differs from queries by what codes do not explain (standard "
                   f"deviation {parts}), between them by more.")


def _write_points(path: Path, coordinates: tuple[str, ...], points: np.ndarray) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(coordinates)
        writer.writerows([[repr(float(value)) for value in row] for row in points])
