"""Model files: one safetensors file per run directory, with tensors and, as JSON in its header, the structure.

A vector field is saved by the registered names of its terms; `store_v1` reads files from before that. The header gives
the format, one physics or several, and the reader registered for it makes the model. All values are checked: types,
finite numbers, signs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.errors import UserError, first_line
from inrflow.model.store_v1 import EARLIER, upgraded
from inrflow.runtime.run_files import MODEL_FILE, no_model
from inrflow.runtime.tensor_files import load_metadata, load_tensors

FORMAT, FAMILY_FORMAT = "inrflow-surrogate", "inrflow-family"
VERSIONS = {FORMAT: 3, FAMILY_FORMAT: 5}  # of the formats that are written
_BEFORE = {FORMAT: 2, FAMILY_FORMAT: 4}  # read unless eigenfunctions were computed, then of any orientation
_SOLVED = "region", "surface", "network", "flows"  # kinds of domains with computed eigenfunctions
_INDEFINITE = 1e-6  # tolerance for negative eigenvalues of covariances, relative to the largest variance
Reader = Callable[["StoredModel", str | None], Any]
_Made = TypeVar("_Made")
_READERS: dict[str, Reader] = {}


@dataclass(frozen=True)
class StoredModel:
    """Contents of a model file.

    Attributes:
        path: of the file.
        format: name of its reader.
        state: nested tensors.
        metadata: nested plain values.
    """

    path: Path
    format: str
    state: dict[str, Any]
    metadata: dict[str, Any]

    def require_proportions(self) -> None:
        """Raise UserError where the structure declares a size larger than the file."""
        most = self.path.stat().st_size // 4  # bytes of a number
        for key, value in (item for part in _parts(self.metadata) for item in _integers(part)):
            if value > most:
                raise damaged(self.path, f"declares {key}={value}, more than a file of its size holds")

    def require_numbers(self) -> None:
        """Raise UserError where a tensor or plain value is NaN, which no model has."""
        for name, value in (*_values(self.state), *_values(self.metadata)):
            if bool(torch.as_tensor(value).isnan().any()):
                raise damaged(self.path, f"{name} holds nan where a number is expected")


def damaged(path: Path, found: str) -> UserError:
    """The error of a model file in which something was found that no model has."""
    return UserError(f"{path}: {found}; the file is damaged: restore it or train again")


def _parts(metadata: Mapping[str, Any]) -> list[Any]:
    """Structures of decoders and fields, for all physics."""
    members = [metadata, *metadata.get("members", {}).values()]
    return [member.get(kind) for member in members for kind in ("decoder", "field")]


def _values(nested: Any, name: str = "") -> Iterator[tuple[str, Tensor | float]]:
    """Tensors and floating-point numbers in nested dictionaries and lists, with their paths."""
    if isinstance(nested, dict | list):
        for key, item in nested.items() if isinstance(nested, dict) else enumerate(nested):
            yield from _values(item, f"{name}.{key}" if name else str(key))
    elif isinstance(nested, Tensor | float):
        yield name, nested


def _integers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Integers in nested dictionaries and lists of them, with their keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _integers(item, key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from _integers(item, name)
    elif isinstance(value, int):
        yield name, value


def reader(name: str) -> Callable[[Reader], Reader]:
    """Decorator: register the function that makes the model of a file of this format, with the name of a physics or
    None."""

    def register(function: Reader) -> Reader:
        _READERS[name] = function
        return function

    return register


def model_format(directory: str | os.PathLike[str]) -> str | None:
    """The format of the model in a run directory, from the file's header alone; None without a model."""
    path = Path(directory) / MODEL_FILE
    return load_metadata(path).get("format") if path.exists() else None


def is_family(directory: str | os.PathLike[str]) -> bool:
    """Whether a run directory holds several physics, by the header of its model file."""
    return model_format(directory) == FAMILY_FORMAT


