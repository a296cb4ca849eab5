"""Configurations from Hydra: one resolver for checkout and wheel, overrides checked, errors in one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from inrflow.errors import UserError

_TEXT_KEYS = (
    *("train", "test", "run", "resume", "output", "observations", "points", "to"),
    *("name", "source", "licence", "time_units"),
)


def config_directory() -> Path:
    """Where the YAML files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "configs", package.parent / "configs"):
        if (candidate / "train.yaml").exists():
            return candidate
    raise UserError(f"no configs folder was found in or beside {package}; install inrflow again")


def resolve(name: str, schema: type, overrides: Sequence[str]) -> Any:
    """The configuration `name`.yaml checked against a dataclass, with overrides; returns an instance of the dataclass.

    Entries of a dictionary are set as `dictionary.entry=value`, whether there yet or not. Raises UserError, in one
    line, for unknown keys and values that do not fit or are beyond their limits.
    """
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    free = tuple(f"{item.name}." for item in fields(schema) if str(item.type).startswith("dict["))
    quoted = [f"++{_quoted(o)}" if o.startswith(free) else _quoted(o) for o in overrides]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_directory()), version_base="1.3"):
            config = compose(name, overrides=quoted)
        settings = OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, schema, [o for o in overrides if not o.startswith(free)])) from error
    check_limits(settings)
    return settings


def check_limits(settings: Any, prefix: str = "") -> None:
    """Hold a configuration to the limits that its dataclasses declare with `config.limited`. Raises UserError."""
    for item in fields(settings):
        value, key = getattr(settings, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            check_limits(value, f"{key}.")
        elif value == "":  # what a shell makes of a variable that is not set
            raise UserError(f"{key}= is empty; give a value, or leave it out")
        elif item.metadata and value is not None and not _within(value, **item.metadata):
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"{key}={shown}; give {_allowed(**item.metadata)}")


def _within(
    value: Any, least: float | None, above: float | None, most: float | None, below: float | None,
    choices: tuple[str, ...],
) -> bool:
    if choices:
        return value in choices
    return (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )


def _allowed(
    least: float | None, above: float | None, most: float | None, below: float | None, choices: tuple[str, ...]
) -> str:
    """The limits in words."""
    if choices:
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    words = {"of at least": least, "above": above, "of at most": most, "below": below}
    return "a number " + " and ".join(f"{word} {limit:g}" for word, limit in words.items() if limit is not None)


def to_yaml(config: Any) -> str:
    """A configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


_RETIRED = (("dynamics", "quadratic_rank"),)  # keys of earlier versions that change nothing any more


def from_yaml(path: Path, schema: type) -> Any:
    """Read back what `to_yaml` wrote."""
    try:
        stored = OmegaConf.load(path)
        for group, key in _RETIRED:
            settings = stored.get(group) if isinstance(stored, DictConfig) else None
            if isinstance(settings, DictConfig):
                settings.pop(key, None)
        merged = OmegaConf.merge(OmegaConf.structured(schema), stored)
        settings = OmegaConf.to_object(merged)
        check_limits(settings)
        return settings
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, UserError) as error:
        raise UserError(f"{path} is not a configuration of this inrflow ({str(error).splitlines()[0]})") from error


def _quoted(override: str) -> str:
    """Paths and plain text may hold characters that Hydra's grammar keeps for itself: quote them."""
    if "=" not in override:
        raise UserError(f"{override!r} is not of the form key=value")
    override = override.lstrip("+~")  # with which Hydra adds keys that its schema lacks, or takes some away
    key, value = override.split("=", 1)
    last = key.rsplit(".", 1)[-1]
    plain = re.fullmatch(r"[\w./\\:+-]*", value) is not None
    number = re.fullmatch(r"[-+\d.eE]+", value) is not None
    if last in _TEXT_KEYS and not plain and not number and not value.startswith(("'", '"', "[")):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return override


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    result = []
    for key in map(str, config):
        name = f"{prefix}{key}"
        result.append(name)
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            result += _keys(config[key], f"{name}.")
    return result


def _explain(error: Exception, schema: type, overrides: Sequence[str]) -> str:
    text = str(error.__cause__ or error)
    known = _keys(OmegaConf.structured(schema))
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read ({text.splitlines()[0]}); put quotes around what is not plain"
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key not in known and "/" not in key and key != "experiment":
            near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(key.split(".")[-1], known, 1)
            listed = ", ".join(k for k in known if "." not in k)
            hint = f"; did you mean {near[0]}?" if near else f"; known keys: {listed}"
            return f"unknown key {key!r}{hint}"
        if re.search(rf"[Cc]ould not find '{re.escape(key)}/", text):
            options = ", ".join(sorted(path.stem for path in (config_directory() / key).glob("*.yaml")))
            return f"{override} is unknown; choose one of {options}"
    first = " ".join(text.split("\n")[:1])
    for override in overrides:
        key, _, value = override.partition("=")
        if f"full_key: {key}" in text or (value and value in first):
            return f"{override}: {first}"
    return first
