"""Checks of the values of model files: types, finite numbers, signs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from inrflow.errors import UserError

_Made = TypeVar("_Made")


def check_numbers(
    path: Path, name: str, values: Tensor | float, least: float | None = None, above: bool = False
) -> None:
    """Raise UserError where values are no finite floating-point numbers, below `least`, or (`above`) equal to it."""
    real = values.is_floating_point() if isinstance(values, Tensor) else type(values) in (int, float)
    if not real:
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise UserError(f"{path}: {name} is of the type {found} where floating-point numbers are expected; the file is "
                        "damaged: restore it or train again")
    tensor = torch.as_tensor(values)
    bad = ~torch.isfinite(tensor)
    if least is not None:
        bad |= (tensor <= least) if above else (tensor < least)
    if bool(bad.any()):
        limit = "" if least is None else f" {'above' if above else 'of at least'} {least:g}"
        raise UserError(f"{path}: {name} holds {float(tensor[bad].flatten()[0]):g} where a finite number{limit} is "
                        "expected; the file is damaged: restore it or train again")


def plain_values(path: Path, kind: type[_Made], values: Mapping[str, Any]) -> _Made:
    """A dataclass of plain values. Raises UserError where one is of another type than its field or not finite."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        hint, name = hints.get(key), f"{kind.__name__.lower()}.{key}"
        if hint is float:
            check_numbers(path, name, value)
        elif hint in (int, str, bool) and type(value) is not hint:
            raise UserError(f"{path}: {name} is of the type {type(value).__name__} where {hint.__name__} is expected; "
                            "the file is damaged: restore it or train again")
    return kind(**values)


def check_parameters(path: Path, name: str, module: nn.Module) -> None:
    """Raise UserError where a parameter or buffer of a module is not finite."""
    for key, value in module.state_dict().items():
        if value.is_floating_point() or value.is_complex():
            check_numbers(path, f"{name}.{key}", value.abs())


def check_surrogate(path: Path, model: Any) -> None:
    """Raise UserError for numbers of a surrogate read from a file that no fitted model has."""
    prior, name, box = model.prior, model.description.name, torch.as_tensor(model.box)
    for key, finite in (("mean", model.normalisation.mean), ("box", box), ("prior.mean", prior.mean),
                        ("prior.covariance", prior.covariance), ("scale.origin", model.scale.origin)):
        check_numbers(path, f"{name}: {key}", finite)
    for key, positive in (("scale", model.normalisation.scale), ("scale.unit", model.scale.unit),
                          ("horizon", model.horizon)):
        check_numbers(path, f"{name}: {key}", positive, 0.0, above=True)
    for channel in () if model.residual is None else model.residual.channels:
        if channel is not None:
            check_numbers(path, f"{name}: residual", channel.covariance.parameters)
    for key, variance in (("noise", prior.noise), ("process", prior.process), ("spread", prior.spread),
                          ("growth", prior.growth)):
        if variance is not None:
            check_numbers(path, f"{name}: prior.{key}", variance, 0.0)
    check_parameters(path, f"{name}: decoder", model.decoder)
    check_parameters(path, f"{name}: field", model.field)
