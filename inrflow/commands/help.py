"""`inrflow COMMAND --help`: every key of a command with its default, explained by the comments of its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from inrflow.config import schema as config
from inrflow.config.resolve import config_directory, resolve

_GROUPS = ("data", "decoder", "encoding", "dynamics", "training")
_BEFORE_KEYS = {"inspect": "FILE", "convert": "SOURCE TARGET [key=value ...]"}


def command_help(name: str, summary: str) -> str:
    """The text for one command."""
    lines = [f"inrflow {name}: {summary}", "", f"usage: inrflow {name} {_BEFORE_KEYS.get(name, '[key=value ...]')}"]
    schema = getattr(config, "Config" if name == "train" else f"{name.capitalize()}Config", None)
    if schema is None:
        return "\n".join(lines)
    folder = config_directory()
    lines += ["", *(f"  {line}" for line in _comments(folder / f"{name}.yaml")), ""]
    defaults = list(_keys(resolve(name, schema, ())))
    lines += [f"  {line}" for line in defaults if name != "train" or line.split(".")[0] not in _GROUPS]
    if name == "train":
        chosen = dict(re.findall(r"- (\w+): (\w+)", (folder / "train.yaml").read_text(encoding="utf-8")))
        for group in _GROUPS:
            path = folder / group / f"{chosen[group]}.yaml"
            lines += ["", *(f"  {line}" for line in _explained(path, group, defaults))]
        lines += ["", "  published recipes and others, all of their settings at once:"]
        for path in sorted((folder / "experiment").glob("*.yaml")):
            about = " ".join(line.removeprefix("# ") for line in _comments(path) if "@package" not in line)
            lines.append(f"  experiment={path.stem}  {about}")
    return "\n".join(lines)


def _keys(settings: Any, prefix: str = "") -> Iterator[str]:
    """`key=default` of every setting."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}={_written(value)}"


def _written(value: Any) -> str:
    """A value as it would be given on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(_written, value))}]" if isinstance(value, list) else str(value)


def _comments(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]


def _explained(path: Path, group: str, defaults: list[str]) -> Iterator[str]:
    """The comments of a group's file, each before the keys that it explains; then the keys that have none."""
    left = [line for line in defaults if line.startswith(f"{group}.")]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            yield line
        else:
            key = f"{group}.{line.split(':')[0]}"
            for found in [item for item in left if item.startswith((f"{key}=", f"{key}."))]:
                left.remove(found)
                yield found
    yield from left
