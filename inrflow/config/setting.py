"""Settings: fields of a configuration with default, meaning and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Limits of a setting beyond its type: bounds of a number, or a choice of words. Null is always allowed.

    `text` marks values that are taken literally (a path, or a list of paths) although their type is open. `required`
    is the message if a required setting is missing: "FILE is missing; give a file with ...".
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Sequence[str] = ()
    text: bool = False
    required: str = ""

    def __str__(self) -> str:
        """Description in words; empty without limits."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        words = {"of at least": self.least, "above": self.above, "of at most": self.most, "below": self.below}
        bounds = [f"{word} {limit:g}" for word, limit in words.items() if limit is not None]
        return f"a number {' and '.join(bounds)}" if bounds else "required" if self.required else ""


def setting(default: Any, about: str, **limits: Any) -> Any:
    """Dataclass field of a setting: default, one or two sentences for `--help`, and `Limits`."""
    metadata = {"about": about, "limits": Limits(**limits)}
    if isinstance(default, list | dict):
        return field(default_factory=partial(type(default), default), metadata=metadata)
    return field(default=default, metadata=metadata)