def read_model(directory: str | os.PathLike[str]) -> StoredModel:
    """The model file of a run directory in the present format.

    Raises UserError where there is no finished model, or none that this version reads.
    """
    path = Path(directory) / MODEL_FILE
    if not path.exists():
        raise no_model(Path(directory))
    state, metadata = load_tensors(path)
    if not isinstance(state, dict) or not isinstance(metadata, dict):
        raise UserError(f"{path} is not a model that inrflow has saved; restore it or train again")
    if (metadata.get("format"), metadata.get("version")) == EARLIER:
        state, metadata = upgraded(path, state, metadata)
    name, version = metadata.get("format"), metadata.get("version")
    if name in _READERS and version == _BEFORE[name]:
        if any(map(_is_solved, _parts(metadata))):
            raise UserError(f"{path} is of a mesh and of version {version}, whose codes depend on the machine that "
                            "trained it; train again")
        version = VERSIONS[name]
    if name not in _READERS or version != VERSIONS[name]:
        known = ", ".join(f"{key} of version {number}" for key, number in [EARLIER, *VERSIONS.items()])
        raise UserError(f"{path} has format {name!r} version {version!r}; this inrflow reads {known}: train again with "
                        "it")
    return StoredModel(path, name, state, metadata)


def _is_solved(value: Any) -> bool:
    """Whether nested values contain the state of a domain with computed eigenfunctions."""
    if isinstance(value, dict):
        return ("nodes" in value and value.get("kind") in _SOLVED) or any(_is_solved(item) for item in value.values())
    return isinstance(value, list) and any(_is_solved(item) for item in value if isinstance(item, dict))


def load_model(directory: str | os.PathLike[str], physics: str | None = None) -> Any:
    """The model of a run directory, the named `physics` where it holds several. Raises UserError as `read_model`, and
    where its parts do not make a model."""
    if not isinstance(directory, str | os.PathLike):
        raise UserError(f"a run directory is a path, not {type(directory).__name__}; give one that inrflow train has "
                        "written")
    return made(read_model(os.path.expanduser(directory)), lambda stored: _READERS[stored.format](stored, physics))


def made(stored: StoredModel, make: Callable[[StoredModel], _Made]) -> _Made:
    """The result of `make` for a model file. Raises UserError for any failure, as damaged files fail in many ways."""
    try:
        stored.require_proportions()
        stored.require_numbers()
        return make(stored)
    except UserError as error:
        if str(stored.path.parent) in str(error):
            raise
        raise UserError(f"{stored.path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(f"{stored.path} is damaged, or of another version of inrflow ({first_line(error)}); restore "
                        "it, or train again") from error


def check_numbers(
    path: Path, name: str, values: Tensor | float, least: float | None = None, above: bool = False
) -> None:
    """Raise UserError where values are not finite numbers of single or double precision, below `least`, or (`above`)
    equal to it."""
    kind = values.dtype if isinstance(values, Tensor) else type(values)
    real = kind in (torch.float32, torch.float64, int, float)
    if not real:
        found = kind if isinstance(kind, torch.dtype) else kind.__name__
        raise damaged(path, f"{name} is of the type {found} where floating-point numbers are expected")
    tensor = torch.as_tensor(values)
    bad = ~torch.isfinite(tensor)
    if least is not None:
        bad |= (tensor <= least) if above else (tensor < least)
    if bool(bad.any()):
        limit = "" if least is None else f" {'above' if above else 'of at least'} {least:g}"
        first = float(tensor[bad].flatten()[0])
        raise damaged(path, f"{name} holds {first:g} where a finite number{limit} is expected")


