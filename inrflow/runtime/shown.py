"""HTML representations of surrogates and solutions in notebooks, and numbers with nouns."""

from __future__ import annotations

import html
from typing import Any

from inrflow.runtime.safe_names import printable

_LINES = 12  # lines of an equation shown


def counted(count: object, one: str, several: str | None = None) -> str:
    """Number with its noun in the singular or plural: 1 frame, 3 frames."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def trajectories(count: object) -> str:
    """Number of trajectories with its noun: 1 trajectory, 3 trajectories."""
    return counted(count, "trajectory", "trajectories")


def with_unit(name: str, unit: str) -> str:
    """Name of a channel with its unit in brackets, unless that is unknown or part of the name: NO2 [µg/m³]."""
    return f"{name} [{unit}]" if unit and unit not in name.replace("\u2215", "/") else name


class Shown:
    """Mixin for the display of surrogates and solutions in notebooks: representation, domain and fitted law."""

    def _repr_html_(self) -> str:
        return _html(self)


def _html(thing: Any) -> str:
    surrogate = getattr(thing, "surrogate", thing)
    about = surrogate.description
    box = ", ".join(f"{name} {low:.4g} to {high:.4g}"
                    for name, low, high in zip(about.coordinates, *surrogate.box, strict=True))
    rows = {"domain": box, "trained on": f"{trajectories(surrogate.training.get('trajectories', '?'))} over "
            f"{surrogate.horizon:.4g} {about.duration_units or 'units of time'}",
            "law": "\n".join(map(str, list(surrogate.training.get("equation") or ())[:_LINES]))}
    cells = "".join(f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left;white-space:pre-wrap'>"
                    f"{_words(text)}</td></tr>" for name, text in rows.items() if text)
    return f"<b>{_words(repr(thing))}</b><table>{cells}</table>"


def _words(text: str) -> str:
    """Text of files, escaped for HTML."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))
