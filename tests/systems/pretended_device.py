"""A second device that is not there: tensors that say they lie on it, compute on the CPU, and refuse to meet others.

`torch` itself allows two things across devices, and so do they: copies, and index tensors of the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# A device type that torch knows in every build; its own tensors have no values, these do.
AWAY = torch.device("meta")
_COPIES = ("_to_copy", "copy_", "_local_scalar_dense")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class Pretended(Tensor):
    """A CPU tensor that says it lies on the other device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=AWAY
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _run(function, arguments, options or {})


def _run(function: Any, arguments: Any, options: dict) -> Any:
    name = function._schema.name.split("::")[1]
    given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
    pretended = [tensor for tensor in given if isinstance(tensor, Pretended)]
    strangers = [tensor for tensor in given if not isinstance(tensor, Pretended) and tensor.dim()]
    if name in _INDEXED and isinstance(arguments[0], Pretended):
        strangers = [tensor for tensor in strangers if tensor.dtype not in (torch.int64, torch.bool)]
    if pretended and strangers and name not in _COPIES:
        raise RuntimeError(f"{name} got tensors of two devices, shapes {[tuple(tensor.shape) for tensor in given]}")
    wanted = options.get("device")
    there = torch.device(wanted).type == AWAY.type if wanted is not None else bool(pretended)
    if name == "copy_":
        there = isinstance(arguments[0], Pretended)
    if wanted is not None:
        options = options | {"device": torch.device("cpu")}
    plain = tree_map(lambda leaf: leaf.inner if isinstance(leaf, Pretended) else leaf, (arguments, options))
    result = function(*plain[0], **plain[1])
    if name.endswith("_") or "out" in options:  # in place: the very tensors that were given
        return options["out"] if "out" in options else arguments[0]
    return tree_map(lambda leaf: Pretended(leaf) if there and isinstance(leaf, Tensor) else leaf, result)


class PretendedDevice(TorchDispatchMode):
    """While it is active, tensors can be made on the device and taken there and back."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _run(function, arguments, options or {})


def take_there(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the device, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Pretended(parameter.detach().clone()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Pretended(buffer.clone())
    return module