def plain_values(path: Path, kind: type[_Made], values: Mapping[str, Any]) -> _Made:
    """A dataclass of plain values. Raises UserError where one is of another type than its field or not finite."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        hint, name = hints.get(key), f"{kind.__name__.lower()}.{key}"
        if hint is float:
            check_numbers(path, name, value)
        elif hint in (int, str, bool) and type(value) is not hint:
            raise damaged(path, f"{name} is of the type {type(value).__name__} where {hint.__name__} is expected")
    return kind(**values)


def check_parameters(path: Path, name: str, module: nn.Module) -> None:
    """Raise UserError where a parameter or buffer of a module is not finite."""
    for key, value in module.state_dict().items():
        if value.is_floating_point() or value.is_complex():
            check_numbers(path, f"{name}.{key}", value.abs())


def check_surrogate(path: Path, model: Any) -> None:
    """Raise UserError for numbers of a stored surrogate that are not valid."""
    prior, name, box = model.prior, model.description.name, torch.as_tensor(model.box)
    channels, axes = len(model.description.channels), len(model.description.coordinates)
    for key, values in (("mean", model.normalisation.mean), ("scale", model.normalisation.scale), ("box", box),
                        ("prior.noise", prior.noise), ("prior.roughest", prior.roughest), ("prior.white", prior.white)):
        shape = (2, axes) if key == "box" else (channels,)
        if values is not None and values.shape != shape:
            raise damaged(path, f"{name}: {key} has the shape {tuple(values.shape)} where {shape} is expected")
    if bool((box[0] > box[1]).any()):
        raise damaged(path, f"{name}: box holds a minimum above the maximum")
    for key, finite in (("mean", model.normalisation.mean), ("box", box), ("prior.mean", prior.mean),
                        ("prior.covariance", prior.covariance), ("scale.origin", model.scale.origin)):
        check_numbers(path, f"{name}: {key}", finite)
    for key, positive in (("scale", model.normalisation.scale), ("scale.unit", model.scale.unit),
                          ("horizon", model.horizon)):
        check_numbers(path, f"{name}: {key}", positive, 0.0, above=True)
    for channel in () if model.residual is None else model.residual.channels:
        if channel is not None:
            check_numbers(path, f"{name}: residual", channel.covariance.parameters)
    unseen = None if prior.unseen is None else prior.unseen.variance
    for key, variance in (("noise", prior.noise), ("process", prior.process), ("spread", prior.spread),
                          ("growth", prior.growth), ("leads", prior.leads), ("relative", prior.relative),
                          ("roughest", prior.roughest), ("white", prior.white), ("unseen.variance", unseen)):
        if variance is not None:
            check_numbers(path, f"{name}: prior.{key}", variance, 0.0)
    _check_covariance(path, f"{name}: prior.covariance", prior.covariance)
    sizes = {"code": model.code_size, "state": model.field.state_size, "context": model.context_size}
    if not 0 < sizes["code"] <= sizes["state"] == len(prior.mean) - sizes["context"] or sizes["context"] < 0:
        found = ", ".join(f"{key} {size}" for key, size in sizes.items())
        raise damaged(path, f"{name} has the sizes {found} and a prior of {len(prior.mean)} dimensions; expected those "
                      "of code and memory, then those of the context")
    check_parameters(path, f"{name}: decoder", model.decoder)
    check_parameters(path, f"{name}: field", model.field)
    _check_answers(path, name, model)


def _check_answers(path: Path, name: str, model: Any) -> None:
    """Raise UserError where a surrogate has no finite answer at the mean of its training data, as with sizes or numbers
    that are valid by themselves but do not fit each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answers = model.answers_at_mean()
        except UserError:  # raised again at other queries
            return
    for key, values in answers.items():
        if not np.isfinite(values).all() or (key == "std" and (np.asarray(values) < 0).any()):
            raise damaged(path, f"{name} answers the mean of its training data with {key} of "
                          f"{float(np.asarray(values).flat[0]):g}")


def _check_covariance(path: Path, name: str, covariance: Tensor) -> None:
    """Raise UserError where a matrix (n, n), or variances (n,), is not a covariance, up to rounding."""
    if not bool(covariance.any()):
        raise damaged(path, f"{name} is 0 everywhere")
    if covariance.dim() == 1:
        check_numbers(path, name, covariance, 0.0)
        return
    matrix = covariance.double()
    least = _INDEFINITE * matrix.diagonal().abs().max().clamp(min=1e-300)
    apart = float((matrix - matrix.mT).abs().max()) > least
    if apart or int(torch.linalg.cholesky_ex(matrix + least * torch.eye(len(matrix), dtype=matrix.dtype))[1]):
        raise damaged(path, f"{name} is not a covariance: it is not symmetric or has a negative eigenvalue")
