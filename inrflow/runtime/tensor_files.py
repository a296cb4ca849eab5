"""Storage of nested state in safetensors files, without pickles, written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from inrflow.errors import UserError
from inrflow.runtime.atomic_files import replaced_atomically


def save_tensors(path: str | os.PathLike[str], state: Any, metadata: dict[str, Any] | None = None) -> Path:
    """Save nested dicts, lists, numbers, strings and tensors as one safetensors file with the structure in its header.

    Tuples are loaded as lists, tensors with their strides. Raises TypeError for other types, UserError as
    `replaced_atomically`.
    """
    tensors: dict[str, Tensor] = {}

    def strip(value: Any, key: str) -> Any:
        if isinstance(value, Tensor):
            while key in tensors:  # "a.b" beside "a" with a "b" in it
                key += "'"
            tensors[key] = value.detach().cpu().contiguous().clone()
            if value.is_contiguous() or 0 in value.stride():
                return {"__tensor__": key}
            return {"__tensor__": key, "stride": list(value.stride())}  # rounding of products depends on it
        if isinstance(value, dict):
            return {"__items__": [[k, strip(v, f"{key}.{k}")] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return [strip(v, f"{key}.{i}") for i, v in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"cannot store a {type(value).__name__} at {key}")

    structure = strip(state, "state")
    # A single entry: the order of several varies between runs, and equal models should have equal bytes.
    header = {"inrflow": json.dumps({"structure": structure, "metadata": metadata or {}})}
    with replaced_atomically(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors creates files that only their owner can read
        save_file(tensors, partial, metadata=header)
        partial.chmod(mode)
    return Path(path)


def load_tensors(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """State and metadata from a file of `save_tensors`. Raises UserError if it is missing or no such file."""
    tensors: dict[str, Tensor] = {}

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            if "__tensor__" in value:
                stored = tensors[value["__tensor__"]]
                if "stride" in value:
                    stored = torch.empty_strided(stored.shape, value["stride"], dtype=stored.dtype).copy_(stored)
                return stored
            return {k: fill(v) for k, v in value["__items__"]}
        return [fill(v) for v in value] if isinstance(value, list) else value

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            stored = json.loads(header["inrflow"])
            structure, metadata = stored["structure"], stored["metadata"]
            # Copies, because mapped memory is not aligned, on which the rounding of matrix products may depend.
            tensors.update({key: file.get_tensor(key).clone() for key in file.keys()})  # noqa: SIM118
        return fill(structure), metadata
    except Exception as error:
        raise _unreadable(path, error) from error


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Metadata of a file of `save_tensors`, from its header alone. Raises UserError as `load_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["inrflow"])["metadata"]
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist; give a folder that inrflow train has written")
    found = " ".join(str(error).split())[:200]
    return UserError(f"{path} is not a file that inrflow has saved ({found}); train again or restore it")


def to_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detached copy of a state dict in main memory."""
    return {k: v.detach().cpu().clone() for k, v in state.items()}
