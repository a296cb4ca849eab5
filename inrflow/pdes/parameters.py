"""Values of an equation's parameters for each run: fixed, drawn from a range, or listed by environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inrflow.errors import UserError
from inrflow.pdes.equation import Parameter

_HOW = "a number, `sample`, a range {low: .., high: ..} or a list with a value for each environment"


def environment_count(given: Mapping[str, Any], environments: int | None) -> int | None:
    """Number of environments: `environments`, or the length of the lists in `given`; None if there are none.

    Raises UserError if these disagree, or if all environments would be the same.
    """
    lengths = {name: len(value) for name, value in given.items() if _is_list(value)}
    for name, length in lengths.items():
        if length == 0:
            raise UserError(f"parameters.{name} is an empty list: give at least one value.")
        expected = environments if environments is not None else next(iter(lengths.values()))
        if length != expected:
            raise UserError(
                f"parameters.{name} lists {length} values for {expected} environments: give one value for each."
            )
    if environments is None:
        return next(iter(lengths.values()), None)
    if environments < 1:
        raise UserError(f"environments={environments}: give a number of at least 1.")
    if environments > 1 and not any(_is_list(value) or _is_drawn(value) for value in given.values()):
        raise UserError(
            f"environments={environments} but no parameter differs between them: give one of the parameters as {_HOW}."
        )
    return environments


def parameter_values(
    declared: Mapping[str, Parameter],
    given: Mapping[str, Any],
    runs: int,
    environments: int | None,
    seed: Sequence[int],
) -> np.ndarray:
    """Parameter values (runs, P) in the order of declaration. Run r belongs to environment r mod `environments`, whose
    runs share all drawn values.

    Raises UserError for names that are not declared and for inadmissible values.
    """
    unknown = [name for name in given if name not in declared]
    if unknown:
        raise UserError(f"Unknown parameter {unknown[0]!r}: choose from {', '.join(declared)}.")
    systems = runs if environments is None else environments
    columns = []
    for position, (name, parameter) in enumerate(declared.items()):
        value = given.get(name, parameter.default)
        if _is_list(value):
            column = np.array([_number(name, one, parameter) for one in value])
        elif _is_drawn(value):
            low, high = _range(name, value, parameter)
            draws = [np.random.default_rng([*seed, system, position]).random() for system in range(systems)]
            column = low + (high - low) * np.array(draws)
        else:
            column = np.full(systems, _number(name, value, parameter))
        columns.append(column)
    table = np.stack(columns, axis=1) if columns else np.zeros((systems, 0))
    return table[np.arange(runs) % systems]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_drawn(value: Any) -> bool:
    return value == "sample" or isinstance(value, Mapping)


def _range(name: str, value: Any, parameter: Parameter) -> tuple[float, float]:
    if value == "sample":
        return parameter.low, parameter.high
    if set(value) != {"low", "high"}:
        keys = ", ".join(map(str, value))
        raise UserError(f"parameters.{name} has keys {keys}: a range is given as {{low: .., high: ..}}.")
    low, high = (_number(name, value[key], parameter) for key in ("low", "high"))
    if low > high:
        raise UserError(f"parameters.{name} ranges from {low:g} down to {high:g}: give low before high.")
    return low, high


def _number(name: str, value: Any, parameter: Parameter) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise UserError(f"parameters.{name} is {value!r}: give {_HOW}.")
    if value < parameter.minimum:
        raise UserError(f"parameters.{name} is {value:g}: give at least {parameter.minimum:g}.")
    return float(value)
