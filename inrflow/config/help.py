"""`inrflow COMMAND --help`: all keys of a command with defaults, limits and meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from inrflow.config.resolve import config_directory
from inrflow.config.schema import SCHEMAS

_BEFORE_KEYS = {"train": "[--multirun] [key=value[,value ...] ...]", "inspect": "FILE [key=value ...]",
                "convert": "SOURCE [SOURCE ...] TARGET [key=value ...]"}
_WIDTH = 100


def command_help(name: str, summary: str) -> str:
    """Help text of one command."""
    lines = [f"inrflow {name}: {summary}", "", f"usage: inrflow {name} {_BEFORE_KEYS.get(name, '[key=value ...]')}"]
    if name not in SCHEMAS:
        return "\n".join(lines)
    lines += ["", *_about(SCHEMAS[name]), "", *_settings(SCHEMAS[name]())]
    if name == "train":
        lines += ["", "experiments, several settings at once:"]
        for path in sorted((config_directory() / "experiment").glob("*.yaml")):
            lines += [f"  experiment={path.stem}", *_wrapped(_comment(path), "      ")]
    return "\n".join(lines)


def _settings(settings: Any, prefix: str = "") -> Iterator[str]:
    """Lines `key=default` of every setting with its meaning; groups follow single settings."""
    groups = []
    for item in fields(settings):
        value, key = getattr(settings, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            groups.append((key, value))
            continue
        limits, meaning = str(item.metadata["limits"]), item.metadata["about"]
        yield f"  {key}={_written(value)}"
        yield from _wrapped(meaning + (f" [{limits}]" if limits and limits not in meaning else ""), "      ")
    for key, value in groups:
        yield from ["", *_about(type(value))]
        yield from _settings(value, f"{key}.")


def _about(schema: type) -> list[str]:
    """Docstring of a configuration, rewrapped."""
    return _wrapped(" ".join((schema.__doc__ or "").split()), "")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _written(value: Any) -> str:
    """Value in the form used on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(_written, value))}]" if isinstance(value, list) else str(value)


def _comment(path: Path) -> str:
    """Comment at the head of an experiment's file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if line.startswith("# ") and "@package" not in line)
