"""Resolution of `key=value` overrides, in Hydra's grammar, to a configuration, with checks and one-line messages."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inrflow.config.setting import Limits
from inrflow.errors import UserError, first_line

#: Old keys of settings and their present names; both are accepted, on the command line and in config.yaml of a run.
ALIASES = {"data.equation": "data.completion"}
_NEAR = 0.7  # similarity of misspelt keys for suggestions
_KINDS = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}
#: Keys of earlier runs, which are ignored.
_RETIRED = ("dynamics.quadratic_rank", "dynamics.products", "dynamics.start", "training.steps.equation",
            "training.steps.quadratic_rounds", "training.steps.scattered", "training.steps.scattered_copies",
            "training.steps.data", "decoder.codes", "decoder.closure")

_LARGEST_FILE = 1_000_000  # largest size of a config.yaml in bytes
SWEEP_FLAGS = ("--multirun", "-m")


def at_home(setting: str) -> str:
    """`setting` (key=path, or a list of paths) with ~/ at the start of a path as the home folder, as shells have it at
    the start of a word only."""
    return re.sub(r"(^|[=\[,]\s*)~(?=/)", lambda found: found[1] + os.path.expanduser("~"), setting)


def settings_and_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments key=value, and names of files. Names of existing files, and those in existing folders, may have =."""
    parts: tuple[list[str], list[str]] = [], []
    for item in arguments:
        is_file = "=" not in item or os.path.exists(item) or os.path.isdir(os.path.dirname(item))
        parts[is_file].append(item)
    return parts


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether the arguments request a run for every combination of settings."""
    return any(item in SWEEP_FLAGS for item in arguments)


def config_directory() -> Path:
    """Folder `configs`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "configs", package.parent / "configs"):
        if (candidate / "experiment").is_dir():
            return candidate
    raise UserError(f"no configs folder was found in or beside {package}; install inrflow again")


def resolve(name: str, schema: type, overrides: Sequence[str]) -> Any:
    """Configuration of a command with overrides, as an instance of its dataclass.

    `experiment=NAME` uses the settings of configs/experiment/NAME.yaml, as does `recipe=NAME` if that file exists and
    no experiment is given. Entries of a dictionary are set as `dictionary.entry=value`, or all of them as
    `dictionary={entry: value}`. Values of text settings are taken literally. Raises UserError, in one line, for unknown
    keys, values of the wrong type and values beyond their limits.
    """
    given = [entry for override in overrides for entry in _entries(_renamed(override, schema), schema)]
    chosen = {key: value for key, _, value in (override.partition("=") for override in given)}
    if "recipe" in chosen and "experiment" not in chosen and chosen["recipe"] in _experiments():
        given.append(f"experiment={chosen['recipe']}")
    quoted = tuple(_quoted(override, schema) for override in given)
    try:
        settings: Any = OmegaConf.to_object(_composed(name, schema, quoted))
    except (HydraException, OmegaConfBaseException, _Refused) as error:
        raise UserError(_explain(error, schema, given)) from error
    check_limits(settings)
    _require(settings)
    return settings


class _Refused(Exception):
    """Refusal of an override, of this key; it has no cause where several values are given."""


@lru_cache(maxsize=1)
def _composed(name: str, schema: type, overrides: tuple[str, ...]) -> DictConfig:
    """The schema with the settings of an experiment, then the overrides; cached since settings are checked before a
    command is imported, and again by it. Hydra itself would compose its own settings, too, in ten times the time."""
    given = [(str(override.input_line).lstrip("+").partition("=")[0], override)
             for override in OverridesParser.create().parse_overrides(list(overrides))]
    for key, override in given:
        if override.is_sweep_override():
            raise _Refused(key)
    config = OmegaConf.structured(schema)
    chosen = "experiment" if name == "train" else ""
    if (experiment := dict(given).get(chosen)) is not None:
        if experiment.value() not in _experiments():
            raise UserError(f"{experiment.input_line} is unknown; choose one of {', '.join(_experiments())}")
        config.merge_with(OmegaConf.load(config_directory() / "experiment" / f"{experiment.value()}.yaml"))
    OmegaConf.set_struct(config, True)
    for key, override in given:
        if key != chosen:
            try:
                OmegaConf.update(config, key, override.value(), force_add=override.is_force_add())
            except OmegaConfBaseException as error:
                raise _Refused(key) from error
    return config


