"""The report of an evaluation on the screen: errors of the model beside those of the reference forecasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from inrflow.dynamics.states import short_window
from inrflow.evaluation.metrics import METRICS
from inrflow.evaluation.references.registry import title_of

_GROUPS = {"in_t": "in-t", "out_t": "out-t", "in_s": "in-s", "out_s": "out-s"}


def show_errors(report: dict[str, Any], console: Console) -> None:
    """Print errors before and after the training horizon and on observed and unobserved points, and what else the
    registered metrics give a title."""
    console.print(_error_table(report))
    seen, needed = report["observed"]["frames"], report.get("frames_needed", 1)
    if seen < needed:
        console.print(short_window(seen, needed), style="bold", highlight=False)
    elif needed > 1:
        console.print(
            f"forecasts start from {seen} observed frames; this system's state needs at least {needed} "
            f"(observe.frames={needed})", highlight=False, soft_wrap=True,
        )
    seconds = f"encoding {report['encode_seconds']:.3f} s, rollout {report['rollout_seconds']:.3f} s, "
    seconds += f"decoding {report['decode_points_per_second'] / 1e6:.3g} million points/s"
    console.print(f"{report['trajectories']} trajectories; {seconds}", highlight=False)
    for line in error_lines(report):
        console.print(line, highlight=False, markup=False)


def error_lines(report: dict[str, Any]) -> Iterator[str]:
    """A line for each number in the report that a registered metric gives a title."""
    for metric in METRICS.values():
        for key, title in metric.titles.items():
            if isinstance(report.get(key), int | float):
                yield title.format(report[key])


def _error_table(report: dict[str, Any]) -> Table:
    """The metrics that are given by groups of frames and points; a row for the model and for each reference."""
    shown = {key: title for metric in METRICS.values() for key, title in metric.titles.items()
             if isinstance(report.get(key), dict)}
    groups = {key: [group for group in _GROUPS if report[key].get(group) is not None] for key in shown}
    table = Table(title="forecast errors on the test data (mean over channels)")
    table.add_column("")
    for key, title in shown.items():
        for group in groups[key]:
            table.add_column(f"{title} {_GROUPS[group]}", justify="right")
    rows = {"inrflow": report} | {title_of(name): errors for name, errors in report["references"].items()}
    for name, errors in rows.items():
        cells = [_cell(errors.get(key, {}).get(group)) for key in shown for group in groups[key]]
        table.add_row(name, *cells, style="bold" if name == "inrflow" else None)
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
