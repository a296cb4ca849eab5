"""Settings: a field of a configuration with its default, what it means, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What the type of a setting does not say: bounds of a number, or a choice of words. A null is always allowed.

    `text` marks values that are taken literally (a path, or a list of them) although their type is open. `required` is
    what to give where a command cannot do without: "FILE is missing; give a file with ...".
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Sequence[str] = ()
    text: bool = False
    required: str = ""

    def __str__(self) -> str:
        """In words; empty without any."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        words = {"of at least": self.least, "above": self.above, "of at most": self.most, "below": self.below}
        bounds = [f"{word} {limit:g}" for word, limit in words.items() if limit is not None]
        return f"a number {' and '.join(bounds)}" if bounds else ""


def setting(default: Any, about: str, **limits: Any) -> Any:
    """A field of a configuration: its default, one or two sentences for `--help`, and its `Limits`."""
    metadata = {"about": about, "limits": Limits(**limits)}
    if isinstance(default, list | dict):
        return field(default_factory=partial(type(default), default), metadata=metadata)
    return field(default=default, metadata=metadata)