def check_limits(settings: Any, prefix: str = "") -> None:
    """Check a configuration against the limits declared by its dataclasses. Raises UserError."""
    for item in fields(settings):
        value, key = getattr(settings, item.name), f"{prefix}{item.name}"
        limits = item.metadata.get("limits", Limits())
        if is_dataclass(value):
            check_limits(value, f"{key}.")
        elif value == "":  # e.g. an unset shell variable
            raise UserError(f"{key}= is empty; give a value, or leave it out")
        elif not _within(value, limits):
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"{key}={shown}; give {limits}")


def _within(value: Any, limits: Limits) -> bool:
    """Whether a value is within its limits."""
    if limits.choices:
        return value in limits.choices
    bounds = (limits.least, limits.above, limits.most, limits.below)
    if value is None or all(bound is None for bound in bounds):
        return True
    return (
        math.isfinite(value)
        and (limits.least is None or value >= limits.least)
        and (limits.above is None or value > limits.above)
        and (limits.most is None or value <= limits.most)
        and (limits.below is None or value < limits.below)
    )


def _require(settings: Any, prefix: str = "") -> None:
    """Check that required settings are given. Raises UserError."""
    for item in fields(settings):
        value, limits = getattr(settings, item.name), item.metadata.get("limits", Limits())
        if is_dataclass(value):
            _require(value, f"{prefix}{item.name}.")
        elif value is None and limits.required:
            raise UserError(f"{prefix}{item.name}={limits.required}")


def given_settings(config: Any) -> dict[str, Any]:
    """Settings of a group that are neither null nor empty."""
    return {key: value for key, value in asdict(config).items() if value not in (None, {})}


def to_yaml(config: Any) -> str:
    """YAML text (ASCII) of a configuration."""
    return yaml.safe_dump(asdict(config), sort_keys=False, width=120)


def from_yaml(path: Path, schema: type) -> Any:
    """Configuration from a file written by `to_yaml`, possibly of an older version; missing settings have defaults.

    Raises UserError if the file is damaged, or its values are invalid.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"it has more than {_LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError("it holds YAML aliases")  # a few of which can expand to billions of values
        values = yaml.safe_load(text) or {}
        if not isinstance(values, dict):
            raise UserError("it holds no settings")
        for old, new in ALIASES.items():
            _move(values, old.split("."), new.split("."))
        for *groups, key in (name.split(".") for name in _RETIRED):
            inner: Any = values
            for group in groups:
                inner = inner.get(group) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner.pop(key, None)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), _literal(values)))
        check_limits(settings)
        return settings
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError, ArithmeticError,
            RecursionError, UserError) as error:
        raise UserError(f"{path} is not a configuration of this inrflow ({first_line(error)})") from error


def keys(schema: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """All keys of a configuration, including its groups, with their annotated types."""
    for item in fields(schema):
        hint = get_type_hints(schema)[item.name]
        yield f"{prefix}{item.name}", str(item.type)
        if is_dataclass(hint):
            yield from keys(hint, f"{prefix}{item.name}.")  # type: ignore[arg-type]


@cache
def _hints(schema: type) -> dict[str, str]:
    return dict(keys(schema))


def _free(key: str, schema: type) -> bool:
    """Whether a key is an entry of a dictionary."""
    return any(key.startswith(f"{name}.") for name, hint in _hints(schema).items() if hint.startswith("dict["))


@cache
def _experiments() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (config_directory() / "experiment").glob("*.yaml")))


@cache
def _texts(schema: type, prefix: str = "") -> dict[str, bool]:
    """Keys whose values are text, and whether these may be lists of text."""
    result: dict[str, bool] = {}
    for item in fields(schema):
        hint, key, kind = get_type_hints(schema)[item.name], f"{prefix}{item.name}", str(item.type)
        if is_dataclass(hint):
            result |= _texts(hint, f"{key}.")  # type: ignore[arg-type]
        elif item.metadata["limits"].text or kind.removesuffix(" | None") in ("str", "list[str]"):
            result[key] = kind != "str" and kind != "str | None"
    return result


def _renamed(override: str, schema: type) -> str:
    """Override without Hydra's prefixes for adding keys, and with the present name of its key."""
    if "=" not in override:
        names, path = [item.name for item in fields(schema)], Path(override)
        keys = ["run"] * path.is_dir() + ["observations", "data", "run"]
        key = next((key for key in keys if key in names), "").replace("data", "data.train")
        kind = "a run" if key == "run" else "a file of data"
        hint = f"; {kind} is {key}={override}" if key and path.exists() else ""
        raise UserError(f"{override!r} is not of the form key=value{hint}")
    if override.startswith("-"):
        raise UserError(f"{override} begins with dashes; settings are written without them: {override.lstrip('-')}")
    key, _, value = override.lstrip("+~").partition("=")
    return f"{ALIASES.get(key, key)}={value}"


