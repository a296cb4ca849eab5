"""Sweeps: several values of a setting, separated by commas as in Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from inrflow.config.resolve import SWEEP_FLAGS
from inrflow.errors import UserError


def swept_settings(arguments: Sequence[str]) -> list[list[str]]:
    """Overrides of each setting of a sweep but its output; several for one that is swept. Raises UserError."""
    return [choices(item) for item in arguments if item not in SWEEP_FLAGS and not item.startswith("output=")]


def each_once(axes: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Combinations in which each override occurs, with the first of all other settings."""
    first = [axis[0] for axis in axes]
    yield first
    for index, axis in enumerate(axes):
        yield from ([*first[:index], item, *first[index + 1 :]] for item in axis[1:])


def choices(override: str) -> list[str]:
    """Single overrides of a swept one: two for `seed=0,1` and `seed=range(2)`; others are returned unchanged."""
    key, found, value = override.partition("=")
    if not found:
        return [override]
    items: Iterable[str] = _split(value)
    if re.match(r"(range|choice|shuffle|sort|glob|interval)\(", value):
        try:
            items = OverridesParser.create().parse_override(override).sweep_string_iterator()
        except HydraException as error:
            raise UserError(f"{override} cannot be read as a sweep ({error}); give values as {key}=A,B") from error
    return [f"{key}={item}" for item in items]


def _split(value: str) -> Iterator[str]:
    """Parts of a text separated by commas outside of brackets and quotes."""
    depth, quote, start = 0, "", 0
    for at, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[({":
            depth += 1
        elif letter in "])}":
            depth -= 1
        elif letter == "," and depth == 0:
            yield value[start:at]
            start = at + 1
    yield value[start:]
