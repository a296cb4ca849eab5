"""Reports: errors of a model and of reference forecasts, candidate models, and figures of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inrflow.dynamics.states import too_few_frames
from inrflow.evaluation.evaluate import Evaluation
from inrflow.evaluation.metrics import METRICS
from inrflow.evaluation.metrics.calibration_table import LEVELS
from inrflow.evaluation.references.base import title_of
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.safe_names import printable, safe_name
from inrflow.runtime.screen import show
from inrflow.runtime.shown import trajectories

_MOST = 14  # candidates shown, at most
_SPARSE = 0.6  # largest share of observed points for which these are marked
_GROUPS = {"in_t": "in-t", "out_t": "out-t", "in_s": "in-s", "out_s": "out-s"}


def show_errors(report: dict[str, Any], console: Console, physics: str = "") -> None:
    """Print errors before and after the training horizon, at observed and unobserved points, and all other registered
    metrics with a title; `physics`: name of the physics, if there are several."""
    console.print(_error_table(report, physics))
    seen, needed = report["observed"]["frames"], report.get("frames_needed", 1)
    if seen < needed:
        console.print(too_few_frames(seen, needed), style="bold", highlight=False)
    elif needed > 1:
        console.print(
            f"forecasts start from {seen} observed frames; the state is determined by at least {needed} "
            f"(observe.frames={needed})", highlight=False, soft_wrap=True,
        )
    if report["references"].get("persistence", {}).get("mse", {}).get("in_t") == 0.0:
        console.print("all in-t frames were observed: in-t errors are those of a fit, out-t errors those of "
                      "forecasts", highlight=False, soft_wrap=True)
    seconds = f"encoding {report['encode_seconds']:.3f} s, rollout {report['rollout_seconds']:.3f} s, "
    seconds += f"decoding {report['decode_points_per_second'] / 1e6:.3g} million points/s"
    console.print(f"{trajectories(report['trajectories'])}; {seconds}", highlight=False)
    for line in error_lines(report):
        console.print(line, highlight=False)
    if report.get("calibration"):
        console.print(_calibration_table(report["calibration"]))


def error_lines(report: dict[str, Any]) -> Iterator[str]:
    """Line for each number in the report that has a title in a registered metric."""
    for metric in METRICS.values():
        for key, title in metric.titles.items():
            if isinstance(report.get(key), int | float):
                yield title.format(report[key])


def _calibration_table(tables: dict[str, list[dict[str, Any]]]) -> Table:
    """Table of coverage, CRPS and z-spread by lead time, and by distance if not all points were observed."""
    table = Table(title="calibration (a z-spread of 1 is ideal)", box=None, padding=(0, 2, 0, 0))
    for index, name in enumerate(("", *(f"{level} % hold" for level in LEVELS), "CRPS", "z-spread", "values")):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    units = {"by_lead": "steps ahead", "by_distance": "spacings away"}
    for name, rows in tables.items():
        for row in rows if name == "by_lead" or len(rows) > 1 else ():
            end = row["up_to"]
            words = f"{row['above']:g} or more" if end is None or np.isinf(end) else f"up to {end:g}"
            words = "observed times" if name == "by_lead" and end == 0 else f"{words} {units[name]}"
            shares = [f"{row[f'coverage_{level}']:.1%}" for level in LEVELS]
            table.add_row(words, *shares, _cell(row["crps"]), f"{row['z_spread']:.2f}", f"{row['values']:,d}")
    return table


def _error_table(report: dict[str, Any], physics: str) -> Table:
    """Table of the metrics by groups of frames and points, with a row for the model and for each reference."""
    shown = {key: title for metric in METRICS.values() for key, title in metric.titles.items()
             if isinstance(report.get(key), dict)}
    groups = {key: [group for group in _GROUPS if report[key].get(group) is not None] for key in shown}
    of = f" of {printable(physics)}" if physics else ""
    data = "training data" if report.get("in_sample") else "test data"
    table = Table(title=Text(f"forecast errors on the {data}{of} (mean over channels)"))
    table.add_column("")
    for key, title in shown.items():
        for group in groups[key]:
            table.add_column(f"{title} {_GROUPS[group]}", justify="right")
    rows = {"inrflow": report}
    if "held_out" in report:
        rows["inrflow, held-out forecasts"] = report["held_out"]
    rows |= {title_of(name): errors for name, errors in report["references"].items()}
    for name, errors in rows.items():
        cells = [_cell(errors.get(key, {}).get(group)) for key in shown for group in groups[key]]
        table.add_row(Text(printable(name)), *cells, style="bold" if name == "inrflow" else None)
    return table


def show_candidates(report: dict[str, Any], console: Console) -> None:
    """Print candidates.json as a table, and a line for each recipe that did not apply.

    Raises KeyError, TypeError or ValueError if it is not in that format.
    """
    candidates, chosen = report["candidates"], report["chosen"]
    shown, beside = _shown(candidates, chosen), _beside(candidates)
    some = f", {len(shown)} of {len(candidates)}" if len(shown) < len(candidates) else ""
    title = f"candidate models{some} (error of each recipe's held-out forecasts; floor: error of the decoder alone)"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    sizes = {"code_size": "codes", "memory": "memory", "contexts": "contexts"}
    sizes = {key: name for key, name in sizes.items() if key == "code_size" or any(one[key] for one in candidates)}
    for name in ("recipe", "candidate"):
        table.add_column(name, overflow="fold")
    for name in (*sizes.values(), "unknowns", "seconds", "error", "floor"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for index in shown:
        one = candidates[index]
        words = [one["recipe"], one["candidate"], *(f"{one[key]:d}" for key in sizes), _count(one["unknowns"]),
                 f"{one['seconds']:.3g}", _cell(one["validation_error"]), _cell(one["floor"]),
                 _verdict(one, index == chosen, index in beside)]
        table.add_row(*(Text(printable(word)) for word in words), style="bold" if index == chosen else None)
    rows = [("not applied" if place == 0 else "", f"{one['recipe']}: {one['why']}")
            for place, one in enumerate(report["not_applied"])]
    if candidates:
        console.print(table, highlight=False)
    if rows:
        show(rows, console)


def _shown(candidates: list[dict[str, Any]], chosen: int | None) -> list[int]:
    """Indices of the chosen candidate, intermediate choices and the best others, in order of trial."""
    def rank(index: int) -> tuple[bool, bool, float]:
        error = candidates[index]["validation_error"]
        return index != chosen, not candidates[index]["taken"], float("inf") if error is None else error

    return sorted(sorted(range(len(candidates)), key=rank)[:_MOST])


def _beside(candidates: list[dict[str, Any]]) -> set[int]:
    """Indices of the residual fields used with the chosen model: the last one taken for each channel."""
    last = {one["candidate"].split(": ")[0]: index for index, one in enumerate(candidates)
            if one["recipe"] == "residual_field" and one["taken"]}
    return set(last.values())


def _verdict(candidate: dict[str, Any], chosen: bool, beside: bool) -> str:
    why = candidate["why"]
    if beside:
        return f"used with the model: {why}" if why else "used with the model"
    if chosen:
        return f"chosen: {why}" if why else "chosen"
    if candidate["taken"]:
        return f"replaced: {why}" if why else "replaced"
    return why


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,d}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def draw(
    directory: Path, surrogate: Surrogate, evaluation: Evaluation, triangles: np.ndarray | None = None
) -> list[Path]:
    """Files of figures of the forecast of one trajectory for every channel, and of errors by time."""
    from inrflow.plotting import Scene, forecast_figure

    example, about = evaluation.example, surrogate.description
    observed = np.isfinite(example["observed"]).any(-1)
    scene = Scene(
        example["t"], example["x"], example["prediction"], about.channels, example["truth"], example["std"],
        about.units, triangles, about.coordinates, about.geometry, about.time_units, _horizon(surrogate, evaluation),
        assimilated=float(example["t"][len(observed) - 1]), sensors=sensors(example["x"], observed),
    )
    written = [forecast_figure(directory / f"forecast_{safe_name(channel)}.png", scene, channel=channel,
                               title=about.name) for channel in about.channels]
    return [*written, draw_errors(directory, surrogate, evaluation)]


def draw_errors(directory: Path, surrogate: Surrogate, evaluation: Evaluation, suffix: str = ".png") -> Path:
    """File of the figure of errors by time, of the model and of the reference forecasts; after the observed frames if
    all of their values were observed, as errors at these are those of a fit."""
    from inrflow.plotting import error_figure

    seen, truth = (np.isfinite(evaluation.example[name]) for name in ("observed", "truth"))
    fitted = len(seen) < len(truth) and bool((seen == truth[:len(seen)]).all())
    first = len(seen) if fitted else 0
    errors = {title_of(name): values[first:] for name, values in evaluation.by_frame.items()}
    about = surrogate.description
    return error_figure(directory / f"errors{suffix}", evaluation.times[first:], errors,
                        _horizon(surrogate, evaluation), title=about.name, time_units=about.time_units)


def _horizon(surrogate: Surrogate, evaluation: Evaluation) -> float:
    """Last time of training, in the data's time."""
    return float(evaluation.times[0]) + surrogate.horizon


def sensors(x: np.ndarray, observed: np.ndarray) -> np.ndarray | None:
    """Places (n, d) of the points x (N, d) or (T, N, d) that are observed in any of the first K frames (K, N); None if
    points move, or nearly all are observed."""
    seen = observed.any(0)
    return x[seen] if x.ndim == 2 and seen.sum() <= _SPARSE * x.shape[0] else None