def _entries(override: str, schema: type) -> list[str]:
    """The override, or an override for each entry of a dictionary given as a whole."""
    key, _, value = override.partition("=")
    if not (_hints(schema).get(key, "").startswith("dict[") and value.startswith("{") and value.endswith("}")):
        return [override]
    pairs = [item.partition(":") for item in value[1:-1].split(",") if item.strip()]
    return [f"{key}.{name.strip()}={entry.strip()}" for name, _, entry in pairs]


def _quoted(override: str, schema: type) -> str:
    """Override quoted so that Hydra takes its text literally, whatever its characters."""
    key, _, value = override.partition("=")
    texts = _texts(schema)
    if value[:1] in ("'", '"', "[") and (len(value) < 2 or value[-1] != {"[": "]"}.get(value[0], value[0])):
        raise UserError(f"{override} cannot be read: {value[0]} is not closed at the end")
    if key not in texts or value == "null":
        if "${" in value:
            raise UserError(f"{override} refers to a variable; give its value")
        return f"++{override}" if key not in _hints(schema) and _free(key, schema) else override
    if texts[key] and value.startswith("[") and value.endswith("]"):
        items = [item.strip() for item in re.findall(r"""(?:'[^']*'|"[^"]*"|[^,])+""", value[1:-1])]
        return f"{key}=[{','.join(_quote(item) for item in items)}]"
    if str(_hints(schema)[key]).startswith("list["):
        return f"{key}=[{_quote(value)}]"
    return f"{key}={_quote(value)}"


def _quote(text: str) -> str:
    """Text quoted for Hydra's grammar, with `${` escaped; existing quotes are replaced."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    text = _escaped(text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f"'{text}'"


def _escaped(text: str) -> str:
    """Text escaped so that OmegaConf does not interpolate variables."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _literal(value: Any) -> Any:
    """Nested values with all text escaped, so that it is taken literally."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return _escaped(value) if isinstance(value, str) else value


def _move(values: dict[str, Any], old: list[str], new: list[str]) -> None:
    """Move a value under an old key, if there is one, to its new key."""
    place: Any = values
    for part in old[:-1]:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or old[-1] not in place:
        return
    value, place = place.pop(old[-1]), values
    for part in new[:-1]:
        place = place.setdefault(part, {})
    place.setdefault(new[-1], value)


def _explain(error: Exception, schema: type, overrides: Sequence[str]) -> str:
    """One-line description of the mistake in the overrides."""
    text = str(error.__cause__ or error)
    known = list(_hints(schema))
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read ({text.splitlines()[0]}); put quotes around special characters"
    for override in overrides:
        key = override.partition("=")[0]
        if key not in known and "/" not in key and key != "experiment" and not _free(key, schema):
            names = [*known, *(old for old, new in ALIASES.items() if new in known)]
            last = key.split(".")[-1]
            lasts = {name.split(".")[-1]: name for name in reversed(names)}
            near = [name for name in known if name.split(".")[-1] == last] or difflib.get_close_matches(
                key, names, 1, _NEAR) or [lasts[name] for name in difflib.get_close_matches(last, lasts, 1, _NEAR)]
            listed = ", ".join(name for name in known if "." not in name)
            hint = f"; did you mean {ALIASES.get(near[0], near[0])}?" if near else f"; known keys: {listed}"
            return f"unknown key {key!r}{hint}"
    first = text.split("\n")[0]
    if not isinstance(error, _Refused):
        return first
    override = [item for item in overrides if item.partition("=")[0] == str(error)][-1]
    if error.__cause__ is None:
        return f"{override} gives several values; add --multirun to train with each of them"
    wanted = re.search(r"could not be converted to (Integer|Float)|not a valid (bool)", first)
    return f"{override}; give {_KINDS[wanted[1] or wanted[2]]}" if wanted else f"{override}: {first}"
