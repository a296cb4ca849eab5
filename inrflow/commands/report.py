"""The table of errors on the screen: the model beside the reference forecasts."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from inrflow.dynamics.states import short_window


def show_errors(report: dict[str, Any], console: Console) -> None:
    """Print MSE and NMSE before and after the training horizon, and on observed and unobserved points."""
    groups = [g for g in ("in_t", "out_t", "in_s", "out_s") if report["mse"].get(g) is not None]
    titles = {"in_t": "in-t", "out_t": "out-t", "in_s": "in-s", "out_s": "out-s"}
    table = Table(title="forecast errors on the test data (mean over channels)")
    table.add_column("")
    for kind in ("MSE", "NMSE"):
        for group in groups:
            table.add_column(f"{kind} {titles[group]}", justify="right")
    rows = {"inrflow": report, **report["references"]}
    for name, errors in rows.items():
        cells = [_cell(errors[kind].get(group)) for kind in ("mse", "nmse") for group in groups]
        table.add_row(name, *cells, style="bold" if name == "inrflow" else None)
    console.print(table)
    seen, needed = report["observed"]["frames"], report.get("frames_needed", 1)
    if seen < needed:
        console.print(short_window(seen, needed), style="bold", highlight=False)
    elif needed > 1:
        console.print(
            f"forecasts begin from {seen} observed frames: single frames do not tell the state of this system, "
            f"{needed} are needed (observe.frames={needed})", highlight=False, soft_wrap=True,
        )
    seconds = f"encoding {report['encode_seconds']:.3f} s, rollout {report['rollout_seconds']:.3f} s, "
    seconds += f"decoding {report['decode_points_per_second'] / 1e6:.3g} million points/s"
    console.print(f"{report['trajectories']} trajectories; {seconds}", highlight=False)
    if report.get("coverage_90") is not None:
        console.print(f"90 % intervals hold {100 * report['coverage_90']:.1f} % of the values", highlight=False)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
