"""Rich representations of surrogates and solutions in notebooks: a small table of what they are; numbers of things."""

from __future__ import annotations

import html
from typing import Any

from inrflow.runtime.safe_names import printable

_LINES = 12  # of an equation


def counted(count: object, one: str, several: str | None = None) -> str:
    """A number of things in words: 1 trajectory, 3 trajectories."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def trajectories(count: object) -> str:
    """A number of trajectories in words."""
    return counted(count, "trajectory", "trajectories")


class Shown:
    """What notebooks show of a surrogate or a solution: its representation, the domain and the law that was found."""

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
    """Text of files, so that it is no markup."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))
